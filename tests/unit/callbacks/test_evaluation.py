from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import Evaluations, KeptErrors
from torch import nn

from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.core.action_spec import OtherActions
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.values import Image, Video
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.jobs import evaluation_jobs
from rlwandb_callbacks.evaluation.replay import ReplayFrames
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.video_mode import Mode
from rlwandb_callbacks.media.clips import ClipStyle
from rlwandb_callbacks.media.frame_sources import ArrayFrames
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker
from rlwandb_callbacks.tracking.result import Result, run_all

MakeEpisode = Callable[..., Episode]
Decode = Callable[[Path | str], tuple[dict[str, Any], np.ndarray]]
KEYS = ["video/best", "video/best_sheet", "video/median", "video/median_sheet", "video/worst", "video/worst_sheet"]


def go_right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


def config(env: Any = CorridorEnv, **keywords: Any) -> WandbRLConfig:
    return as_config(
        {"evaluation": {"env": env, "policy": go_right, "episodes": 5}, "return_logger": False, **keywords}
    )


def lengths(episodes: list[Episode]) -> list[int]:
    return [episode.length for episode in episodes]


def test_best_median_and_worst_episode_have_clips_with_captions(
    errors: KeptErrors, decode: Decode, tmp_path: Path
) -> None:
    cfg = config()
    episodes, clips = Evaluations(cfg, tmp_path, errors, env_steps=34_000.0)()
    assert lengths(episodes) == [2, 3, 4, 5, 6]
    assert sorted(clips) == KEYS
    for label, length, seed in [("best", 6, 4), ("median", 4, 2), ("worst", 2, 0)]:
        video, sheet = clips[f"video/{label}"], clips[f"video/{label}_sheet"]
        assert isinstance(video, Video)
        assert isinstance(sheet, Image)
        assert video.path == str(tmp_path / "run" / f"step_000001200_{label}.mp4")
        assert video.caption == sheet.caption
        assert video.caption == (
            f"{label} of 5 · return {length}.00 · length {length} · terminated · seed {seed} · env step 34,000"
        )
        meta, frames = decode(video.path)
        assert len(frames) == length + 1
        assert meta["fps"] == 12
    assert (errors.errors, errors.warnings) == ([], [])


def test_video_shows_the_episode_up_to_its_last_state(errors: KeptErrors, decode: Decode, tmp_path: Path) -> None:
    _, clips = Evaluations(config(), tmp_path, errors)()
    _, frames = decode(clips["video/median"].path)
    factor = 6  # 45 pixels become 270
    for position, frame in enumerate(frames):
        columns = frame[100, :, 0] > 128
        assert np.nonzero(columns)[0][0] == pytest.approx(position * 61 // 8 * factor, abs=1)


@pytest.mark.parametrize(("action_logger", "is_wider"), [(False, False), (True, True), ("action_probability", True)])
def test_panel_is_drawn_if_action_logger_is_set(
    errors: KeptErrors, decode: Decode, tmp_path: Path, action_logger: Any, is_wider: bool
) -> None:
    _, clips = Evaluations(config(action_logger=action_logger), tmp_path, errors)()
    meta, _ = decode(clips["video/best"].path)
    assert (meta["size"][0] > 6 * 61 + 1) == is_wider


@pytest.mark.parametrize(("episodes", "labels"), [(1, ["best"]), (2, ["best", "worst"])])
def test_one_or_two_episodes_have_as_many_clips(
    errors: KeptErrors, tmp_path: Path, episodes: int, labels: list[str]
) -> None:
    cfg = as_config(
        {"evaluation": {"env": CorridorEnv, "policy": go_right, "episodes": episodes}, "return_logger": False}
    )
    _, clips = Evaluations(cfg, tmp_path, errors)()
    assert sorted(clips) == sorted(
        [f"video/{label}" for label in labels] + [f"video/{label}_sheet" for label in labels]
    )


def test_nothing_is_rendered_if_videos_are_off(errors: KeptErrors, tmp_path: Path) -> None:
    class RenderNotAllowed(CorridorEnv):
        def render(self) -> Any:
            raise AssertionError

    episodes, clips = Evaluations(config(RenderNotAllowed), tmp_path, errors, makes_videos=False)()
    assert (lengths(episodes), clips) == ([2, 3, 4, 5, 6], {})
    assert list(tmp_path.iterdir()) == []


class RenderRaises(CorridorEnv):
    """Environment whose render() raises an error."""

    def render(self) -> Any:
        raise OSError("no OpenGL platform library")


class RenderReturnsNone(CorridorEnv):
    """Environment whose render() returns None."""

    def render(self) -> None:
        return None


class RenderModeRaises(CorridorEnv):
    """Environment that cannot be created with a render mode."""

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise RuntimeError("no video device")
        super().__init__()


class ResetRaises(CorridorEnv):
    """Environment whose reset() raises an error if it has a render mode, as in some simulators."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.render_mode is not None:
            raise RuntimeError("no video device")
        return super().reset(seed=seed, options=options)


class SecondStepRaises(CorridorEnv):
    """Environment whose second step raises an error if it has a render mode."""

    def step(self, action: Any) -> Any:
        if self.render_mode is not None and self._steps == 1:
            raise RuntimeError("no video device")
        return super().step(action)


def make_env_without_render_mode() -> CorridorEnv:
    return CorridorEnv()


@pytest.mark.parametrize(
    "env",
    [RenderRaises, RenderReturnsNone, RenderModeRaises, ResetRaises, SecondStepRaises, make_env_without_render_mode],
)
def test_env_that_cannot_render_is_evaluated_with_one_error(errors: KeptErrors, tmp_path: Path, env: Any) -> None:
    cfg = config(env)
    evaluate = Evaluations(cfg, tmp_path, errors)
    for _ in range(3):
        episodes, clips = evaluate()
        assert (lengths(episodes), clips) == ([2, 3, 4, 5, 6], {})
    assert [task for task, _ in errors.errors] == ["Making videos"]
    assert isinstance(errors.errors[0][1], RenderError | EnvError)
    assert errors.warnings == []
    assert list(tmp_path.rglob("*.mp4")) == []


def test_error_for_a_missing_display_contains_the_remedy(errors: KeptErrors, tmp_path: Path) -> None:
    Evaluations(config(RenderRaises), tmp_path, errors)()
    assert "xvfb-run" in str(errors.errors[0][1])


def test_render_error_is_raised_with_on_error_raise(raised_errors: KeptErrors, tmp_path: Path) -> None:
    with pytest.raises(RenderError):
        Evaluations(config(RenderRaises), tmp_path, raised_errors)()


def test_env_creation_is_not_retried_indefinitely(raised_errors: KeptErrors, tmp_path: Path) -> None:
    made = []

    def make_env_once() -> CorridorEnv:
        made.append(True)
        if len(made) > 1:
            raise RuntimeError("license expired")
        return CorridorEnv()

    cfg = config(make_env_once)
    evaluate = Evaluations(cfg, tmp_path, raised_errors)
    with pytest.raises(EnvError, match="license expired"):
        evaluate()
    assert len(made) <= 4


class FailsAtRenderCalls(CorridorEnv):
    """Environment whose render() raises an error at given calls, counted over all instances."""

    calls = 0
    fails_at: tuple[int, ...] | range = ()

    def render(self) -> Any:
        type(self).calls += 1
        if self.calls in self.fails_at:
            raise RuntimeError("out of video memory")
        return super().render()


@pytest.fixture
def set_failing_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that sets the failing calls of ``render`` for a class and resets its call counter."""

    def set_calls(kind: type[FailsAtRenderCalls], fails_at: tuple[int, ...] | range) -> None:
        monkeypatch.setattr(kind, "calls", 0)
        monkeypatch.setattr(kind, "fails_at", fails_at)

    return set_calls


def test_render_error_skips_one_clip_and_the_next_evaluation_has_all_clips(
    errors: KeptErrors, set_failing_calls: Callable[..., None], tmp_path: Path
) -> None:
    cfg = config(FailsAtRenderCalls)
    evaluate = Evaluations(cfg, tmp_path, errors)
    set_failing_calls(FailsAtRenderCalls, (4,))
    _, clips = evaluate()
    assert sorted(clips) == ["video/median", "video/median_sheet", "video/worst", "video/worst_sheet"]
    assert [task for task, _ in errors.errors] == ["Making videos"]
    _, clips = evaluate()
    assert sorted(clips) == KEYS
    assert len(errors.errors) == 1


def test_videos_stop_after_three_consecutive_evaluations_without_a_clip(
    errors: KeptErrors, set_failing_calls: Callable[..., None], tmp_path: Path
) -> None:
    cfg = config(FailsAtRenderCalls)
    evaluate = Evaluations(cfg, tmp_path, errors)
    for fails_at, has_clips in [((), True), (range(99), False), (range(99), False), ((), True)]:
        set_failing_calls(FailsAtRenderCalls, fails_at)
        assert bool(evaluate()[1]) == has_clips
    assert errors.warnings == []
    for _ in range(5):
        set_failing_calls(FailsAtRenderCalls, range(99))
        evaluate()
    assert FailsAtRenderCalls.calls == 0, "it is not tried any more"
    assert len(errors.errors) == 2 + 3
    (warning,) = errors.warnings
    assert "3 evaluations in a row gave no video" in warning


class NonDeterministicLength(CorridorEnv):
    """Environment with random rewards and lengths from the global generator: episodes cannot be replayed."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward + random.random(), random.random() < 0.3, truncated, info


def test_non_deterministic_env_is_recorded_during_evaluation(
    errors: KeptErrors, decode: Decode, tmp_path: Path
) -> None:
    random.seed(0)
    cfg = config(NonDeterministicLength)
    evaluate = Evaluations(cfg, tmp_path, errors)
    for _ in range(2):
        episodes, clips = evaluate()
        assert sorted(clips) == KEYS
        returns = [episode.total_return for episode in episodes]
        for label, index in [("best", np.argmax(returns)), ("worst", np.argmin(returns))]:
            _, frames = decode(clips[f"video/{label}"].path)
            assert len(frames) == episodes[int(index)].length + 1
    assert len(errors.warnings) == 1
    assert "recorded while playing from now on" in errors.warnings[0]
    assert errors.errors == []


def test_frames_recorded_during_evaluation_match_the_episode(
    errors: KeptErrors, decode: Decode, tmp_path: Path
) -> None:
    class NonDeterministicReward(CorridorEnv):
        def step(self, action: Any) -> Any:
            observation, reward, *others = super().step(action)
            return observation, reward + 1e-6 * random.random(), *others

    _, clips = Evaluations(config(NonDeterministicReward), tmp_path, errors)()
    _, frames = decode(clips["video/best"].path)
    assert len(frames) == 7
    columns = [np.nonzero(frame[100, :, 0] > 128)[0][0] for frame in frames]
    assert columns == pytest.approx([position * 61 // 8 * 6 for position in range(7)], abs=1)


class NonDeterministicFailsAtRenderCalls(FailsAtRenderCalls):
    """Environment that cannot be replayed and whose render() raises an error at given calls."""

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        return observation, reward + 1e-6 * random.random(), *others


def make_vector_env(render_mode: str | None = None) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.vector.SyncVectorEnv([lambda: NonDeterministicFailsAtRenderCalls(render_mode)] * 2)


@pytest.mark.parametrize(
    ("env", "fails_at", "missing"),
    [
        (NonDeterministicFailsAtRenderCalls, 5, ["best"]),
        (NonDeterministicFailsAtRenderCalls, 4, []),
        (make_vector_env, 1, ["worst"]),
    ],
    ids=["frame of a clip", "frame of no clip", "vector env"],
)
def test_render_error_during_evaluation_drops_the_current_recordings(
    errors: KeptErrors,
    set_failing_calls: Callable[..., None],
    tmp_path: Path,
    env: Any,
    fails_at: int,
    missing: list[str],
) -> None:
    cfg = config(env)
    evaluate = Evaluations(cfg, tmp_path, errors)
    set_failing_calls(NonDeterministicFailsAtRenderCalls, ())
    assert sorted(evaluate()[1]) == KEYS
    assert evaluate.mode is Mode.RECORD
    set_failing_calls(NonDeterministicFailsAtRenderCalls, (fails_at,))
    episodes, clips = evaluate()
    assert lengths(episodes) == [2, 3, 4, 5, 6]
    assert sorted(clips) == [key for key in KEYS if not any(label in key for label in missing)]
    assert len(errors.errors) == bool(missing)
    assert sorted(evaluate()[1]) == KEYS


def test_recording_resumes_after_one_error_of_env_creation_with_render_mode(errors: KeptErrors, tmp_path: Path) -> None:
    class FailsWithRenderMode(NonDeterministicLength):
        fails = False

        def __init__(self, render_mode: str | None = None) -> None:
            if self.fails and render_mode is not None:
                raise RuntimeError("out of video memory")
            super().__init__(render_mode)

    cfg = config(FailsWithRenderMode)
    evaluate = Evaluations(cfg, tmp_path, errors)
    for fails in (False, True, False):
        FailsWithRenderMode.fails = fails
        episodes, clips = evaluate()
        assert len(episodes) == 5
        assert sorted(clips) == ([] if fails else KEYS)
    assert [task for task, _ in errors.errors] == ["Making videos"]
    assert "render_mode='rgb_array'" in str(errors.errors[0][1])


def test_non_deterministic_env_that_cannot_render_is_evaluated(errors: KeptErrors, tmp_path: Path) -> None:
    class NonDeterministicRenderRaises(NonDeterministicLength):
        def render(self) -> Any:
            if self._steps > 3:
                raise OSError("no display")
            return super().render()

        def step(self, action: Any) -> Any:
            observation, reward, *_ = super().step(action)
            return observation, reward, self._steps == 6, False, {}

    episodes, clips = Evaluations(config(NonDeterministicRenderRaises), tmp_path, errors)()
    assert (lengths(episodes), clips) == ([6] * 5, {})
    assert len(errors.errors) == len(errors.warnings) == 1


def test_unwritable_videos_are_an_error_and_episodes_are_returned(errors: KeptErrors, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file, where a folder should be")
    cfg = config()
    evaluate = Evaluations(cfg, tmp_path, errors)
    episodes, clips = evaluate()
    assert (lengths(episodes), clips) == ([2, 3, 4, 5, 6], {})
    assert [task for task, _ in errors.errors] == ["Drawing the evaluation"]
    (tmp_path / "run").unlink()
    _, clips = evaluate()
    assert sorted(clips) == KEYS, "once there is room again, videos are made again"


def test_unwritable_videos_raise_with_on_error_raise(raised_errors: KeptErrors, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file, where a folder should be")
    with pytest.raises(OSError, match="run"):
        Evaluations(config(), tmp_path, raised_errors)()


@pytest.mark.parametrize("crf", [0, 51], ids=["video", "contact sheet"])
def test_error_for_a_full_disk_contains_the_file_and_the_remedy(
    errors: KeptErrors, tmp_path: Path, little_room: None, crf: int
) -> None:
    class RandomFrames(CorridorEnv):
        def render(self) -> Any:
            return np.random.default_rng(self._steps).integers(0, 256, (100, 141, 3), dtype=np.uint8)

    cfg = config(RandomFrames, videos={"crf": crf})
    evaluate = Evaluations(cfg, tmp_path, errors)
    for count in (1, 2):
        episodes, clips = evaluate()
        assert (lengths(episodes), clips) == ([2, 3, 4, 5, 6], {})
        assert len(errors.errors) == count
    message = str(errors.errors[0][1])
    assert message.startswith(str(tmp_path / "run" / "step_000001200_best.mp4"))
    remedy = "Free space on that disk, or set record_path to a folder that has room" if crf == 0 else "`ulimit -f"
    assert ("ffmpeg could not write" if crf == 0 else "File too large") in message
    assert remedy in message
    assert not [path for path in (tmp_path / "run").iterdir() if path.suffix != ".mp4" or path.name.startswith(".")]


class LargeRandomFrames(NonDeterministicLength):
    """Environment whose frames do not compress."""

    def render(self) -> Any:
        return np.random.default_rng(self._steps).integers(0, 256, (300, 400, 3), dtype=np.uint8)

    def step(self, action: Any) -> Any:
        observation, reward, *_ = super().step(action)
        return observation, reward, self._steps == 19, False, {}


def test_recorded_frames_stay_within_max_bytes_and_caption_has_the_stride(
    errors: KeptErrors, decode: Decode, tmp_path: Path
) -> None:
    cfg = config(LargeRandomFrames, action_logger=False, videos={"max_bytes": 16_000_000})
    evaluate = Evaluations(cfg, tmp_path, errors)
    _, clips = evaluate()
    assert "one frame in 8" in clips["video/worst"].caption
    _, frames = decode(clips["video/worst"].path)
    assert len(frames) == 4


def make_episodes(make_episode: MakeEpisode, frames: bool = True) -> list[Episode]:
    return [
        make_episode([1.0] * steps, frames=np.full((steps + 1, 64, 64, 3), 90, np.uint8) if frames else None)
        for steps in (3, 1, 2)
    ]


def test_episodes_with_frames_become_clips(
    errors: KeptErrors, make_episode: MakeEpisode, decode: Decode, tmp_path: Path
) -> None:
    evaluate = Evaluations(as_config(return_logger=False, videos={"fps": 7}), tmp_path, errors)
    episodes, clips = evaluate(make_episodes(make_episode))
    assert lengths(episodes) == [3, 1, 2]
    assert sorted(clips) == KEYS
    assert "seed unknown" in clips["video/best"].caption
    for label, length in [("best", 3), ("median", 2), ("worst", 1)]:
        meta, frames = decode(clips[f"video/{label}"].path)
        assert (len(frames), meta["fps"]) == (length + 1, 7)


@pytest.mark.parametrize(("frames", "makes_videos"), [(False, True), (True, False)])
def test_episodes_without_frames_or_with_videos_off_make_no_clips(
    errors: KeptErrors, make_episode: MakeEpisode, tmp_path: Path, frames: bool, makes_videos: bool
) -> None:
    evaluate = Evaluations(as_config(return_logger=False), tmp_path, errors, makes_videos=makes_videos)
    assert evaluate(make_episodes(make_episode, frames))[1] == {}
    assert errors.errors == []
    assert list(tmp_path.iterdir()) == []


def test_unwritable_clips_of_given_episodes_are_an_error(
    errors: KeptErrors, make_episode: MakeEpisode, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file, where a folder should be")
    assert Evaluations(as_config(return_logger=False), tmp_path, errors)(make_episodes(make_episode))[1] == {}
    assert [task for task, _ in errors.errors] == ["Drawing the evaluation"]


def test_clip_paths_are_absolute_and_contain_step_and_label(
    make_episode: MakeEpisode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation = Evaluation([make_episode()], 1.0, OtherActions())
    frames = {"worst": (0, ArrayFrames(np.zeros((3, 64, 96, 3), np.uint8), (0, 1, 2)))}
    style = ClipStyle(evaluation.actions, has_panel=False, fps=12, crf=23)
    files = {"folder": Path("here"), "step": 1200, "env_steps": None}
    result = run_all(evaluation_jobs(evaluation, frames, with_returns=False, style=style, **files))
    assert result.values["video/worst"].path == str(tmp_path / "here" / "step_000001200_worst.mp4")


def test_clip_jobs_and_results_can_be_pickled(tmp_path: Path) -> None:
    cfg = config()
    evaluator = Evaluator(cfg, nn.Module())
    evaluation = Evaluation([each.episode for each in evaluator.play()], 1.0, evaluator.env.actions)
    frames = {"best": (4, ReplayFrames(evaluator.make_env, evaluation.episodes[4]))}
    style = ClipStyle(evaluation.actions, has_panel=False, fps=12, crf=23)
    files = {"folder": tmp_path, "step": 1, "env_steps": None}
    jobs = evaluation_jobs(evaluation, frames, with_returns=True, style=style, **files)
    result = pickle.loads(pickle.dumps(run_all(pickle.loads(pickle.dumps(jobs)))))
    assert sorted(result.values) == ["eval/return_figure", "video/best", "video/best_sheet"]
    assert result.error is None


def test_unwritable_clip_does_not_affect_other_clips(errors: KeptErrors, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step_000001200_median.png").mkdir()  # a folder where the second sheet should be
    _, clips = Evaluations(config(), tmp_path, errors)()
    assert sorted(clips) == ["video/best", "video/best_sheet", "video/worst", "video/worst_sheet"]
    assert [task for task, _ in errors.errors] == ["Drawing the evaluation"]


def test_env_with_state_that_survives_reset_is_replayed_in_a_fresh_env(errors: KeptErrors, tmp_path: Path) -> None:
    def fixed_policy(observations: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.9, -0.4, 0.6, 0.3]] * len(observations))

    evaluation = {"env": "BipedalWalker-v3", "policy": fixed_policy, "episodes": 3, "num_envs": 1, "max_steps": 8}
    cfg = as_config({"evaluation": evaluation, "return_logger": False})
    evaluate = Evaluations(cfg, tmp_path, errors)
    for _ in range(2):
        _, clips = evaluate()
        assert sorted(clips) == KEYS
        assert evaluate.mode is Mode.REPLAY_FRESH
    assert (errors.errors, errors.warnings) == ([], [])


def test_videos_stop_after_three_evaluations_with_env_creation_errors(errors: KeptErrors, tmp_path: Path) -> None:
    class FailsIfInvalid(NonDeterministicLength):
        is_valid = True
        made = 0

        def __init__(self, render_mode: str | None = None) -> None:
            type(self).made += 1
            if not self.is_valid:
                raise RuntimeError("license expired")
            super().__init__(render_mode)

    evaluate = Evaluations(config(FailsIfInvalid), tmp_path, errors)
    assert sorted(evaluate()[1]) == KEYS
    assert evaluate.mode is Mode.RECORD
    FailsIfInvalid.is_valid = False
    attempts = []
    for _ in range(5):
        FailsIfInvalid.made = 0
        assert evaluate() == ([], {})
        attempts.append(FailsIfInvalid.made)
    assert attempts == [2, 2, 2, 1, 1], "with pictures and without, then without only"
    assert [task for task, _ in errors.errors].count("Making videos") == 3
    assert sum("3 evaluations in a row gave no video" in warning for warning in errors.warnings) == 1


def test_statistics_are_published_if_the_tracker_fails(errors: KeptErrors, tmp_path: Path) -> None:
    class FailingTracker(MemoryTracker):
        def write(self, axes: Any, values: Any) -> None:
            raise OSError("no space left")

    evaluate = Evaluations(config(), tmp_path, errors, tracker=FailingTracker())
    evaluate()
    assert evaluate.published["eval/length_mean"] == 4.0
    assert {task for task, _ in errors.errors} == {"Writing a row"}


class RenderingMovesState(CorridorEnv):
    """Environment with noise in its observations, which each call of render() shifts."""

    shift = 1e-15

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = gym.spaces.Box(-9.0, 9.0, (2,), np.float64)
        self._offset = 0.1

    def render(self) -> Any:
        self._offset += self.shift
        return super().render()

    def _observation(self) -> Any:
        return super()._observation().astype(np.float64) + self._offset


class RenderingMovesStateFar(RenderingMovesState):
    """As above, but the shift is no rounding."""

    shift = 1e-2


def test_videos_are_replayed_if_rendering_changes_the_last_bits(errors: KeptErrors, tmp_path: Path) -> None:
    evaluate = Evaluations(config(RenderingMovesState), tmp_path, errors)
    for _ in range(2):
        assert sorted(evaluate()[1]) == KEYS
        assert evaluate.mode is Mode.REPLAY
    assert (errors.errors, errors.warnings) == ([], [])


def test_videos_that_rendering_changes_are_left_out_with_a_warning_and_recorded_next(
    errors: KeptErrors, tmp_path: Path
) -> None:
    evaluate = Evaluations(config(RenderingMovesStateFar), tmp_path, errors)
    assert evaluate()[1] == {}
    (warning,) = errors.warnings
    assert "came out differently at step 1" in warning
    assert "Videos that came out differently are left out; episodes are recorded while playing from now on" in warning
    assert sorted(evaluate()[1]) == KEYS
    assert len(errors.warnings) == 1


def test_divergence_detected_after_training_has_the_same_warning_as_during_training(
    errors: KeptErrors, tmp_path: Path
) -> None:
    class PendingExecutor(Executor):
        """Executor that stores jobs and does not run them."""

        def __init__(self) -> None:
            self.submitted: list[tuple[Future[Any], Any]] = []

        def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            self.submitted.append((future, partial(work, *args, **kwargs)))
            return future

    executor = PendingExecutor()
    cfg = config(evaluation={"env": CorridorEnv, "policy": go_right, "episodes": 5, "num_envs": 2})
    evaluate = Evaluations(cfg, tmp_path, errors, executor=executor)
    evaluate()
    ((future, _),) = executor.submitted
    future.set_result(Result(error=ReplayDivergedError("Step 3 differs.")))
    evaluate.finish()
    (warning,) = errors.warnings
    assert warning.startswith("Step 3 differs. Videos of that evaluation are left out")
