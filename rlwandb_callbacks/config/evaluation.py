"""How evaluation episodes are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.config.validation import check_types, require


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How evaluation episodes are played.

    Args:
        env: Gymnasium id, a function that makes an environment, the import path of one (``package.module:function``),
            an environment, which is made again from its ``spec`` or copied and never used itself, or an attribute of
            the module that holds one of these (``self.env_id``, ``self.hparams.env_id``, ``self.make_env``). Besides
            single environments of Gymnasium these may be vector environments and parallel ones of PettingZoo. Nothing
            is guessed: without it nothing is played, whatever the module has.
        env_kwargs: Given to ``gymnasium.make`` or to the function.
        policy: Dotted attribute of the module (``q_network``), import path (``package.module:function``), callable,
            actor of TorchRL, or model of Stable-Baselines3. By default the first of ``policy_step``, ``policy``,
            ``actor``, ``q_network``, ``q_net`` that the module has.
        episodes: Complete episodes per evaluation, ≥ 1.
        num_envs: Environments stepped at a time, ≥ 1; by default as many as episodes, at most 8. A vector environment
            has a number of its own.
        seed: Episode ``i`` is reset with ``seed + i``, the same ones in every evaluation.
        deterministic: Take the mode of a distribution; otherwise sample from it.
        every_n_steps: Updates (batches after which an optimizer stepped) between two evaluations of a module that has
            no validation loop, ≥ 1. A module with a validation loop is evaluated when that ends.
        gamma: Discount factor in [0, 1]; by default ``gamma`` of the module or its hyper-parameters. Where nothing
            tells, discounted returns are shown with 0.99, and predictions are not compared with returns.
        max_steps: Longest episode, ≥ 1; longer ones are cut, and their captions say so.
        info_keys: Keys of ``info`` that become curves (``eval/info_<key>_mean`` over steps, ``_last`` at the end of an
            episode, and ``_sum`` where the key has ``reward`` or ``cost`` in it); by default the first 32 numeric ones,
            none with an empty list.
        use_training_statistics: Where the environment that a module trains with (an attribute such as ``self.envs``)
            normalizes observations by running statistics, evaluate with these statistics, frozen.
        shared_policy: With several agents, call the policy for each agent with the batch of its observations, and not
            once with a dict of batches by agent.
    """

    env: str | Callable[..., Any] | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str | Callable[..., Any] | None = None
    episodes: int = 8
    num_envs: int | None = None
    seed: int = 0
    deterministic: bool = True
    every_n_steps: int = 10_000
    gamma: float | None = None
    max_steps: int = 27_000
    info_keys: list[str] | None = None
    use_training_statistics: bool = True
    shared_policy: bool = False

    key_prefix = "evaluation."

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("episodes", "num_envs", "every_n_steps", "max_steps"):
            require(self, name, lambda value: value is None or value >= 1, "a whole number ≥ 1")
        require(self, "seed", lambda value: value >= 0, "a whole number ≥ 0")
        require(self, "gamma", lambda value: value is None or 0 <= value <= 1, "a number between 0 and 1")
