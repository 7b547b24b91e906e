"""Videos are encoded by ffmpeg and decoded again."""

from __future__ import annotations

import re
import struct
import subprocess
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from chromium import IN_CHROMIUM, pixels_in_chromium
from episodes import with_panel

from rlwandb_callbacks.config import VideosConfig
from rlwandb_callbacks.config import videos as config_videos
from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.media.encoder_options import DEFAULT_PRESET, PRESETS
from rlwandb_callbacks.media.mp4 import video_writer

Decode = Callable[[Path], tuple[dict[str, Any], np.ndarray]]


def write_video(frames: Iterable[np.ndarray], path: Path, **settings: Any) -> None:
    with video_writer(path, **settings) as video:
        for frame in frames:
            video.write(frame)
            del frame


def gray(level: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def noise(height: int = 200, width: int = 300) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


COLORS = np.array(
    [(255, 0, 0), (200, 30, 30), (120, 160, 60), (0, 0, 255), (0, 255, 0), (236, 238, 242), (255, 172, 54)], np.uint8
)


def color_bars(height: int) -> np.ndarray:
    return np.tile(np.repeat(COLORS, 32, axis=0), (height, 1, 1))


def read_with_ffmpeg(path: Path) -> str:
    """Returns what ffmpeg reports about a video and each of its frames."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-vf", "showinfo", "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr


def frame_column(path: Path, name: str) -> list[str]:
    return re.findall(rf"Parsed_showinfo.* {name}:(\S+)", read_with_ffmpeg(path))


def boxes(path: Path) -> list[str]:
    """Returns the names of the top-level boxes of an mp4 file, in order."""
    content, position, names = path.read_bytes(), 0, []
    while position < len(content):
        size, name = struct.unpack(">I4s", content[position : position + 8])
        names.append(name.decode())
        position += size
    return names


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 96), (64, 97), (257, 351)])
@pytest.mark.parametrize("count", [1, 2, 31])
def test_a_video_has_the_format_that_browsers_play(
    tmp_path: Path, decode: Decode, height: int, width: int, count: int
) -> None:
    path = tmp_path / "clip.mp4"
    frames = [gray(30 + 7 * index, height, width) for index in range(count)]
    write_video(frames, path, fps=25)
    meta, decoded = decode(path)
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"] == "yuv420p"
    assert meta["size"] == (width + width % 2, height + height % 2)
    assert meta["fps"] == 25
    assert len(decoded) == count
    names = boxes(path)
    assert names.index("moov") < names.index("mdat"), "the index is in front"


def test_frames_keep_their_order_and_look(tmp_path: Path, decode: Decode) -> None:
    levels = [20, 200, 90, 90, 250, 0]
    write_video([gray(level) for level in levels], tmp_path / "clip.mp4", fps=10)
    _, decoded = decode(tmp_path / "clip.mp4")
    assert decoded.mean(axis=(1, 2, 3)) == pytest.approx(levels, abs=3)


def test_white_text_is_not_tinted_by_earlier_orange_text(
    tmp_path: Path, decode: Decode, make_episode: Callable[..., Episode]
) -> None:
    count = 18
    scores = QValues(np.tile(np.linspace(1, 5, count), (count, 1)))
    episode = make_episode([0.0] * count, actions=np.arange(count), scores=scores)
    actions = DiscreteActions(tuple(f"RIGHTFIRE {index}" for index in range(count)))
    drawn = with_panel([np.full((96, 128, 3), 90, np.uint8)] * count, episode, actions)
    write_video(drawn, tmp_path / "clip.mp4", fps=10)
    _, decoded = decode(tmp_path / "clip.mp4")
    height, width, _ = drawn[0].shape
    for before, after in zip(drawn, decoded[:, :height, :width].astype(int), strict=True):
        white = (before.min(axis=-1) > 150) & (np.ptp(before, axis=-1) < 25)
        redder = after[white][:, 0] - after[white][:, 2]
        assert np.mean(redder > 20) < 0.03


def test_positions_and_colors_are_kept(tmp_path: Path, decode: Decode) -> None:
    frame = gray(0)
    frame[:32, :48] = (255, 0, 0)
    frame[32:, 48:] = (0, 0, 255)
    write_video([frame] * 3, tmp_path / "clip.mp4", fps=10)
    _, decoded = decode(tmp_path / "clip.mp4")
    assert decoded[1, 4:28, 4:44].mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=6)
    assert decoded[1, 36:60, 52:92].mean(axis=(0, 1)) == pytest.approx([0, 0, 255], abs=6)
    assert decoded[1, 36:60, 4:44].mean() < 6


@pytest.mark.parametrize(
    ("fps", "count", "seconds"),
    [
        (0.125, 20, 160),
        (0.35, 7, 20),
        (1, 3, 3),
        (12.5, 5, 0.4),
        (1000 / 60, 1000, 60),
        (29.97, 2997, 100),
        (30_000 / 1001, 300, 10.01),
        (50, 101, 2.02),
        (1000, 101, 0.101),
    ],
)
def test_frames_have_their_times(tmp_path: Path, fps: float, count: int, seconds: float) -> None:
    write_video([gray(90, 16, 16)] * count, tmp_path / "clip.mp4", fps=fps)
    times = np.asarray(frame_column(tmp_path / "clip.mp4", "pts_time"), float)
    assert len(times) == count
    assert times == pytest.approx(np.arange(count) * seconds / count, abs=1e-6)
    duration = re.search(r"Duration: (\d+):(\d+):([\d.]+)", read_with_ffmpeg(tmp_path / "clip.mp4"))
    assert duration is not None
    assert sum(float(part) * unit for part, unit in zip(duration.groups(), (3600, 60, 1), strict=True)) == (
        pytest.approx(seconds, abs=0.006)
    )


@pytest.mark.parametrize("preset", ["small", "light"])
def test_a_player_decodes_at_most_30_frames_to_show_one(tmp_path: Path, preset: str) -> None:
    write_video((gray(index % 200) for index in range(100)), tmp_path / "clip.mp4", fps=30, preset=preset)
    are_keys = [each == "1" for each in frame_column(tmp_path / "clip.mp4", "iskey")]
    assert are_keys[0]
    assert np.diff([*np.flatnonzero(are_keys), len(are_keys)]).max() <= 30


@pytest.mark.parametrize("height", [64, 720])
def test_colors_are_tagged_and_kept_at_any_height(tmp_path: Path, decode: Decode, height: int) -> None:
    path = tmp_path / "clip.mp4"
    write_video([color_bars(height)] * 2, path, fps=10)
    tags = re.search(r"yuv420p\((tv), (\w+)/(\w+)/(\w+)", read_with_ffmpeg(path))
    assert tags is not None, "range, matrix, primaries and transfer"
    assert tags.groups() == ("tv", "smpte170m", "bt709", "bt709")
    _, decoded = decode(path)
    assert np.abs(decoded[1, height // 2, 16::32].astype(int) - COLORS).max() <= 2


@IN_CHROMIUM
@pytest.mark.parametrize("height", [400, 720])
def test_a_browser_shows_the_colors_of_the_frames(tmp_path: Path, height: int) -> None:
    write_video([color_bars(height)] * 2, tmp_path / "clip.mp4", fps=10)
    (shown,) = pixels_in_chromium(tmp_path, tmp_path / "clip.mp4", seconds=[0.05], row=height // 2)
    assert np.abs(shown[16::32] - COLORS).max() <= 4


@IN_CHROMIUM
def test_a_browser_finds_frames_by_the_middle_of_their_time(tmp_path: Path) -> None:
    numbers = np.arange(90)
    frames = np.where((numbers[:, None] >> np.arange(7)) & 1, 255, 0).astype(np.uint8)  # [N, 7], binary digits
    pictures = (np.repeat(np.repeat(digits[None, :, None], 32, axis=1), 32, axis=0) for digits in frames)
    write_video((np.repeat(picture, 3, axis=2) for picture in pictures), tmp_path / "clip.mp4", fps=30)
    sought = [89, 2, 62, 35, 5, 31, 8, 0]
    shown = pixels_in_chromium(tmp_path, tmp_path / "clip.mp4", seconds=[(k + 0.5) / 30 for k in sought], row=16)
    assert [int(((row[16::32, 0] > 128) << np.arange(7)).sum()) for row in shown] == sought


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_keep_all_frames(tmp_path: Path, decode: Decode, preset: str) -> None:
    levels = [20, 200, 90, 90, 250, 0]
    write_video([gray(level) for level in levels], tmp_path / "clip.mp4", fps=10, preset=preset)
    _, decoded = decode(tmp_path / "clip.mp4")
    assert decoded.mean(axis=(1, 2, 3)) == pytest.approx(levels, abs=3)


def test_pictures_that_come_back_cost_little_in_the_small_preset(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    sizes = {}
    for preset in PRESETS:
        write_video(pictures[np.arange(28) % 4], tmp_path / "clip.mp4", fps=30, preset=preset)
        sizes[preset] = (tmp_path / "clip.mp4").stat().st_size
    assert sizes["small"] < 0.6 * sizes["light"]


def test_the_smallest_preset_has_fewer_key_frames(tmp_path: Path) -> None:
    picture = noise(64, 96)
    sizes, key_frames = {}, {}
    for preset in ("small", "smallest"):
        write_video([picture] * 100, tmp_path / "clip.mp4", fps=30, preset=preset)
        sizes[preset] = (tmp_path / "clip.mp4").stat().st_size
        key_frames[preset] = frame_column(tmp_path / "clip.mp4", "iskey").count("1")
    assert key_frames == {"small": 4, "smallest": 1}
    assert sizes["smallest"] < 0.5 * sizes["small"]


def test_the_presets_are_those_of_the_settings() -> None:
    assert list(PRESETS) == list(config_videos.PRESETS)
    assert VideosConfig().preset == DEFAULT_PRESET


def test_lower_crf_is_better_quality(tmp_path: Path) -> None:
    sizes = []
    for crf in (5, 23, 45):
        write_video([noise()] * 2, tmp_path / "clip.mp4", fps=10, crf=crf)
        sizes.append((tmp_path / "clip.mp4").stat().st_size)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[2]


def test_frames_are_not_held(tmp_path: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def frames() -> Iterator[np.ndarray]:
        for level in range(40):
            assert sum(reference() is not None for reference in alive) <= 1, "the last one at most"
            frame = gray(level)
            alive.append(weakref.ref(frame))
            yield frame
            del frame

    write_video(frames(), tmp_path / "clip.mp4", fps=30)
    assert len(alive) == 40


def test_an_older_video_of_the_same_name_is_replaced(tmp_path: Path, decode: Decode) -> None:
    path = tmp_path / "clip.mp4"
    for count in (5, 3):
        write_video([gray(0)] * count, path, fps=10)
    assert len(decode(path)[1]) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_no_frames_are_an_error_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames to write"):
        write_video([], tmp_path / "clip.mp4", fps=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("name", ["no_such_folder/clip.mp4", "clip.no_such_format"])
def test_an_error_of_ffmpeg_is_an_os_error_and_leaves_no_file(tmp_path: Path, name: str, count: int) -> None:
    with pytest.raises(OSError, match=r"clip") as caught:
        write_video([noise()] * count, tmp_path / name, fps=10)
    assert "No such file" in str(caught.value) or "Unable to" in str(caught.value), (
        "the message has the output of ffmpeg"
    )
    assert "configuration:" not in str(caught.value), "without the build options of ffmpeg"
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("count", [2, 60])
def test_a_full_disk_is_an_os_error_and_leaves_no_file(tmp_path: Path, little_room: None, count: int) -> None:
    with pytest.raises(OSError, match="clip"):
        write_video([noise(400, 600)] * count, tmp_path / "clip.mp4", fps=10, crf=1)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_frames_is_raised_and_leaves_no_file(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield gray(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_video(frames(), tmp_path / "clip.mp4", fps=10)
    assert list(tmp_path.iterdir()) == []


def test_an_error_does_not_change_the_older_video(tmp_path: Path, decode: Decode) -> None:
    path = tmp_path / "clip.mp4"
    write_video([gray(0)] * 4, path, fps=10)

    def frames() -> Iterator[np.ndarray]:
        yield gray(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_video(frames(), path, fps=10)
    assert len(decode(path)[1]) == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_file_names_may_have_blanks_and_non_ascii_letters(tmp_path: Path, decode: Decode) -> None:
    path = tmp_path / "bester Lauf – Änderung 100%.mp4"
    write_video([gray(0)], path, fps=10)
    assert len(decode(path)[1]) == 1
