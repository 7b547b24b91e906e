"""The names that users of other libraries have on their dashboards: presets that rename our keys, and nothing else.

A preset is a table from our key to theirs. What it does not list keeps our name. Where a library means something else
by a word (Stable-Baselines3's ``entropy_loss`` is minus the entropy) the key is left alone: values never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SB3 = {
    "time/env_steps": "time/total_timesteps",
    "time/updates": "train/n_updates",
    "rollout/return_mean": "rollout/ep_rew_mean",
    "rollout/length_mean": "rollout/ep_len_mean",
    "eval/return_mean": "eval/mean_reward",
    "eval/length_mean": "eval/mean_ep_length",
    "train/lr": "train/learning_rate",
    "train/alpha": "train/ent_coef",
    "train/epsilon": "rollout/exploration_rate",
}
CLEANRL = {
    "time/env_steps": "global_step",
    "rollout/return_mean": "charts/episodic_return",
    "rollout/length_mean": "charts/episodic_length",
    "eval/return_mean": "eval/episodic_return",
    "eval/length_mean": "eval/episodic_length",
    "train/lr": "charts/learning_rate",
    "train/epsilon": "charts/epsilon",
    "train/loss": "losses/loss",
    "train/actor_loss": "losses/policy_loss",
    "train/critic_loss": "losses/value_loss",
    "train/q_value": "losses/q_values",
    "train/q_value_min": "losses/q_values_min",
    "train/q_value_max": "losses/q_values_max",
    "train/td_error": "losses/td_error",
    "train/entropy": "losses/entropy",
    "train/approx_kl": "losses/approx_kl",
    "train/clip_fraction": "losses/clipfrac",
    "train/explained_variance": "losses/explained_variance",
    "train/alpha": "losses/alpha",
}
TORCHRL = {
    "rollout/return_mean": "train/episode_reward",
    "rollout/length_mean": "train/episode_length",
    "eval/return_mean": "eval/reward",
    "eval/return_std": "eval/reward_std",
    "eval/length_mean": "eval/episode_length",
    "video/best": "eval/video",
    "train/actor_loss": "train/loss_actor",
    "train/critic_loss": "train/loss_critic",
    "train/q_value": "train/q_values",
    "train/q_value_min": "train/q_values_min",
    "train/q_value_max": "train/q_values_max",
}
DI_ENGINE = {
    "time/env_steps": "env step",
    "time/updates": "train iter",
    "eval/return_mean": "episode return mean",
    "eval/return_min": "episode return min",
    "eval/return_max": "episode return max",
    "eval/return_std": "episode return std",
    "eval/return_distribution": "return distribution",
    "train/loss": "loss",
    "train/lr": "lr",
    "train/entropy": "entropy",
    "train/q_value": "q_value",
    "train/target_q_value": "target q_value",
    "train/td_error": "td_error",
}
PRESETS: dict[str, dict[str, str]] = {"sb3": SB3, "cleanrl": CLEANRL, "torchrl": TORCHRL, "di-engine": DI_ENGINE}
TAKEN_SUFFIX = "_own"


@dataclass(frozen=True)
class Naming:
    """Renames keys when they are written.

    No two keys ever meet under one name: a key that is not in the table, but is called as the table calls another one
    (a metric of the user's own named ``train/n_updates``, under ``sb3``), gets ``_own`` behind it.

    Args:
        preset: One of :data:`PRESETS`; None keeps our names.

    Example:
        >>> Naming("di-engine").key("train/target_q_value"), Naming("sb3").key("train/td_error")
        ('target q_value', 'train/td_error')
    """

    preset: str | None = None

    @property
    def table(self) -> dict[str, str]:
        """Their key by ours."""
        return {} if self.preset is None else PRESETS[self.preset]

    def key(self, ours: str) -> str:
        """What a key of ours is called in the run."""
        table = self.table
        if ours in table:
            return table[ours]
        return f"{ours}{TAKEN_SUFFIX}" if ours in table.values() else ours

    def row(self, ours: Mapping[str, T]) -> dict[str, T]:
        """Renames the keys of a row; its values and their order stay."""
        return {self.key(key): value for key, value in ours.items()} if self.preset else dict(ours)
