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


def test_no_alias_stands_for_two_metrics_and_each_name_for_itself() -> None:
    aliases = [alias for group in ALIASES.values() for alias in group]
    assert len(aliases) == len(set(aliases))
    assert all(canonical(name) == name for name in ALIASES)
    assert all(normalize(alias) == alias for alias in aliases)


def test_without_a_list_all_that_is_known_is_picked_and_nothing_else() -> None:
    picked = MetricSelection(None).pick(["loss", "target q_value", "my_scalar", "val/loss", "losses/qf1_values"])
    assert picked == {"loss": "loss", "target q_value": "target_q_value", "losses/qf1_values": "q_value"}


def test_a_list_picks_by_any_alias_and_takes_unknown_names_as_they_are() -> None:
    selection = MetricSelection(["qf1_values", "My Scalar"])
    offered = ["loss", "q_value", "my_scalar", "your_scalar"]
    assert selection.pick(offered) == {"q_value": "q_value", "my_scalar": "my_scalar"}
    assert [selection.wants(name) for name in ("q_value", "loss", "my_scalar")] == [True, False, False]


@pytest.mark.parametrize("offered", [["q1", "q_values", "q_value"], ["q_value", "q_values", "q1"]])
def test_of_several_names_of_one_metric_the_first_alias_wins_in_any_order(offered: list[str]) -> None:
    assert MetricSelection(None).pick(offered) == {"q_value": "q_value"}


def test_an_empty_list_picks_nothing() -> None:
    assert MetricSelection([]).pick(["loss", "q_value"]) == {}


def test_missing_names_what_was_asked_for_and_never_came() -> None:
    selection = MetricSelection(["loss", "my_scalar", "Other-Scalar"])
    assert selection.missing(["my_scalar"]) == ["Other-Scalar"]
    assert selection.missing(["my_scalar", "other_scalar"]) == []
    assert MetricSelection(None).missing([]) == []


def test_a_name_of_the_users_own_that_ends_in_step_stays_whole() -> None:
    selection = MetricSelection(["time_per_step", "bonus"])
    assert selection.pick(["rollout/time_per_step", "bonus_step"]) == {
        "rollout/time_per_step": "time_per_step",
        "bonus_step": "bonus",
    }
