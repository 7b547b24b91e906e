"""Videos are encoded by ffmpeg and decoded again."""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episodes import with_panel

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
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


@pytest.mark.parametrize("fps", [1, 12.5, 29.97, 120])
def test_frame_rates(tmp_path: Path, decode: Decode, fps: float) -> None:
    write_video([gray(0), gray(255), gray(0)], tmp_path / "clip.mp4", fps=fps)
    meta, decoded = decode(tmp_path / "clip.mp4")
    assert meta["fps"] == pytest.approx(fps, rel=1e-3)
    assert len(decoded) == 3


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
