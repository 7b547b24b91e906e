"""Deep Q-learning as a LightningModule, short enough to read in five minutes.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=2000, logger=False)
    trainer.fit(DQN("CartPole-v1"))

Each training batch plays a few env steps, then learns from a sample of all that was played (Mnih et al. 2015,
"Human-level control through deep reinforcement learning") with the double-Q target (van Hasselt et al. 2016, "Deep
reinforcement learning with double Q-learning"). TorchRL keeps the replay buffer. The loss is written out, since
TorchRL's `DQNLoss` gives back neither the q-values nor the targets, which are worth looking at.

In shapes, B is the number of transitions in a batch, O the size of an observation and A the number of actions.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

try:
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, ReplayBuffer
except ImportError as error:
    raise ImportError('the demos need TorchRL; install it with: pip install "rlwandb-callbacks[demos]"') from error


class Transition(NamedTuple):
    """One env step, as the replay buffer keeps it."""

    observation: npt.NDArray[np.float32]  # [O]
    action: int
    reward: np.float32
    next_observation: npt.NDArray[np.float32]  # [O]
    terminated: bool  # False where only the time limit struck: the state that follows still has a value


class Player:
    """Plays one env on and on, epsilon-greedily.

    Args:
        env: Env with observations [O].
        num_actions: Its actions are 0 to num_actions - 1.
        seed: Seeds the env and the exploration, nothing else.

    Attributes:
        env_steps: Steps played so far.
        episodes: Episodes completed so far.
        returns: Undiscounted returns of the last 20 complete episodes, exploration included.
    """

    def __init__(self, env: gym.Env[Any, Any], num_actions: int, seed: int) -> None:
        self.env_steps = 0
        self.episodes = 0
        self.returns: deque[float] = deque(maxlen=20)
        self._env = env
        self._num_actions = num_actions
        self._rng = np.random.default_rng(seed)
        self._return = 0.0
        self._observation = self._reset(seed)

    def play(self, q_network: nn.Module, epsilon: float, env_steps: int) -> TensorDict:
        """Goes on where the last call stopped and returns one row per step, under the names of `Transition`."""
        steps = [self._step(self._choose(q_network, epsilon)) for _ in range(env_steps)]
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*steps, strict=True)]
        return TensorDict(dict(zip(Transition._fields, columns, strict=True)), [env_steps])

    @torch.no_grad()
    def _choose(self, q_network: nn.Module, epsilon: float) -> int:
        if self._rng.random() < epsilon:
            return int(self._rng.integers(self._num_actions))
        device = next(q_network.parameters()).device
        return int(q_network(torch.as_tensor(self._observation, device=device)[None]).argmax())

    def _step(self, action: int) -> Transition:
        before = self._observation
        observation, reward, terminated, truncated, _ = self._env.step(action)
        after = np.array(observation, np.float32)
        self.env_steps += 1
        self._return += float(reward)
        self._observation = self._next_episode() if terminated or truncated else after
        return Transition(before, action, np.float32(reward), after, terminated)

    def _next_episode(self) -> npt.NDArray[np.float32]:
        self.episodes += 1
        self.returns.append(self._return)
        self._return = 0.0
        return self._reset(seed=None)

    def _reset(self, seed: int | None) -> npt.NDArray[np.float32]:
        observation, _ = self._env.reset(seed=seed)
        return np.array(observation, np.float32)


def flat_sizes(env: gym.Env[Any, Any]) -> tuple[int, int]:
    """Size of an observation and number of actions; ValueError where they are not flat and discrete."""
    match env.observation_space, env.action_space:
        case gym.spaces.Box(shape=(size,)), gym.spaces.Discrete(n=n, start=0):
            return size, int(n)
        case spaces:
            raise ValueError(f"DQN needs a flat Box of observations and Discrete actions from 0 on; {env} has {spaces}")


def make_q_network(observation_size: int, hidden_size: int, num_actions: int, seed: int) -> nn.Sequential:
    """Maps [B, O] float32 to q-values [B, A]; draws the weights from `seed` and leaves torch's own generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(observation_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, num_actions),
        )


def epsilon_greedy_entropy(epsilon: float, num_actions: int) -> float:
    """Entropy in nats, 0 to log(A), of taking a uniform action with probability `epsilon`, else the best one."""
    probabilities = [1.0 - epsilon + epsilon / num_actions] + [epsilon / num_actions] * (num_actions - 1)
    return -sum(p * math.log(p) for p in probabilities if p > 0.0)


class DQN(pl.LightningModule):
    """Deep Q-network with double-Q targets from a target network that follows slowly.

    One epoch is the whole training. `Trainer(val_check_interval=n)` runs the validation hooks, where callbacks
    evaluate, every n updates; the validation itself is empty.

    Args:
        env_id: Gymnasium env with flat Box observations and Discrete actions.
        learning_rate: Adam's at the start; it falls linearly to 0 at the last update.
        gamma: Discount per env step.
        hidden_size: Units in each of the two hidden layers.
        batch_size: Transitions per update.
        buffer_size: Transitions kept. All of a short training, so that the early failures are not forgotten.
        warmup_env_steps: Uniformly random steps before the first update.
        env_steps_per_update: Steps played before each update.
        total_env_steps: Length of the training, warm-up included.
        epsilon_start: Probability of a random action in the beginning.
        epsilon_end: The same from `epsilon_env_steps` on.
        epsilon_env_steps: Steps over which epsilon falls linearly.
        target_update_rate: Share of the way that the target network moves to the trained one after each update.
        seed: Seeds weights, env, exploration and sampling.

    Attributes:
        q_network: The trained network, observations [B, O] float32 to q-values [B, A].
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
        env = gym.make(env_id)
        observation_size, self.num_actions = flat_sizes(env)
        self.q_network = make_q_network(observation_size, hidden_size, self.num_actions, seed)
        self.target_network = copy.deepcopy(self.q_network).requires_grad_(False)
        self.player = Player(env, self.num_actions, seed)
        self.replay = ReplayBuffer(storage=LazyTensorStorage(buffer_size))
        self._sampling = np.random.default_rng(seed)

    @property
    def num_updates(self) -> int:
        """Updates in the whole training."""
        played = self.hparams["total_env_steps"] - self.hparams["warmup_env_steps"]
        return int(played // self.hparams["env_steps_per_update"])

    @property
    def epsilon(self) -> float:
        """Probability of a random action now."""
        start, end, over = (self.hparams[f"epsilon_{name}"] for name in ("start", "end", "env_steps"))
        return float(start + (end - start) * min(1.0, self.player.env_steps / over))

    def forward(self, observation: Tensor) -> Tensor:
        """Observations [B, O] to q-values [B, A]."""
        q_values: Tensor = self.q_network(observation)
        return q_values

    def on_train_start(self) -> None:
        """Fills the replay buffer with random play."""
        self.replay.extend(self.player.play(self.q_network, 1.0, self.hparams["warmup_env_steps"]))

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Plays, then learns from a sample.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            `loss` []; detached `q_value`, `target_q_value` and `td_error` [B] of the actions taken; `entropy` of the
            epsilon-greedy policy in nats; `env_steps` so far.
        """
        self._play()
        rows = self._sample().to(self.device)
        q_value = self(rows["observation"]).gather(1, rows["action"][:, None])[:, 0]
        target_q_value = self._target(rows)
        return {
            "loss": nn.functional.mse_loss(q_value, target_q_value),
            "q_value": q_value.detach(),
            "target_q_value": target_q_value,
            "td_error": target_q_value - q_value.detach(),
            "entropy": epsilon_greedy_entropy(self.epsilon, self.num_actions),
            "env_steps": self.player.env_steps,
        }

    def _play(self) -> None:
        episodes = self.player.episodes
        self.replay.extend(self.player.play(self.q_network, self.epsilon, self.hparams["env_steps_per_update"]))
        if self.player.episodes > episodes:  # not every batch: a call of `log` costs as much as half an update
            self.log("return", float(np.mean(self.player.returns)), prog_bar=True, logger=False)

    def _sample(self) -> TensorDict:
        indices = self._sampling.integers(len(self.replay), size=self.hparams["batch_size"])
        return self.replay[torch.from_numpy(indices)]

    @torch.no_grad()
    def _target(self, rows: TensorDict) -> Tensor:
        """[B]: reward plus discounted next value; the trained network chooses the action, the target one rates it."""
        best = self(rows["next_observation"]).argmax(1, keepdim=True)
        next_value = self.target_network(rows["next_observation"]).gather(1, best)[:, 0]
        target: Tensor = rows["reward"] + self.hparams["gamma"] * ~rows["terminated"] * next_value
        return target

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Moves the target network a little towards the trained one."""
        for target, trained in zip(self.target_network.parameters(), self.q_network.parameters(), strict=True):
            target.lerp_(trained, self.hparams["target_update_rate"])

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Nothing to do: it exists so that Lightning calls the validation hooks."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and a learning rate that falls to 0 so that the training ends at rest."""
        optimizer = torch.optim.Adam(self.q_network.parameters(), self.hparams["learning_rate"])
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.num_updates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": fall, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the count of env steps; what was played is not kept, a resumed training warms up again."""
        checkpoint["env_steps"] = self.player.env_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Counts on from where the checkpoint stood."""
        self.player.env_steps = checkpoint["env_steps"]

    def train_dataloader(self) -> range:
        """One number per update, since the data is played while training; its length is the progress bar's total."""
        return range(self.num_updates)

    def val_dataloader(self) -> range:
        """A single empty batch."""
        return range(1)
