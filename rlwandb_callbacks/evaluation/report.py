"""The slow part of an evaluation, as work that may be done in another process: videos, contact sheets, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.values import Value
from rlwandb_callbacks.errors import sentence
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.media.clips import ClipStyle, make_clip
from rlwandb_callbacks.media.frames import FrameSource


@dataclass(frozen=True)
class Report:
    """What slow work gave, as far as it came.

    Args:
        values: By their keys.
        error: What ended it early; None where nothing did.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    error: Exception | None = None


def report_of(work: Callable[[], Mapping[str, Value]]) -> Report:
    """Does work; its error becomes that of the report."""
    try:
        return Report(work())
    except Exception as error:  # noqa: BLE001  # told by who takes the report
        return Report(error=error)


def merged(reports: Sequence[Report]) -> Report:
    """All that several pieces of work gave, and the first of their errors."""
    errors = [report.error for report in reports if report.error is not None]
    values = {key: value for report in reports for key, value in report.values.items()}
    return Report(values, errors[0] if errors else None)


@dataclass(frozen=True)
class Together:
    """Several pieces of work as one.

    Args:
        first: Its error, if any, is the report's.
        others: Done in any case, each for itself.
    """

    first: Callable[[], Report]
    others: Sequence[Callable[[], Mapping[str, Value]]]

    def __call__(self) -> Report:
        """Does the work; what was made before or after something failed is kept."""
        return merged([self.first(), *map(report_of, self.others)])


@dataclass(frozen=True)
class Clip:
    """A clip to be made.

    Args:
        rank: Names its keys: ``video/<rank>``.
        episode: The one that is shown.
        film: Its frames.
        text: Caption.
        stem: Path of its files without ending.
    """

    rank: str
    episode: Episode
    film: FrameSource
    text: str
    stem: Path


@dataclass(frozen=True)
class EvaluationJob:
    """Draws an evaluation's figures and makes its clips.

    Args:
        evaluation: For the figures.
        with_returns: Draw the distribution of returns.
        clips: To be made.
        style: What they share.
    """

    evaluation: Evaluation
    with_returns: bool
    clips: Sequence[Clip]
    style: ClipStyle

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.clips or self.with_returns or self.evaluation.is_compared)

    def __call__(self) -> Report:
        """Does the work; what fails, as drawing, rendering and encoding run foreign code and programs, fails alone."""
        works: list[Callable[[], Mapping[str, Value]]] = [
            partial(self.evaluation.figures, with_returns=self.with_returns),
            *(partial(self._made, clip) for clip in self.clips),
        ]
        return merged([report_of(work) for work in works])

    def _made(self, clip: Clip) -> dict[str, Value]:
        try:
            clip.stem.parent.mkdir(parents=True, exist_ok=True)
            return make_clip(clip.film, clip.episode, rank=clip.rank, text=clip.text, stem=clip.stem, style=self.style)
        except OSError as error:  # of what environments raise, none is left as it was
            raise OSError(
                f"{clip.stem}.mp4 and its contact sheet .png cannot be written: {sentence(error)} Free space on that "
                "disk, or set record_path to a folder that has room and that you may write to."
            ) from error
