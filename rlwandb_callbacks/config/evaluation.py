"""How evaluation episodes are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from rlwandb_callbacks.config.validation import MAX_SEED, Bounds, PositiveInt, Section, Seed, widened
from rlwandb_callbacks.core.key_names import valid_name
from rlwandb_callbacks.errors import ConfigError

if TYPE_CHECKING:
    Importable: TypeAlias = str | Callable[..., Any] | None
else:
    Importable = widened(str | Callable[..., Any] | None)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Section, key="evaluation"):
    """How evaluation episodes are played.

    Args:
        name: Name of this evaluation if there are several, as in ``eval/<name>/return_mean`` and
            ``video/<name>/best``: letters, digits, ``_``, ``-`` and ``.``. By default keys have no name
            (``eval/return_mean``).
        env: Gymnasium id; function that makes an environment, or its import path (``package.module:function``);
            environment, which is made again from its ``spec`` or copied, and never used itself; or attribute of the
            module that holds one of these (``self.env_id``, ``self.hparams.env_id``, ``self.make_env``). Vector
            environments of Gymnasium and parallel environments of PettingZoo are allowed too. Without ``env`` no
            episode is played, whatever attributes the module has.
        env_kwargs: Keyword arguments of ``gymnasium.make`` or of the function.
        policy: Dotted attribute of the module (``q_network``), import path (``package.module:function``), callable,
            or policy object of Stable-Baselines3, sbx, TorchRL, Tianshou, skrl, rsl-rl or d3rlpy. By default the first
            of ``policy_step``, ``policy``, ``actor``, ``q_network``, ``q_net`` that the module has.
        episodes: Complete episodes per evaluation, ≥ 1.
        num_envs: Environments that are stepped together, ≥ 1; by default as many as episodes, at most 8. A vector
            environment brings its own number.
        seed: Episode ``i`` is reset with ``seed + i`` in every evaluation; no seed exceeds 4,294,967,295.
        deterministic: Take the mode of a distribution; otherwise sample from it, under DDP with other random numbers on
            each rank.
        every_n_steps: Updates (batches after which an optimizer stepped) between two evaluations of a module without
            a validation loop, ≥ 1. A module with a validation loop is evaluated at its end.
        gamma: Discount factor in [0, 1]; by default ``gamma`` of the module or of its hyperparameters. If none is
            known, discounted returns are computed with 0.99, and predictions are not compared with returns.
        max_steps: Longest episode, ≥ 1; longer ones are cut, and their captions say so.
        max_seconds: Time limit of one evaluation in seconds, > 0; null for none. Episodes that were played by then
            count, the others are left out with a warning. An environment or a policy that does not return is
            interrupted and named; see :mod:`rlwandb_callbacks.evaluation.time_limit` for what cannot be interrupted.
            Under DDP, episodes that one rank misses are played by the others, with a time limit of the same length.
        info_keys: Keys of ``info`` to log (``eval/info_<key>_mean`` over the steps, ``_last`` at the end of an
            episode, and ``_sum`` if the key contains ``reward`` or ``cost``); by default the first 32 numeric ones,
            none for an empty list.
        action_names: Names to show: one for each discrete action, or for each dimension of other actions; by default
            those that the environment has (``get_action_meanings``, ``action_names``, an enum ``actions``).
        use_training_statistics: If the training environment of the module (an attribute such as ``self.envs``)
            normalizes observations by running statistics, evaluate with a frozen copy of them.
        shared_policy: With several agents, call the policy for each agent with the batch of its observations;
            otherwise once with a dict of batches by agent.
    """

    name: str | None = None
    env: Importable = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: Importable = None
    episodes: PositiveInt = 8
    num_envs: PositiveInt | None = None
    seed: Seed = 0
    deterministic: bool = True
    every_n_steps: PositiveInt = 10_000
    gamma: Annotated[float, Bounds(ge=0, le=1)] | None = None
    max_steps: PositiveInt = 27_000
    max_seconds: Annotated[float, Bounds(gt=0)] | None = 600.0
    info_keys: list[str] | None = None
    action_names: list[str] | None = None
    use_training_statistics: bool = True
    shared_policy: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed + self.episodes - 1 > MAX_SEED:
            raise ConfigError(
                f"evaluation.seed is {self.seed!r} with {self.episodes} episodes, whose seeds follow it; the last one "
                f"must be ≤ {MAX_SEED:,}, the largest seed of NumPy's random numbers."
            )
        valid = valid_name(self.name or "").strip(".")
        if self.name is not None and (not valid or self.name != valid):
            advice = f", such as '{valid}'" if valid.strip("_") else ""
            raise ConfigError(
                f"evaluation.name is {self.name!r}; it must consist of letters, digits, '_', '-' and '.'{advice}, as "
                "it is a part of keys and file names."
            )
