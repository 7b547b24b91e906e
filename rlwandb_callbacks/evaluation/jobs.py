"""Slow part of an evaluation as jobs, which may run in another process: figures, videos and contact sheets."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.files import remove_unfinished
from rlwandb_callbacks.core.values import Value, Video
from rlwandb_callbacks.environments.display_remedies import XVFB
from rlwandb_callbacks.environments.headless import has_display
from rlwandb_callbacks.environments.rendering import WITHOUT_VIDEOS
from rlwandb_callbacks.errors import RenderError, sentence
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.media.clips import ClipStyle, caption, make_clip
from rlwandb_callbacks.media.frame_sources import ArrayFrames, FrameSource, MissingFrames
from rlwandb_callbacks.tracking.result import Job, Result
from rlwandb_callbacks.tracking.worker_process import COMPILED_CODE_FAILED, JobStuckError, WorkerDiedError

CLIP_PREFIX = "video/"
USE_OTHER_FOLDER = "Free space on that disk, or set record_path to a folder that has room and that you may write to."
RAISE_LIMIT = "The size of files is limited: raise the limit (`ulimit -f unlimited`)."


def evaluation_jobs(
    evaluation: Evaluation,
    frames: Mapping[str, tuple[int, FrameSource]],
    *,
    with_returns: bool,
    style: ClipStyle,
    folder: Path,
    step: int,
    env_steps: float | None,
    name: str | None = None,
) -> list[Job]:
    """Makes the jobs that draw an evaluation.

    Args:
        evaluation: The episodes.
        frames: Index and frames of each episode to show, by the label of its clip.
        with_returns: Draw the distribution of returns.
        style: Settings of the clips.
        folder: Folder of the clips; made when the first file is written.
        step: Value of ``trainer/global_step``, for file names.
        env_steps: Number of environment steps trained so far, if known.
        name: Name of the evaluation if there are several, for captions and file names.
    """
    without_data = [replace(e, frames=None, observations=None, states=None) for e in evaluation.episodes]
    small = replace(evaluation, episodes=without_data)
    jobs: list[Job] = []
    if with_returns or evaluation.has_value_errors:
        jobs.append(partial(small.figures, with_returns=with_returns))
    for label, (index, source) in frames.items():
        episode = small.episodes[index]
        stride = source.steps[1] - source.steps[0] if len(source.steps) > 1 else 1
        text = caption(label, len(small.episodes), episode, env_steps, stride)
        text = text if name is None else f"{name} · {text}"
        stem = folder.absolute() / "_".join(part for part in (f"step_{step:09d}", name, label) if part)
        jobs.append(ClipJob(source, episode, label, text, stem, style, step))
    return jobs


@dataclass(frozen=True)
class ClipJob:
    """Makes the video and the contact sheet of an episode; a video that ffmpeg cannot make costs itself only."""

    frames: FrameSource
    episode: Episode  # without its frames
    label: str
    text: str  # caption
    stem: Path  # of both files, without suffixes
    style: ClipStyle
    step: int

    @property
    def name(self) -> str:
        """Its work, for messages."""
        return f"{CLIP_PREFIX}{self.label} of step {self.step}"

    def __call__(self) -> Result:
        """Makes the folder and the clip.

        Raises:
            OSError: If the files cannot be written; the message says what to do.
        """
        errors: list[Exception] = []
        try:
            self.stem.parent.mkdir(parents=True, exist_ok=True)
            values = make_clip(
                self.frames,
                self.episode,
                label=self.label,
                text=self.text,
                stem=self.stem,
                style=self.style,
                on_encoder_error=errors.append,
            )
        except OSError as error:  # of the files only: errors of environments are converted where they are raised
            advice = RAISE_LIMIT if error.errno == errno.EFBIG else USE_OTHER_FOLDER
            raise OSError(
                f"{self.stem}.mp4 and its contact sheet .png cannot be written: {sentence(error)} {advice}"
            ) from error
        return Result(values, errors[0] if errors else None)


def sweeping_job(record_path: Path) -> Job:
    """Makes the job that removes unfinished files which killed processes left; a process does so once for a folder."""
    return partial(_sweep, record_path.absolute())


@functools.cache
def _sweep(record_path: Path) -> Mapping[str, Value]:
    remove_unfinished(record_path)
    return MappingProxyType({})


def frames_in_episodes(
    evaluation: Evaluation, chosen: Mapping[str, int], *, max_bytes: int
) -> dict[str, tuple[int, FrameSource]]:
    """Returns the frames that the chosen episodes brought along, thinned to ``max_bytes``, if all episodes did."""
    frames = [episode.frames for episode in evaluation.episodes if episode.frames is not None]
    if len(frames) < len(evaluation.episodes):
        return {}
    each = max_bytes // max(1, len(chosen))
    return {label: (index, _thinned(np.asarray(frames[index]), max_bytes=each)) for label, index in chosen.items()}


def _thinned(frames: NDArray[Any], *, max_bytes: int) -> FrameSource:
    """Thins frames; those that are no pictures cost their own clip only."""
    try:
        return ArrayFrames.thinned(frames, max_bytes=max_bytes)
    except RenderError as error:
        return MissingFrames(str(error))


def flat_video_warning(values: Mapping[str, Value], env_name: str) -> str | None:
    """Returns a warning if all frames of a video have one and the same color, as if nothing was drawn.

    ``env_name`` is empty if the frames were given with the episodes.
    """
    flat = {key: value.flat_color for key, value in values.items() if isinstance(value, Video) and value.flat_color}
    if not flat:
        return None
    colors = ", ".join(f"RGB {color}" for color in dict.fromkeys(flat.values()))
    seen = f"all pixels of {', '.join(flat)} have one color ({colors})"
    if not env_name:
        return f"{seen}. Look at the frames of the episodes that validation_step returns."
    hint = ""
    if os.environ.get("SDL_VIDEODRIVER") == "dummy":
        hint = (
            " SDL_VIDEODRIVER is 'dummy', with which some environments draw nothing (highway-env): remove it, or set "
            "it to 'offscreen'."
        )
    return (
        f"{seen}, so {env_name} seems to draw nothing.{hint} Look at what its render() returns with "
        "render_mode='rgb_array'."
    )


def rendering_failure(error: WorkerDiedError | JobStuckError, env_name: str) -> RenderError:
    """Returns the error for a worker that ended, or was stuck, while it rendered an environment."""
    hint = ""
    if COMPILED_CODE_FAILED in str(error) and not has_display():
        hint = f" If it needs a display, {XVFB}."
    return RenderError(f"Rendering {env_name} failed. {error}{hint} {WITHOUT_VIDEOS}")


def is_of_clip(error: Exception | None) -> TypeGuard[WorkerDiedError | JobStuckError]:
    """Returns whether a worker ended, or was stuck, while it made a clip."""
    return isinstance(error, WorkerDiedError | JobStuckError) and error.job.startswith(CLIP_PREFIX)
