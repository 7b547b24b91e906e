"""Deep Q-learning as a LightningModule, short enough to read in five minutes.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=2000, logger=False)
    trainer.fit(DQN("CartPole-v1"))

Each training batch plays a few env steps, then learns from a sample of the replay buffer (Mnih et al. 2015,
"Human-level control through deep reinforcement learning") with the double-Q target (van Hasselt et al. 2016, "Deep
reinforcement learning with double Q-learning"). Observations may be flat, or images such as Atari's.

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
from rlwandb_callbacks.demos.playing import Player, PlayingModule, make_env, soft_update
from rlwandb_callbacks.demos.replay_buffer import ReplayBuffer, Transitions
from rlwandb_callbacks.environments.names import env_name

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler


def make_q_network(env: gym.Env[Any, Any], hidden_size: int) -> tuple[nn.Sequential, int]:
    """Makes a network from observations [B, ...] to q-values [B, A], convolutional for images; returns it and A.

    Raises:
        ValueError: If observations are neither flat nor uint8 images, or actions are not 0 to A - 1.
    """
    match env.observation_space, env.action_space:
        case gym.spaces.Box(shape=(size,)), gym.spaces.Discrete(n=n, start=0):
            return make_mlp([size, hidden_size, hidden_size, int(n)]), int(n)
        case gym.spaces.Box(shape=(_, _, _) as shape, dtype=np.uint8), gym.spaces.Discrete(n=n, start=0):
            return make_cnn(shape, hidden_size, int(n)), int(n)
        case spaces:
            raise ValueError(
                "DQN needs a Box of flat observations or uint8 images [C, H, W], and Discrete actions that start at 0; "
                f"{env_name(env)} has {spaces}"
            )


def epsilon_greedy_entropy(epsilon: float, num_actions: int) -> float:
    """Returns the entropy, in nats, of a uniform action with probability `epsilon` and the best action otherwise."""
    probabilities = [1.0 - epsilon + epsilon / num_actions] + [epsilon / num_actions] * (num_actions - 1)
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)


class DQN(PlayingModule):
    """Deep Q-network with double-Q targets and a slowly updated target network.

    Args:
        env_id: Gymnasium id, or import path of an env factory. Actions are Discrete; observations are a Box, flat or
            of uint8 images [C, H, W].
        learning_rate: Adam's learning rate at the start; it decays linearly to 0 at the last update.
        gamma: Discount per env step.
        hidden_size: Units in each fully connected hidden layer.
        batch_size: Transitions per update.
        buffer_size: Transitions kept; by default all of the training, so that early failures are not forgotten.
        stacked_frames: K if observations are stacks of the last K frames: each frame is then stored once. Otherwise 1.
        clips_rewards: Whether to learn from rewards clipped to -1 to 1. Q-values are then not on the scale of returns,
            and `q/bias` has no meaning.
        warmup_env_steps: Uniformly random env steps before the first update.
        env_steps_per_update: Env steps played before each update.
        total_env_steps: Env steps of the whole training, warm-up included.
        epsilon_start: Probability of a random action at the start.
        epsilon_end: Probability of a random action after `epsilon_env_steps`.
        epsilon_env_steps: Env steps over which epsilon decays linearly.
        target_update_rate: Weight of the trained network in each soft update of the target network, 0 to 1.
        seed: Seed of weights, env, exploration and sampling.

    Attributes:
        q_network: Trained network, observations [B, ...] to q-values [B, A].
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
        self.replay = ReplayBuffer(buffer_size, seed)
        self.player = Player(env, self.replay, seed, stacked_frames=stacked_frames, clips_rewards=clips_rewards)
        self.num_updates = (total_env_steps - warmup_env_steps) // env_steps_per_update
        self.uses_one_thread = len(env.observation_space.shape or ()) == 1
        self._exploring = np.random.default_rng(seed)

    @property
    def epsilon(self) -> float:
        """Current probability of a random action."""
        start, end, decay_steps = (self.hparams[f"epsilon_{name}"] for name in ("start", "end", "env_steps"))
        return float(start + (end - start) * min(1.0, self.env_steps / decay_steps))

    def forward(self, observation: Tensor) -> Tensor:
        """Maps observations [B, ...] to q-values [B, A]."""
        q_values: Tensor = self.q_network(observation)
        return q_values

    def on_train_start(self) -> None:
        """Fills the replay buffer with random play."""
        self._play(1.0, self.hparams["warmup_env_steps"])

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Plays, then learns from a sample of the replay buffer.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            `loss` []; detached `q_value`, `target_q_value` and `td_error` [B] of the sampled actions; `epsilon`, and
            `entropy` of the epsilon-greedy policy in nats; `env_steps` so far.
        """
        episodes = self.player.episodes
        self._play(self.epsilon, self.hparams["env_steps_per_update"])
        if self.player.episodes > episodes:
            self.log_mean_return(self.player.returns)
        transitions = self.replay.sample(self.hparams["batch_size"]).to(self.device)
        q_value = self(transitions.observation).gather(1, transitions.action[:, None])[:, 0]
        target_q_value = self._target(transitions)
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
    def _target(self, transitions: Transitions) -> Tensor:
        """Returns reward plus discounted next value, [B]: the target network's of the trained network's action."""
        best = self(transitions.next_observation).argmax(1, keepdim=True)
        next_value = self.target_network(transitions.next_observation).gather(1, best)[:, 0]
        target: Tensor = transitions.reward + self.hparams["gamma"] * ~transitions.terminated * next_value
        return target

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Updates the target network."""
        soft_update(self.target_network, self.q_network, self.hparams["target_update_rate"])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns Adam with a learning rate that decays linearly to 0."""
        optimizer = torch.optim.Adam(self.q_network.parameters(), self.hparams["learning_rate"])
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.num_updates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}
