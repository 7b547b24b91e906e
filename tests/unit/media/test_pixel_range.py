"""Frames of any dtype become the pixels that they mean, or an error says why not."""

from __future__ import annotations

import numpy as np
import pytest

from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.frame_sources import ArrayFrames, FrameRecorder
from rlwandb_callbacks.media.pixel_range import FlatColor, PixelRange, PixelRangeError


def gray(value: float | bool, dtype: str) -> np.ndarray:
    return np.full((4, 6, 3), value, dtype)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (200, "uint8", 200),
        (200, "int64", 200),
        (200, "uint16", 200),
        (True, "bool", 255),
        (False, "bool", 0),
        (1.0, "float64", 255),
        (0.5, "float32", 128),
        (0.2, "float16", 51),
        (1.02, "float32", 255),
        (-0.02, "float32", 0),
        (200.4, "float64", 200),
        (255.0, "float32", 255),
    ],
)
def test_each_dtype_has_its_range(value: float, dtype: str, expected: int) -> None:
    pixels = PixelRange().to_uint8(gray(value, dtype))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.unique(pixels).tolist() == [expected]


@pytest.mark.parametrize(
    ("value", "dtype", "fragments"),
    [
        (300, "int64", ["int64", "300", "0 to 255"]),
        (40_000, "uint16", ["uint16", "40000"]),
        (-1, "int32", ["int32", "-1"]),
        (-1.0, "float32", ["float32", "-1"]),
        (400.0, "float64", ["400"]),
        (np.nan, "float64", ["nan", "without NaN"]),
        (np.inf, "float64", ["inf"]),
        (1j, "complex64", ["complex64"]),
        (None, "object", ["object"]),
    ],
)
def test_values_that_are_no_pixels_raise_with_their_range(value: float, dtype: str, fragments: list[str]) -> None:
    with pytest.raises(RenderError) as caught:
        PixelRange().to_uint8(gray(value, dtype))
    assert all(fragment in str(caught.value) for fragment in fragments)


def test_floats_keep_the_range_in_which_a_film_began() -> None:
    pixels = PixelRange()
    assert [int(pixels.to_uint8(gray(value, "float32")).max()) for value in (0.0, 200.0, 1.0, 0.4)] == [0, 200, 1, 0]


def test_a_bright_frame_after_a_dark_one_shows_that_the_dark_one_was_converted_wrongly() -> None:
    pixels = PixelRange()
    assert pixels.to_uint8(gray(0.8, "float32")).max() == 204
    with pytest.raises(PixelRangeError, match=r"floats in \[0, 1\] and then up to 90"):
        pixels.to_uint8(gray(90.0, "float32"))
    assert [int(pixels.to_uint8(gray(value, "float32")).max()) for value in (0.8, 90.0)] == [1, 90]


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_a_recorded_film_has_one_range_also_if_it_begins_dark(scale: float) -> None:
    levels = np.array([0.0, 1 / 255, 2 / 255, 0.5, 1.0, 0.0]) * scale
    recorder = FrameRecorder(max_bytes=10**6)
    for level in levels:
        recorder.append(gray(level, "float64"))
    assert [int(frame.max()) for frame in recorder.result()] == [0, 1, 2, 128, 255, 0]


def test_frames_of_an_array_have_one_range() -> None:
    frames = np.stack([gray(level, "float64") for level in (0.5, 1.0, 255.0)])
    assert [int(frame.max()) for frame in ArrayFrames.thinned(frames, max_bytes=10**6)] == [0, 1, 255]


def test_an_array_that_is_no_film_raises() -> None:
    with pytest.raises(RenderError, match=r"\[T \+ 1, H, W, 3\]"):
        ArrayFrames.thinned(np.zeros((3, 4, 6)), max_bytes=10**6)


@pytest.mark.parametrize(
    ("frames", "color"),
    [
        ([gray(0, "uint8")] * 3, (0, 0, 0)),
        ([gray(7, "uint8"), gray(8, "uint8")], (7, 7, 7)),
        ([gray(0, "uint8"), gray(9, "uint8")], None),
        ([np.arange(72, dtype=np.uint8).reshape(4, 6, 3)], None),
        ([], None),
    ],
)
def test_one_color_in_all_frames_is_noticed(frames: list[np.ndarray], color: tuple[int, int, int] | None) -> None:
    flat = FlatColor()
    for frame in frames:
        flat.add(frame)
    assert flat.color == color
