from __future__ import annotations

import pickle

import numpy as np
import pytest

from rlwandb_callbacks.media.frame_sources import ArrayFrames, FrameRecorder


def noise(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (8, 10, 3), dtype=np.uint8) for _ in range(count)]


def test_all_frames_are_kept_within_the_budget() -> None:
    recorder, frames = FrameRecorder(max_bytes=10**6), noise(20)
    for frame in frames:
        recorder.append(frame)
    kept_frames = pickle.loads(pickle.dumps(recorder.result()))
    assert kept_frames.steps == tuple(range(20))
    assert all(np.array_equal(kept, frame) for kept, frame in zip(kept_frames, frames, strict=True))


@pytest.mark.parametrize("count", [1, 2, 37, 64, 65, 300])
@pytest.mark.parametrize("budget", [300, 1_000, 5_000])
def test_frames_beyond_the_budget_are_thinned_evenly_and_both_ends_are_kept(count: int, budget: int) -> None:
    recorder, frames = FrameRecorder(max_bytes=budget), noise(count)
    for frame in frames:
        recorder.append(frame)
    kept_frames = recorder.result()
    assert kept_frames.steps[0] == 0
    assert kept_frames.steps[-1] == count - 1
    strides = np.diff(kept_frames.steps[:-1])
    assert len(set(strides)) <= 1
    assert all(np.array_equal(kept, frames[step]) for step, kept in zip(kept_frames.steps, kept_frames, strict=True))
    sizes = [len(packed) for packed in kept_frames.packed]
    assert sum(sizes) <= max(budget, *sizes) + max(sizes)  # the last frame is always kept
    if len(kept_frames.steps) > 4:
        assert sum(sizes) > budget / 3


def test_frames_need_not_be_contiguous() -> None:
    recorder, frame = FrameRecorder(max_bytes=10**6), noise(1)[0][::-1]
    recorder.append(frame)
    assert np.array_equal(next(iter(recorder.result())), frame)


def test_array_frames_within_the_budget_are_not_copied() -> None:
    frames = np.stack(noise(7))
    kept_frames = ArrayFrames.thinned(frames, max_bytes=frames.nbytes)
    assert kept_frames.frames is frames
    assert kept_frames.steps == tuple(range(7))


def test_array_frames_beyond_the_budget_are_thinned() -> None:
    frames = np.stack(noise(12))
    kept_frames = ArrayFrames.thinned(frames, max_bytes=frames.nbytes // 3)
    assert kept_frames.steps == (0, 3, 6, 9, 11)
    assert all(np.array_equal(kept, frames[step]) for step, kept in zip(kept_frames.steps, kept_frames, strict=True))
