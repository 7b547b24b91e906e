"""Ended episodes are read from whatever modules and Gymnasium give, and nothing else is."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVector

from rlwandb_callbacks.callbacks.rollouts.callback import (
    ended_count,
    latest,
    plan_for,
    read,
    recorders_in,
    recorders_on,
    to_keep,
)
from rlwandb_callbacks.callbacks.rollouts.ended_episodes import (
    EndedEpisodes,
    ended_episodes,
    ended_in_info,
    numbers_in,
    relevant,
)
from rlwandb_callbacks.testing import CorridorEnv

NAN = float("nan")


def as_lists(ended: EndedEpisodes) -> tuple[list[float], list[float], list[float]]:
    return ended.returns, ended.lengths, ended.successes


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((5.0,), ([5.0], [], [])),
        ((np.float32(5.0), 3), ([5.0], [3.0], [])),
        ((5, 3, True), ([5.0], [3.0], [1.0])),
        (([1.0, 2.0], [3, 4], [False, True]), ([1.0, 2.0], [3.0, 4.0], [0.0, 1.0])),
        (([NAN, 2.0], [3, 4], [True, False]), ([2.0], [4.0], [0.0])),
        (([None, 2.0], [3, 4]), ([2.0], [4.0], [])),
        (([0.0, 2.0], [0, 4]), ([2.0], [4.0], [])),
        ((deque([1.0, 2.0]),), ([1.0, 2.0], [], [])),
        ((np.array([[1.0], [2.0]]), np.array([[3], [4]])), ([1.0, 2.0], [3.0, 4.0], [])),
        (([1.0, 2.0], [9]), ([1.0, 2.0], [], [])),
        ((NAN,), ([], [], [])),
        ((None,), ([], [], [])),
        (([],), ([], [], [])),
        (("none",), ([], [], [])),
    ],
)
def test_numbers_and_arrays(told: Any, expected: Any) -> None:
    assert as_lists(ended_episodes(*told)) == expected


def test_a_mask_says_which_have_ended_and_which_successes_count() -> None:
    ended = ended_episodes(
        np.array([0.0, 0.0, 4.0]),
        np.array([0, 7, 4]),
        np.array([False, True, True]),
        mask=np.array([False, True, True]),
        success_mask=np.array([False, True, False]),
    )
    assert as_lists(ended) == ([0.0, 4.0], [7.0, 4.0], [1.0])


def test_numbers_however_deep_they_lie() -> None:
    assert numbers_in([np.array([1, 2]), 3, [4.0]]).tolist() == [1, 2, 3, 4]


def test_what_tells_of_no_end_is_not_kept() -> None:
    picture = np.zeros((64, 64))
    assert relevant({"lives": 3, "picture": picture}, "info") is None
    assert relevant([{"lives": 3}, {}], "infos") is None
    assert relevant({"episode": {"r": 1.0}, "picture": picture}, "info") == {"episode": {"r": 1.0}}
    assert to_keep(None, "return") is to_keep(NAN, "return") is to_keep([], "return") is None


def play(env: Any, steps: int, *, count: int) -> list[dict[str, Any]]:
    env.reset(seed=0)
    infos = []
    for _ in range(steps):
        actions = np.ones(count, dtype=np.int64) if isinstance(env, gym.vector.VectorEnv) else 1
        *_, terminated, truncated, info = env.step(actions)
        infos.append(info)
        if count == 1 and (terminated or truncated):
            env.reset(seed=0)
    return infos


def total(infos: list[dict[str, Any]]) -> EndedEpisodes:
    ended = EndedEpisodes()
    for info in infos:
        kept = to_keep(info, "info")
        ended.add(read({"info": kept}) if kept else EndedEpisodes())
    return ended


def test_gymnasiums_info_of_one_environment() -> None:
    ended = total(play(RecordEpisodeStatistics(CorridorEnv()), 5, count=1))
    assert as_lists(ended) == ([2.0, 2.0], [2.0, 2.0], [1.0, 1.0])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("wrapped_inside", [True, False])
def test_gymnasiums_infos_of_a_vector(mode: AutoresetMode, wrapped_inside: bool) -> None:
    """Corridors of two and three cells: by the seeds 0 and 1, later ones by none and so of two."""
    inner = [lambda: RecordEpisodeStatistics(CorridorEnv())] * 2 if wrapped_inside else [CorridorEnv] * 2
    envs: Any = SyncVectorEnv(inner, autoreset_mode=mode)
    envs = envs if wrapped_inside else RecordVector(envs)
    ended = total(play(envs, 3, count=2))
    envs.close()
    assert sorted(ended.returns) == sorted(ended.lengths) == [2.0, 3.0]
    assert set(ended.successes) <= {1.0}


def test_infos_in_a_list_and_in_final_info() -> None:
    one = {"episode": {"r": 3.0, "l": 2, "t": 0.1}, "is_success": False}
    assert as_lists(ended_in_info([{}, one])) == ([3.0], [2.0], [0.0])
    assert as_lists(ended_in_info({"final_info": one, "lives": 3})) == ([3.0], [2.0], [0.0])
    final = np.array([None, one], dtype=object)
    assert as_lists(ended_in_info(relevant({"final_info": final}, "info"))) == ([3.0], [2.0], [0.0])
    assert as_lists(ended_in_info({"episode": 7})) == ([], [], [])
    running = {"episode": {"r": np.array([1.0, 7.0]), "l": np.array([4, 3])}, "_episode": np.array([False, True])}
    assert as_lists(ended_in_info(running)) == ([7.0], [3.0], [])


def test_tensors_are_kept_off_their_graph_and_arrays_as_they_were() -> None:
    weight, buffer = torch.ones(2, requires_grad=True), np.array([1.0, 2.0])
    kept = to_keep({"episode": {"r": weight * 2, "l": buffer}}, "info")
    buffer[:] = 9.0
    assert not kept["episode"]["r"].requires_grad
    assert as_lists(read({"info": kept})) == ([2.0, 2.0], [1.0, 2.0], [])


def test_names_that_tell_of_episodes() -> None:
    assert plan_for(("loss", "charts/episodic_return", "episode_length", "success")) == (
        ("return", "charts/episodic_return"),
        ("length", "episode_length"),
        ("success", "success"),
    )
    assert plan_for(("loss", "success", "episode_length", "q_values")) == ()
    assert plan_for(("episode", "_episode")) == (("episode", "episode"), ("mask", "_episode"))


def test_means_of_nothing_are_no_numbers() -> None:
    assert EndedEpisodes(lengths=[3.0]).numbers() == {}


def test_recorders_are_found_below_other_wrappers_and_in_vectors() -> None:
    one = RecordEpisodeStatistics(CorridorEnv())
    assert list(recorders_in(TimeLimit(one, 5))) == [one]
    envs = SyncVectorEnv([lambda: TimeLimit(RecordEpisodeStatistics(CorridorEnv()), 5)] * 2)
    assert len(list(recorders_in(envs))) == 2
    assert list(recorders_in(CorridorEnv())) == list(recorders_in(None)) == []
    outer = RecordVector(envs)
    assert list(recorders_in(outer)) == [outer]
    envs.close()


def test_environments_for_evaluation_are_none_of_training() -> None:
    module: Any = torch.nn.Module()
    module.train_env = module.env = RecordEpisodeStatistics(CorridorEnv())
    module.eval_env = module.val_env = RecordEpisodeStatistics(CorridorEnv())
    module.env_name = "CorridorEnv"
    assert recorders_on(module) == [module.env]


def test_more_episodes_than_a_queue_holds() -> None:
    env = RecordEpisodeStatistics(CorridorEnv(), buffer_length=3)
    play(env, 20, count=1)
    assert ended_count(env) == 10
    assert latest(env.return_queue, 10) == [2.0, 2.0, 2.0]
