"""What the evaluation callback does, without a Trainer: in one process, and without a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from rlwandb_callbacks.callbacks.evaluation.distributed import DistributedEvaluation
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.report import Report
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.video_mode import ClipPaths, Recorder


def attempt(recorder: Recorder, evaluator: Evaluator, shelf: ClipPaths) -> tuple[Evaluation, dict[str, Any]]:
    """Plays an evaluation and makes its clips."""
    alone = Ranks(SimpleNamespace(world_size=1, global_rank=0))
    played = DistributedEvaluation(evaluator, recorder, nn.Module(), 0, alone)()
    evaluation = Evaluation(played.episodes, 1.0, evaluator.actions)
    assert played.errors == []
    report = recorder.report(
        evaluation, played.chosen, played.films, make_env=evaluator.make_env, fps=evaluator.fps, shelf=shelf
    )
    return evaluation, learned(recorder, report())


def learned(recorder: Recorder, report: Report) -> dict[str, Any]:
    """The values of a report, of which the recorder is told."""
    recorder.take(report)
    return dict(report.values)
