"""Deep Q-learning as a LightningModule, short enough to read in five minutes.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=2000, logger=False)
    trainer.fit(DQN("CartPole-v1"))

Each training batch plays a few env steps, then learns from a sample of all that was played (Mnih et al. 2015,
"Human-level control through deep reinforcement learning") with the double-Q target (van Hasselt et al. 2016, "Deep
reinforcement learning with double Q-learning"). Observations may be flat, or pictures as Atari's.

In shapes, B is the number of transitions in a batch, O the size of an observation and A the number of actions.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlwandb_callbacks.demos.networks import make_cnn, make_mlp, seeded
from rlwandb_callbacks.demos.playing import Player, PlayingModule, follow, make_env
from rlwandb_callbacks.demos.replay_buffer import ReplayBuffer, Transitions

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler


def make_q_network(env: gym.Env[Any, Any], hidden_size: int) -> tuple[nn.Sequential, int]:
    """A network from observations [B, ...] to q-values [B, A], and A; convolutional where observations are pictures.

    Raises:
        ValueError: If the env has other observations, or actions that are not 0 to A - 1.
    """
    match env.observation_space, env.action_space:
        case gym.spaces.Box(shape=(size,)), gym.spaces.Discrete(n=n, start=0):
            return make_mlp([size, hidden_size, hidden_size, int(n)]), int(n)
        case gym.spaces.Box(shape=(_, _, _) as shape, dtype=np.uint8), gym.spaces.Discrete(n=n, start=0):
            return make_cnn(shape, hidden_size, int(n)), int(n)
        case spaces:
            raise ValueError(
                "DQN needs a flat Box of observations, or one of bytes [C, H, W], and Discrete actions from 0 on; "
                f"{env} has {spaces}"
            )


def epsilon_greedy_entropy(epsilon: float, num_actions: int) -> float:
    """Entropy in nats, 0 to log(A), of taking a uniform action with probability `epsilon`, else the best one."""
    probabilities = [1.0 - epsilon + epsilon / num_actions] + [epsilon / num_actions] * (num_actions - 1)
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)


class DQN(PlayingModule):
    """Deep Q-network with double-Q targets from a target network that follows slowly.

    Args:
        env_id: Gymnasium env, or import path of a function that makes one, with Discrete actions and a Box of
            observations: flat, or pictures of bytes [C, H, W].
        learning_rate: Adam's at the start; it falls linearly to 0 at the last update.
        gamma: Discount per env step.
        hidden_size: Units in each hidden layer that is not a convolution.
        batch_size: Transitions per update.
        buffer_size: Observations kept. All of a short training, so that the early failures are not forgotten.
        stacked_frames: K where observations are stacks of the last K frames, which saves memory; else 1.
        clips_rewards: Learn from rewards clipped to -1 to 1. Then q-values are not on the scale of returns, and
            `q/bias` tells nothing.
        warmup_env_steps: Uniformly random steps before the first update.
        env_steps_per_update: Steps played before each update.
        total_env_steps: Length of the training, warm-up included.
        epsilon_start: Probability of a random action in the beginning.
        epsilon_end: The same from `epsilon_env_steps` on.
        epsilon_env_steps: Steps over which epsilon falls linearly.
        target_update_rate: RankResult of the way that the target network moves to the trained one after each update.
        seed: Seeds weights, env, exploration and sampling.

    Attributes:
        q_network: The trained network, observations [B, ...] to q-values [B, A].
    """

    def __init__(
        self,
        env_id: str = "CartPole-v1",
        *,
        learning_rate: float = 4e-3,
        gamma: float = 0.99,
        hidden_size: int = 128,
        batch_size: int = 128,
        buffer_size: int = 50_000,
        stacked_frames: int = 1,
        clips_rewards: bool = False,
        warmup_env_steps: int = 1_000,
        env_steps_per_update: int = 4,
        total_env_steps: int = 33_000,
        epsilon_start: float = 1.0,
        epsilon_end: float = 0.1,
        epsilon_env_steps: int = 10_000,
        target_update_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        env = make_env(env_id)
        with seeded(seed):
            self.q_network, self.num_actions = make_q_network(env, hidden_size)
        self.target_network = copy.deepcopy(self.q_network).requires_grad_(False)
        self.replay = ReplayBuffer(
            buffer_size, env.observation_space, env.action_space, stacked_frames=stacked_frames, seed=seed
        )
        self.player = Player(env, self.replay, seed, clips_rewards=clips_rewards)
        self.num_updates = (total_env_steps - warmup_env_steps) // env_steps_per_update
        self.uses_one_thread = len(env.observation_space.shape or ()) == 1
        self._exploring = np.random.default_rng(seed)

    @property
    def epsilon(self) -> float:
        """Probability of a random action now."""
        start, end, over = (self.hparams[f"epsilon_{name}"] for name in ("start", "end", "env_steps"))
        return float(start + (end - start) * min(1.0, self.env_steps / over))

    def forward(self, observation: Tensor) -> Tensor:
        """Observations [B, ...] to q-values [B, A]."""
        q_values: Tensor = self.q_network(observation)
        return q_values

    def on_train_start(self) -> None:
        """Fills the replay buffer with random play."""
        self._play(1.0, self.hparams["warmup_env_steps"])

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Plays, then learns from a sample.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            `loss` []; detached `q_value`, `target_q_value` and `td_error` [B] of the actions taken; `epsilon`, and
            `entropy` of the epsilon-greedy policy in nats; `env_steps` so far.
        """
        episodes = self.player.episodes
        self._play(self.epsilon, self.hparams["env_steps_per_update"])
        if self.player.episodes > episodes:
            self.show_returns(self.player.returns)
        rows = self.replay.sample(self.hparams["batch_size"]).to(self.device)
        q_value = self(rows.observation).gather(1, rows.action[:, None])[:, 0]
        target_q_value = self._target(rows)
        return {
            "loss": nn.functional.mse_loss(q_value, target_q_value),
            "q_value": q_value.detach(),
            "target_q_value": target_q_value,
            "td_error": target_q_value - q_value.detach(),
            "epsilon": self.epsilon,
            "entropy": epsilon_greedy_entropy(self.epsilon, self.num_actions),
            "env_steps": self.env_steps,
        }

    def _play(self, epsilon: float, env_steps: int) -> None:
        self.player.play(lambda observation: self._choose(observation, epsilon), env_steps)
        self.env_steps += env_steps

    @torch.no_grad()
    def _choose(self, observation: npt.NDArray[Any], epsilon: float) -> int:
        if self._exploring.random() < epsilon:
            return int(self._exploring.integers(self.num_actions))
        return int(self(torch.as_tensor(observation, device=self.device)[None]).argmax())

    @torch.no_grad()
    def _target(self, rows: Transitions) -> Tensor:
        """[B]: reward plus discounted next value; the trained network chooses the action, the target one rates it."""
        best = self(rows.next_observation).argmax(1, keepdim=True)
        next_value = self.target_network(rows.next_observation).gather(1, best)[:, 0]
        target: Tensor = rows.reward + self.hparams["gamma"] * ~rows.terminated * next_value
        return target

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Moves the target network a little towards the trained one."""
        follow(self.target_network, self.q_network, self.hparams["target_update_rate"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and a learning rate that falls to 0 so that the training ends at rest."""
        optimizer = torch.optim.Adam(self.q_network.parameters(), self.hparams["learning_rate"])
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.num_updates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": fall, "interval": "step"}}
