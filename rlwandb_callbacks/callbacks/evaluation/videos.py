"""Clips of an evaluation: the jobs that draw them, and what becomes of the mode in which they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rlwandb_callbacks.callbacks.evaluation.distributed import EvaluationResult, frame_budget
from rlwandb_callbacks.callbacks.evaluation.errors import EvaluationErrors
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.config.root import OneEvaluationConfig
from rlwandb_callbacks.core.files import folder_in
from rlwandb_callbacks.core.values import Video
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.jobs import (
    evaluation_jobs,
    flat_video_warning,
    frames_in_episodes,
    is_of_clip,
    rendering_failure,
    sweeping_job,
)
from rlwandb_callbacks.evaluation.replay import ReplayFrames
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.video_mode import Diverged, Event, Mode, VideoState, mode_warning, next_mode
from rlwandb_callbacks.media.clips import ClipStyle
from rlwandb_callbacks.media.frame_sources import FrameSource
from rlwandb_callbacks.tracking.result import Job, Result

ENCODER_SHARE = (
    0.5  # of videos.max_seconds, after which ffmpeg is ended if it takes no frame; the rest is for the sheet
)


class VideoMode:
    """How the clips of the next evaluation are made, as earlier ones have shown; warns of changes.

    Args:
        errors: Gets errors and warnings.

    Attributes:
        state: Mode of the next evaluation.
    """

    def __init__(self, errors: EvaluationErrors) -> None:
        self._errors = errors
        self.state = VideoState(Mode.NUMBERS)

    def start(self, *, makes_videos: bool) -> None:
        """Starts a training."""
        self.state = VideoState(Mode.REPLAY if makes_videos else Mode.NUMBERS)

    def update(self, played: EvaluationResult) -> None:
        """Takes the mode for the next evaluation, and warns of its changes."""
        self.state = played.state
        for warning in played.warnings:
            self._errors.warn_once(warning, kind=warning)

    def result_handler(self, played: EvaluationResult, *, reuses_envs: bool) -> Callable[[Result], None]:
        """Returns what takes the results of the drawing jobs of an evaluation; it does not keep the episodes."""
        diverged = Diverged(played.played_in, reuses_envs=reuses_envs)
        return partial(self._take_result, diverged, "" if played.make_env is None else played.make_env.name)

    def _take_result(self, diverged: Diverged, env_name: str, result: Result) -> None:
        """Reports the error of drawn clips, and updates the mode; ``diverged`` is the event if a replay diverged."""
        error = result.error
        if env_name and is_of_clip(error):
            error = rendering_failure(error, env_name)
        if (warning := flat_video_warning(result.values, env_name)) is not None:
            self._errors.warn_once(warning, kind="flat video")
        if isinstance(error, ReplayDivergedError):
            if next_mode(self.state, diverged) == self.state:  # an earlier evaluation has changed it
                self._errors.warn_once(f"{error} Videos that came out differently are left out.", kind="lost")
            self._update_mode(diverged, str(error))
        elif error is not None:
            is_of_env = isinstance(error, RenderError | EnvError)
            self._errors.report_error("Making videos" if is_of_env else "Drawing the evaluation", error)
        if any(isinstance(value, Video) for value in result.values.values()):
            self._update_mode(Event.CLIPS_MADE)
        elif isinstance(error, RenderError | EnvError):
            self._update_mode(Event.CLIPS_FAILED)

    def _update_mode(self, event: Event | Diverged, reason: str = "") -> None:
        before, self.state = self.state, next_mode(self.state, event)
        warning = mode_warning(before, self.state, reason, lost_videos=True)
        if warning is not None:
            self._errors.warn_once(warning, kind=warning)


def drawing_jobs(
    session: Session,
    cfg: OneEvaluationConfig,
    axes: Mapping[str, float],
    evaluation: Evaluation,
    played: EvaluationResult,
    fps: float,
) -> list[Job]:
    """Makes the jobs that draw an evaluation by its settings, and those that other callbacks add to it."""
    videos = cfg.videos
    encoder_seconds = None if videos.max_seconds is None else videos.max_seconds * ENCODER_SHARE
    has_panel = cfg.action_logger is not False
    style = ClipStyle(
        evaluation.actions,
        has_panel,
        fps=videos.fps or fps,
        crf=videos.crf,
        preset=videos.preset,
        encoder_seconds=encoder_seconds,
    )
    frames: Mapping[str, tuple[int, FrameSource]]
    if played.make_env is None:
        frames = frames_in_episodes(evaluation, played.chosen, max_bytes=frame_budget(cfg))
    else:
        frames = {
            label: (i, played.frames.get(i) or ReplayFrames(played.make_env, played.episodes[i]))
            for label, i in played.chosen.items()
        }
    jobs = [sweeping_job(Path(cfg.record_path))] if frames else []
    jobs += evaluation_jobs(
        evaluation,
        frames,
        with_returns=cfg.return_logger,
        style=style,
        folder=folder_in(Path(cfg.record_path), getattr(session.run, "id", "")),
        step=int(axes["trainer/global_step"]),
        env_steps=axes.get("time/env_steps"),
        name=cfg.evaluation.name,
    )
    for make_job in session.evaluation_jobs.values():
        with session.errors.guard("Preparing the map of the policy"):
            job = make_job(evaluation)
            jobs += [] if job is None else [job]
    return jobs
