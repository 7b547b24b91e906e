"""Decides how an environment's episodes become clips: by playing them again where that works, else recorded at once."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.episode_choice import choose
from rlwandb_callbacks.core.values import Video
from rlwandb_callbacks.environments.factory import EnvMaker
from rlwandb_callbacks.errors import EnvError, RenderError, ReplayDivergedError
from rlwandb_callbacks.evaluation.replay import ReplayFrames, check_replay
from rlwandb_callbacks.evaluation.report import Clip, EvaluationJob, Report
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.media.clips import ClipStyle, caption
from rlwandb_callbacks.media.frames import ArrayFrames, FrameSource

PROOF_STEPS = 1_000
MAX_EVALUATIONS_WITHOUT_CLIP = 3


class Reporter(Protocol):
    """Takes trouble that must not end a training."""

    def report(self, what: str, error: Exception) -> None:
        """Counts an error and warns of the first of its kind; raises it where the user wants that."""

    def warn_once(self, message: str, *, kind: str) -> None:
        """Warns, once for each kind."""


class Mode(str, enum.Enum):
    """How clips are made.

    Attributes:
        NUMBERS: Not at all; the environment cannot be rendered, or nobody wants clips.
        REPLAY: By playing the chosen episodes again.
        REPLAY_FRESH: Likewise, and each episode is played in an environment of its own, as a reset does not undo all.
        RECORD: From frames that were taken while playing.
    """

    NUMBERS = "numbers"
    REPLAY = "replay"
    REPLAY_FRESH = "replay fresh"
    RECORD = "record"

    @property
    def replays(self) -> bool:
        """Whether episodes are played again."""
        return self in (Mode.REPLAY, Mode.REPLAY_FRESH)


@dataclass(frozen=True)
class ClipPaths:
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
        """Path of a clip without its ending, from the root of the file system."""
        return self.folder.absolute() / f"step_{self.step:09d}_{rank}"


class Recorder:
    """Remembers what the environment turned out not to do.

    One that cannot render is only played from then on, one that does not repeat itself is recorded while playing. One
    that renders and fails now and then loses the clips that it fails in, and no more.

    Args:
        cfg: The settings.
        reporter: Takes what goes wrong.
        makes_clips: Make clips at all.

    Attributes:
        mode: How clips of the next evaluation are made.
    """

    def __init__(self, cfg: WandbRLConfig, reporter: Reporter, *, makes_clips: bool) -> None:
        self._cfg = cfg
        self._reporter = reporter
        self._is_proven = False
        self._reuses_envs = True
        self._has_made_clips = False
        self._evaluations_without_clip = 0
        self._interrupted: Mode | None = None
        self.mode = Mode.REPLAY if makes_clips else Mode.NUMBERS

    @property
    def film_bytes(self) -> int | None:
        """What each episode's frames may take while they are recorded; None where none are."""
        return self._budget // self._cfg.evaluation.episodes if self.mode is Mode.RECORD else None

    @property
    def _budget(self) -> int:
        """Of one evaluation; the other half is for those under way."""
        return self._cfg.videos.max_bytes // 2

    def begin(self) -> None:
        """Starts an evaluation: takes up what the one before had to interrupt."""
        if self._interrupted is not None:
            self.mode, self._interrupted = self._interrupted, None

    def interrupt(self, error: Exception) -> None:
        """Does without clips until the next evaluation begins, as its environments cannot be made with pictures."""
        self.learn(error)
        self._interrupted, self.mode = self.mode, Mode.NUMBERS
        self._count_failure()

    def take(self, report: Report, *, made_in: Mode | None = None) -> None:
        """Takes what came of an evaluation that was to be shown.

        Args:
            report: Of the clips, among other things.
            made_in: The mode in which they were made, where it may have changed since.
        """
        if report.error is not None:
            self.learn(report.error, made_in=made_in)
        if any(isinstance(value, Video) for value in report.values.values()):
            self._has_made_clips, self._evaluations_without_clip = True, 0
        elif isinstance(report.error, RenderError | EnvError):
            self._count_failure()

    def _count_failure(self) -> None:
        """Gives up an environment that never gave a clip at once, and others after some evaluations in a row."""
        self._evaluations_without_clip += 1
        if self._evaluations_without_clip < (MAX_EVALUATIONS_WITHOUT_CLIP if self._has_made_clips else 1):
            return
        self.mode, self._interrupted = Mode.NUMBERS, None
        if self._has_made_clips:
            self._reporter.warn_once(
                f"{MAX_EVALUATIONS_WITHOUT_CLIP} evaluations in a row gave no video, so no more are made in this "
                "training; numbers are logged all the same.",
                kind="no more videos",
            )

    def choose(self, episodes: Sequence[Episode]) -> dict[str, int]:
        """Indices of the episodes to show, by rank; none where no clips are made, or a function of the user's fails."""
        if self.mode is Mode.NUMBERS:
            return {}
        videos = self._cfg.videos
        try:
            return choose(episodes, videos.choices(), seed=self._cfg.evaluation.seed, at_most=videos.max_per_choice)
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything
            self._reporter.report("Choosing episodes for videos", error)
            return {}

    def consider(self, *, can_replay: bool, reuses_envs: bool) -> bool:
        """Takes what is known of the environments.

        Returns:
            False where clips cannot be made in the mode that it was so far.
        """
        self._reuses_envs = reuses_envs
        if self.mode.replays and not can_replay:
            self.mode = Mode.RECORD
            return False
        return True

    def can_replay(self, episodes: Sequence[Episode], chosen: Mapping[str, int], make_env: EnvMaker) -> bool:
        """Tells whether clips can be made by replay; where not, the episodes are to be played in the new mode.

        The first evaluation that relies on replay proves it, without pictures: on the chosen episodes, and on the last
        one, whose environment may have played others before.
        """
        if not self.mode.replays or self._is_proven:
            return True
        try:
            for index in sorted({*chosen.values(), len(episodes) - 1}):
                check_replay(make_env, episodes[index], max_steps=PROOF_STEPS)
        except ReplayDivergedError as error:
            self.learn(error)
            return False
        self._is_proven = True
        return True

    def learn(self, error: Exception, *, made_in: Mode | None = None) -> None:
        """Takes an error that came up while clips were made, and changes the mode where it calls for that.

        Args:
            error: What went wrong.
            made_in: The mode in which the clips were made, where it may have changed since.
        """
        match error:
            case ReplayDivergedError() if made_in not in (None, self.mode):
                pass  # an earlier report has told the same
            case ReplayDivergedError():
                if self.mode is Mode.REPLAY and self._reuses_envs:
                    self.mode, self._is_proven = Mode.REPLAY_FRESH, False
                    if made_in is not None:
                        self._reporter.warn_once(
                            f"{error} Videos of that evaluation are left out; from now on each episode is played in "
                            "an environment of its own.",
                            kind="replay",
                        )
                    return
                self.mode = Mode.RECORD if self.mode.replays else self.mode
                self._reporter.warn_once(f"{error} Episodes are recorded while playing from now on.", kind="record")
            case RenderError() | EnvError():
                self._reporter.report("Making videos", error)
            case _:
                self._reporter.report("Drawing the evaluation", error)

    def report(
        self,
        evaluation: Evaluation,
        chosen: Mapping[str, int],
        films: Mapping[int, FrameSource],
        *,
        make_env: EnvMaker,
        fps: float,
        shelf: ClipPaths,
    ) -> EvaluationJob:
        """Puts together what is to be drawn.

        Args:
            evaluation: The episodes.
            chosen: Indices of those to show, by rank.
            films: Frames that were recorded, by the index of their episode; the others are played again.
            make_env: For playing again.
            fps: Frames per second, > 0.
            shelf: Where files go.
        """
        episodes = evaluation.episodes
        shown = {rank: (i, films.get(i) or ReplayFrames(make_env, episodes[i])) for rank, i in chosen.items()}
        return self._report(evaluation, shown, fps, shelf)

    def report_of_given(self, evaluation: Evaluation, *, fps: float, shelf: ClipPaths) -> EvaluationJob:
        """Puts together what is to be drawn of episodes that came without an environment.

        Clips are made of those that brought their frames along, if all did.
        """
        chosen = self.choose(evaluation.episodes)
        frames = {rank: (i, evaluation.episodes[i].frames) for rank, i in chosen.items()}
        if any(episode.frames is None for episode in evaluation.episodes):
            frames = {}
        share = self._budget // max(1, len(frames))
        films: dict[str, tuple[int, FrameSource]] = {
            rank: (i, ArrayFrames.of(pixels, max_bytes=share))
            for rank, (i, pixels) in frames.items()
            if pixels is not None
        }
        return self._report(evaluation, films, fps, shelf)

    def _report(
        self, evaluation: Evaluation, films: Mapping[str, tuple[int, FrameSource]], fps: float, shelf: ClipPaths
    ) -> EvaluationJob:
        lean = replace(
            evaluation, episodes=[replace(episode, frames=None, observations=None) for episode in evaluation.episodes]
        )
        clips = []
        for rank, (index, film) in films.items():
            episode = lean.episodes[index]
            stride = film.steps[1] - film.steps[0] if len(film.steps) > 1 else 1
            text = caption(rank, len(lean.episodes), episode, shelf.env_steps, stride)
            clips.append(Clip(rank, episode, film, text, shelf.stem(rank)))
        style = ClipStyle(evaluation.actions, self._cfg.action_logger is not False, fps, self._cfg.videos.crf)
        return EvaluationJob(lean, self._cfg.return_logger, clips, style)
