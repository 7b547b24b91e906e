"""Warns of evaluation episodes that are identical, as their environment ignores seeds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from rlwandb_callbacks.callbacks.evaluation.distributed import EvaluationResult
from rlwandb_callbacks.callbacks.evaluation.errors import EvaluationErrors
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.identical import describe_identical, seeds_have_effect


class IdenticalEpisodes:
    """Warns of episodes that are the same for each seed; seeds are compared once per training.

    Args:
        cfg: Settings of the evaluation.
        errors: Gets errors and warnings.
    """

    def __init__(self, cfg: EvaluationConfig, errors: EvaluationErrors) -> None:
        self._cfg, self._errors = cfg, errors
        self._has_compared_seeds = False

    def check(
        self,
        played: EvaluationResult,
        evaluator: Evaluator,
        preserved_state: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Checks the episodes of one evaluation; ``preserved_state`` is the context to use environments in."""
        if self._has_compared_seeds or played.make_env is None or not evaluator.env.can_replay:
            return
        with self._errors.guard("Comparing the evaluation episodes"):
            warning = describe_identical(
                played.episodes, env=played.make_env.name, deterministic=self._cfg.deterministic
            )
            if warning is None:
                return
            self._has_compared_seeds = True
            with preserved_state(), evaluator.stopping().interruptible(lambda: "reset() of the environment"):
                if not seeds_have_effect(played.make_env, self._cfg.seed):
                    self._errors.warn_once(warning, kind="identical episodes")
