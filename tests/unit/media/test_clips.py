from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode, QValues
from rlwandb_callbacks.core.values import Image, Pixels, Video
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.media.clips import ClipStyle, caption, make_clip
from rlwandb_callbacks.media.drawing import BAR, CHOSEN
from rlwandb_callbacks.media.frame_sources import ArrayFrames
from rlwandb_callbacks.media.panel_layout import Geometry
from rlwandb_callbacks.media.pixel_range import PixelRange

MakeEpisode = Callable[..., Episode]
Decode = Callable[[Path | str], tuple[dict[str, Any], np.ndarray]]
LEFT_RIGHT = DiscreteActions(("left", "right"))


def style(**changes: Any) -> ClipStyle:
    return ClipStyle(**{"actions": LEFT_RIGHT, "has_panel": True, "fps": 12.0, "crf": 23} | changes)


def clip_of(episode: Episode, stem: Path, frames: np.ndarray | None = None, **changes: Any) -> dict[str, Any]:
    if frames is None:
        frames = np.full((episode.length + 1, 128, 160, 3), 200, np.uint8)
        frames[:, :64] = 90
    return make_clip(
        ArrayFrames(frames, tuple(range(len(frames)))),
        episode,
        label="best",
        text="a caption",
        stem=stem,
        style=style(**changes),
    )


@pytest.mark.parametrize(
    ("fields", "env_steps", "expected"),
    [
        ({"seed": 7}, None, "best of 8 · return 2.00 · length 2 · terminated · seed 7"),
        ({"seed": 0}, 0.0, "best of 8 · return 2.00 · length 2 · terminated · seed 0 · env step 0"),
        ({"seed": 7}, 1_234_567.0, "best of 8 · return 2.00 · length 2 · terminated · seed 7 · env step 1,234,567"),
        ({}, None, "best of 8 · return 2.00 · length 2 · terminated · seed unknown"),
        (
            {"terminated": False, "truncated": True, "cut_at": 27_000, "seed": 1},
            None,
            "best of 8 · return 2.00 · length 2 · cut at 27,000 steps · seed 1",
        ),
    ],
)
def test_a_caption_has_label_return_length_ending_seed_and_env_step(
    make_episode: MakeEpisode, fields: dict[str, Any], env_steps: float | None, expected: str
) -> None:
    assert caption("best", 8, make_episode(**fields), env_steps) == expected


@pytest.mark.parametrize("steps", [1, 2, 15, 16, 40])
def test_a_clip_has_one_frame_more_than_steps_and_a_contact_sheet(
    make_episode: MakeEpisode, decode: Decode, tmp_path: Path, steps: int
) -> None:
    values = clip_of(make_episode([1.0] * steps), tmp_path / "step_1_best")
    assert values["video/best"] == Video(str(tmp_path / "step_1_best.mp4"), "a caption")
    meta, frames = decode(values["video/best"].path)
    assert len(frames) == steps + 1
    assert meta["fps"] == 12
    sheet = values["video/best_sheet"]
    assert isinstance(sheet, Image)
    assert sheet.caption == "a caption"
    assert np.array_equal(np.asarray(PillowImage.open(tmp_path / "step_1_best.png")), sheet.pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1_best.mp4", "step_1_best.png"]


@pytest.mark.parametrize(("steps", "cells"), [(1, 2), (7, 8), (15, 16), (40, 16)])
def test_the_contact_sheet_shows_up_to_16_frames_from_the_first_to_the_last(
    make_episode: MakeEpisode, tmp_path: Path, steps: int, cells: int
) -> None:
    levels = 100 + np.arange(steps + 1)
    frames = np.broadcast_to(levels[:, None, None, None], (steps + 1, 300, 200, 3)).astype(np.uint8)
    sheet = clip_of(make_episode([1.0] * steps), tmp_path / "clip", frames, has_panel=False)["video/best_sheet"].pixels
    gray = (sheet == sheet[..., :1]).all(axis=-1)
    counts = np.bincount(sheet[gray][:, 0], minlength=256)
    shown = [int(level) for level in levels if counts[level] >= 300 * 200]
    assert len(shown) == cells
    assert (shown[0], shown[-1]) == (levels[0], levels[-1])


def test_the_contact_sheet_shows_small_pictures_upright(make_episode: MakeEpisode, tmp_path: Path) -> None:
    frames = np.zeros((2, 400, 600, 3), np.uint8)
    frames[:, :, 300:] = 200
    frames[:, :100] = 90
    sheet = clip_of(make_episode([1.0]), tmp_path / "clip", frames, has_panel=False)["video/best_sheet"].pixels
    assert 2 * 420 < sheet.shape[1] < 2 * 420 + 40
    assert 280 < sheet.shape[0] < 280 + 40
    for level in (90, 200):
        columns = np.nonzero((sheet == level).all(axis=-1))[1]
        assert np.ptp(columns) > 300, "both cells have it"
    cell = np.nonzero((sheet == 90).all(axis=-1))
    top, left = cell[0].min(), cell[1].min()
    assert sheet[top + 20, left + 10].tolist() == [90] * 3
    assert sheet[top + 260, left + 10].tolist() == [0] * 3
    assert sheet[top + 180, left + 290].tolist() == [200] * 3


def test_the_mark_in_the_video_moves_with_the_chosen_action(
    make_episode: MakeEpisode, decode: Decode, tmp_path: Path
) -> None:
    chosen = np.array([0, 1, 1, 0])
    episode = make_episode([1.0] * 4, actions=chosen, scores=QValues(np.full((4, 2), 1.0)))
    _, frames = decode(clip_of(episode, tmp_path / "clip")["video/best"].path)
    height = 256
    at = Geometry(height, 2, 0.25)
    assert frames.shape[1:3] == (height, 2 * 160 + at.width)
    for step, frame in enumerate(frames):
        middles = [frame[at.row_center(row), 320 + (at.bar_left + at.bar_right) // 2].astype(int) for row in (0, 1)]
        for row, middle in enumerate(middles):
            nearest = min((CHOSEN, BAR, (44, 48, 57)), key=lambda color: np.abs(middle - color).sum())
            expected = (44, 48, 57) if step == 4 else CHOSEN if row == chosen[step] else BAR
            assert nearest == expected, f"row {row} of step {step}"


def test_without_a_panel_the_frames_alone_are_shown(make_episode: MakeEpisode, decode: Decode, tmp_path: Path) -> None:
    frames = np.zeros((3, 100, 141, 3), np.uint8)
    frames[:, :, 70:] = 250
    values = clip_of(make_episode(scores=QValues(np.ones((2, 2)))), tmp_path / "clip", frames, has_panel=False)
    _, decoded = decode(values["video/best"].path)
    assert decoded.shape == (3, 300, 424, 3)
    assert decoded[:, :, :200].max() < 12
    assert decoded[:, :, 220:420].min() > 238


def test_an_episode_without_scores_has_a_panel_as_well(
    make_episode: MakeEpisode, decode: Decode, tmp_path: Path
) -> None:
    _, decoded = decode(clip_of(make_episode(), tmp_path / "clip")["video/best"].path)
    assert decoded.shape[2] > 320


def test_a_missing_folder_is_an_os_error(make_episode: MakeEpisode, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        clip_of(make_episode(), tmp_path / "no_such_folder" / "clip")


def test_a_contact_sheet_that_does_not_fit_on_the_disk_leaves_no_partial_file(
    make_episode: MakeEpisode, rng: np.random.Generator, tmp_path: Path, little_room: None
) -> None:
    frames = rng.integers(0, 256, (4, 100, 141, 3), dtype=np.uint8)
    (tmp_path / "clip.png").write_text("an older one")
    with pytest.raises(OSError, match="File too large"):
        clip_of(make_episode([1.0] * 3), tmp_path / "clip", frames, has_panel=False, crf=51)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "clip.png"]
    assert (tmp_path / "clip.png").read_text() == "an older one"


@pytest.mark.parametrize("has_panel", [True, False])
def test_pictures_of_different_sizes_are_an_error(make_episode: MakeEpisode, tmp_path: Path, has_panel: bool) -> None:
    frames: Any = [np.zeros((size, 80, 3), np.uint8) for size in (60, 60, 64)]
    with pytest.raises(RenderError, match="80 × 60 pixels and then one of 80 × 64"):
        clip_of(make_episode([1.0, 1.0]), tmp_path / "clip", frames, has_panel=has_panel)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_read_one_by_one_and_not_held(make_episode: MakeEpisode, tmp_path: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    class Source:
        steps = range(41)

        def __iter__(self) -> Generator[np.ndarray]:
            for level in self.steps:
                assert sum(reference() is not None for reference in alive) <= 2, "the last two at most"
                frame = np.full((64, 96, 3), level, np.uint8)
                alive.append(weakref.ref(frame))
                yield frame
                del frame

    episode: Any = make_episode([0.0] * 40)
    make_clip(Source(), episode, label="best", text="", stem=tmp_path / "clip", style=style())
    assert len(alive) == 41


def test_the_frame_source_is_closed_if_the_video_fails(make_episode: MakeEpisode, tmp_path: Path) -> None:
    closed = []

    class Source:
        steps = range(100_000)  # more than ffmpeg needs to fail, however slow the machine is

        def __iter__(self) -> Generator[np.ndarray]:
            try:
                while True:
                    yield np.zeros((64, 96, 3), np.uint8)
            finally:
                closed.append(True)

    with pytest.raises(OSError, match="No such file") as caught:
        make_clip(
            Source(),
            make_episode(),
            label="best",
            text="",
            stem=tmp_path / "none" / "clip",
            style=style(has_panel=False),
        )
    assert closed == [True], f"while its traceback is alive: {caught.tb}"


@pytest.mark.parametrize("shape", [(38, 1444), (20, 5000), (1, 300)])
def test_low_wide_frames_give_a_video_that_players_show_and_a_legible_sheet(
    make_episode: MakeEpisode, decode: Decode, tmp_path: Path, shape: tuple[int, int]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    values = clip_of(make_episode(), tmp_path / "clip", frames)
    width, height = decode(values["video/best"].path)[0]["size"]
    assert 256 <= height <= 300
    assert 1000 < width <= 1920 + 280
    assert values["video/best_sheet"].pixels.shape[1] <= 1710


def test_a_film_of_one_color_is_marked(make_episode: MakeEpisode, tmp_path: Path) -> None:
    values = clip_of(make_episode(), tmp_path / "clip", np.zeros((3, 60, 80, 3), np.uint8))
    assert values["video/best"].flat_color == (0, 0, 0)
    assert values["video/best"].caption == "a caption · all frames have one flat color, RGB (0, 0, 0)"


class Brightening:
    """Frames of floats in [0, 255], the first of which could be in [0, 1]."""

    steps = range(3)

    def __init__(self) -> None:
        self.pixel_range = PixelRange()

    def __iter__(self) -> Generator[Pixels]:
        for level in (1.0, 100.0, 200.0):
            yield self.pixel_range.to_uint8(np.full((64, 64, 3), level))


def test_a_film_whose_range_shows_late_is_written_again(
    make_episode: MakeEpisode, decode: Decode, tmp_path: Path
) -> None:
    texts = {"label": "best", "text": "", "stem": tmp_path / "clip", "style": style(has_panel=False)}
    values = make_clip(Brightening(), make_episode(), **texts)
    frames = decode(values["video/best"].path)[1]
    assert [float(frame.mean()) for frame in frames] == pytest.approx([1, 100, 200], abs=3)
