"""Everything that an evaluation says in numbers, distributions and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlwandb_callbacks.core.actions import ActionSpec, ContinuousActions, DiscreteActions, OtherActions
from rlwandb_callbacks.core.behaviour import mean_chosen_q, mean_entropy
from rlwandb_callbacks.core.episode import Episode, Probabilities, QValues
from rlwandb_callbacks.core.figures import return_distribution
from rlwandb_callbacks.core.histograms import count_actions, histogram
from rlwandb_callbacks.core.returns import episode_table, summarise
from rlwandb_callbacks.core.values import Image, Value

MAX_ACTION_HISTOGRAMS = 16


def scalars(episodes: Sequence[Episode], *, gamma: float, actions: ActionSpec) -> dict[str, float]:
    """The numbers of an evaluation by their keys: ``eval/…``, ``q/mean``, ``policy/entropy``.

    Args:
        episodes: At least one.
        gamma: Discount factor in [0, 1].
        actions: Of the environment.
    """
    numbers = {f"eval/{name}": value for name, value in summarise(episodes, gamma=gamma).items()}
    first = actions.first if isinstance(actions, DiscreteActions) else 0
    further = {"q/mean": mean_chosen_q(episodes, first=first), "policy/entropy": mean_entropy(episodes)}
    return numbers | {key: value for key, value in further.items() if value is not None}


def action_histograms(episodes: Sequence[Episode], actions: ActionSpec) -> dict[str, Value]:
    """Which actions were taken: one histogram, or one per dimension of a continuous action (the first 16)."""
    taken = [episode.actions.reshape(episode.length, -1) for episode in episodes if episode.length]
    if not taken:
        return {}
    if isinstance(actions, DiscreteActions):
        counted = count_actions(np.concatenate(taken)[:, 0], first=actions.first, n=len(actions.names))
        return {"policy/action_histogram": counted}
    if not isinstance(actions, ContinuousActions):
        return {}
    columns = np.concatenate(taken).T[:MAX_ACTION_HISTOGRAMS]
    names = (
        ["policy/action_histogram"]
        if len(columns) == 1
        else [f"policy/action_histogram_{i}" for i in range(len(columns))]
    )
    counts = {name: histogram(column) for name, column in zip(names, columns, strict=True)}
    return {name: value for name, value in counts.items() if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, and how to read them.

    Args:
        episodes: At least one, in the order of their seeds.
        gamma: Discount factor in [0, 1].
        actions: Of the environment.
    """

    episodes: Sequence[Episode]
    gamma: float
    actions: ActionSpec

    def numbers(self) -> dict[str, float]:
        """See :func:`scalars`."""
        return scalars(self.episodes, gamma=self.gamma, actions=self.actions)

    def distributions(self, *, with_returns: bool) -> dict[str, Value]:
        """The table of episodes, and histograms of actions and returns.

        Args:
            with_returns: Also the histogram of returns.
        """
        table = episode_table(self.episodes, gamma=self.gamma)
        counted = histogram(np.array(self._returns)) if with_returns else None
        returns: dict[str, Value] = {} if counted is None else {"eval/return_distribution": counted}
        return {"eval/episodes": table, **action_histograms(self.episodes, self.actions), **returns}

    def figures(self, *, with_returns: bool) -> dict[str, Value]:
        """Pictures, which take some 100 ms.

        Args:
            with_returns: The distribution of returns.
        """
        title = f"Returns of {len(self.episodes)} evaluation episodes"
        picture = return_distribution(self._returns, title=title) if with_returns else None
        return {} if picture is None else {"eval/return_figure": Image(picture, title)}

    @property
    def _returns(self) -> list[float]:
        return [episode.total_return for episode in self.episodes]


def guess_actions(episodes: Sequence[Episode]) -> ActionSpec:
    """Describes the actions of episodes that came without an environment, by what was done in them.

    Example:
        >>> guess_actions([Episode(actions=np.array([0, 2]), rewards=np.ones(2), terminated=True)])
        DiscreteActions(names=('0', '1', '2'), first=0)
    """
    taken = [episode.actions.reshape(episode.length, -1) for episode in episodes if episode.length]
    actions = np.concatenate(taken or [np.zeros((1, 0))])
    if actions.dtype.kind == "f" and actions.size:
        unbounded = np.full(actions.shape[1], np.inf)
        return ContinuousActions(-unbounded, unbounded)
    if actions.shape[1] != 1 or actions.min() < 0:
        return OtherActions()
    widths = [e.scores.values.shape[-1] for e in episodes if isinstance(e.scores, QValues | Probabilities)]
    return DiscreteActions(tuple(map(str, range(max([int(actions.max(initial=0)) + 1, *widths])))))
