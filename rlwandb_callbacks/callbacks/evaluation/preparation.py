"""The environment and the policy of one evaluation: found and tried before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.evaluation.averaged_weights import PlayedWeights
from rlwandb_callbacks.callbacks.evaluation.distributed import SHARDED
from rlwandb_callbacks.callbacks.evaluation.errors import EvaluationErrors
from rlwandb_callbacks.callbacks.evaluation.videos import VideoMode
from rlwandb_callbacks.callbacks.evaluation.weight_tensors import with_weights
from rlwandb_callbacks.callbacks.late_hooks import changes_late, may_be_finished_late
from rlwandb_callbacks.callbacks.lightning_namespaces import shards_parameters
from rlwandb_callbacks.callbacks.meetings import MissingRanksError
from rlwandb_callbacks.callbacks.ranks import Ranks, announce
from rlwandb_callbacks.config.root import OneEvaluationConfig
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.video_mode import Mode

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

STATISTICS_SOURCE = "Evaluations normalize observations by the running statistics of {source}."


class Preparation:
    """Makes the environment and calls the policy once, so that errors are raised before the first step.

    Args:
        cfg: Settings of the evaluation.
        errors: Gets errors and warnings.
        videos: Mode of the videos, which are turned off if the environment cannot be rendered.

    Attributes:
        evaluator: What plays the episodes; None if there is no environment, or before it is made.
    """

    def __init__(self, cfg: OneEvaluationConfig, errors: EvaluationErrors, videos: VideoMode) -> None:
        self._cfg, self._errors, self._videos = cfg, errors, videos
        self.start()

    def start(self) -> None:
        """Drops what was made for an earlier training."""
        self.evaluator: Evaluator | None = None
        self._is_done = False
        self._announced_source: str | None = None  # of the observation statistics

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the evaluator, which holds the module's policy."""
        return {**vars(self), "evaluator": None, "_is_done": False}

    def prepare_early(self, trainer: Trainer, module: LightningModule) -> None:
        """Prepares in ``on_fit_start``.

        Lightning calls the module's own ``on_fit_start`` and ``on_train_start`` after those of callbacks. What these
        hooks may still change is prepared again by the next call of :meth:`prepare`, before the first batch.
        """
        try:
            self.prepare(trainer, module)
            self._is_done = not changes_late(module)
        except Exception as error:
            if isinstance(error, Warning) or not may_be_finished_late(trainer, module):
                raise
            self._is_done = False

    def prepare(self, trainer: Trainer, module: LightningModule) -> None:
        """Prepares on all ranks, unless that has been done in this training.

        Raises:
            ConfigError: On all ranks, if one of them cannot make the environment or call the policy.
        """
        if self._is_done:
            return
        self._is_done = True
        if self._cfg.evaluation.env is None:
            return
        if shards_parameters(trainer):
            self._errors.warn_once(SHARDED.format(strategy=type(trainer.strategy).__name__), kind="sharded")
            return
        error: Exception | None = None
        try:
            with self.preserved_state(module, PlayedWeights()):
                self.evaluator = Evaluator(self._cfg, module, self._errors.warn_once)
                if self._videos.state.mode is not Mode.NUMBERS and not self.evaluator.can_render():
                    self._videos.start(makes_videos=False)
            self.announce_statistics()
        except Exception as caught:  # noqa: BLE001  # raised below, on all ranks
            error = self._errors.named(caught)
        self._raise_together(trainer, error)

    def _raise_together(self, trainer: Trainer, error: Exception | None) -> None:
        try:
            Ranks(trainer, "when evaluations are prepared", starts=True).raise_together(error)
        except MissingRanksError as missing:
            if error is not None:
                raise error from None
            if not missing.is_interrupted:
                self._errors.report_error("Preparing the evaluations of all ranks", missing)

    def announce_statistics(self) -> None:
        """Says of which environment the observation statistics are, at first and when that changes."""
        source = None if self.evaluator is None else self.evaluator.statistics_source
        if source is not None and source != self._announced_source:
            self._announced_source = source
            announce(STATISTICS_SOURCE.format(source=source))

    @contextmanager
    def preserved_state(self, module: LightningModule, weights: PlayedWeights, stream: int = 0) -> Iterator[None]:
        """Gives the module the weights to play, and restores all that the block changes.

        Args:
            module: The module.
            weights: The weights to play.
            stream: Number of a part of the episodes that is played elsewhere; each has random numbers of its own.
        """
        warn, warn_of_errors = (partial(self._errors.warn_once, kind=kind) for kind in ("buffer", "uncopied state"))
        cfg = self._cfg.evaluation
        with (
            with_weights(module, weights.values),
            preserved_state(
                module, seed=cfg.seed, stream=stream, policy=cfg.policy, warn=warn, warn_of_errors=warn_of_errors
            ),
        ):
            yield
