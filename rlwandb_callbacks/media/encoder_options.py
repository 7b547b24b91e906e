"""Options of ffmpeg and x264 for videos of environments with panels of text."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Preset(NamedTuple):
    """What a preset gives to x264."""

    search: str  # options of motion search and bit allocation
    crf_factor: float  # crf of x264 per crf of the settings; 0 stays lossless
    frames_between_key_frames: int  # most frames that a player decodes to show one


# Digits that change come back: with one reference frame, each of them is coded again. Weaker adaptive quantization puts
# fewer bits into flat areas; with the factor, the PSNR is that of x264's defaults at the same crf or higher. CarRacing,
# which has no panel, decides the factor (within 0.1 dB); pictures with panels gain 0.6 to 0.9 dB.
MANY_REFERENCES = "ref=8:mixed-refs=1:me=umh:trellis=1:aq-strength=0.5"
PRESETS = {
    "small": Preset(MANY_REFERENCES, 1.12, 30),
    # Without key frames, files of panels are about a quarter smaller, and seeks take 5 to 12 times as long.
    "smallest": Preset(MANY_REFERENCES, 1.10, 250),
    # Frames that are held cost memory, and searching them costs time.
    "light": Preset("ref=1", 1.0, 30),
}
# The CPU time is spent beside training; bytes are sent, kept and loaded again, and people do seek.
DEFAULT_PRESET = "small"
WORST_CRF = 51
LARGEST_DENOMINATOR = 1001  # of NTSC's rates, such as 30000/1001

# Fewer frames that x264 holds while it decides: a quarter less memory, and files between 4 % smaller and 5 % larger.
FEW_FRAMES_HELD = "rc-lookahead=4:bframes=1"
# Letters that were orange in an earlier frame keep less of it; files of panels are about a tenth larger.
COLORS_RENEWED = "chroma-qp-offset=-6"
# Without tags, browsers read pictures of at least 720 rows as BT.709 and smaller ones as BT.601; with tags, both are
# read right at any size. BT.709 is not used: without a GPU, Chromium converts with libyuv, whose blue coefficient of
# BT.709 is 2.0 instead of 2.112 (saturated blue is off by 12 levels; BT.601 by 2). ffmpeg, PyAV, OpenCV and GPUs read
# both right.
TO_BT601 = "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p"
# ffmpeg's own options (-colorspace, -color_primaries, …) write the matrix only, which browsers then ignore.
COLOR_TAGS = "colormatrix=smpte170m:colorprim=bt709:transfer=bt709"


def encoder_options(*, preset: str, fps: float, crf: int) -> list[str]:
    """Returns options of ffmpeg's output: rate, colors, size and quality.

    The frames get their times here, whatever the rate of the input is: its writer rounds it to two decimals.

    Args:
        preset: Key of ``PRESETS``.
        fps: Frames per second, > 0.
        crf: Quality, from 0 (lossless) to 51.
    """
    rate = frame_rate(fps)
    timed = f"settb={rate.denominator}/{rate.numerator},setpts=N"
    search, crf_factor, key_frames = PRESETS[preset]
    x264 = (search, f"keyint={key_frames}", FEW_FRAMES_HELD, COLORS_RENEWED, COLOR_TAGS)
    return [
        *("-vf", f"{timed},{TO_BT601}", "-r", f"{rate.numerator}/{rate.denominator}"),
        *("-crf", f"{min(crf * crf_factor, WORST_CRF):.2f}", "-x264-params", ":".join(x264), "-movflags", "+faststart"),
    ]


def frame_rate(fps: float) -> Fraction:
    """Returns the simple fraction that is nearest to a rate.

    Example:
        >>> frame_rate(0.125), frame_rate(29.97002997), frame_rate(1000 / 60)
        (Fraction(1, 8), Fraction(30000, 1001), Fraction(50, 3))
    """
    if fps < 1:
        return 1 / frame_rate(1 / fps)
    return Fraction(fps).limit_denominator(LARGEST_DENOMINATOR)
