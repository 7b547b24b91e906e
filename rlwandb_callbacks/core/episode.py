"""One played episode, and what the policy thought at every step of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.infos import InfoNumbers

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
        source: What they were made from, when not by the policy itself ("softmax of q-values").
    """

    values: Floats
    source: str = ""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian policy over a continuous action, or the summary of one that was squashed.

    Args:
        mean: Shape ``[..., D]``, in action units.
        std: Shape ``[..., D]``, in action units, ≥ 0.
        entropy: Shape ``[...]``, in nats, as the policy's distribution tells it; None where it does not.
    """

    mean: Floats
    std: Floats
    entropy: Floats | None = None


@dataclass(frozen=True)
class Grouped:
    """Scores of an action that consists of several finite choices: of ``MultiDiscrete`` and ``MultiBinary``.

    Args:
        groups: One per choice, in the order of the action's dimensions, all of one kind and with the same leading
            axes. A switch of ``MultiBinary`` is a choice between 0 and 1.

    Example:
        >>> Grouped((Probabilities(np.array([0.5, 0.5])), Probabilities(np.array([0.1, 0.2, 0.7])))).kind
        <class 'rlwandb_callbacks.core.episode.Probabilities'>
    """

    groups: tuple[QValues | Probabilities, ...]

    @property
    def kind(self) -> type[QValues | Probabilities]:
        """What the groups are."""
        return type(self.groups[0])


PolicyScores: TypeAlias = QValues | Probabilities | Gaussian | Grouped


def groups_of(scores: PolicyScores | None) -> tuple[QValues | Probabilities, ...]:
    """The finite choices that scores are about; none for a Gaussian, or where there are no scores."""
    if isinstance(scores, Grouped):
        return scores.groups
    return (scores,) if isinstance(scores, QValues | Probabilities) else ()


def row_of(scores: PolicyScores, index: int) -> PolicyScores:
    """Takes one row along the first axis of scores.

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
    """Stacks the scores of T steps into one with a leading axis ``[T, ...]``; None where there are no rows.

    All rows are of the kind of the first, as one policy gives one kind.
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
    """What a policy does in a batch of B states.

    Args:
        actions: Shape ``[B, ...]``, as the environment takes them. For ``Dict`` and ``Tuple`` spaces such arrays in a
            dict or tuple.
        scores: Leading axis B, where the policy gives any.
        values: Shape ``[B]``: V(s), where the policy gives it.
        chosen_q: Shape ``[B]``: Q(s, a) of ``actions``, where a critic gives it and ``scores`` do not hold it.
    """

    actions: NDArray[np.generic]
    scores: PolicyScores | None = None
    values: Floats | None = None
    chosen_q: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A complete episode of T steps.

    Args:
        actions: Shape ``[T, ...]``, as they were given to the environment; dicts and tuples in an array of objects.
        rewards: Shape ``[T]``, undiscounted, in the environment's unit.
        terminated: The environment ended in a terminal state.
        truncated: The environment, or ``max_steps``, cut the episode.
        seed: What the environment was reset with; None when unknown (then it cannot be played again).
        scores: Leading axis T: what the policy gave for each action, before it was taken.
        values: Shape ``[T]``: V(s) where the policy gives it.
        chosen_q: Shape ``[T]``: Q(s, a) of the actions, where a critic gives it and ``scores`` do not hold it.
        success: What the environment said of the outcome, where it says so.
        cut_at: The step limit that ended it, when it was ours and not the environment's.
        digests: Shape ``[T + 1]``, ``uint32``: fingerprints of observation and reward, by which a replay is checked.
        frames: Shape ``[T + 1, H, W, 3]``, ``uint8`` RGB, for episodes that bring their pictures along.
        infos: What the numeric keys of the environment's ``info`` came to.
        agent_returns: Undiscounted return by agent, where several play together; ``rewards`` are their sums then.
        observations: Shape ``[ceil(T / observation_stride), ...]``, those of dicts and tuples flat: the states in which
            every ``observation_stride``-th action was taken, for episodes that bring them along.
        observation_stride: Steps between two of ``observations``, ≥ 1.

    Raises:
        ValueError: If the lengths of actions, rewards, scores, values, chosen_q, digests, frames or observations do not
            agree.

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
    frames: NDArray[np.uint8] | None = field(default=None, repr=False)
    infos: Mapping[str, InfoNumbers] = field(default_factory=dict, repr=False)
    agent_returns: Mapping[str, float] = field(default_factory=dict, repr=False)
    observations: NDArray[np.float32] | None = field(default=None, repr=False)
    observation_stride: int = field(default=1, repr=False)

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        per_step = {
            "actions": self.actions,
            "values": self.values,
            "chosen_q": self.chosen_q,
            "scores": _score_array(self.scores),
        }
        per_state = {"digests": self.digests, "frames": self.frames}
        thinned = {"observations": self.observations}
        kept = -(-steps // self.observation_stride)
        for expected, arrays in ((steps, per_step), (steps + 1, per_state), (kept, thinned)):
            for name, array in arrays.items():
                if array is not None and len(array) != expected:
                    raise ValueError(
                        f"Episode.{name} has {len(array)} entries along its first axis; with {steps} rewards it must "
                        f"have {expected}."
                    )

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(self.rewards)

    @property
    def total_return(self) -> float:
        """Undiscounted sum of rewards."""
        return float(np.sum(self.rewards))

    def discounted_return(self, gamma: float) -> float:
        """Sum of ``gamma ** t * r_t`` from the first state.

        Args:
            gamma: Discount factor in [0, 1].
        """
        return float(np.sum(self.rewards * gamma ** np.arange(self.length)))

    @property
    def ending(self) -> str:
        """How it ended, in words for captions and panels."""
        if self.cut_at is not None:
            return f"cut at {self.cut_at:,} steps"
        return "terminated" if self.terminated else "truncated"


def _score_array(scores: PolicyScores | None) -> Floats | None:
    if scores is None:
        return None
    return scores.mean if isinstance(scores, Gaussian) else groups_of(scores)[0].values
