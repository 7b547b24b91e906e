"""Proximal policy optimization as a LightningModule, with an optimizer for the actor and one for the critic.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=5, logger=False)
    trainer.fit(PPO("LunarLander-v3"))

Each training batch plays T steps in several envs, then passes over them a few times in minibatches (Schulman et al.
2017, "Proximal policy optimization algorithms"). It uses Lightning's manual optimization, as two optimizers make many
steps in a batch, and clips gradients itself, so that it can return their norm before clipping.

In shapes, T is the number of steps, N of envs, B of transitions in a minibatch, O the size of an observation and D the
size of an action.
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
from rlwandb_callbacks.demos.networks import make_mlp, seeded
from rlwandb_callbacks.demos.playing import PlayingModule, make_env
from rlwandb_callbacks.demos.vector_player import Rollout, VectorPlayer

try:
    from torchrl.objectives.value.functional import generalized_advantage_estimate
except ImportError as error:
    raise ImportError('the demos need TorchRL; install it with: pip install "rlwandb-callbacks[demos]"') from error

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler


class Samples(NamedTuple):
    """Training data; shapes start with [T, N], or with [B] in a minibatch."""

    observation: Tensor  # [B, O]
    action: Tensor  # [B], or [B, D]
    log_prob: Tensor  # [B], of the policy that played
    advantage: Tensor  # [B]
    return_estimate: Tensor  # [B], target of the critic


class PPO(PlayingModule):
    """Actor and critic without shared layers, clipped ratios, generalized advantage estimation.

    Actions are drawn from torch's global generator, which `seed_everything` seeds.

    Args:
        env_id: Gymnasium id, or import path of an env factory. Observations are a flat Box; actions are Discrete,
            starting at 0, or a flat Box.
        actor_learning_rate: Adam's learning rate for the actor at the start; it decays linearly to 0 at the last batch.
        critic_learning_rate: Adam's learning rate for the critic, likewise.
        gamma: Discount per env step.
        decay: Lambda of generalized advantage estimation, 0 to 1.
        hidden_size: Units in each of the two hidden layers of both networks.
        num_envs: N, envs played at once.
        steps_per_batch: T, steps in each env per training batch.
        total_env_steps: Env steps of the whole training.
        passes: Passes over the transitions of a batch.
        minibatch_size: B, transitions per optimizer step.
        clip_range: Ratios of new to old probability are clipped to 1 ± this in the loss.
        entropy_weight: Weight of the entropy bonus.
        max_grad_norm: Norm to which the gradients of each network are clipped.
        seed: Seed of weights and envs.

    Attributes:
        actor: Policy, observations [B, O] to a distribution over actions.
        critic: Value network, observations [B, O] to values [B, 1].
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
        """Maps observations [B, O] to the parameters of the action distribution and the critic's `value` [B]."""
        distribution = self.actor(observation)
        value = self.critic(observation)[:, 0]
        if isinstance(distribution, Categorical):
            return {"probs": distribution.probs, "value": value}
        return {"loc": distribution.mean, "scale": distribution.stddev, "value": value}

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Plays, then learns from the rollout.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            Detached means over the minibatches: `loss`, `actor_loss`, `critic_loss`, `entropy` in nats, `approx_kl` in
            nats, `clip_fraction` 0 to 1, `grad_norm` of both networks together before clipping, and the norms of each.
            From before learning: `explained_variance` of the critic, and its `value` [T, N]. `env_steps` so far.
        """
        episodes = self.player.episodes
        rollout = self.player.play(self.actor, self.hparams["steps_per_batch"], self.device)
        self.env_steps += rollout.reward.numel()
        if self.player.episodes > episodes:
            self.log_mean_return(self.player.returns)
        value, advantage, return_estimate = self._estimate(rollout)
        samples = Samples(rollout.observation, rollout.action, rollout.log_prob, advantage, return_estimate)
        updates = [self._update(minibatch) for minibatch in self._minibatches(samples)]
        schedulers: Any = self.lr_schedulers()
        for scheduler in schedulers:
            scheduler.step()
        return {
            **{name: torch.stack([metrics[name] for metrics in updates]).mean() for name in updates[0]},
            "explained_variance": explained_variance(value, return_estimate),
            "value": value,
            "env_steps": self.env_steps,
        }

    @torch.no_grad()
    def _estimate(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Returns values, advantages and return estimates, [T, N] each."""
        value = self.critic(rollout.observation)[..., 0]
        next_value = self.critic(rollout.next_observation)[..., 0]
        advantage, return_estimate = generalized_advantage_estimate(
            self.hparams["gamma"],
            self.hparams["decay"],
            value,
            next_value,
            rollout.reward,
            rollout.done,
            rollout.terminated,
        )
        return value, advantage, return_estimate

    def _minibatches(self, samples: Samples) -> Iterator[Samples]:
        flat = Samples(*(column.flatten(0, 1) for column in samples))
        for _ in range(self.hparams["passes"]):
            order = torch.randperm(len(flat.advantage), device=self.device)
            for indices in torch.split(order, self.hparams["minibatch_size"]):
                yield Samples(*(column[indices] for column in flat))

    def _update(self, minibatch: Samples) -> dict[str, Tensor]:
        """Makes one step with each optimizer and returns detached metrics, [] each."""
        distribution = self.actor(minibatch.observation)
        log_ratio = distribution.log_prob(minibatch.action) - minibatch.log_prob
        actor_loss = clipped_loss(log_ratio, minibatch.advantage, self.hparams["clip_range"])
        entropy = distribution.entropy().mean()
        critic_loss = nn.functional.mse_loss(self.critic(minibatch.observation)[:, 0], minibatch.return_estimate)
        total_actor_loss = actor_loss - self.hparams["entropy_weight"] * entropy
        optimizers: Any = self.optimizers()
        actor_grad_norm = self._step(optimizers[0], total_actor_loss, self.actor)
        critic_grad_norm = self._step(optimizers[1], critic_loss, self.critic)
        metrics = {
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
        return {name: value.detach() for name, value in metrics.items()}

    def _step(self, optimizer: Any, loss: Tensor, network: nn.Module) -> Tensor:
        """Makes an optimizer step with clipped gradients and returns their norm before clipping, []."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.hparams["max_grad_norm"])
        optimizer.step()
        return norm

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns Adam for each network, with learning rates that decay linearly to 0."""
        optimizers = [
            torch.optim.Adam(self.actor.parameters(), self.hparams["actor_learning_rate"], eps=1e-5),
            torch.optim.Adam(self.critic.parameters(), self.hparams["critic_learning_rate"], eps=1e-5),
        ]
        decays = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.num_updates)
            for optimizer in optimizers
        ]
        return optimizers, decays


def flat_size(space: gym.Space[Any]) -> int:
    """Returns the size of a flat observation.

    Raises:
        ValueError: If observations are not a flat Box.
    """
    match space:
        case gym.spaces.Box(shape=(size,)):
            return size
        case _:
            raise ValueError(f"PPO needs a flat Box of observations; the env has {space}")


def clipped_loss(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """Returns PPO's loss for the actor, with standardized advantages, [].

    The standard deviation is that of the batch (divisor B), so that a last minibatch of one transition has a loss: the
    default of torch, the divisor B - 1, would give NaN.

    Args:
        log_ratio: New minus old log-probability of each action, [B].
        advantage: Advantage of each action, [B].
        clip_range: Ratios are clipped to 1 ± this, > 0.
    """
    advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Estimates the divergence of the new policy from the old one, [], in nats, ≥ 0.

    The estimator is `(r - 1) - log r` of Schulman 2020, "Approximating KL divergence".

    Args:
        log_ratio: New minus old log-probability of actions of the old policy, [B].

    Example:
        >>> approximate_kl(torch.zeros(3))
        tensor(0.)
    """
    return (log_ratio.exp() - 1.0 - log_ratio).mean()


def explained_variance(predicted: Tensor, target: Tensor) -> Tensor:
    """Returns the fraction of the variance of `target` that `predicted` explains, [].

    It is 1 at best, 0 for a constant, and negative for predictions that are worse than a constant. The divisor of the
    variances cancels out; at least two targets are needed.

    Example:
        >>> explained_variance(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor(1.)
    """
    return 1.0 - (target - predicted).var() / target.var().clamp_min(torch.finfo(target.dtype).tiny)
