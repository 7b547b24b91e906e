"""An episode, and the scores of the policy at each of its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.infos import InfoSummary

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class QValues:
    """Action values Q(s, a).

    Args:
        values: Shape ``[..., A]``, in units of return; any sign.
    """

    values: Floats


@dataclass(frozen=True)
class Probabilities:
    """Action probabilities π(a|s).

    Args:
        values: Shape ``[..., A]``, in [0, 1]; sums to 1 over the last axis.
        source: Where they come from, if not from the policy itself ("softmax of q-values").
    """

    values: Floats
    source: str = ""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian policy over a continuous action, or the moments of a squashed one.

    Args:
        mean: Shape ``[..., D]``, in action units.
        std: Shape ``[..., D]``, in action units, ≥ 0.
        entropy: Shape ``[...]``, in nats, of the policy's distribution, with NaN where it is not known; None if the
            distribution is a Gaussian, whose entropy follows from ``std``.
    """

    mean: Floats
    std: Floats
    entropy: Floats | None = None


@dataclass(frozen=True)
class Grouped:
    """Scores of several discrete actions that are taken together (``MultiDiscrete``, ``MultiBinary``).

    Args:
        groups: One per dimension of the action, in order, all of one type and with the same leading axes. A dimension
            of ``MultiBinary`` has the options 0 and 1.
    """

    groups: tuple[QValues | Probabilities, ...]


PolicyScores: TypeAlias = QValues | Probabilities | Gaussian | Grouped


def groups_of(scores: PolicyScores | None) -> tuple[QValues | Probabilities, ...]:
    """Returns the scores of each discrete part of an action; none for a Gaussian and for None."""
    if isinstance(scores, Grouped):
        return scores.groups
    return (scores,) if isinstance(scores, QValues | Probabilities) else ()


def row_of(scores: PolicyScores, index: int) -> PolicyScores:
    """Returns one row along the first axis of scores.

    Example:
        >>> row_of(QValues(np.array([[1.0, 2.0], [3.0, 4.0]])), 1).values
        array([3., 4.])
    """
    if isinstance(scores, Grouped):
        return Grouped(tuple(replace(group, values=group.values[index]) for group in scores.groups))
    if isinstance(scores, Gaussian):
        entropy = None if scores.entropy is None else scores.entropy[index]
        return Gaussian(scores.mean[index], scores.std[index], entropy)
    return replace(scores, values=scores.values[index])


def stack_scores(rows: list[PolicyScores]) -> PolicyScores | None:
    """Stacks the scores of T steps along a new leading axis ``[T, ...]``; returns None if there are no rows.

    All rows must have the type of the first; a policy has one type of scores.
    """
    if not rows:
        return None
    first = rows[0]
    if isinstance(first, Gaussian):
        gaussians = [row for row in rows if isinstance(row, Gaussian)]
        mean, std = np.stack([row.mean for row in gaussians]), np.stack([row.std for row in gaussians])
        known = [row.entropy for row in gaussians if row.entropy is not None]
        return Gaussian(mean, std, np.stack(known) if len(known) == len(gaussians) else None)
    columns = [
        replace(column[0], values=np.stack([group.values for group in column]))
        for column in zip(*map(groups_of, rows), strict=True)
    ]
    return Grouped(tuple(columns)) if isinstance(first, Grouped) else columns[0]


@dataclass(frozen=True)
class PolicyStep:
    """Output of a policy for a batch of B states.

    Args:
        actions: Shape ``[B, ...]``, as the environment accepts them. For ``Dict`` and ``Tuple`` spaces a dict or tuple
            of such arrays.
        scores: Scores with the leading axis B, if the policy has any.
        values: V(s), shape ``[B]``, if the policy returns it.
        chosen_q: Q(s, a) of ``actions``, shape ``[B]``, if a critic returns it and ``scores`` do not contain it.
    """

    actions: NDArray[np.generic]
    scores: PolicyScores | None = None
    values: Floats | None = None
    chosen_q: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A complete episode of T steps.

    Args:
        actions: Actions as passed to the environment, shape ``[T, ...]``; dicts and tuples in an array of objects.
        rewards: Undiscounted rewards, shape ``[T]``, in the environment's unit.
        terminated: The environment reached a terminal state.
        truncated: The environment, or ``max_steps``, cut the episode.
        seed: Seed of the environment's reset; None if unknown (the episode cannot be replayed then).
        scores: Scores of the policy for each action, with the leading axis T.
        values: V(s), shape ``[T]``, if the policy returns it.
        chosen_q: Q(s, a) of the actions, shape ``[T]``, if a critic returns it and ``scores`` do not contain it.
        success: Whether the last step of the episode was a success, if the environment reports it.
        success_any: Whether any step was one, if the environment reports it; None if that is unknown.
        cut_at: The step limit that ended the episode, if it was ``evaluation.max_steps`` and not the environment's.
        digests: Fingerprints of observation and reward, shape ``[T + 1]``, ``uint32``, to check a replay.
        states: Summaries of the observations, structured, shape ``[T + 1]``, to accept a replay whose last bits differ.
        frames: RGB frames, shape ``[T + 1, H, W, 3]``, if they were recorded: ``uint8``, booleans, or floats in [0, 1].
        infos: Summary of each numeric key of the environment's ``info``.
        agent_returns: Undiscounted return by agent if several play together; ``rewards`` are their sums then.
        observations: Observations of every ``observation_stride``-th action, shape ``[ceil(T / observation_stride),
            ...]``, dicts and tuples flattened, if they were recorded.
        observation_stride: Steps between two of ``observations``, ≥ 1.
        score: Score of the whole game to which the episode belongs, in the unit of the game, if wrappers change its
            rewards or end episodes before it is over.
        task: Name of the task, if several are evaluated together.
        env_index: Position of the environment that played it in a vector environment.

    Raises:
        ValueError: If actions, scores, values, chosen_q, digests, frames or observations do not match the number of
            rewards.

    Example:
        >>> episode = Episode(actions=np.array([0, 1]), rewards=np.array([1.0, 2.0]), terminated=True)
        >>> episode.length, episode.total_return, episode.discounted_return(0.5)
        (2, 3.0, 2.0)
    """

    actions: NDArray[np.generic]
    rewards: Floats
    terminated: bool
    truncated: bool = False
    seed: int | None = None
    scores: PolicyScores | None = None
    values: Floats | None = None
    chosen_q: Floats | None = None
    success: bool | None = None
    cut_at: int | None = None
    digests: NDArray[np.uint32] | None = field(default=None, repr=False)
    states: NDArray[np.void] | None = field(default=None, repr=False)
    frames: NDArray[Any] | None = field(default=None, repr=False)
    infos: Mapping[str, InfoSummary] = field(default_factory=dict, repr=False)
    agent_returns: Mapping[str, float] = field(default_factory=dict, repr=False)
    observations: NDArray[np.float32] | None = field(default=None, repr=False)
    observation_stride: int = field(default=1, repr=False)
    success_any: bool | None = None
    score: float | None = None
    task: str | None = None
    env_index: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        expected = dict.fromkeys(("actions", "values", "chosen_q", "scores"), steps)
        expected |= dict.fromkeys(("digests", "states", "frames"), steps + 1)
        expected["observations"] = math.ceil(steps / self.observation_stride)
        for name, count in expected.items():
            array = _score_array(self.scores) if name == "scores" else getattr(self, name)
            if array is not None and len(array) != count:
                raise ValueError(
                    f"Episode.{name} has {len(array)} entries along its first axis; with {steps} rewards it must have "
                    f"{count}."
                )

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(self.rewards)

    @property
    def total_return(self) -> float:
        """Undiscounted sum of rewards, in double precision."""
        return float(np.sum(np.asarray(self.rewards, dtype=np.float64)))

    def discounted_return(self, gamma: float) -> float:
        """Sum of ``gamma ** t * r_t`` from the first state.

        Args:
            gamma: Discount factor in [0, 1].
        """
        if gamma == 0:
            return float(np.sum(np.asarray(self.rewards[:1], dtype=np.float64)))
        weights = np.maximum(np.float64(gamma) ** np.arange(self.length), np.finfo(np.float64).tiny)
        return float(np.sum(self.rewards * weights))  # a weight of 0 would make NaN of an infinite reward

    @property
    def is_cut(self) -> bool:
        """Whether the episode ended although the environment could have gone on."""
        return self.truncated and not self.terminated

    @property
    def ending(self) -> str:
        """How the episode ended, as text for captions and panels."""
        if self.cut_at is not None:
            return f"cut at {self.cut_at:,} steps"
        return "terminated" if self.terminated else "truncated"


def _score_array(scores: PolicyScores | None) -> Floats | None:
    if scores is None:
        return None
    return scores.mean if isinstance(scores, Gaussian) else groups_of(scores)[0].values
