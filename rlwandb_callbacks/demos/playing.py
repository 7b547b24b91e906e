"""What the demo agents have in common: an env that they play while they learn, and the hooks around that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from rlwandb_callbacks.demos.replay_buffer import ReplayBuffer
from rlwandb_callbacks.environments.factory import env_maker
from rlwandb_callbacks.errors import EnvError

EXTRAS = ("box2d", "mujoco")  # of ours and of Gymnasium's alike


def make_env(env_id: str) -> gym.Env[Any, Any]:
    """Makes an env to train in.

    Args:
        env_id: Gymnasium id, or import path of a function that makes an env (`package.module:function`).

    Raises:
        rlwandb_callbacks.EnvError: If there is no such env.
        ImportError: If the env's simulator is not installed; the message says how to install it.
    """
    try:
        return env_maker(env_id, {})()
    except EnvError as error:
        if not isinstance(error.__cause__, ImportError | gym.error.DependencyNotInstalled):
            raise
        raise ImportError(_remedy(env_id, error.__cause__)) from error


def _remedy(env_id: str, cause: Exception) -> str:
    home = str(gym.registry[env_id].entry_point) if env_id in gym.registry else ""
    extra = next((extra for extra in EXTRAS if extra in home), None)
    if extra is None:
        return f"{env_id} cannot be made: {cause}"
    return f'{env_id} needs {extra}; install it with: pip install "rlwandb-callbacks[{extra}]"'


class Player:
    """Plays one env on and on, and puts what happens into a replay buffer.

    Args:
        env: The env.
        replay: Takes every step.
        seed: Of the env's first reset.
        clips_rewards: Keep rewards clipped to -1 to 1, as is usual for Atari, where scores differ by orders of
            magnitude from game to game.

    Attributes:
        episodes: Episodes completed so far.
        returns: Undiscounted returns of the last 20 complete episodes, exploration included, nothing clipped.
    """

    def __init__(self, env: gym.Env[Any, Any], replay: ReplayBuffer, seed: int, *, clips_rewards: bool = False) -> None:
        self.episodes = 0
        self.returns: deque[float] = deque(maxlen=20)
        self._env = env
        self._replay = replay
        self._clips_rewards = clips_rewards
        self._return = 0.0
        self._observation = self._begin(seed)

    def play(self, choose: Callable[[npt.NDArray[Any]], Any], env_steps: int) -> None:
        """Goes on where the last call stopped.

        Args:
            choose: Maps an observation, in the replay buffer's dtype, to an action.
            env_steps: Steps to play.
        """
        for _ in range(env_steps):
            action = choose(self._observation)
            observation, reward, terminated, truncated, _ = self._env.step(action)
            self._return += float(reward)
            kept_reward = max(-1.0, min(float(reward), 1.0)) if self._clips_rewards else float(reward)
            self._replay.add(action, kept_reward, observation, terminated)
            self._observation = self._next_episode() if terminated or truncated else self._taken(observation)

    def _next_episode(self) -> npt.NDArray[Any]:
        self.episodes += 1
        self.returns.append(self._return)
        self._return = 0.0
        return self._begin(seed=None)

    def _begin(self, seed: int | None) -> npt.NDArray[Any]:
        observation, _ = self._env.reset(seed=seed)
        self._replay.begin(observation)
        return self._taken(observation)

    def _taken(self, observation: Any) -> npt.NDArray[Any]:
        return np.array(observation, self._replay.dtype)


class PlayingModule(pl.LightningModule):
    """A module that makes its own data: each training batch plays a while, then learns from what was played.

    One epoch is the whole training. ``Trainer(val_check_interval=n)`` runs the validation hooks, where callbacks
    evaluate, every n batches; the validation itself is empty. Small networks train on one thread, which is faster for
    them, above all beside other work; what torch was set to before comes back at the end of fit.

    Attributes:
        num_updates: Training batches in the whole training; subclasses set it.
        env_steps: Steps played so far, which callbacks take as an axis.
        uses_one_thread: False where networks are large enough to gain from more.
    """

    num_updates: int

    def __init__(self) -> None:
        super().__init__()
        self.env_steps = 0
        self.uses_one_thread = True

    def on_fit_start(self) -> None:
        """Sets the number of threads."""
        self._threads_before = torch.get_num_threads()
        if self.uses_one_thread:
            torch.set_num_threads(1)

    def on_fit_end(self) -> None:
        """Sets the number of threads back."""
        torch.set_num_threads(self._threads_before)

    def show_returns(self, returns: Sequence[float]) -> None:
        """Puts the mean of the latest returns on the progress bar; worth a call only when an episode has ended."""
        self.log("return", float(np.mean(returns)), prog_bar=True, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the count of env steps; what was played is not kept, a resumed training warms up again."""
        checkpoint["env_steps"] = self.env_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Counts on from where the checkpoint stood."""
        self.env_steps = checkpoint["env_steps"]

    def train_dataloader(self) -> range:
        """One number per batch, since the data is played while training; its length is the progress bar's total."""
        return range(self.num_updates)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Nothing to do: it exists so that Lightning calls the validation hooks."""

    def val_dataloader(self) -> range:
        """A single empty batch."""
        return range(1)


@torch.no_grad()
def follow(target: torch.nn.Module, trained: torch.nn.Module, rate: float) -> None:
    """Moves a target network this share of the way to the trained one."""
    for slow, quick in zip(target.parameters(), trained.parameters(), strict=True):
        slow.lerp_(quick, rate)
