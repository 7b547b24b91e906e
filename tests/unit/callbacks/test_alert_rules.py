"""Each rule alerts on the rows that it should, and on no other."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlwandb_callbacks.callbacks.alerts.rules import (
    AlertRules,
    collapsed_entropy,
    exploding_q_values,
    is_low,
    not_finite,
)
from rlwandb_callbacks.config import AlertsConfig


def fired(rules: AlertRules, *rows: dict[str, float]) -> list[list[str]]:
    return [[alert.rule for alert in rules.check(row)] for row in rows]


def rules_with(**limits: Any) -> AlertRules:
    return AlertRules(AlertsConfig(**limits))


@pytest.mark.parametrize(
    "key",
    [
        *("train/q_value", "train/q_value_max", "train/target_q_value_min", "train/q1", "train/q2_max"),
        *("train/q1_value", "train/q_values_mean", "q/mean", "q/max"),
    ],
)
@pytest.mark.parametrize("value", [101.0, -101.0, math.inf])
def test_q_values_beyond_the_limit_explode(key: str, value: float) -> None:
    assert key in (exploding_q_values({key: value}, limit=100.0) or "")
    assert exploding_q_values({key: 100.0}, limit=100.0) is None


@pytest.mark.parametrize(
    "key", ["train/td_error", "train/loss", "q/bias", "eval/return_mean", "train/qf_loss", "time/q"]
)
def test_other_numbers_are_not_q_values(key: str) -> None:
    assert exploding_q_values({key: 1e9}, limit=1.0) is None


@pytest.mark.parametrize(
    ("value", "limit", "collapsed"),
    [
        *((0.009, 0.01, True), (0.0, 0.01, True), (-1e-9, 0.01, True), (0.01, 0.01, False)),
        *((math.nan, 0.01, False), (-3.0, 0.01, False), (-3.0, -2.0, True), (-1.0, -2.0, False)),
    ],
)
def test_negative_entropy_needs_a_negative_limit(value: float, limit: float, collapsed: bool) -> None:
    assert (collapsed_entropy({"policy/entropy": value}, limit=limit) is not None) is collapsed


def test_entropy_that_was_always_low_has_not_collapsed() -> None:
    assert fired(rules_with(), {"train/entropy": 0.0}, {"train/entropy": 0.5}, {"train/entropy": 0.0}) == [
        [],
        [],
        ["entropy"],
    ]


@pytest.mark.parametrize("key", ["train/loss", "train/critic_loss", "train/grad_norm", "train/grad_norm_actor"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_and_gradients_that_are_not_finite(key: str, value: float) -> None:
    assert key in (not_finite({"train/td_error": 1.0, key: value}) or "")
    assert not_finite({key: 1e30, "train/td_error": math.nan}) is None


@pytest.mark.parametrize(
    ("now", "best", "lowest", "low"),
    [
        (249.0, 500.0, 20.0, True),
        (251.0, 500.0, 20.0, False),
        (-800.0, -150.0, -1400.0, True),
        (-700.0, -150.0, -1400.0, False),
        (-21.0, -20.0, -21.0, False),
        (0.0, 0.0, 0.0, False),
        (-1.0, 20.0, -21.0, True),
        (1.0, 20.0, -21.0, False),
    ],
)
def test_a_fall_is_relative_to_the_best_return_or_to_the_gain(
    now: float, best: float, lowest: float, low: bool
) -> None:
    assert is_low(now, best=best, lowest=lowest, fraction=0.5) is low


def test_returns_must_stay_low_and_evaluations_take_precedence_over_rollouts() -> None:
    key = "eval/return_mean"
    assert fired(rules_with(), *({key: value} for value in (10.0, 500.0, 100.0, 400.0, 100.0, 90.0, 80.0))) == [
        *([[]] * 5),
        ["returns"],
        [],
    ]
    rows = [{"rollout/return_mean": value, key: 500.0} for value in (500.0, 1.0, 1.0, 1.0)]
    assert fired(rules_with(), *rows) == [[]] * 4
    rollouts = [{"rollout/return_mean": value} for value in (500.0, 1.0, 1.0)]
    assert fired(rules_with(), *rollouts) == [[], [], ["returns"]]


def test_the_gain_of_a_later_best_starts_at_the_lowest_return_before_it() -> None:
    rules = rules_with(return_patience=1)
    rows = [{"eval/return_mean": value} for value in (-100.0, -1000.0, -90.0, -500.0, -600.0)]
    assert fired(rules, rows[0], rows[1]) == [[], ["returns"]]
    assert fired(rules_with(return_patience=1), rows[1], *rows[2:]) == [[], [], [], ["returns"]]


def test_rules_that_are_off_never_alert() -> None:
    rules = rules_with(max_q_value=None, min_entropy=None, not_finite=False, return_fall=None)
    bad = {"train/q_value": math.inf, "train/entropy": 0.0, "train/loss": math.nan, "eval/return_mean": -1e9}
    good = {"train/q_value": 0.0, "train/entropy": 1.0, "train/loss": 1.0, "eval/return_mean": 1e9}
    assert fired(rules, good, bad, bad) == [[], [], []]


def test_each_rule_alerts_once_also_after_a_resume() -> None:
    bad = {"train/q_value": 1e9, "train/loss": math.nan}
    assert fired(rules_with(), bad, bad) == [["not_finite", "q_values"], []]
    assert fired(AlertRules(AlertsConfig(), fired=["q_values"]), bad) == [["not_finite"]]


@pytest.mark.parametrize("loss", [math.nan, 0.1])
def test_nan_q_values_are_reported_once(loss: float) -> None:
    bad = {"train/q_value": math.nan, "q/mean": math.nan, "train/loss": loss}
    (alert,) = rules_with().check(bad)
    assert (alert.rule, alert.text) == ("not_finite", "train/q_value is nan")
    assert fired(rules_with(not_finite=False), bad) == [[]]


def test_titles_are_shorter_than_the_limit_of_wandb() -> None:
    rules = rules_with(return_patience=1)
    start = {"train/entropy": 1.0, "eval/return_mean": 100.0}
    bad = {"train/q_value": 1e9, "train/loss": math.nan, "train/entropy": 0.0, "eval/return_mean": 1.0}
    alerts = [*rules.check(start), *rules.check(bad)]
    assert len(alerts) == 4
    assert all(len(alert.title) < 64 for alert in alerts)
