"""Makes offline data of Pendulum-v1: episodes of a controller with a varying fraction of random actions.

    write_dataset(Path("pendulum.npz"), episodes=100, seed=0)

The file has the flat arrays of D4RL (Fu et al. 2020): `observations`, `actions`, `rewards`, `next_observations`,
`terminals`, `timeouts`, with one row per env step, N in all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

ENV_ID = "Pendulum-v1"
EPISODE_STEPS = 200  # Pendulum never terminates; this is its time limit
MAX_TORQUE = 2.0
Rows = dict[str, NDArray[Any]]


def swing_up(observation: NDArray[np.float32]) -> float:
    """Swings the pendulum up by energy, then balances it (Åström and Furuta 2000).

    Args:
        observation: Cosine and sine of the angle from upright, and angular velocity in rad/s; shape [3].

    Returns:
        Torque in [-2, 2].
    """
    cosine, sine, velocity = (float(entry) for entry in observation)
    angle = np.arctan2(sine, cosine)
    if abs(angle) < 0.5 and abs(velocity) < 2.5:
        torque = -20.0 * angle - 4.0 * velocity
    else:
        missing_energy = 5.0 - (velocity**2 / 6.0 + 5.0 * cosine)  # of a rod of 1 kg and 1 m, at rest when upright
        torque = 3.0 * missing_energy * (velocity if abs(velocity) > 0.05 else 0.1)
    return float(np.clip(torque, -MAX_TORQUE, MAX_TORQUE))


def make_dataset(episodes: int, seed: int) -> Rows:
    """Plays episodes, each with its own fraction of uniformly random actions; all other actions are the controller's.

    Args:
        episodes: Number of episodes, ≥ 1.
        seed: Seed of the fractions, the random actions and the initial states.

    Returns:
        Arrays with D4RL's names, N = 200 × episodes: observations [N, 3], actions [N, 1] in [-2, 2],
        rewards [N], next_observations [N, 3], terminals [N], timeouts [N].
    """
    rng = np.random.default_rng(seed)
    env = gym.make(ENV_ID)
    env.reset(seed=seed)
    steps = [step for fraction in rng.random(episodes) for step in _play_episode(env, float(fraction), rng)]
    env.close()
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {name: np.stack(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}


def _play_episode(env: gym.Env[Any, Any], random_fraction: float, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    steps: list[tuple[Any, ...]] = []
    observation, _ = env.reset()
    truncated = False
    while not truncated:
        is_random = rng.random() < random_fraction
        torque = rng.uniform(-MAX_TORQUE, MAX_TORQUE) if is_random else swing_up(observation)
        action = np.array([torque], np.float32)
        next_observation, reward, terminated, truncated, _ = env.step(action)
        steps.append(
            (observation, action, np.float32(reward), next_observation, np.bool_(terminated), np.bool_(truncated))
        )
        observation = next_observation
    return steps


def episode_returns(rows: Rows) -> NDArray[np.float64]:
    """Returns the undiscounted return of each episode, shape [episodes]."""
    returns: NDArray[np.float64] = rows["rewards"].astype(np.float64).reshape(-1, EPISODE_STEPS).sum(axis=1)
    return returns


def write_dataset(path: Path, *, episodes: int, seed: int) -> None:
    """Makes a data set and writes it atomically: an existing file is replaced only by a complete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = make_dataset(episodes, seed)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, **rows)  # type: ignore[arg-type]  # mypy: `rows` might hold the keyword `allow_pickle`
    temporary = Path(file.name)
    temporary.chmod(0o644)  # temporary files are readable by their owner only
    temporary.replace(path)


def read_dataset(path: Path) -> Rows:
    """Reads a file of :func:`write_dataset`."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
