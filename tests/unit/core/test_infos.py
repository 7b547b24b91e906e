from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.infos import MAX_KEYS, InfoAccumulator, InfoSummary, summarize_infos


def test_means_are_over_the_steps_with_the_key() -> None:
    tally = InfoAccumulator()
    for info in ({"x": 1.0, "hit": True}, {"x": np.float32(2.0)}, {"x": np.array(6), "hit": np.False_}):
        tally.add(info)
    assert tally.numbers() == {"x": InfoSummary(3.0, 6.0, 9.0), "hit": InfoSummary(0.5, 0.0, 1.0)}


@pytest.mark.parametrize(
    "value",
    ["text", None, [1.0], {"a": 1.0}, np.ones(1), np.array("a"), np.nan, np.inf, 1j, np.complex64(1)],
)
def test_values_that_are_not_finite_numbers_are_ignored(value: object) -> None:
    tally = InfoAccumulator()
    tally.add({"x": value})
    assert tally.numbers() == {}


def test_keys_that_are_logged_elsewhere_are_ignored() -> None:
    tally = InfoAccumulator()
    tally.add({"is_success": True, "success": 1.0, "TimeLimit.truncated": False, "score": 2})
    assert list(tally.numbers()) == ["score"]


def test_the_number_of_keys_is_limited() -> None:
    tally = InfoAccumulator()
    for _ in range(2):
        tally.add({f"key_{number}": number for number in range(100)})
    assert list(tally.numbers()) == [f"key_{number}" for number in range(MAX_KEYS)]
    assert tally.numbers()["key_31"].total == 62.0


@pytest.mark.parametrize(("keys", "kept"), [(["b"], ["b"]), ([], []), (["is_success", "z"], ["is_success"])])
def test_only_the_given_keys_are_summarized(keys: list[str], kept: list[str]) -> None:
    tally = InfoAccumulator(keys)
    tally.add({"a": 1, "b": 2, "is_success": True})
    assert list(tally.numbers()) == kept


def test_means_are_over_the_episodes_with_the_key() -> None:
    one, two = {"x": InfoSummary(1.0, 2.0, 3.0)}, {"x": InfoSummary(3.0, 4.0, 5.0), "Reward_a": InfoSummary(1, 1, 9)}
    assert summarize_infos([one, two]) == {
        "info_x_mean": 2.0,
        "info_x_last": 3.0,
        "info_Reward_a_mean": 1.0,
        "info_Reward_a_last": 1.0,
        "info_Reward_a_sum": 9.0,
    }


MIXED = (1.0, -2.0, 3.0, -1.0, 4.0)
POSITIVE = (1.0, 0.5, 2.0, 0.25)
KEYS = {  # name, rewards, values of the key, and the expected sum: None for a running total
    "return so far": ("total_reward", MIXED, np.cumsum(MIXED), None),
    "return so far in float32": ("total_reward", MIXED * 200, np.cumsum(np.float32(MIXED * 200) * 0.1), None),
    "return so far, without a name for it": ("reward_now", MIXED, np.cumsum(MIXED), None),
    "return before scaling": ("episode_reward", MIXED, np.cumsum(MIXED) * 100, None),
    "return before clipping": ("cumulativeReward", np.sign(MIXED), np.cumsum(MIXED), None),
    "costs so far": ("cum_cost", MIXED, (0.0, 1.0, 1.0, 2.0, 3.0), None),
    "return of constant rewards": ("total_reward", (1.0,) * 4, (1.0, 2.0, 3.0, 4.0), None),
    "reward of all parts": ("total_reward", MIXED, MIXED, 5.0),
    "cost of all parts": ("total_cost", POSITIVE, (1.0, 0.0, 1.0, 2.0), 4.0),
    "reward of a step": ("step_total_reward", (1.0,) * 3, (1.0, 2.0, 4.0), 7.0),
    "part of the reward": ("reward_ctrl", POSITIVE, (-0.1, -0.3, -0.2, -0.4), -1.0),
    "part that grows": ("reward_dist", POSITIVE, (-3.0, -2.0, -1.0, 0.0), -6.0),
    "constant part": ("reward_survive", POSITIVE, (1.0,) * 4, 4.0),
    "only zeros": ("cost", (0.0,) * 3, (0.0,) * 3, 0.0),
    "one step": ("total_reward", (2.0,), (2.0,), None),
    "words that contain others": ("accurate_cost", POSITIVE, (1.0, 1.0, 1.0, 2.0), 5.0),
}


@pytest.mark.parametrize(("name", "rewards", "values", "expected"), KEYS.values(), ids=KEYS.keys())
def test_running_totals_are_not_summed(name: str, rewards: Any, values: Any, expected: float | None) -> None:
    tally = InfoAccumulator()
    for reward, value in zip(rewards, values, strict=True):
        tally.add({name: value}, float(reward))
    summary = summarize_infos([tally.numbers()])
    assert summary.get(f"info_{name}_sum") == (None if expected is None else pytest.approx(expected))
    assert summary[f"info_{name}_last"] == values[-1]


def test_episodes_that_show_what_a_key_is_decide_for_those_that_do_not() -> None:
    silent, per_step = InfoSummary(1.0, 1.0, 3.0), InfoSummary(1.0, 2.0, 5.0, is_running_total=False)
    assert "info_total_cost_sum" not in summarize_infos([{"total_cost": silent}])
    assert summarize_infos([{"total_cost": silent}, {"total_cost": per_step}])["info_total_cost_sum"] == 4.0


def test_names_contain_neither_slashes_nor_spaces() -> None:
    summary = summarize_infos(
        [{"reward/dist to goal": InfoSummary(1.0, 1.0, 1.0), "a.b-c": InfoSummary(1.0, 1.0, 1.0)}]
    )
    assert list(summary)[:1] + list(summary)[3:4] == ["info_reward_dist_to_goal_mean", "info_a.b-c_mean"]
