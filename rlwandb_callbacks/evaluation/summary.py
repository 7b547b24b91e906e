"""Numbers, distributions, tables and figures of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlwandb_callbacks.core.action_spec import (
    MAX_SHOWN_ACTIONS,
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
from rlwandb_callbacks.evaluation.returns import episode_table, summarize, summarize_tasks
from rlwandb_callbacks.evaluation.value_error import ValueErrors, first_cut, horizon, num_judged_steps, value_errors
from rlwandb_callbacks.media.figures import prediction_against_return, return_distribution
from rlwandb_callbacks.policies.scores import mean_chosen_q, mean_entropy

DEFAULT_GAMMA = 0.99


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one evaluation, at least one, in the order of their seeds; and the settings of their summary.

    If the discount factor of the training is unknown (None), discounted returns use 0.99, and predictions are not
    compared with returns. ``step_limit`` is the number of steps after which episodes are cut, None if only those that
    were cut show it. ``constant_infos`` are keys of ``info`` that are not logged.
    """

    episodes: Sequence[Episode]
    gamma: float | None
    actions: ActionSpec
    step_limit: int | None = None
    constant_infos: Collection[str] = ()

    @property
    def has_value_errors(self) -> bool:
        """Whether there are predictions that can be compared with returns."""
        return self._value_errors is not None and len(self._value_errors.predictions) > 0

    def numbers(self) -> dict[str, float]:
        """Returns numbers by their keys: ``eval/…``, ``q/…`` and ``policy/entropy``."""
        summary = summarize(self.episodes, gamma=self._gamma_or_default)
        summary |= summarize_tasks(self.episodes, gamma=self._gamma_or_default)
        summary |= summarize_infos([episode.infos for episode in self.episodes], constants=self.constant_infos)
        numbers = {f"eval/{name}": value for name, value in summary.items()}
        optional = {
            "q/mean": mean_chosen_q(self.episodes, first=self._first_actions),
            "policy/entropy": mean_entropy(self.episodes),
        }
        numbers |= {key: value for key, value in optional.items() if value is not None}
        return numbers | (self._value_errors.numbers() if self._value_errors else {})

    def distributions(self, *, with_returns: bool) -> dict[str, Value]:
        """Returns the table of episodes and the histograms of actions and, ``with_returns``, of returns."""
        table = episode_table(self.episodes, gamma=self._gamma_or_default)
        counted = histogram(np.array(self._returns)) if with_returns else None
        returns: dict[str, Value] = {} if counted is None else {"eval/return_distribution": counted}
        return {"eval/episodes": table, **action_histograms(self.episodes, self.actions), **returns}

    def figures(self, *, with_returns: bool) -> dict[str, Value]:
        """Draws predictions against returns and, ``with_returns``, their distribution; takes about 100 ms each."""
        figures: dict[str, Value] = {}
        if self._value_errors and self.has_value_errors:
            figures["q/prediction_vs_return"] = _value_error_figure(self._value_errors)
        if with_returns:
            title = _returns_title(self._returns)
            figures["eval/return_figure"] = Image(return_distribution(self._returns, title=title), title)
        return figures

    @property
    def _returns(self) -> list[float]:
        return [episode.total_return for episode in self.episodes]

    @property
    def _gamma_or_default(self) -> float:
        return DEFAULT_GAMMA if self.gamma is None else self.gamma

    @property
    def _first_actions(self) -> int | list[int]:
        """Smallest action of each choice if the actions are finite, else 0."""
        return [choice.first for choice in choices_of(self.actions)] or 0

    @cached_property
    def _value_errors(self) -> ValueErrors | None:
        if self.gamma is None:
            return None
        return value_errors(self.episodes, gamma=self.gamma, first=self._first_actions, limit=self.step_limit)

    def describe_unjudged(self) -> str | None:
        """Returns why no prediction of the critic can be compared with a return, if episodes are cut too early."""
        if self._value_errors is None or self.gamma is None:
            return None
        is_judged = num_judged_steps(self.episodes, gamma=self.gamma, limit=self.step_limit) > 0
        limit = first_cut(self.episodes, self.step_limit)
        if is_judged or limit is None or not any(episode.length for episode in self.episodes):
            return None
        steps = horizon(self.gamma)
        if math.isfinite(steps):
            reason = (
                f"with a discount factor of {self.gamma:g} the next {steps:,} rewards have 95 % of the weight in the "
                f"return of a step, and episodes are cut after {limit:,}. Let episodes last at least {steps:,} steps"
            )
        else:
            reason = (
                "with a discount factor of 1 the return of a step is known only at the end of the episode, and "
                f"episodes are cut after {limit:,} steps"
            )
        return f"q/bias, q/abs_error and q/prediction_vs_return are not logged: {reason}."


def _returns_title(returns: Sequence[float]) -> str:
    left_out = sum(not math.isfinite(each) for each in returns)
    title = f"Returns of {len(returns)} evaluation episodes"
    return f"{title}; {left_out} NaN or infinite, not drawn" if left_out else title


def _value_error_figure(errors: ValueErrors) -> Image:
    title = f"bias {errors.bias:+,.4g}, mean absolute error {errors.absolute_error:,.4g}"
    picture = prediction_against_return(errors.predictions, errors.returns, quantity=errors.quantity, title=title)
    steps = f"{len(errors.predictions):,} of {errors.steps:,} steps"
    return Image(picture, f"{errors.quantity} against the discounted return, {steps}")


def action_histograms(episodes: Sequence[Episode], actions: ActionSpec) -> dict[str, Value]:
    """Counts the actions of all episodes: in one histogram, or in one per dimension of the action (the first 18)."""
    taken = [episode.actions.reshape(episode.length, -1) for episode in episodes if episode.length]
    if not taken or isinstance(actions, OtherActions):
        return {}
    columns = np.concatenate(taken).T[:MAX_SHOWN_ACTIONS]
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


def left_out_histograms(actions: ActionSpec) -> str | None:
    """Returns a warning if some dimensions of the action have no histogram.

    Example:
        >>> left_out_histograms(ContinuousActions(-np.ones(26), np.ones(26)))
        'policy/action_histogram is logged for the first 18 of 26 dimensions of the action; 8 are left out.'
    """
    count = actions.low.size if isinstance(actions, ContinuousActions) else len(choices_of(actions))
    if count <= MAX_SHOWN_ACTIONS:
        return None
    return (
        f"policy/action_histogram is logged for the first {MAX_SHOWN_ACTIONS} of {count} dimensions of the action; "
        f"{count - MAX_SHOWN_ACTIONS} are left out."
    )


def infer_action_spec(episodes: Sequence[Episode]) -> ActionSpec:
    """Describes the actions of episodes without an environment, from the actions that were taken.

    Example:
        >>> infer_action_spec([Episode(actions=np.array([0, 2]), rewards=np.ones(2), terminated=True)])
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
