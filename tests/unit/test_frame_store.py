from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlwandb_callbacks.frame_store import FrameStore


def noise(seed: int, shape: tuple[int, ...] = (17, 23, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_frames_come_back_exactly_in_any_order_and_as_often_as_wanted() -> None:
    frames = [noise(0), np.zeros((40, 60, 3), np.uint8), noise(2, (1, 1, 3)), noise(3)[:, ::-1]]
    with FrameStore() as store:
        keys = [store.append(frame) for frame in frames]
        for order in ([0, 1, 2, 3], [3, 1, 1, 0], []):
            given_back = list(store.frames(keys[index] for index in order))
            assert len(given_back) == len(order)
            for index, frame in zip(order, given_back, strict=True):
                assert frame.dtype == np.uint8
                assert np.array_equal(frame, frames[index])


def test_frames_may_be_added_while_others_are_read() -> None:
    with FrameStore() as store:
        keys = [store.append(noise(seed)) for seed in range(3)]
        reader = store.frames(keys)
        assert np.array_equal(next(reader), noise(0))
        late = store.append(noise(9))
        assert np.array_equal(next(reader), noise(1))
        assert np.array_equal(next(store.frames([late])), noise(9))


def test_pictures_of_little_content_take_little_room() -> None:
    with FrameStore() as store:
        assert store.append(np.zeros((400, 600, 3), np.uint8)).size < 400 * 600 * 3 / 100


def test_the_file_goes_away_on_closing(tmp_path: Path) -> None:
    with FrameStore(tmp_path) as store:
        key = store.append(noise(0))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        next(store.frames([key]))


def test_the_file_goes_away_after_an_error_too(tmp_path: Path) -> None:
    def spoil(store: FrameStore) -> None:
        with store:
            store.append(noise(0))
            raise ZeroDivisionError

    store = FrameStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        spoil(store)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        store.append(noise(0))
