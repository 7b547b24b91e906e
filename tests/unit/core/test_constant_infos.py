from __future__ import annotations

from typing import Any

from rlwandb_callbacks.core.constant_infos import ConstantInfos
from rlwandb_callbacks.core.infos import InfoAccumulator, InfoSummary


def episode(*infos: dict[str, Any], keys: list[str] | None = None) -> dict[str, InfoSummary]:
    """Returns the summaries of the steps of an episode."""
    tally = InfoAccumulator(keys)
    for info in infos:
        tally.add(info)
    return tally.numbers()


def test_a_number_that_never_changes_is_a_constant_until_it_changes() -> None:
    constants = ConstantInfos()
    earth, moon = ([episode(*[{"gravity": g, "height": height} for height in range(4)])] for g in (9.8, 1.6))
    assert [constants.update(each) for each in (earth * 3, earth, moon * 2, moon)] == [
        {"gravity"},
        {"gravity"},
        set(),
        set(),
    ]


def test_a_number_that_differs_between_the_episodes_of_an_evaluation_is_none() -> None:
    assert ConstantInfos().update([episode(*[{"level": level}] * 4) for level in (2, 3)]) == set()


def test_a_number_that_a_callback_monitors_is_none() -> None:
    episodes = [episode(*[{"gravity": 9.8, "goal_x": 5.0, "goal": 4.0}] * 4)]
    monitored = ["eval/near/info_goal_x_last", "eval/return_mean"]
    assert ConstantInfos().update(episodes, monitored) == {"gravity", "goal"}


def test_flags_counts_and_results_of_short_episodes_are_none() -> None:
    flags = [episode(*[{"collided": False, "won": 1, "score": 5.0}] * 4)]
    assert ConstantInfos().update(flags) == {"score"}
    assert ConstantInfos().update([episode({"profit": 5.0}), episode({"profit": 5.0})]) == set()
    assert ConstantInfos().update([episode({}, {}, {}, {"final_score": 5.0})] * 3) == set()
    assert ConstantInfos(["score"]).update(flags) == set()


def test_identifiers_are_not_summarized_unless_they_are_asked_for() -> None:
    info = {"env_id": 3, "playerId": 1, "seed": 7, "players_ids": 2, "width": 4.0, "pid_error": 0.5, "lives": 3}
    assert list(episode(info)) == ["width", "pid_error", "lives"]
    assert list(episode(info, keys=["env_id", "lives"])) == ["env_id", "lives"]
