from __future__ import annotations

import pickle

import numpy as np
import pytest

from rlwandb_callbacks.media.frames import ArrayFrames, FrameRecorder


def noise(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (8, 10, 3), dtype=np.uint8) for _ in range(count)]


def test_a_film_within_its_budget_holds_every_frame() -> None:
    camera, frames = FrameRecorder(max_bytes=10**6), noise(20)
    for frame in frames:
        camera.take(frame)
    film = pickle.loads(pickle.dumps(camera.film()))
    assert film.steps == tuple(range(20))
    assert all(np.array_equal(kept, frame) for kept, frame in zip(film, frames, strict=True))


@pytest.mark.parametrize("count", [1, 2, 37, 64, 65, 300])
@pytest.mark.parametrize("budget", [300, 1_000, 5_000])
def test_a_longer_film_is_thinned_evenly_and_keeps_both_ends(count: int, budget: int) -> None:
    camera, frames = FrameRecorder(max_bytes=budget), noise(count)
    for frame in frames:
        camera.take(frame)
    film = camera.film()
    assert film.steps[0] == 0
    assert film.steps[-1] == count - 1
    strides = np.diff(film.steps[:-1])
    assert len(set(strides)) <= 1
    assert all(np.array_equal(kept, frames[step]) for step, kept in zip(film.steps, film, strict=True))
    largest = max(map(len, film.packed))
    assert film.bytes <= max(budget, largest) + largest  # the last frame is always kept
    if len(film.steps) > 4:
        assert film.bytes > budget / 3


def test_frames_need_not_be_contiguous() -> None:
    camera, frame = FrameRecorder(max_bytes=10**6), noise(1)[0][::-1]
    camera.take(frame)
    assert np.array_equal(next(iter(camera.film())), frame)


def test_given_frames_that_fit_are_not_copied() -> None:
    frames = np.stack(noise(7))
    film = ArrayFrames.of(frames, max_bytes=frames.nbytes)
    assert film.frames is frames
    assert film.steps == tuple(range(7))


def test_given_frames_that_do_not_fit_are_thinned() -> None:
    frames = np.stack(noise(12))
    film = ArrayFrames.of(frames, max_bytes=frames.nbytes // 3)
    assert film.steps == (0, 3, 6, 9, 11)
    assert all(np.array_equal(kept, frames[step]) for step, kept in zip(film.steps, film, strict=True))
