"""Makes the videos of an evaluation: by replay where the environment allows that, else recorded while playing."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from rlwandb_callbacks.clips import ClipStyle, caption, make_clip
from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.canvas import Pixels
from rlwandb_callbacks.core.evaluation import Evaluation
from rlwandb_callbacks.core.select import choose
from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.environments import DEFAULT_FPS, EnvMaker
from rlwandb_callbacks.episode_log import Played
from rlwandb_callbacks.errors import ConfigError, EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluator import Evaluator
from rlwandb_callbacks.frame_store import FrameStore
from rlwandb_callbacks.replay import replay


class Reporter(Protocol):
    """Takes trouble that must not end a training."""

    def report(self, what: str, error: Exception) -> None:
        """Counts an error and warns of the first of its kind; raises it where the user wants that."""

    def warn_once(self, message: str, *, kind: str) -> None:
        """Warns, once for each kind."""


@dataclass(frozen=True)
class Shelf:
    """Where the files of one evaluation go, and what their captions say of it.

    Args:
        folder: Made when the first file is written.
        step: Of the axis ``trainer/global_step``, for file names.
        env_steps: Environment steps trained so far, where they are known.
    """

    folder: Path
    step: int
    env_steps: float | None

    def stem(self, rank: str) -> Path:
        """Path of a clip without its ending; its folder exists then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"step_{self.step:09d}_{rank}"


class Recorder:
    """Plays evaluations and makes clips of their best, median and worst episode.

    It remembers what the environment turned out not to do: one that cannot render is only played from then on, one that
    does not repeat itself is recorded while playing.

    Args:
        cfg: The settings.
        reporter: Takes what goes wrong.
        can_render: Make clips at all.
    """

    def __init__(self, cfg: WandbRLConfig, reporter: Reporter, *, can_render: bool) -> None:
        self._cfg = cfg
        self._reporter = reporter
        self._can_render = can_render
        self._can_replay = True

    def play(self, evaluator: Evaluator, *, gamma: float, shelf: Shelf) -> tuple[Evaluation, dict[str, Value]]:
        """Plays an evaluation.

        Returns:
            The episodes, and ``video/…`` values; without these where no video could be made.
        """
        try:
            return self._attempt(evaluator, gamma, shelf, makes_clips=self._can_render)
        except ReplayDivergedError as error:
            if evaluator.freshen():
                return self.play(evaluator, gamma=gamma, shelf=shelf)
            self._can_replay = False
            self._reporter.warn_once(f"{error} Episodes are recorded while playing from now on.", kind="replay")
        except OSError as error:
            if (self._can_replay and evaluator.can_replay) or not self._can_render:
                raise
            self._reporter.report("Keeping frames", error)
            return self._attempt(evaluator, gamma, shelf, makes_clips=False)
        except (RenderError, EnvError) as error:
            if not self._can_render:
                raise
            self._can_render = False
            self._reporter.report("Making videos", error)
        return self.play(evaluator, gamma=gamma, shelf=shelf)

    def _attempt(
        self, evaluator: Evaluator, gamma: float, shelf: Shelf, *, makes_clips: bool
    ) -> tuple[Evaluation, dict[str, Value]]:
        with contextlib.ExitStack() as stack:
            can_replay = self._can_replay and evaluator.can_replay
            store = stack.enter_context(FrameStore()) if makes_clips and not can_replay else None
            played = evaluator.play(store)
            evaluation = Evaluation([each.episode for each in played], gamma, evaluator.actions)
            if not makes_clips:
                return evaluation, {}
            frames = [partial(frames_of, each, evaluator.make_env, store) for each in played]
            return evaluation, self._clips(evaluation, frames, evaluator.fps, shelf)

    def clips_of_given(self, evaluation: Evaluation, *, shelf: Shelf) -> dict[str, Value]:
        """Makes clips of episodes that brought their frames along; none where one did not."""
        frames = [episode.frames for episode in evaluation.episodes if episode.frames is not None]
        if not self._can_render or len(frames) < len(evaluation.episodes):
            return {}
        return self._clips(
            evaluation, [partial(_each, array) for array in frames], self._cfg.videos.fps or DEFAULT_FPS, shelf
        )

    def _clips(
        self, evaluation: Evaluation, frames: Sequence[Callable[[], Generator[Pixels]]], fps: float, shelf: Shelf
    ) -> dict[str, Value]:
        clips: dict[str, Value] = {}
        try:
            for key, value in self._each_clip(evaluation, frames, fps, shelf):
                clips[key] = value  # noqa: PERF403  # those before a failure are kept
        except (RenderError, EnvError, ReplayDivergedError):
            raise
        except Exception as error:  # noqa: BLE001  # no video is worth the numbers of an evaluation
            self._reporter.report("Writing videos", error)
        return clips

    def _each_clip(
        self, evaluation: Evaluation, frames: Sequence[Callable[[], Generator[Pixels]]], fps: float, shelf: Shelf
    ) -> Iterator[tuple[str, Value]]:
        style = ClipStyle(evaluation.actions, self._cfg.action_logger is not False, fps, self._cfg.videos.crf)
        episodes = evaluation.episodes
        chosen = choose(
            episodes,
            self._cfg.videos.choices(),
            seed=self._cfg.evaluation.seed,
            at_most=self._cfg.videos.max_per_choice,
        )
        for rank, index in chosen.items():
            text = caption(rank, len(episodes), episodes[index], shelf.env_steps)
            with contextlib.closing(frames[index]()) as pictures:
                clip = make_clip(pictures, episodes[index], rank=rank, text=text, stem=shelf.stem(rank), style=style)
            yield from clip.items()


def frames_of(played: Played, make_env: EnvMaker, store: FrameStore | None) -> Generator[Pixels]:
    """Frames of an episode, from the store if they were recorded, else by replay."""
    if store is not None:
        return store.frames(played.frame_keys)
    return replay(lambda: make_env(render=True), played.episode)


def _each(frames: Pixels) -> Generator[Pixels]:
    yield from frames


def check_writable(folder: str) -> None:
    """Makes a folder and a file in it.

    Raises:
        ConfigError: If either cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"record_path is {folder!r}, where no file can be written: {error}. Set it to a folder that you may "
            "write to."
        ) from error
