"""Colors, text and the geometry of frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlwandb_callbacks.core.values import Pixels

Color: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND: Color = (22, 24, 29)
TRACK: Color = (44, 48, 57)
GRID: Color = (120, 126, 138)
TEXT: Color = (236, 238, 242)
MUTED: Color = (160, 166, 178)
BAR: Color = (86, 142, 226)
CHOSEN: Color = (255, 172, 54)

MIN_FRAME_HEIGHT = 256
MAX_FRAME_SIDE = 1920  # players show four times as many pixels, and panels come beside the frame
TEXT_HEIGHT = 1.25  # height of a line with its descenders, in heights of the font
SHEET_WIDTH = 1710
SHEET_GAP = 6
LEGIBLE_CELL_HEIGHT = 160  # text of a panel is a twentieth of its height, up to 800 pixels
MAX_SHEET_COLUMNS = 4
MAX_SHEET_COLUMNS_OF_NARROW_FRAMES = 16


@cache
def font(size_px: int) -> Font:
    """Loads the font that ships with Pillow; once per size."""
    return ImageFont.load_default(size=size_px)


@cache
def _glyph(character: str, size_px: int) -> Pixels:
    width = max(1, round(font(size_px).getlength(character)))
    cell = Image.new("L", (width, round(TEXT_HEIGHT * size_px)))
    ImageDraw.Draw(cell).text((0, cell.height // 2), character, fill=255, font=font(size_px), anchor="lm")
    return np.asarray(cell)


@lru_cache(maxsize=4096)
def text_block(text: str, size_px: int, color: Color = TEXT) -> Pixels:
    """Draws one line of text on the background color: read-only pixels whose height depends on ``size_px`` only.

    Numbers change in every frame and their digits do not, so text is composed of digits that were drawn once. Empty
    text is drawn as a space.
    """
    mask = np.hstack([_glyph(character, size_px) for character in text or " "])[..., None] / 255.0
    block = (np.array(BACKGROUND) * (1 - mask) + np.array(color) * mask).astype(np.uint8)
    block.setflags(write=False)
    return block


def paste(canvas: Pixels, block: Pixels, x: int, y_center: int, align: str = "left") -> None:
    """Copies a block onto a canvas, in place, clipped at the edges.

    The left edge, center or right edge of the block is in column ``x``, as ``align`` says.
    """
    height, width = block.shape[:2]
    left = x - {"left": 0, "center": width // 2, "right": width}[align]
    top = y_center - height // 2
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if x0 < x1 and y0 < y1:
        canvas[y0:y1, x0:x1] = block[y0 - top : y1 - top, x0 - left : x1 - left]


@lru_cache(maxsize=4096)
def truncate_text(text: str, width_px: int, size_px: int) -> str:
    """Cuts text that is wider than ``width_px`` and adds an ellipsis."""
    if font(size_px).getlength(text) <= width_px:
        return text
    while text and font(size_px).getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"


@lru_cache(maxsize=4096)
def fit_text(text: str, width_px: int, size_px: int) -> tuple[str, int]:
    """Shrinks text that is too wide, by at most a quarter, and cuts what is still too wide; returns it and its size."""
    least = min(size_px, max(10, round(0.75 * size_px)))
    sizes = range(size_px, least - 1, -1)
    size = next((size for size in sizes if text_width(text, size) <= width_px), least)
    return truncate_text(text, width_px, size), size


def text_width(text: str, size_px: int) -> int:
    """Returns the width of a line of text in pixels."""
    return math.ceil(font(size_px).getlength(text))


def format_fixed(value: float, decimals: int) -> str:
    """Formats a number with a fixed number of decimals; zero has no sign.

    Example:
        >>> format_fixed(-0.001, 2), format_fixed(-0.006, 2)
        ('0.00', '-0.01')
    """
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def format_number(value: float) -> str:
    """Formats a number in about seven characters, with as many decimals as fit.

    Example:
        >>> [format_number(v) for v in (0.1234, -3.5, 123.456, 45678.9)]
        ['0.123', '-3.50', '123.46', '45,679']
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if magnitude >= 1e6:
        return f"{value:.2e}"
    if magnitude >= 1000:
        return f"{value:,.1f}" if magnitude < 10_000 else f"{value:,.0f}"
    return format_fixed(value, 2 if magnitude >= 1 else 3)


def enlarge(frame: Pixels) -> Pixels:
    """Repeats pixels by an integer factor until the frame is at least 256 pixels high, so that text fits beside it.

    Wide frames are enlarged less, so that they get no wider than 1,920 pixels.

    Example:
        >>> enlarge(np.zeros((210, 160, 3), np.uint8)).shape, enlarge(np.zeros((40, 700, 3), np.uint8)).shape
        ((420, 320, 3), (80, 1400, 3))
    """
    factor = max(1, min(math.ceil(MIN_FRAME_HEIGHT / frame.shape[0]), MAX_FRAME_SIDE // frame.shape[1]))
    return frame if factor == 1 else frame.repeat(factor, axis=0).repeat(factor, axis=1)


def limit_size(frame: Pixels) -> Pixels:
    """Shrinks a frame of which a side is longer than 1,920 pixels, and keeps its proportions.

    Example:
        >>> limit_size(np.zeros((300, 3840, 3), np.uint8)).shape
        (150, 1920, 3)
    """
    longest = max(frame.shape[:2])
    return frame if longest <= MAX_FRAME_SIDE else _shrink(frame, MAX_FRAME_SIDE / longest)


def _shrink(frame: Pixels, factor: float) -> Pixels:
    height, width = (max(1, round(side * factor)) for side in frame.shape[:2])
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))


def center_vertically(frame: Pixels, height: int) -> Pixels:
    """Pads a frame above and below with the background color to ``height`` pixels; higher frames are not changed.

    Example:
        >>> center_vertically(np.zeros((2, 5, 3), np.uint8), 7).shape
        (7, 5, 3)
    """
    free = height - frame.shape[0]
    if free <= 0:
        return frame
    canvas = np.full((height, *frame.shape[1:]), BACKGROUND, dtype=np.uint8)
    canvas[free // 2 : free // 2 + frame.shape[0]] = frame
    return canvas


def pad_to_even(frame: Pixels) -> Pixels:
    """Adds a black row and column if needed: browsers play yuv420p, which needs even sizes.

    Example:
        >>> pad_to_even(np.zeros((3, 4, 3), np.uint8)).shape
        (4, 4, 3)
    """
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0))) if height % 2 or width % 2 else frame


def sheet_indices(count: int, cells: int = 16) -> list[int]:
    """Returns up to ``cells`` indices of ``count`` frames: evenly spaced, distinct, the first and the last included.

    Example:
        >>> sheet_indices(100, 4)
        [0, 33, 66, 99]
    """
    return sorted({round(i) for i in np.linspace(0, count - 1, min(cells, count))})


def sheet_columns(height: int, width: int) -> int:
    """Returns in how many columns frames are shown on a contact sheet.

    The wider the frames, the fewer, so that the text on them can be read.

    Example:
        >>> sheet_columns(400, 920), sheet_columns(300, 1480), sheet_columns(256, 2200)
        (4, 2, 1)
    """
    if width < height:
        return max(MAX_SHEET_COLUMNS, min(MAX_SHEET_COLUMNS_OF_NARROW_FRAMES, int(2.5 * height / width)))
    legible_height = max(LEGIBLE_CELL_HEIGHT, LEGIBLE_CELL_HEIGHT * height / 800)
    return max(1, min(MAX_SHEET_COLUMNS, int(SHEET_WIDTH * height / (legible_height * width))))


def thumbnail(frame: Pixels, columns: int = MAX_SHEET_COLUMNS) -> Pixels:
    """Shrinks a frame to the width of a column of a contact sheet; smaller frames are not changed."""
    width = (SHEET_WIDTH - SHEET_GAP) // columns - SHEET_GAP
    return frame if frame.shape[1] <= width else _shrink(frame, width / frame.shape[1])


def contact_sheet(frames: Sequence[Pixels], labels: Sequence[str], columns: int = MAX_SHEET_COLUMNS) -> Pixels:
    """Arranges frames of one shape in a grid of up to ``columns`` in a row, each below its label."""
    gap, strip = SHEET_GAP, 20
    height, width = frames[0].shape[:2]
    rows = math.ceil(len(frames) / columns)
    columns = min(columns, len(frames))
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + strip + gap) + gap), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        x = gap + (index % columns) * (width + gap)
        y = gap + (index // columns) * (height + strip + gap)
        draw.text((x + 2, y + strip // 2), label, fill=TEXT, font=font(13), anchor="lm")
        sheet.paste(Image.fromarray(frame), (x, y + strip))
    return np.asarray(sheet)
