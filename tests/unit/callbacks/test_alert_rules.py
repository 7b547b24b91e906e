"""Each rule alerts on the rows that it should, and on no other."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rlwandb_callbacks.callbacks.alerts.rules import (
    AlertRules,
    collapsed_entropy,
    exploding_q_values,
    not_finite,
    skipped_steps,
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


def evaluated(mean: float, std: float = 10.0, count: float = 8.0) -> dict[str, float]:
    return {"eval/return_mean": mean, "eval/return_std": std, "eval/episodes_count": count}


def test_a_fall_alerts_once_within_two_evaluations() -> None:
    rows = [evaluated(mean) for mean in (100.0, 500.0, 490.0, 480.0, 475.0, 190.0, 180.0)]
    assert fired(rules_with(), *rows[:5]) == [[]] * 5
    assert [alert for alerts in fired(rules_with(), *rows) for alert in alerts] == ["returns"]
    assert fired(rules_with(return_standard_errors=100.0), *rows) == [[]] * 7


def test_the_alert_names_both_returns_and_their_distance() -> None:
    rules = rules_with()
    (alert,) = [alert for mean in (50.0, 50.0, 20.0, 20.0) for alert in rules.check(evaluated(mean, std=7.0))]
    # A drop of 0 and four assumed ones of 15 % of 50: (50 - 20) / sqrt(4 * 7.5**2 / 5) = 4.47. The episodes vary less:
    # 16 on each side with a variance of 7**2 * 8 / 7 = 56, and 56 / 8 = 7 is less than 45 / 2.
    assert alert.text == (
        "eval/return_mean is 20 over the latest two evaluations, and was 50 over the best two; the fall is 4.47 "
        "standard errors, and the limit is 4"
    )


@pytest.mark.parametrize("group", ["eval/far", "eval_rl", "eval_rl/far", "eval/far/task"])
def test_each_named_evaluation_has_a_history_of_its_own(group: str) -> None:
    rules = AlertRules(AlertsConfig())
    other = evaluated(50.0)  # does not fall
    for mean in (50.0, 50.0, 20.0):
        row = other | {key.replace("eval", group): number for key, number in evaluated(mean).items()}
        assert rules.check(row) == []
    (alert,) = rules.check(row)
    assert alert.text.startswith(f"{group}/return_mean is 20 over the latest two evaluations, and was 50 over")


def test_evaluations_take_precedence_over_episodes_of_the_training() -> None:
    key = "rollout/return_mean"
    falling = [*([500.0, 490.0, 510.0, 500.0] * 2), *([1.0, 2.0, 1.0, 2.0] * 2)]
    assert fired(rules_with(), *({key: value, "rollout/episodes": 3.0} for value in falling)) == [
        *([[]] * 15),
        ["returns"],
    ]
    assert fired(rules_with(), *(evaluated(500.0) | {key: value} for value in falling)) == [[]] * 16


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_returns_that_are_not_finite_are_left_out(bad: float) -> None:
    rows = [evaluated(mean) for mean in (500.0, bad, 500.0, bad, 490.0, 495.0, 100.0, bad, 100.0)]
    assert fired(rules_with(), *rows) == [*([[]] * 8), ["returns"]]


def test_returns_continue_after_a_resume() -> None:
    rows = [evaluated(mean) for mean in (500.0, 490.0, 500.0, 490.0, 100.0, 110.0)]
    first = rules_with()
    assert fired(first, *rows[:5]) == [[]] * 5
    state = json.loads(json.dumps(first.returns_state()))
    assert fired(AlertRules(AlertsConfig(), returns=state), rows[5]) == [["returns"]]
    assert fired(rules_with(), rows[5]) == [[]]


def test_rules_that_are_off_never_alert() -> None:
    rules = rules_with(max_q_value=None, min_entropy=None, not_finite=False, return_standard_errors=None)
    bad = {"train/q_value": math.inf, "train/entropy": 0.0, "train/loss": math.nan, **evaluated(-1e9)}
    good = {"train/q_value": 0.0, "train/entropy": 1.0, "train/loss": 1.0, **evaluated(1e9)}
    assert fired(rules, good, good, bad, bad) == [[]] * 4


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
    rules = rules_with()
    start = {"train/entropy": 1.0, **evaluated(100.0)}
    bad = {"train/q_value": 1e9, "train/loss": math.nan, "train/entropy": 0.0, **evaluated(1.0)}
    alerts = [alert for row in (start, start, bad, bad) for alert in rules.check(row)]
    assert len(alerts) == 4
    assert all(len(alert.title) < 64 for alert in alerts)


def test_ten_skipped_steps_in_a_row_alert_unless_the_loss_itself_is_not_finite() -> None:
    nine, ten = ({"train/amp_skipped_steps": count, "train/amp_scale": 64.0} for count in (9.0, 10.0))
    assert skipped_steps(nine) is skipped_steps({"train/amp_scale": 1.0}) is None
    assert "10 optimizer steps in a row" in (skipped_steps(ten) or "")
    assert skipped_steps({**ten, "train/loss": math.nan}) is None
    assert fired(rules_with(), nine, ten, ten, {"train/loss": math.nan}) == [[], ["skipped_steps"], [], ["not_finite"]]
    assert fired(rules_with(not_finite=False), ten) == [[]]
