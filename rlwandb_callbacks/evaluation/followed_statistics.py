"""The statistics by which a training normalizes observations, as they are at each evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.environments.factory import resolve_attribute
from rlwandb_callbacks.environments.normalization import Places, normalized_in_subprocesses, normalizers
from rlwandb_callbacks.environments.statistics import ObservationStatistics, training_statistics
from rlwandb_callbacks.errors import EnvError, PolicyError
from rlwandb_callbacks.evaluation.env_checks import HIDDEN_STATISTICS, UNKNOWN_STATISTICS, normalized
from rlwandb_callbacks.evaluation.env_description import AnyEnv
from rlwandb_callbacks.policies.adapters.stable_baselines import own_normalizer
from rlwandb_callbacks.policies.resolve import resolve_policy


class FollowedStatistics:
    """Finds the observation statistics of the training environment, and normalizes evaluation environments by them.

    Args:
        cfg: Settings of the evaluation.
        module: Module in which the statistics are looked up each time.
        env: Environment of the evaluation, as it was made.
        warn_once: Called with a message and ``kind=``.

    Attributes:
        source: Path of the environment whose statistics were found last; None if there is none.
    """

    def __init__(
        self, cfg: EvaluationConfig, module: torch.nn.Module, env: AnyEnv, warn_once: Callable[..., None]
    ) -> None:
        self.source: str | None = None
        self._cfg, self._module, self._warn_once = cfg, module, warn_once
        self._normalized_unseen = normalized_in_subprocesses(env)
        self._places = Places.of(env)
        self._are_used = cfg.use_training_statistics and "observations" not in self._normalized_unseen

    def current(self) -> ObservationStatistics | None:
        """Returns the statistics of now; None if nothing is normalized, or if the settings do not use them."""
        found = self._find() if self._are_used else None
        return None if found is None else found[1]

    def normalized(self, env: AnyEnv) -> AnyEnv:
        """Normalizes observations as every evaluation will, and warns of what is unusual."""
        if self._normalized_unseen:
            what = " and ".join(self._normalized_unseen)
            self._warn_once(HIDDEN_STATISTICS.format(what=what), kind="normalization")
        found = self._find() if self._are_used else None
        if found is not None:
            result: AnyEnv = normalized(env, *found, self._warn_once)
            return result
        if self._are_used and next(normalizers(env), None) is not None:
            module = type(self._module).__name__
            self._warn_once(UNKNOWN_STATISTICS.format(module=module), kind="normalization")
        return env

    def _find(self) -> tuple[str, ObservationStatistics] | None:
        named = None
        with contextlib.suppress(EnvError):  # of an attribute that the module has no longer
            named = resolve_attribute(self._module, self._cfg.env)
        applied = None
        with contextlib.suppress(PolicyError):  # raised where the policy is called
            applied = own_normalizer(resolve_policy(self._module, self._cfg.policy))
        found = training_statistics(self._module, named, self._cfg.policy, self._places.accept, applied)
        if found is None and applied is not None and (neutral := self._places.neutral) is not None:
            found = "evaluation.policy", neutral
        is_used = found is not None and self._places.accept(found[1])
        self.source = found[0] if found is not None and is_used else None
        return found
