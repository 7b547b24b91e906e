"""Writes evaluations: a row of numbers, jobs that draw pictures, and numbers for other loggers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlwandb_callbacks.callbacks.evaluation.averaged_weights import PlayedWeights
from rlwandb_callbacks.callbacks.evaluation.discount import Discount, find_discount
from rlwandb_callbacks.callbacks.evaluation.distributed import EvaluationResult
from rlwandb_callbacks.callbacks.evaluation.earlier_numbers import EarlierNumbers
from rlwandb_callbacks.callbacks.evaluation.errors import EvaluationErrors
from rlwandb_callbacks.callbacks.evaluation.game_scores import GameScores
from rlwandb_callbacks.callbacks.evaluation.judged_steps import JudgedSteps
from rlwandb_callbacks.callbacks.evaluation.keys import EvaluationKeys
from rlwandb_callbacks.callbacks.evaluation.monitors import monitored_names
from rlwandb_callbacks.callbacks.evaluation.owned_keys import OwnedKeys
from rlwandb_callbacks.callbacks.evaluation.videos import VideoMode, drawing_jobs
from rlwandb_callbacks.callbacks.other_loggers import log_to_others
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.config.root import OneEvaluationConfig
from rlwandb_callbacks.core.constant_infos import ConstantInfos
from rlwandb_callbacks.core.values import DEFAULT_FPS, Scalar, Value
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.summary import Evaluation, infer_action_spec, left_out_histograms
from rlwandb_callbacks.tracking.result import Job

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


@dataclass(frozen=True)
class SummarizedEvaluation:
    """The numbers of an evaluation, before anything of it is written.

    Attributes:
        evaluation: Summary of the episodes.
        numbers: Numbers by our own keys.
        keys: The keys that name the numbers.
    """

    evaluation: Evaluation
    numbers: Mapping[str, float]
    keys: EvaluationKeys

    @property
    def named(self) -> dict[str, float]:
        """The numbers by their names."""
        return self.keys.rename(self.numbers)


class EvaluationWriter:
    """Writes the evaluations of one training, on rank zero.

    Args:
        session: Session with the tracker.
        cfg: Settings of the evaluation.
        errors: Gets errors and warnings.
        owned_keys: Names the numbers.
        videos: Gets the results of the drawing jobs.
        judged_steps: Step limit, which a checkpoint may have restored.
        earlier_numbers: Keys of the evaluations in this run.
    """

    def __init__(
        self,
        session: Session,
        cfg: OneEvaluationConfig,
        errors: EvaluationErrors,
        owned_keys: OwnedKeys,
        videos: VideoMode,
        judged_steps: JudgedSteps,
        earlier_numbers: EarlierNumbers,
    ) -> None:
        self._session, self._cfg, self._errors = session, cfg, errors
        self._owned_keys, self._videos, self._judged_steps = owned_keys, videos, judged_steps
        self._game_scores = GameScores(errors.warn_once)
        self._earlier_numbers = earlier_numbers
        self._constant_infos = ConstantInfos(cfg.evaluation.info_keys)

    def summarize(
        self,
        trainer: Trainer,
        module: LightningModule,
        played: EvaluationResult,
        evaluator: Evaluator | None,
        weights: PlayedWeights,
    ) -> SummarizedEvaluation:
        """Computes the numbers and chooses their keys, without writing anything.

        Args:
            trainer: The Trainer.
            module: The module.
            played: At least one episode.
            evaluator: Evaluator that played them; None for episodes of ``validation_step``.
            weights: The weights that were played.
        """
        evaluation = self._summary(trainer, module, played, evaluator)
        numbers = evaluation.numbers() | weights.numbers()
        return SummarizedEvaluation(evaluation, numbers, self._owned_keys.keys_for(trainer, numbers))

    def write(
        self,
        trainer: Trainer,
        module: LightningModule,
        played: EvaluationResult,
        evaluator: Evaluator | None,
        summarized: SummarizedEvaluation,
    ) -> None:
        """Writes the row of numbers and queues the pictures; arguments are those of :meth:`summarize`, and its result.

        Each part has a guard of its own, so that an error costs that part alone.
        """
        evaluation, numbers, keys = summarized.evaluation, summarized.numbers, summarized.keys
        row: dict[str, Value] = {
            key: Scalar(number) for key, number in {**self._earlier_numbers.lacking(numbers), **numbers}.items()
        }
        jobs: list[Job] = []
        if self._session.tracker is not None:  # before the row, so that the row counts their errors
            row |= self._distributions(evaluation)
            with self._errors.guard("Drawing the evaluation"):
                fps = DEFAULT_FPS if evaluator is None else evaluator.env.fps
                axes = self._session.counters.axes(trainer, module)
                jobs = drawing_jobs(self._session, self._cfg, axes, evaluation, played, fps)
        with self._errors.guard("Logging the evaluation"):
            self._session.write(trainer, module, keys.rename(row))
        with self._errors.guard("Passing the evaluation to other loggers"):
            step = self._session.counters.axes(trainer, module)["trainer/global_step"]
            shown = {self._session.key_in_run(key): number for key, number in summarized.named.items()}
            log_to_others(trainer, shown, step=step)
        if jobs:
            on_result = self._videos.result_handler(played, reuses_envs=evaluator is not None and evaluator.reuses_envs)
            renaming = list(map(keys.renaming, jobs))
            self._session.submit(trainer, module, "Drawing the evaluation", renaming, on_result=on_result)

    def _summary(
        self, trainer: Trainer, module: LightningModule, played: EvaluationResult, evaluator: Evaluator | None
    ) -> Evaluation:
        actions = infer_action_spec(played.episodes) if evaluator is None else evaluator.env.actions
        discount = Discount(None)
        with self._errors.guard("Looking for the discount factor"):
            discount = find_discount(self._cfg.evaluation.gamma, module)
        if discount.warning is not None:
            self._errors.warn_once(discount.warning, kind="discount factor")
        step_limit = self._judged_steps.limit(played.episodes, evaluator)
        infos = [episode.infos for episode in played.episodes]
        constants = self._constant_infos.update(infos, monitored_names(trainer))
        episodes = self._game_scores.shown(played.episodes, evaluator)
        evaluation = Evaluation(episodes, discount.gamma, actions, step_limit, constants)
        self._judged_steps.explain(evaluation)
        return evaluation

    def _distributions(self, evaluation: Evaluation) -> dict[str, Value]:
        values: dict[str, Value] = {}
        with self._errors.guard("Drawing the evaluation"):
            values = evaluation.distributions(with_returns=self._cfg.return_logger)
        if (warning := left_out_histograms(evaluation.actions)) is not None:
            self._errors.warn_once(warning, kind="left out histograms")
        return values
