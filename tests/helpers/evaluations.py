"""Evaluations in this process and without a fit: by an evaluator, and through the hooks of the callback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
from torch import nn

from rlwandb_callbacks.callbacks.error_policy import ErrorPolicy
from rlwandb_callbacks.callbacks.evaluation.callback import EvaluationCallback
from rlwandb_callbacks.callbacks.logging_time import LoggingTimer
from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.evaluation.video_mode import Mode
from rlwandb_callbacks.testing import MemoryTracker

STEP = 1200


class KeptErrors(ErrorPolicy):
    """Error policy that keeps errors and warnings for assertions.

    Args:
        raises: As ``on_error: raise``.

    Attributes:
        errors: Subject and exception of each error.
        warnings: All warnings, repeated ones included.
    """

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__(raises=raises, timer=LoggingTimer())
        self.errors: list[tuple[str, Exception]] = []
        self.warnings: list[str] = []

    def report_error(self, what: str, error: Exception, *, kind: str | None = None) -> None:
        if self._raises:
            raise error
        self.errors.append((what, error))

    def warn_once(self, message: str, *, kind: str) -> None:
        self.warnings.append(message)


def evaluated(policy: Any, *, module: nn.Module | None = None, **settings: Any) -> tuple[list[Episode], list[str]]:
    """Returns the episodes of one evaluation with these settings, and all warnings."""
    cfg = WandbRLConfig(video_logger=False, evaluation=EvaluationConfig(policy=policy, **settings))
    errors = KeptErrors()
    module = module or (policy if isinstance(policy, nn.Module) else nn.Module())
    with preserved_state(module, seed=0, policy=policy):
        evaluator = Evaluator(cfg, module, errors.warn_once)
    with preserved_state(module, seed=0, policy=policy):
        return [each.episode for each in evaluator.play()], errors.warnings


class Evaluations:
    """Evaluations of one training, whose step is 1,200.

    Args:
        cfg: Settings.
        folder: Folder of the videos.
        errors: Keeps errors and warnings.
        makes_videos: As ``video_logger``.
        env_steps: Environment steps that the module has counted.
        tracker: Tracker; by default one that works.
        executor: As in the settings.
    """

    def __init__(
        self,
        cfg: WandbRLConfig,
        folder: Path,
        errors: KeptErrors,
        *,
        makes_videos: bool = True,
        env_steps: float | None = None,
        tracker: MemoryTracker | None = None,
        executor: Any = "inline",
    ) -> None:
        self._tracker = MemoryTracker() if tracker is None else tracker
        local = replace(cfg, record_path=str(folder), executor=executor, video_logger=None if makes_videos else False)
        self._callback = EvaluationCallback(local, tracker=self._tracker)
        self._callback.session.errors = self._callback.session._rows._errors = errors
        self._module: Any = nn.Module()
        self._module.env_steps = env_steps
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        self._trainer = pl.Trainer(logger=False, accelerator="cpu", **quiet)
        self._trainer.fit_loop.epoch_loop._batches_that_stepped = STEP
        self._callback.setup(self._trainer, self._module, "validate")
        self._callback.session.run = SimpleNamespace(id="run")  # names the folder of the videos
        self._callback.session.evaluation_jobs["test"] = self._keep
        self._episodes: list[Episode] = []

    def _keep(self, evaluation: Evaluation) -> None:
        self._episodes = list(evaluation.episodes)

    def __call__(self, given: list[Episode] | None = None) -> tuple[list[Episode], dict[str, Any]]:
        """Evaluates once.

        Args:
            given: Episodes that ``validation_step`` returns.

        Returns:
            The episodes, and the videos and contact sheets by their keys.
        """
        self._episodes = []
        hooks = (self._trainer, self._module)
        self._callback.on_validation_start(*hooks)
        if given is not None:
            self._callback.on_validation_batch_end(*hooks, {"episodes": given}, None, 0)
        first = len(self._tracker.rows)
        self._callback.on_validation_end(*hooks)
        self._callback.session.close_row()
        rows = self._tracker.rows[first:]
        return self._episodes, {k: v for row in rows for k, v in row.items() if k.startswith("video/")}

    def finish(self) -> None:
        """Ends the training, which collects the results of jobs."""
        self._callback.teardown(self._trainer, self._module, "validate")

    @property
    def published(self) -> dict[str, float]:
        """Numbers that ModelCheckpoint and EarlyStopping see."""
        return {key: float(number) for key, number in self._trainer.callback_metrics.items()}

    @property
    def mode(self) -> Mode:
        """How the videos of the next evaluation are made."""
        return self._callback._videos.state.mode
