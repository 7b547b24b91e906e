"""Common parts of the online demos: making an env, playing it while training, and the Lightning hooks for that."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from rlwandb_callbacks.demos.replay_buffer import Observation, ReplayBuffer, Transition
from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.errors import EnvError

EXTRAS = ("box2d", "mujoco")  # named the same in this package and in Gymnasium


def make_env(env_id: str) -> gym.Env[Any, Any]:
    """Makes a training env.

    Args:
        env_id: Gymnasium id, or import path of an env factory (`package.module:function`).

    Raises:
        rlwandb_callbacks.EnvError: If the env does not exist.
        ImportError: If the env's simulator is not installed; the message says how to install it.
    """
    try:
        return env_factory(env_id, {})()
    except EnvError as error:
        if not isinstance(error.__cause__, ImportError | gym.error.DependencyNotInstalled):
            raise
        raise ImportError(_missing_simulator(env_id, error.__cause__)) from error


def _missing_simulator(env_id: str, cause: Exception) -> str:
    entry_point = str(gym.registry[env_id].entry_point) if env_id in gym.registry else ""
    extra = next((extra for extra in EXTRAS if extra in entry_point), None)
    if extra is None:
        return f"{env_id} cannot be made: {cause}"
    return f'{env_id} needs {extra}; install it with: pip install "rlwandb-callbacks[{extra}]"'


class Player:
    """Plays one env, episode after episode, and stores every step in a replay buffer.

    Args:
        env: Env to play.
        replay: Buffer that stores the steps.
        seed: Seed of the env's first reset.
        stacked_frames: K if observations are stacks [K, ...] of the last K frames, as
            `gymnasium.wrappers.FrameStackObservation` makes them: each frame is then stored once. Otherwise 1.
        clips_rewards: Whether stored rewards are clipped to -1 to 1, as is usual for Atari, where the scores of games
            differ by orders of magnitude.

    Attributes:
        episodes: Episodes completed so far.
        returns: Undiscounted, unclipped returns of the last 20 completed episodes, exploration included.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        replay: ReplayBuffer,
        seed: int,
        *,
        stacked_frames: int = 1,
        clips_rewards: bool = False,
    ) -> None:
        self.episodes = 0
        self.returns: deque[float] = deque(maxlen=20)
        self._env = env
        self._replay = replay
        self._stacked_frames = stacked_frames
        self._clips_rewards = clips_rewards
        self._observation_dtype = np.uint8 if env.observation_space.dtype == np.uint8 else np.float32
        self._action_dtype = np.int64 if isinstance(env.action_space, gym.spaces.Discrete) else np.float32
        self._stored: Observation = ()
        self._begin_episode(seed)

    def play(self, choose: Callable[[npt.NDArray[Any]], Any], env_steps: int) -> None:
        """Continues where the last call stopped.

        Args:
            choose: Maps an observation, uint8 or float32, to an action.
            env_steps: Number of steps to play.
        """
        for _ in range(env_steps):
            action = choose(self._observation)
            observation, reward, terminated, truncated, _ = self._env.step(action)
            self._return += float(reward)
            self._store(action, float(reward), observation, terminated)
            if terminated or truncated:
                self._end_episode()

    def _store(self, action: Any, reward: float, observation: Any, terminated: bool) -> None:
        previous = self._stored
        self._observation = np.array(observation, self._observation_dtype)
        self._stored = self._share_frames(previous)
        stored_reward = max(-1.0, min(reward, 1.0)) if self._clips_rewards else reward
        stored_action = np.asarray(action, self._action_dtype)
        self._replay.add(Transition(previous, stored_action, np.float32(stored_reward), self._stored, bool(terminated)))

    def _share_frames(self, previous: Observation) -> Observation:
        """Returns the observation as it is stored: a stack shares all frames but the newest with the previous one."""
        return self._observation if self._stacked_frames == 1 else (*previous[1:], self._observation[-1].copy())

    def _end_episode(self) -> None:
        self.episodes += 1
        self.returns.append(self._return)
        self._begin_episode(seed=None)

    def _begin_episode(self, seed: int | None) -> None:
        self._return = 0.0
        observation, _ = self._env.reset(seed=seed)
        self._observation = np.array(observation, self._observation_dtype)
        if self._stacked_frames > 1:
            self._check_first_stack()
        self._stored = self._share_frames(tuple(self._observation))

    def _check_first_stack(self) -> None:
        stack, count = self._observation, self._stacked_frames
        if len(stack) != count or not np.all(stack == stack[-1:]):
            raise ValueError(
                f"stacked_frames is {count}, but the first observation, of shape {list(stack.shape)}, is not one frame "
                f"repeated {count} times, as FrameStackObservation(padding_type='reset') returns it. Set "
                "stacked_frames to the number of stacked frames, or to 1 for other observations."
            )


class PlayingModule(pl.LightningModule):
    """Base of modules that generate their own data: each training batch plays some env steps, then learns.

    One epoch is the whole training. ``Trainer(val_check_interval=n)`` runs the validation hooks, in which callbacks
    evaluate, every n batches; the validation itself is empty. Small networks train on one thread, which is faster,
    especially on a busy machine; torch's number of threads is restored at the end of fit.

    Attributes:
        num_updates: Number of batches in the whole training; subclasses set it.
        env_steps: Env steps played so far; callbacks use it as an axis.
        uses_one_thread: False if the networks are large enough to gain from more threads.
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
        """Restores the number of threads."""
        torch.set_num_threads(self._threads_before)

    def log_mean_return(self, returns: Sequence[float]) -> None:
        """Shows the mean of the latest returns on the progress bar; call it when an episode has ended."""
        self.log("return", float(np.mean(returns)), prog_bar=True, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the count of env steps. Transitions are not saved: a resumed training warms up again."""
        checkpoint["env_steps"] = self.env_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the count of env steps."""
        self.env_steps = checkpoint["env_steps"]

    def train_dataloader(self) -> range:
        """Returns one number per batch, as the data comes from play; its length is the progress bar's total."""
        return range(self.num_updates)

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Does nothing; Lightning calls the validation hooks only if it exists."""

    def val_dataloader(self) -> range:
        """Returns a single empty batch."""
        return range(1)


@torch.no_grad()
def soft_update(target: torch.nn.Module, source: torch.nn.Module, rate: float) -> None:
    """Updates a target network in place to `(1 - rate) * target + rate * source`.

    Args:
        target: Target network.
        source: Trained network with the same parameters.
        rate: 0 to 1.
    """
    for target_parameter, source_parameter in zip(target.parameters(), source.parameters(), strict=True):
        target_parameter.lerp_(source_parameter, rate)
