"""Proximal policy optimization as a LightningModule, with an optimizer for the actor and one for the critic.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=5, logger=False)
    trainer.fit(PPO("LunarLander-v3"))

Each training batch plays a while in several envs, then goes over what was played a few times in small batches (Schulman
et al. 2017, "Proximal policy optimization algorithms"). Under Lightning's manual optimization, as there are many steps
of two optimizers in a batch. Gradients are clipped by hand too, so that their norm before that can be returned.

In shapes, T is the number of steps, N of envs, B of transitions in a small batch, and O the size of an observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from rlwandb_callbacks.demos.actors import make_actor
from rlwandb_callbacks.demos.advantages import explained_variance, generalised_advantages
from rlwandb_callbacks.demos.networks import make_mlp, seeded
from rlwandb_callbacks.demos.playing import PlayingModule, make_env
from rlwandb_callbacks.demos.vector_player import Rollout, VectorPlayer

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler


class Rows(NamedTuple):
    """What is learnt from."""

    observation: Tensor  # [B, O]
    action: Tensor  # [B], or [B, D]
    log_prob: Tensor  # [B], before learning
    advantage: Tensor  # [B]
    return_estimate: Tensor  # [B], what the critic is to predict


class PPO(PlayingModule):
    """Actor and critic without shared layers, clipped ratios, generalised advantages.

    Actions are drawn from torch's own generator: `seed_everything` fixes them.

    Args:
        env_id: Gymnasium env, or import path of a function that makes one, with a flat Box of observations; actions
            Discrete from 0 on, or a flat Box.
        actor_learning_rate: Adam's at the start; it falls linearly to 0 at the last batch.
        critic_learning_rate: The same of the critic.
        gamma: Discount per env step.
        decay: Lambda of the generalised advantages.
        hidden_size: Units in each of the two hidden layers of both networks.
        num_envs: Envs played side by side.
        steps_per_batch: Steps in each env before each learning.
        total_env_steps: Length of the training.
        passes: Times that each transition is learnt from.
        minibatch_size: Transitions per step of the optimizers.
        clip_range: How far the probability of an action may move from 1 times what it was, before it is not pushed on.
        entropy_weight: Of the bonus for entropy.
        max_grad_norm: To which the gradients of each network are clipped.
        seed: Seeds weights and envs.

    Attributes:
        actor: Observations [B, O] to a distribution over actions.
        critic: Observations [B, O] to values [B, 1].
    """

    def __init__(
        self,
        env_id: str = "LunarLander-v3",
        *,
        actor_learning_rate: float = 5e-4,
        critic_learning_rate: float = 1e-3,
        gamma: float = 0.999,
        decay: float = 0.98,
        hidden_size: int = 64,
        num_envs: int = 16,
        steps_per_batch: int = 256,
        total_env_steps: int = 400_000,
        passes: int = 6,
        minibatch_size: int = 256,
        clip_range: float = 0.2,
        entropy_weight: float = 0.005,
        max_grad_norm: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.player = VectorPlayer(partial(make_env, env_id), num_envs, seed)
        observation_size = flat_size(self.player.envs.single_observation_space)
        with seeded(seed):
            self.actor = make_actor(observation_size, [hidden_size] * 2, self.player.envs.single_action_space)
            self.critic = make_mlp([observation_size, hidden_size, hidden_size, 1], nn.Tanh, last_gain=1.0)
        self.num_updates = total_env_steps // (num_envs * steps_per_batch)

    def policy(self, observation: Tensor) -> dict[str, Tensor]:
        """What evaluation asks: the distribution of actions by its numbers, and the critic's `value` [B]."""
        distribution = self.actor(observation)
        value = self.critic(observation)[:, 0]
        if isinstance(distribution, Categorical):
            return {"probs": distribution.probs, "value": value}
        return {"loc": distribution.mean, "scale": distribution.stddev, "value": value}

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Plays, then learns from all of it.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            Detached means over the small batches: `loss`, `actor_loss`, `critic_loss`, `entropy` in nats, `approx_kl`
            in nats, `clip_fraction` 0 to 1, `grad_norm` of both networks together before clipping, and one of each.
            From before the learning: `explained_variance` of the critic, and its `value` [T, N]. `env_steps` so far.
        """
        episodes = self.player.episodes
        rollout = self.player.play(self.actor, self.hparams["steps_per_batch"], self.device)
        self.env_steps += rollout.reward.numel()
        if self.player.episodes > episodes:
            self.show_returns(self.player.returns)
        value, advantage = self._rate(rollout)
        rows = Rows(*rollout[:3], advantage, advantage + value)
        learnt = [self._learn(small) for small in self._small_batches(rows)]
        schedules: Any = self.lr_schedulers()
        for schedule in schedules:
            schedule.step()
        return {
            **{name: torch.stack([numbers[name] for numbers in learnt]).mean() for name in learnt[0]},
            "explained_variance": explained_variance(value, rows.return_estimate),
            "value": value,
            "env_steps": self.env_steps,
        }

    @torch.no_grad()
    def _rate(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Values and advantages, [T, N] both."""
        value = self.critic(rollout.observation)[..., 0]
        next_value = self.critic(rollout.next_observation)[..., 0]
        advantage = generalised_advantages(
            rollout.reward,
            value,
            next_value,
            rollout.terminated,
            rollout.ended,
            gamma=self.hparams["gamma"],
            decay=self.hparams["decay"],
        )
        return value, advantage

    def _small_batches(self, rows: Rows) -> Iterator[Rows]:
        flat = Rows(*(column.flatten(0, 1) for column in rows))
        for _ in range(self.hparams["passes"]):
            order = torch.randperm(len(flat.advantage), device=self.device)
            for chosen in torch.split(order, self.hparams["minibatch_size"]):
                yield Rows(*(column[chosen] for column in flat))

    def _learn(self, rows: Rows) -> dict[str, Tensor]:
        """One step of each optimizer; the numbers it returns are detached, [] each."""
        distribution = self.actor(rows.observation)
        log_ratio = distribution.log_prob(rows.action) - rows.log_prob
        actor_loss = clipped_loss(log_ratio, rows.advantage, self.hparams["clip_range"])
        entropy = distribution.entropy().mean()
        critic_loss = nn.functional.mse_loss(self.critic(rows.observation)[:, 0], rows.return_estimate)
        total_actor_loss = actor_loss - self.hparams["entropy_weight"] * entropy
        optimizers: Any = self.optimizers()
        actor_grad_norm = self._step(optimizers[0], total_actor_loss, self.actor)
        critic_grad_norm = self._step(optimizers[1], critic_loss, self.critic)
        numbers = {
            "loss": total_actor_loss + critic_loss,
            "actor_loss": actor_loss,
            "critic_loss": critic_loss,
            "entropy": entropy,
            "approx_kl": approximate_kl(log_ratio),
            "clip_fraction": ((log_ratio.exp() - 1.0).abs() > self.hparams["clip_range"]).float().mean(),
            "grad_norm": torch.hypot(actor_grad_norm, critic_grad_norm),
            "actor_grad_norm": actor_grad_norm,
            "critic_grad_norm": critic_grad_norm,
        }
        return {name: number.detach() for name, number in numbers.items()}

    def _step(self, optimizer: Any, loss: Tensor, network: nn.Module) -> Tensor:
        """Steps an optimizer and returns the norm of the gradients before they were clipped, []."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.hparams["max_grad_norm"])
        optimizer.step()
        return norm

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam for each network, and learning rates that fall to 0 so that the training ends at rest."""
        optimizers = [
            torch.optim.Adam(self.actor.parameters(), self.hparams["actor_learning_rate"], eps=1e-5),
            torch.optim.Adam(self.critic.parameters(), self.hparams["critic_learning_rate"], eps=1e-5),
        ]
        falls = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.num_updates)
            for optimizer in optimizers
        ]
        return optimizers, falls


def flat_size(space: gym.Space[Any]) -> int:
    """Size of an observation; ValueError where it is not flat."""
    match space:
        case gym.spaces.Box(shape=(size,)):
            return size
        case _:
            raise ValueError(f"The agent needs a flat Box of observations; the env has {space}")


def clipped_loss(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """PPO's objective for the actor, to be minimised, over standardized advantages; [].

    Args:
        log_ratio: [B], log-probability of each action now, minus what it was when it was taken.
        advantage: [B].
        clip_range: > 0.
    """
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Divergence of the new policy from the old one, from actions of the old one; [], nats, ≥ 0.

    The estimator `(r - 1) - log r` of Schulman 2020, "Approximating KL divergence".

    Args:
        log_ratio: [B], log-probability of each action now, minus what it was when it was taken.

    Example:
        >>> approximate_kl(torch.zeros(3))
        tensor(0.)
    """
    return (log_ratio.exp() - 1.0 - log_ratio).mean()
