from __future__ import annotations

import pytest

from rlwandb_callbacks.callbacks.metric_names import ALIASES, MetricSelection, canonical, normalize


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("q_value", "q_value"),
        ("q_values", "q_value"),
        ("qf1_values", "q_value"),
        ("losses/qf1_values", "q_value"),
        ("Q1", "q_value"),
        ("target_q_value", "target_q_value"),
        ("target q_value", "target_q_value"),
        ("target_q", "target_q_value"),
        ("TD-Error", "td_error"),
        ("train/loss", "loss"),
        ("train/loss_step", "loss"),
        ("losses/policy_loss", "actor_loss"),
        ("losses/value_loss", "critic_loss"),
        ("charts/learning_rate", "lr"),
        ("val/loss", None),
        ("Eval/entropy", None),
        ("test/q_value", None),
        ("val_loss", None),
        ("reward_scale", None),
        ("", None),
    ],
)
def test_aliases_of_common_libraries_have_one_name(name: str, expected: str | None) -> None:
    assert canonical(name) == expected


def test_aliases_are_unique_and_each_metric_is_its_own_alias() -> None:
    aliases = [alias for group in ALIASES.values() for alias in group]
    assert len(aliases) == len(set(aliases))
    assert all(canonical(name) == name for name in ALIASES)
    assert all(normalize(alias) == alias for alias in aliases)


def test_without_a_list_all_known_metrics_are_picked() -> None:
    picked = MetricSelection(None).pick(["loss", "target q_value", "my_scalar", "val/loss", "losses/qf1_values"])
    assert picked == {"loss": "loss", "target q_value": "target_q_value", "losses/qf1_values": "q_value"}


def test_a_list_accepts_any_alias_and_unknown_names() -> None:
    selection = MetricSelection(["qf1_values", "My Scalar"])
    names = ["loss", "q_value", "my_scalar", "your_scalar"]
    assert selection.pick(names) == {"q_value": "q_value", "my_scalar": "my_scalar"}
    assert [selection.wants(name) for name in ("q_value", "loss", "my_scalar")] == [True, False, False]


@pytest.mark.parametrize("names", [["q1", "q_values", "q_value"], ["q_value", "q_values", "q1"]])
def test_the_first_alias_is_picked_in_any_order_of_names(names: list[str]) -> None:
    assert MetricSelection(None).pick(names) == {"q_value": "q_value"}


def test_an_empty_list_picks_nothing() -> None:
    assert MetricSelection([]).pick(["loss", "q_value"]) == {}


def test_missing_returns_unknown_names_that_were_not_found() -> None:
    selection = MetricSelection(["loss", "my_scalar", "Other-Scalar"])
    assert selection.missing(["my_scalar"]) == ["Other-Scalar"]
    assert selection.missing(["my_scalar", "other_scalar"]) == []
    assert MetricSelection(None).missing([]) == []


def test_unknown_names_that_end_in_step_are_not_shortened() -> None:
    selection = MetricSelection(["time_per_step", "bonus"])
    assert selection.pick(["rollout/time_per_step", "bonus_step"]) == {
        "rollout/time_per_step": "time_per_step",
        "bonus_step": "bonus",
    }
