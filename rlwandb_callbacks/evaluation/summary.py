"""Everything that an evaluation says in numbers, distributions and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlwandb_callbacks.core.action_spec import (
    ActionSpec,
    ContinuousActions,
    DiscreteActions,
    GroupedActions,
    OtherActions,
    choices_of,
)
from rlwandb_callbacks.core.episode import Episode, Grouped, groups_of
from rlwandb_callbacks.core.histograms import count_actions, histogram
from rlwandb_callbacks.core.infos import summarize_infos
from rlwandb_callbacks.core.values import Histogram, Image, Value
from rlwandb_callbacks.evaluation.returns import episode_table, summarize
from rlwandb_callbacks.evaluation.value_error import ValueErrors, value_errors
from rlwandb_callbacks.media.figures import prediction_against_return, return_distribution
from rlwandb_callbacks.policies.scores import mean_chosen_q, mean_entropy

DEFAULT_GAMMA = 0.99
MAX_ACTION_HISTOGRAMS = 16


def scalars(episodes: Sequence[Episode], *, gamma: float, actions: ActionSpec) -> dict[str, float]:
    """The numbers of an evaluation by their keys: ``eval/…``, ``q/mean``, ``policy/entropy``.

    Args:
        episodes: At least one.
        gamma: Discount factor in [0, 1].
        actions: Of the environment.
    """
    summary = summarize(episodes, gamma=gamma) | summarize_infos([episode.infos for episode in episodes])
    numbers = {f"eval/{name}": value for name, value in summary.items()}
    further = {"q/mean": mean_chosen_q(episodes, first=first_of(actions)), "policy/entropy": mean_entropy(episodes)}
    return numbers | {key: value for key, value in further.items() if value is not None}


def first_of(actions: ActionSpec) -> int | list[int]:
    """The smallest action of each choice of an environment with finite actions, else 0."""
    return [choice.first for choice in choices_of(actions)] or 0


def error_values(errors: ValueErrors) -> dict[str, Value]:
    """The picture of predictions against returns, where there is a step to show."""
    if not len(errors.predictions):
        return {}
    title = f"bias {errors.bias:+,.4g}, mean absolute error {errors.absolute_error:,.4g}"
    picture = prediction_against_return(errors.predictions, errors.returns, quantity=errors.quantity, title=title)
    caption = f"{errors.quantity} against the return that came, {len(errors.predictions):,} of {errors.steps:,} steps"
    return {"q/prediction_vs_return": Image(picture, caption)}


def action_histograms(episodes: Sequence[Episode], actions: ActionSpec) -> dict[str, Value]:
    """Which actions were taken: one histogram, or one per dimension of the action (the first 16)."""
    taken = [episode.actions.reshape(episode.length, -1) for episode in episodes if episode.length]
    if not taken or isinstance(actions, OtherActions):
        return {}
    columns = np.concatenate(taken).T[:MAX_ACTION_HISTOGRAMS]
    counts: list[Histogram | None]
    if isinstance(actions, ContinuousActions):
        counts = [histogram(column) for column in columns]
    else:
        counts = [
            count_actions(column, first=choice.first, n=len(choice.names))
            for column, choice in zip(columns, choices_of(actions), strict=False)
        ]
    names = [f"policy/action_histogram{f'_{i}' if len(counts) > 1 else ''}" for i in range(len(counts))]
    return {name: value for name, value in zip(names, counts, strict=True) if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one evaluation, and how to read them.

    Args:
        episodes: At least one, in the order of their seeds.
        gamma: Discount factor in [0, 1] of the training; None where it is not known. Discounted returns are then
            reported with the usual 0.99, and predictions are not compared with returns.
        actions: Of the environment.
    """

    episodes: Sequence[Episode]
    gamma: float | None
    actions: ActionSpec

    def numbers(self) -> dict[str, float]:
        """See :func:`scalars` and :meth:`ValueErrors.numbers`."""
        errors = self._errors.numbers() if self._errors else {}
        return scalars(self.episodes, gamma=self._shown_gamma, actions=self.actions) | errors

    def distributions(self, *, with_returns: bool) -> dict[str, Value]:
        """The table of episodes, and histograms of actions and returns.

        Args:
            with_returns: Also the histogram of returns.
        """
        table = episode_table(self.episodes, gamma=self._shown_gamma)
        counted = histogram(np.array(self._returns)) if with_returns else None
        returns: dict[str, Value] = {} if counted is None else {"eval/return_distribution": counted}
        return {"eval/episodes": table, **action_histograms(self.episodes, self.actions), **returns}

    def figures(self, *, with_returns: bool) -> dict[str, Value]:
        """Pictures, which take some 100 ms.

        Args:
            with_returns: The distribution of returns.
        """
        values = error_values(self._errors) if self._errors else {}
        title = f"Returns of {len(self.episodes)} evaluation episodes"
        picture = return_distribution(self._returns, title=title) if with_returns else None
        return values | ({} if picture is None else {"eval/return_figure": Image(picture, title)})

    @property
    def _returns(self) -> list[float]:
        return [episode.total_return for episode in self.episodes]

    @property
    def is_compared(self) -> bool:
        """Whether there are predictions that returns can be compared with."""
        return self._errors is not None and len(self._errors.predictions) > 0

    @property
    def _shown_gamma(self) -> float:
        return DEFAULT_GAMMA if self.gamma is None else self.gamma

    @cached_property
    def _errors(self) -> ValueErrors | None:
        if self.gamma is None:
            return None
        return value_errors(self.episodes, gamma=self.gamma, first=first_of(self.actions))


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
    widths = [group.values.shape[-1] for episode in episodes for group in groups_of(episode.scores)]
    grouped = next((episode.scores for episode in episodes if isinstance(episode.scores, Grouped)), None)
    if grouped is not None and len(grouped.groups) == actions.shape[1]:
        sizes = widths[: len(grouped.groups)]
        return GroupedActions(tuple(DiscreteActions(tuple(map(str, range(size)))) for size in sizes))
    if actions.shape[1] != 1 or actions.min() < 0:
        return OtherActions()
    return DiscreteActions(tuple(map(str, range(max([int(actions.max(initial=0)) + 1, *widths])))))
