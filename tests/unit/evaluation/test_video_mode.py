from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import attempt, learned
from torch import nn

from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.values import Image, Video
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.report import Report
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.video_mode import ClipPaths, Mode, Recorder
from rlwandb_callbacks.testing import CorridorEnv

MakeEpisode = Callable[..., Episode]
Decode = Callable[[Path | str], tuple[dict[str, Any], np.ndarray]]
KEYS = ["video/best", "video/best_sheet", "video/median", "video/median_sheet", "video/worst", "video/worst_sheet"]


def go_right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


def config(env: Any = CorridorEnv, **keywords: Any) -> WandbRLConfig:
    return as_config(
        {"evaluation": {"env": env, "policy": go_right, "episodes": 5}, "return_logger": False, **keywords}
    )


def shelf_in(folder: Path, env_steps: float | None = None) -> ClipPaths:
    return ClipPaths(folder / "run", 1200, env_steps)


def played(
    cfg: WandbRLConfig, reporter: Any, folder: Path, makes_clips: bool = True
) -> tuple[Evaluation, dict[str, Any]]:
    return attempt(Recorder(cfg, reporter, makes_clips=makes_clips), Evaluator(cfg, nn.Module()), shelf_in(folder))


def lengths(evaluation: Evaluation) -> list[int]:
    return [episode.length for episode in evaluation.episodes]


def test_best_median_and_worst_are_clips_with_captions(reporter: Any, decode: Decode, tmp_path: Path) -> None:
    cfg = config()
    recorder = Recorder(cfg, reporter, makes_clips=True)
    evaluation, clips = attempt(recorder, Evaluator(cfg, nn.Module()), shelf_in(tmp_path, 34_000.0))
    assert lengths(evaluation) == [2, 3, 4, 5, 6]
    assert sorted(clips) == KEYS
    for rank, length, seed in [("best", 6, 4), ("median", 4, 2), ("worst", 2, 0)]:
        video, sheet = clips[f"video/{rank}"], clips[f"video/{rank}_sheet"]
        assert isinstance(video, Video)
        assert isinstance(sheet, Image)
        assert video.path == str(tmp_path / "run" / f"step_000001200_{rank}.mp4")
        assert video.caption == sheet.caption
        assert video.caption == (
            f"{rank} of 5 · return {length}.00 · length {length} · terminated · seed {seed} · env step 34,000"
        )
        meta, frames = decode(video.path)
        assert len(frames) == length + 1
        assert meta["fps"] == 12
    assert (reporter.errors, reporter.warnings) == ([], [])


def test_the_video_shows_the_episode_up_to_its_last_state(reporter: Any, decode: Decode, tmp_path: Path) -> None:
    _, clips = played(config(), reporter, tmp_path)
    _, frames = decode(clips["video/median"].path)
    factor = 6  # 45 pixels become 270
    for position, frame in enumerate(frames):
        columns = frame[100, :, 0] > 128
        assert np.nonzero(columns)[0][0] == pytest.approx(position * 61 // 8 * factor, abs=1)


@pytest.mark.parametrize(("action_logger", "is_wider"), [(False, False), (True, True), ("action_probability", True)])
def test_the_panel_is_there_where_it_is_asked_for(
    reporter: Any, decode: Decode, tmp_path: Path, action_logger: Any, is_wider: bool
) -> None:
    _, clips = played(config(action_logger=action_logger), reporter, tmp_path)
    meta, _ = decode(clips["video/best"].path)
    assert (meta["size"][0] > 6 * 61 + 1) == is_wider


@pytest.mark.parametrize(("episodes", "ranks"), [(1, ["best"]), (2, ["best", "worst"])])
def test_few_episodes_make_few_clips(reporter: Any, tmp_path: Path, episodes: int, ranks: list[str]) -> None:
    cfg = as_config(
        {"evaluation": {"env": CorridorEnv, "policy": go_right, "episodes": episodes}, "return_logger": False}
    )
    _, clips = played(cfg, reporter, tmp_path)
    assert sorted(clips) == sorted([f"video/{rank}" for rank in ranks] + [f"video/{rank}_sheet" for rank in ranks])


def test_nothing_is_rendered_where_no_video_is_wanted(reporter: Any, tmp_path: Path) -> None:
    class Unseen(CorridorEnv):
        def render(self) -> Any:
            raise AssertionError

    evaluation, clips = played(config(Unseen), reporter, tmp_path, makes_clips=False)
    assert (lengths(evaluation), clips) == ([2, 3, 4, 5, 6], {})
    assert list(tmp_path.iterdir()) == []


class Headless(CorridorEnv):
    """Fails to draw."""

    def render(self) -> Any:
        raise OSError("no OpenGL platform library")


class Blank(CorridorEnv):
    """Draws nothing."""

    def render(self) -> None:
        return None


class NoScreen(CorridorEnv):
    """Cannot be made with pictures."""

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise RuntimeError("no video device")
        super().__init__()


class LateScreen(CorridorEnv):
    """Opens its screen when it is reset, as some simulators do."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.render_mode is not None:
            raise RuntimeError("no video device")
        return super().reset(seed=seed, options=options)


class LostScreen(CorridorEnv):
    """Loses its screen at the second step."""

    def step(self, action: Any) -> Any:
        if self.render_mode is not None and self._steps == 1:
            raise RuntimeError("no video device")
        return super().step(action)


def without_render_mode() -> CorridorEnv:
    return CorridorEnv()


@pytest.mark.parametrize("env", [Headless, Blank, NoScreen, LateScreen, LostScreen, without_render_mode])
def test_an_env_that_cannot_render_gives_numbers_and_one_report(reporter: Any, tmp_path: Path, env: Any) -> None:
    cfg = config(env)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    for _ in range(3):
        evaluation, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
        assert (lengths(evaluation), clips) == ([2, 3, 4, 5, 6], {})
    assert [what for what, _ in reporter.errors] == ["Making videos"]
    assert isinstance(reporter.errors[0][1], RenderError | EnvError)
    assert reporter.warnings == []
    assert list(tmp_path.rglob("*.mp4")) == []


def test_the_report_of_a_missing_display_holds_the_remedy(reporter: Any, tmp_path: Path) -> None:
    played(config(Headless), reporter, tmp_path)
    assert "MUJOCO_GL=egl" in str(reporter.errors[0][1])


def test_an_env_that_cannot_render_is_raised_where_the_user_wants_that(strict_reporter: Any, tmp_path: Path) -> None:
    with pytest.raises(RenderError):
        played(config(Headless), strict_reporter, tmp_path)


def test_an_env_that_cannot_be_made_at_all_is_not_tried_for_ever(reporter: Any, tmp_path: Path) -> None:
    made = []

    def once() -> CorridorEnv:
        made.append(True)
        if len(made) > 1:
            raise RuntimeError("license expired")
        return CorridorEnv()

    cfg = config(once)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    with pytest.raises(EnvError, match="license expired"):
        attempt(recorder, evaluator, shelf_in(tmp_path))
    assert len(made) <= 4


class Flickering(CorridorEnv):
    """Renders, and fails at some of the calls of all its kind."""

    calls = 0
    fails_at: tuple[int, ...] | range = ()

    def render(self) -> Any:
        type(self).calls += 1
        if self.calls in self.fails_at:
            raise RuntimeError("out of video memory")
        return super().render()


@pytest.fixture
def flicker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a kind of environment fail at some calls of its ``render``, counted from now on."""

    def plant(kind: type[Flickering], fails_at: tuple[int, ...] | range) -> None:
        monkeypatch.setattr(kind, "calls", 0)
        monkeypatch.setattr(kind, "fails_at", fails_at)

    return plant


def test_a_failure_to_render_costs_one_clip_and_the_next_evaluation_has_all(
    reporter: Any, flicker: Callable[..., None], tmp_path: Path
) -> None:
    cfg = config(Flickering)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    flicker(Flickering, (4,))
    _, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
    assert sorted(clips) == ["video/median", "video/median_sheet", "video/worst", "video/worst_sheet"]
    assert [what for what, _ in reporter.errors] == ["Making videos"]
    _, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
    assert sorted(clips) == KEYS
    assert len(reporter.errors) == 1


def test_an_env_that_rendered_once_is_given_up_after_three_evaluations_without_a_clip(
    reporter: Any, flicker: Callable[..., None], tmp_path: Path
) -> None:
    cfg = config(Flickering)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    for fails_at, has_clips in [((), True), (range(99), False), (range(99), False), ((), True)]:
        flicker(Flickering, fails_at)
        assert bool(attempt(recorder, evaluator, shelf_in(tmp_path))[1]) == has_clips
    assert reporter.warnings == []
    for _ in range(5):
        flicker(Flickering, range(99))
        attempt(recorder, evaluator, shelf_in(tmp_path))
    assert Flickering.calls == 0, "it is not tried any more"
    assert len(reporter.errors) == 2 + 3
    (warning,) = reporter.warnings
    assert "3 evaluations in a row gave no video" in warning


class Restless(CorridorEnv):
    """Ends by chance, and by the interpreter's own random numbers: it cannot be played again."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward + random.random(), random.random() < 0.3, truncated, info


def test_an_env_that_does_not_repeat_itself_is_recorded_while_playing(
    reporter: Any, decode: Decode, tmp_path: Path
) -> None:
    random.seed(0)
    cfg = config(Restless)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    for _ in range(2):
        evaluation, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
        assert sorted(clips) == KEYS
        returns = [episode.total_return for episode in evaluation.episodes]
        for rank, index in [("best", np.argmax(returns)), ("worst", np.argmin(returns))]:
            _, frames = decode(clips[f"video/{rank}"].path)
            assert len(frames) == evaluation.episodes[int(index)].length + 1
    assert len(reporter.warnings) == 1
    assert "recorded while playing from now on" in reporter.warnings[0]
    assert reporter.errors == []


def test_frames_that_are_recorded_while_playing_are_those_of_the_episode(
    reporter: Any, decode: Decode, tmp_path: Path
) -> None:
    class Jittery(CorridorEnv):
        def step(self, action: Any) -> Any:
            observation, reward, *others = super().step(action)
            return observation, reward + 1e-6 * random.random(), *others

    _, clips = played(config(Jittery), reporter, tmp_path)
    _, frames = decode(clips["video/best"].path)
    assert len(frames) == 7
    columns = [np.nonzero(frame[100, :, 0] > 128)[0][0] for frame in frames]
    assert columns == pytest.approx([position * 61 // 8 * 6 for position in range(7)], abs=1)


class FlickeringJitter(Flickering):
    """Cannot be played again, and fails to render now and then."""

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        return observation, reward + 1e-6 * random.random(), *others


def in_vector(render_mode: str | None = None) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.vector.SyncVectorEnv([lambda: FlickeringJitter(render_mode)] * 2)


@pytest.mark.parametrize(
    ("env", "fails_at", "missing"),
    [(FlickeringJitter, 5, ["best"]), (FlickeringJitter, 4, []), (in_vector, 1, ["worst"])],
    ids=["of a clip", "of no clip", "of a vector"],
)
def test_a_failure_to_render_while_playing_costs_the_films_under_way(
    reporter: Any, flicker: Callable[..., None], tmp_path: Path, env: Any, fails_at: int, missing: list[str]
) -> None:
    cfg = config(env)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    flicker(FlickeringJitter, ())
    assert sorted(attempt(recorder, evaluator, shelf_in(tmp_path))[1]) == KEYS
    assert recorder.mode is Mode.RECORD
    flicker(FlickeringJitter, (fails_at,))
    evaluation, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
    assert lengths(evaluation) == [2, 3, 4, 5, 6]
    assert sorted(clips) == [key for key in KEYS if not any(rank in key for rank in missing)]
    assert len(reporter.errors) == bool(missing)
    assert sorted(attempt(recorder, evaluator, shelf_in(tmp_path))[1]) == KEYS


def test_an_env_that_cannot_be_made_with_pictures_once_is_recorded_the_next_time(reporter: Any, tmp_path: Path) -> None:
    class Reluctant(Restless):
        is_reluctant = False

        def __init__(self, render_mode: str | None = None) -> None:
            if self.is_reluctant and render_mode is not None:
                raise RuntimeError("out of video memory")
            super().__init__(render_mode)

    cfg = config(Reluctant)
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    for is_reluctant in (False, True, False):
        Reluctant.is_reluctant = is_reluctant
        evaluation, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
        assert len(evaluation.episodes) == 5
        assert sorted(clips) == ([] if is_reluctant else KEYS)
    assert [what for what, _ in reporter.errors] == ["Making videos"]
    assert "render_mode='rgb_array'" in str(reporter.errors[0][1])


def test_an_env_that_neither_repeats_itself_nor_renders_gives_numbers(reporter: Any, tmp_path: Path) -> None:
    class Hopeless(Restless):
        def render(self) -> Any:
            if self._steps > 3:
                raise OSError("no display")
            return super().render()

        def step(self, action: Any) -> Any:
            observation, reward, *_ = super().step(action)
            return observation, reward, self._steps == 6, False, {}

    evaluation, clips = played(config(Hopeless), reporter, tmp_path)
    assert (lengths(evaluation), clips) == ([6] * 5, {})
    assert len(reporter.errors) == len(reporter.warnings) == 1


def test_videos_that_cannot_be_written_are_reported_and_the_numbers_kept(reporter: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file, where a folder should be")
    cfg = config()
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    evaluation, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
    assert (lengths(evaluation), clips) == ([2, 3, 4, 5, 6], {})
    assert [what for what, _ in reporter.errors] == ["Drawing the evaluation"]
    (tmp_path / "run").unlink()
    _, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
    assert sorted(clips) == KEYS, "once there is room again, videos are made again"


def test_videos_that_cannot_be_written_are_raised_where_the_user_wants_that(
    strict_reporter: Any, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file, where a folder should be")
    with pytest.raises(OSError, match="run"):
        played(config(), strict_reporter, tmp_path)


@pytest.mark.parametrize("crf", [0, 51], ids=["video", "contact sheet"])
def test_a_disk_that_is_full_is_told_with_the_file_and_the_remedy(
    reporter: Any, tmp_path: Path, little_room: None, crf: int
) -> None:
    class Snow(CorridorEnv):
        def render(self) -> Any:
            return np.random.default_rng(self._steps).integers(0, 256, (100, 141, 3), dtype=np.uint8)

    cfg = config(Snow, videos={"crf": crf})
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    for count in (1, 2):
        evaluation, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
        assert (lengths(evaluation), clips) == ([2, 3, 4, 5, 6], {})
        assert len(reporter.errors) == count
    told = str(reporter.errors[0][1])
    assert told.startswith(str(tmp_path / "run" / "step_000001200_best.mp4"))
    assert ("ffmpeg could not write" if crf == 0 else "File too large") in told
    assert "Free space on that disk, or set record_path to a folder that has room" in told
    assert not [path for path in (tmp_path / "run").iterdir() if path.suffix != ".mp4" or path.name.startswith(".")]


class Noisy(Restless):
    """Shows pictures that do not compress."""

    def render(self) -> Any:
        return np.random.default_rng(self._steps).integers(0, 256, (300, 400, 3), dtype=np.uint8)

    def step(self, action: Any) -> Any:
        observation, reward, *_ = super().step(action)
        return observation, reward, self._steps == 19, False, {}


def test_frames_that_are_recorded_stay_within_the_budget_and_the_caption_says_so(
    reporter: Any, decode: Decode, tmp_path: Path
) -> None:
    cfg = config(Noisy, action_logger=False, videos={"max_bytes": 16_000_000})
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    _, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
    assert recorder.film_bytes == 1_600_000
    assert "one frame in 8" in clips["video/worst"].caption
    _, frames = decode(clips["video/worst"].path)
    assert len(frames) == 4


def given(make_episode: MakeEpisode, frames: bool = True) -> Evaluation:
    episodes = [
        make_episode([1.0] * steps, frames=np.full((steps + 1, 64, 64, 3), 90, np.uint8) if frames else None)
        for steps in (3, 1, 2)
    ]
    return Evaluation(episodes, 1.0, DiscreteActions(("0", "1")))


def test_episodes_that_bring_their_frames_become_clips(
    reporter: Any, make_episode: MakeEpisode, decode: Decode, tmp_path: Path
) -> None:
    recorder = Recorder(as_config(return_logger=False), reporter, makes_clips=True)
    clips = dict(recorder.report_of_given(given(make_episode), fps=7, shelf=shelf_in(tmp_path))().values)
    assert sorted(clips) == KEYS
    assert "seed unknown" in clips["video/best"].caption
    for rank, length in [("best", 3), ("median", 2), ("worst", 1)]:
        meta, frames = decode(clips[f"video/{rank}"].path)
        assert (len(frames), meta["fps"]) == (length + 1, 7)


@pytest.mark.parametrize(("frames", "makes_clips"), [(False, True), (True, False)])
def test_episodes_without_frames_or_a_wish_for_videos_make_no_clips(
    reporter: Any, make_episode: MakeEpisode, tmp_path: Path, frames: bool, makes_clips: bool
) -> None:
    recorder = Recorder(as_config(return_logger=False), reporter, makes_clips=makes_clips)
    report = recorder.report_of_given(given(make_episode, frames), fps=7, shelf=shelf_in(tmp_path))
    assert report() == Report({})
    assert list(tmp_path.iterdir()) == []


def test_clips_of_given_episodes_that_cannot_be_written_are_reported(
    reporter: Any, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file, where a folder should be")
    recorder = Recorder(as_config(return_logger=False), reporter, makes_clips=True)
    report = recorder.report_of_given(given(make_episode), fps=7, shelf=shelf_in(tmp_path))
    assert learned(recorder, report()) == {}
    assert [what for what, _ in reporter.errors] == ["Drawing the evaluation"]


def test_a_shelf_names_files_by_step_and_rank_from_the_root(tmp_path: Path) -> None:
    assert shelf_in(Path("here")).stem("worst") == tmp_path / "here" / "run" / "step_000001200_worst"


def test_a_report_can_be_sent_to_another_process(reporter: Any, make_episode: MakeEpisode, tmp_path: Path) -> None:
    cfg = config()
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    evaluation = Evaluation([each.episode for each in evaluator.play()], 1.0, evaluator.actions)
    chosen = recorder.choose(evaluation.episodes)
    report = recorder.report(evaluation, chosen, {}, make_env=evaluator.make_env, fps=12, shelf=shelf_in(tmp_path))
    done = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(report))()))
    assert sorted(done.values) == KEYS
    assert done.error is None


def test_a_clip_that_cannot_be_written_costs_no_other_clip(reporter: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step_000001200_median.png").mkdir()  # a folder where the second sheet should be
    _, clips = played(config(), reporter, tmp_path)
    assert sorted(clips) == ["video/best", "video/best_sheet", "video/worst", "video/worst_sheet"]
    assert [what for what, _ in reporter.errors] == ["Drawing the evaluation"]


def test_videos_of_an_env_that_a_reset_does_not_bring_back_come_from_replay(reporter: Any, tmp_path: Path) -> None:
    def stride(seen: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.9, -0.4, 0.6, 0.3]] * len(seen))

    evaluation = {"env": "BipedalWalker-v3", "policy": stride, "episodes": 3, "num_envs": 1, "max_steps": 8}
    cfg = as_config({"evaluation": evaluation, "return_logger": False})
    recorder, evaluator = Recorder(cfg, reporter, makes_clips=True), Evaluator(cfg, nn.Module())
    for _ in range(2):
        _, clips = attempt(recorder, evaluator, shelf_in(tmp_path))
        assert sorted(clips) == KEYS
        assert recorder.mode is Mode.REPLAY_FRESH
    assert (reporter.errors, reporter.warnings) == ([], [])


def test_two_reports_under_way_that_tell_the_same_change_the_mode_once(reporter: Any) -> None:
    recorder = Recorder(config(), reporter, makes_clips=True)
    for _ in range(2):
        recorder.learn(ReplayDivergedError("It came out differently."), made_in=Mode.REPLAY)
    assert recorder.mode is Mode.REPLAY_FRESH
    (warning,) = reporter.warnings
    assert "Videos of that evaluation are left out" in warning
