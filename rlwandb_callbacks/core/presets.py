"""Key names of other libraries, by our keys: those of every algorithm, and those that depend on the algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

WINDOW = 100
"""Episodes of which Stable-Baselines3 logs running means: its default ``stats_window_size``."""


@dataclass(frozen=True)
class Preset:
    """Key names of one library.

    A key that a library has with another meaning is not listed: ``train/entropy_loss`` of Stable-Baselines3 is minus
    the entropy.

    Attributes:
        names: Name by our key, for every algorithm.
        of_algorithm: Further names by our key, by the algorithm that is trained.
        step_of_group: Name of the axis ``time/env_steps`` by the group of the keys that it belongs to, if groups have
            axes of their own.
    """

    names: Mapping[str, str]
    of_algorithm: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    step_of_group: Mapping[str, str] = field(default_factory=dict)

    def table(self, algorithm: str | None) -> dict[str, str]:
        """Returns the name by our key for an algorithm; None if it is unknown."""
        return {**self.names, **self.of_algorithm.get(algorithm or "", {})}

    @property
    def all_names(self) -> frozenset[str]:
        """The names of all algorithms, and of all axes."""
        tables = [self.names, *self.of_algorithm.values(), self.step_of_group]
        return frozenset(name for table in tables for name in table.values())


SB3 = Preset(
    names={
        "time/env_steps": "global_step",
        f"rollout/return_mean_{WINDOW}": "rollout/ep_rew_mean",
        f"rollout/length_mean_{WINDOW}": "rollout/ep_len_mean",
        f"rollout/success_rate_{WINDOW}": "rollout/success_rate",
        "eval/return_mean": "eval/mean_reward",
        "eval/length_mean": "eval/mean_ep_length",
        "train/lr": "train/learning_rate",
        "train/alpha": "train/ent_coef",
        "train/epsilon": "rollout/exploration_rate",
    },
    of_algorithm={
        "ppo": {"train/actor_loss": "train/policy_gradient_loss", "train/critic_loss": "train/value_loss"},
        "a2c": {"train/actor_loss": "train/policy_loss", "train/critic_loss": "train/value_loss"},
    },
)
_CLEANRL_POLICY_GRADIENT = {"train/actor_loss": "losses/policy_loss", "train/critic_loss": "losses/value_loss"}
_CLEANRL_TWO_CRITICS = {
    "train/actor_loss": "losses/actor_loss",
    "train/critic_loss": "losses/qf_loss",
    "train/q_value": "losses/qf1_values",
    "train/q2_value": "losses/qf2_values",
}
CLEANRL = Preset(
    names={
        "time/env_steps": "global_step",
        "rollout/return_mean": "charts/episodic_return",
        "rollout/length_mean": "charts/episodic_length",
        "eval/return_mean": "eval/episodic_return",
        "train/lr": "charts/learning_rate",
        "train/epsilon": "charts/epsilon",
        "train/loss": "losses/loss",
        "train/entropy": "losses/entropy",
        "train/approx_kl": "losses/approx_kl",
        "train/clip_fraction": "losses/clipfrac",
        "train/explained_variance": "losses/explained_variance",
        "train/alpha": "losses/alpha",
    },
    of_algorithm={
        "ppo": _CLEANRL_POLICY_GRADIENT,
        "a2c": _CLEANRL_POLICY_GRADIENT,
        "dqn": {"train/loss": "losses/td_loss", "train/q_value": "losses/q_values"},
        "c51": {"train/q_value": "losses/q_values"},
        "sac": _CLEANRL_TWO_CRITICS,
        "td3": _CLEANRL_TWO_CRITICS,
        "ddpg": {
            "train/actor_loss": "losses/actor_loss",
            "train/critic_loss": "losses/qf1_loss",
            "train/q_value": "losses/qf1_values",
        },
    },
)
_TORCHRL_POLICY_GRADIENT = {"train/actor_loss": "train/loss_objective", "train/critic_loss": "train/loss_critic"}
_TORCHRL_Q_LOSS = {"train/critic_loss": "train/q_loss"}
_TORCHRL_DQN = {"train/loss": "train/q_loss", "train/q_value": "train/q_values"}
TORCHRL = Preset(
    names={
        "time/env_steps": "train/step",
        "rollout/return_mean": "train/reward",
        "rollout/length_mean": "train/episode_length",
        "eval/return_mean": "eval/reward",
        "eval/return_std": "eval/reward_std",
        "eval/length_mean": "eval/episode_length",
        "video/best": "eval/video",
    },
    of_algorithm={
        "ppo": _TORCHRL_POLICY_GRADIENT,
        "a2c": _TORCHRL_POLICY_GRADIENT,
        "dqn": _TORCHRL_DQN,
        "c51": _TORCHRL_DQN,
        "sac": _TORCHRL_Q_LOSS,
        "td3": _TORCHRL_Q_LOSS,
        "ddpg": _TORCHRL_Q_LOSS,
    },
    step_of_group={"eval": "eval/step"},
)
DI_ENGINE = Preset(
    names={
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
    },
)
PRESETS: dict[str, Preset] = {"sb3": SB3, "cleanrl": CLEANRL, "torchrl": TORCHRL, "di-engine": DI_ENGINE}
ALGORITHMS = ("ppo", "a2c", "dqn", "c51", "sac", "td3", "ddpg")
