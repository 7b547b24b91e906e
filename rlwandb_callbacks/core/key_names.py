"""Presets that rename keys to those of other libraries, for existing dashboards.

A preset maps our keys to those of a library. Keys that it does not list keep our name, and values never change: a key
with another meaning in a library (Stable-Baselines3's ``entropy_loss`` is minus the entropy) is not listed.
"""

from __future__ import annotations

import re
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
CONFLICT_SUFFIX = "_own"

INVALID_CHARACTERS = re.compile(r"[^\w.-]+")


def valid_name(name: str) -> str:
    """Replaces what neither keys nor file names should contain.

    Example:
        >>> valid_name("distance to goal/m")
        'distance_to_goal_m'
    """
    return INVALID_CHARACTERS.sub("_", name)


@dataclass(frozen=True)
class Naming:
    """Renames keys when they are written.

    Two keys never get the same name: a key that is not in the table but equals a new name in it (a user's metric
    ``train/n_updates``, under ``sb3``) gets the suffix ``_own``.

    Args:
        preset: One of :data:`PRESETS`; None keeps our names.

    Example:
        >>> Naming("di-engine").key("train/target_q_value"), Naming("sb3").key("train/td_error")
        ('target q_value', 'train/td_error')
    """

    preset: str | None = None

    @property
    def table(self) -> dict[str, str]:
        """New key by our key."""
        return {} if self.preset is None else PRESETS[self.preset]

    def key(self, name: str) -> str:
        """Returns the name of one of our keys in the run."""
        table = self.table
        if name in table:
            return table[name]
        return f"{name}{CONFLICT_SUFFIX}" if name in table.values() else name

    def row(self, row: Mapping[str, T]) -> dict[str, T]:
        """Returns a row with new keys; values and order stay the same."""
        return {self.key(key): value for key, value in row.items()} if self.preset else dict(row)
