"""Makes offline data of Pendulum-v1: episodes that are random in part, and a controller's for the rest.

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
    """Controls the pendulum: pumps energy until it is nearly up, then balances (Åström and Furuta 2000).

    Args:
        observation: Shape [3]: cosine and sine of the angle from upright, angular velocity in rad/s.

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
    """Plays episodes, each with its own share of uniformly random actions; in the others the controller acts.

    Args:
        episodes: How many, ≥ 1.
        seed: Of the shares, the random actions and the starts.

    Returns:
        Arrays by the names of D4RL, N = 200 × episodes: observations [N, 3], actions [N, 1] in [-2, 2],
        rewards [N], next_observations [N, 3], terminals [N], timeouts [N].
    """
    rng = np.random.default_rng(seed)
    env = gym.make(ENV_ID)
    env.reset(seed=seed)
    steps = [step for random_share in rng.random(episodes) for step in _episode(env, float(random_share), rng)]
    env.close()
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return {name: np.stack(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}


def _episode(env: gym.Env[Any, Any], random_share: float, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    steps: list[tuple[Any, ...]] = []
    observation, _ = env.reset()
    truncated = False
    while not truncated:
        is_random = rng.random() < random_share
        torque = rng.uniform(-MAX_TORQUE, MAX_TORQUE) if is_random else swing_up(observation)
        action = np.array([torque], np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        steps.append((observation, action, np.float32(reward), after, np.bool_(terminated), np.bool_(truncated)))
        observation = after
    return steps


def episode_returns(rows: Rows) -> NDArray[np.float64]:
    """Undiscounted return of each episode, shape [episodes]."""
    returns: NDArray[np.float64] = rows["rewards"].astype(np.float64).reshape(-1, EPISODE_STEPS).sum(axis=1)
    return returns


def write_dataset(path: Path, *, episodes: int, seed: int) -> None:
    """Makes a data set and writes it in one go, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = make_dataset(episodes, seed)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez(file, **rows)  # type: ignore[arg-type]  # mypy sees that `rows` may hold numpy's own keyword
    made = Path(file.name)
    made.chmod(0o644)  # a temporary file is for its owner alone
    made.replace(path)


def read_dataset(path: Path) -> Rows:
    """Reads what :func:`write_dataset` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
