"""Each rule speaks where it should, and is silent where not."""

from __future__ import annotations

import math

import pytest

from rlwandb_callbacks.callbacks.alerts.rules import (
    AlertRules,
    collapsed_entropy,
    exploding_q_values,
    is_low,
    not_finite,
)


def fired(rules: AlertRules, *rows: dict[str, float]) -> list[list[str]]:
    return [[alert.rule for alert in rules.judge(row)] for row in rows]


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
def test_other_numbers_are_no_q_values(key: str) -> None:
    assert exploding_q_values({key: 1e9}, limit=1.0) is None


@pytest.mark.parametrize(
    ("value", "limit", "collapsed"),
    [
        *((0.009, 0.01, True), (0.0, 0.01, True), (-1e-9, 0.01, True), (0.01, 0.01, False)),
        *((math.nan, 0.01, False), (-3.0, 0.01, False), (-3.0, -2.0, True), (-1.0, -2.0, False)),
    ],
)
def test_entropy_of_densities_may_be_negative(value: float, limit: float, collapsed: bool) -> None:
    assert (collapsed_entropy({"policy/entropy": value}, limit=limit) is not None) is collapsed


def test_entropy_that_was_never_there_has_not_collapsed() -> None:
    assert fired(AlertRules(), {"train/entropy": 0.0}, {"train/entropy": 0.5}, {"train/entropy": 0.0}) == [
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
def test_a_fall_is_measured_by_the_best_or_by_what_was_gained(
    now: float, best: float, lowest: float, low: bool
) -> None:
    assert is_low(now, best=best, lowest=lowest, share=0.5) is low


def test_returns_must_stay_low_and_the_evaluation_counts_before_the_training_episodes() -> None:
    key = "eval/return_mean"
    assert fired(AlertRules(), *({key: value} for value in (10.0, 500.0, 100.0, 400.0, 100.0, 90.0, 80.0))) == [
        *([[]] * 5),
        ["returns"],
        [],
    ]
    rows = [{"rollout/return_mean": value, key: 500.0} for value in (500.0, 1.0, 1.0, 1.0)]
    assert fired(AlertRules(), *rows) == [[]] * 4
    rollouts = [{"rollout/return_mean": value} for value in (500.0, 1.0, 1.0)]
    assert fired(AlertRules(), *rollouts) == [[], [], ["returns"]]


def test_a_later_best_is_measured_by_what_was_lowest_until_then() -> None:
    rules = AlertRules(return_patience=1)
    rows = [{"eval/return_mean": value} for value in (-100.0, -1000.0, -90.0, -500.0, -600.0)]
    assert fired(rules, rows[0], rows[1]) == [[], ["returns"]]
    assert fired(AlertRules(return_patience=1), rows[1], *rows[2:]) == [[], [], [], ["returns"]]


def test_rules_that_are_left_out_never_speak() -> None:
    rules = AlertRules(max_q_value=None, min_entropy=None, finite=False, return_fall=None)
    bad = {"train/q_value": math.inf, "train/entropy": 0.0, "train/loss": math.nan, "eval/return_mean": -1e9}
    good = {"train/q_value": 0.0, "train/entropy": 1.0, "train/loss": 1.0, "eval/return_mean": 1e9}
    assert fired(rules, good, bad, bad) == [[], [], []]


def test_each_rule_speaks_once_also_with_what_was_said_before() -> None:
    bad = {"train/q_value": 1e9, "train/loss": math.nan}
    assert fired(AlertRules(), bad, bad) == [["not_finite", "q_values"], []]
    assert fired(AlertRules(fired={"q_values": 1}), bad) == [["not_finite"]]


@pytest.mark.parametrize("loss", [math.nan, 0.1])
def test_q_values_that_are_nan_are_told_once(loss: float) -> None:
    bad = {"train/q_value": math.nan, "q/mean": math.nan, "train/loss": loss}
    (alert,) = AlertRules().judge(bad)
    assert (alert.rule, alert.text) == ("not_finite", "train/q_value is nan")
    assert fired(AlertRules(finite=False), bad) == [[]]


def test_titles_fit_what_wandb_allows() -> None:
    rules = AlertRules(return_patience=1)
    start = {"train/entropy": 1.0, "eval/return_mean": 100.0}
    bad = {"train/q_value": 1e9, "train/loss": math.nan, "train/entropy": 0.0, "eval/return_mean": 1.0}
    alerts = [*rules.judge(start), *rules.judge(bad)]
    assert len(alerts) == 4
    assert all(len(alert.title) < 64 for alert in alerts)
