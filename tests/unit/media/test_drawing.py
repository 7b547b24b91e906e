from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from rlwandb_callbacks.media.drawing import (
    BACKGROUND,
    CHOSEN,
    TEXT,
    center_vertically,
    contact_sheet,
    enlarge,
    fit_text,
    font,
    format_number,
    limit_size,
    pad_to_even,
    paste,
    sheet_columns,
    sheet_indices,
    text_block,
    text_width,
    thumbnail,
    truncate_text,
)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.1234, "0.123"),
        (-0.5, "-0.500"),
        (1.0, "1.00"),
        (-3.5, "-3.50"),
        (-0.0004, "0.000"),
        (99.99, "99.99"),
        (123.456, "123.46"),
        (-1234.56, "-1,234.6"),
        (45678.9, "45,679"),
        (2.5e6, "2.50e+06"),
        (-1e300, "-1.00e+300"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_are_formatted_by_their_magnitude(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((210, 160), 2), ((400, 600), 1), ((256, 10), 1), ((255, 10), 2), ((64, 64), 4), ((1, 1), 256)],
)
def test_small_frames_are_enlarged_by_an_integer_factor(shape: tuple[int, int], factor: int) -> None:
    frame = noise(*shape)
    enlarged = enlarge(frame)
    assert enlarged.shape == (shape[0] * factor, shape[1] * factor, 3)
    for down in {0, factor // 2, factor - 1}:
        assert np.array_equal(enlarged[down::factor, down::factor], frame)


@pytest.mark.parametrize(("height", "above", "whole"), [(11, 3, 11), (12, 4, 12), (4, 0, 4), (1, 0, 4)])
def test_a_frame_is_centered_on_a_higher_canvas(height: int, above: int, whole: int) -> None:
    frame = noise(4, 6)
    canvas = center_vertically(frame, height)
    assert canvas.shape == (whole, 6, 3)
    assert np.array_equal(canvas[above : above + 4], frame)
    assert (np.delete(canvas, np.s_[above : above + 4], axis=0) == BACKGROUND).all()


@pytest.mark.parametrize(("shape", "even"), [((3, 4), (4, 4)), ((4, 3), (4, 4)), ((5, 7), (6, 8)), ((4, 6), (4, 6))])
def test_odd_sizes_get_a_black_row_or_column(shape: tuple[int, int], even: tuple[int, int]) -> None:
    frame = noise(*shape)
    padded = pad_to_even(frame)
    assert padded.shape == (*even, 3)
    assert np.array_equal(padded[: shape[0], : shape[1]], frame)
    assert padded[shape[0] :].sum() == padded[:, shape[1] :].sum() == 0


@pytest.mark.parametrize("cells", [1, 2, 4, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 31, 500])
def test_sheet_indices_are_evenly_spaced_from_the_first_to_the_last(count: int, cells: int) -> None:
    indices = sheet_indices(count, cells)
    assert len(indices) == min(count, cells)
    assert indices[0] == 0
    if len(indices) > 1:
        assert indices[-1] == count - 1
        gaps = [after - before for before, after in pairwise(indices)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((38, 1444), (38, 1444)),
        ((100, 900), (200, 1800)),
        ((10, 10), (260, 260)),
        ((1, 3), (256, 768)),
        ((40, 4000), (19, 1920)),
        ((5000, 60), (1920, 23)),
        ((2160, 3840), (1080, 1920)),
        ((1800, 1800), (1800, 1800)),
        ((1, 9000), (1, 1920)),
    ],
)
def test_frames_of_all_sizes_become_pictures_that_players_show(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert enlarge(limit_size(noise(*shape))).shape == (*size, 3)


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        ((400, 920), 4),  # CartPole beside its panel
        ((420, 656), 4),  # Atari
        ((300, 1200), 2),  # highway-env
        ((300, 1480), 2),
        ((256, 1724), 1),
        ((1080, 2784), 3),
        ((420, 320), 4),
        ((1200, 300), 10),
        ((1920, 24), 16),
    ],
)
def test_the_wider_the_frames_the_fewer_columns_has_a_contact_sheet(shape: tuple[int, int], columns: int) -> None:
    assert sheet_columns(*shape) == columns
    cell = thumbnail(noise(*shape), columns)
    assert columns == 1 or cell.shape[0] > 150, "text of a panel is legible"
    assert columns * (cell.shape[1] + 6) + 6 <= 1710


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((400, 600), (280, 420)), ((400, 420), (400, 420)), ((3, 4200), (1, 420)), ((50, 20), (50, 20))],
)
def test_thumbnails_keep_proportions_and_never_grow(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert thumbnail(noise(*shape)).shape == (*expected, 3)


def test_a_contact_sheet_arranges_frames_in_rows_from_left_to_right() -> None:
    height, width = 10, 30
    colors = [(200, 10 * index, 7) for index in range(6)]
    frames = [np.full((height, width, 3), color, np.uint8) for color in colors]
    sheet = contact_sheet(frames, [f"step {index}" for index in range(6)], columns=4)
    corners = []
    for color in colors:
        rows, columns = np.nonzero((sheet == color).all(axis=-1))
        assert len(rows) == height * width, "each frame is there as a whole"
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (height, width)
        corners.append((int(rows.min()), int(columns.min())))
    rows, columns = [row for row, _ in corners], [column for _, column in corners]
    assert rows[:4] == [rows[0]] * 4
    assert rows[4] == rows[5] > rows[0] + height
    assert columns[4:] == columns[:2]
    assert [after - before for before, after in pairwise(columns[:4])] == [columns[1] - columns[0]] * 3
    for row, column in corners:
        assert (sheet[row - 16 : row, column : column + width] != BACKGROUND).any(), "a label is above each frame"


@pytest.mark.parametrize(
    ("count", "cells_across", "cells_down"), [(1, 1, 1), (3, 3, 1), (4, 4, 1), (5, 4, 2), (16, 4, 4)]
)
def test_a_contact_sheet_is_no_wider_than_its_frames_need(count: int, cells_across: int, cells_down: int) -> None:
    frame = np.zeros((50, 80, 3), np.uint8)
    height, width, _ = contact_sheet([frame] * count, ["x"] * count).shape
    assert cells_across * 80 < width < cells_across * 80 + 80
    assert cells_down * 50 < height < cells_down * (50 + 40)


def test_a_contact_sheet_needs_a_label_per_frame() -> None:
    with pytest.raises(ValueError, match="zip"):
        contact_sheet([np.zeros((2, 2, 3), np.uint8)] * 2, ["only one"])


@pytest.mark.parametrize(
    ("x", "y", "align", "rows", "columns"),
    [
        (2, 3, "left", range(2, 5), range(2, 6)),
        (6, 3, "right", range(2, 5), range(2, 6)),
        (4, 3, "center", range(2, 5), range(2, 6)),
        (-2, 0, "left", range(2), range(2)),
        (8, 9, "left", range(8, 10), range(8, 10)),
        (50, 50, "left", range(0), range(0)),
        (0, 5, "right", range(0), range(0)),
    ],
)
def test_pasting_clips_at_the_edges(x: int, y: int, align: str, rows: range, columns: range) -> None:
    canvas = np.zeros((10, 10, 3), np.uint8)
    paste(canvas, np.full((3, 4, 3), 9, np.uint8), x, y, align)
    expected = np.zeros((10, 10), bool)
    expected[np.ix_(list(rows), list(columns))] = True
    assert np.array_equal(canvas.any(axis=-1), expected)


def test_pasting_at_an_edge_keeps_the_part_inside() -> None:
    canvas, block = np.zeros((4, 4, 3), np.uint8), noise(3, 3)
    paste(canvas, block, -1, 1)
    assert np.array_equal(canvas[0:3, 0:2], block[:, 1:])


def test_text_has_its_color_and_one_height_per_size() -> None:
    block = text_block("q-values 1.0", 20, CHOSEN)
    assert (block == CHOSEN).all(axis=-1).any()
    assert (block[0, 0] == BACKGROUND).all()
    assert block.shape[0] == text_block("g", 20).shape[0] == text_block("…", 20, TEXT).shape[0]
    assert text_block("ab", 20).shape[1] < text_block("abc", 20).shape[1]
    assert not np.array_equal(text_block("1", 20), text_block("2", 20))


def test_cached_text_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        text_block("step 1", 13)[:] = 0


def test_truncated_text_fits_and_ends_with_an_ellipsis() -> None:
    name = "a_very_long_name_of_an_action"
    cut = truncate_text(name, 80, 13)
    assert cut.endswith("…")
    assert name.startswith(cut[:-1])
    assert len(cut) > 4
    assert font(13).getlength(cut) <= 80
    assert truncate_text("short", 80, 13) == "short"
    assert truncate_text(name, 0, 13) == "…"


def test_text_that_is_slightly_too_wide_is_shrunk_and_wider_text_is_cut() -> None:
    name = "RIGHTFIRE"
    whole, tight = text_width(name, 20), text_width(name, 15)
    assert fit_text(name, whole, 20) == (name, 20)
    assert fit_text(name, whole - 1, 20) == (name, 19)
    assert fit_text(name, tight, 20) == (name, 15)
    cut, size = fit_text(name, tight - 1, 20)
    assert (cut[-1], size) == ("…", 15)


@pytest.mark.parametrize("size", range(10, 41))
def test_descenders_are_part_of_a_text_block(size: int) -> None:
    ink = (text_block("_", size) != BACKGROUND).any(axis=(1, 2))
    assert ink.any()
    assert np.nonzero(ink)[0][0] > 0.7 * len(ink)
