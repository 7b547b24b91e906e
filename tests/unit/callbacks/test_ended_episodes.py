"""Ended episodes are read from values of modules and from Gymnasium, and other values are ignored."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordVector

from rlwandb_callbacks.callbacks.rollouts.callback import off_graph, plan_for, read
from rlwandb_callbacks.callbacks.rollouts.ended_episodes import (
    EndedEpisodes,
    ended_episodes,
    ended_in_info,
    numbers_in,
    relevant,
)
from rlwandb_callbacks.callbacks.rollouts.recorded_episodes import (
    RecordedEpisodes,
    env_holders,
    recorders_in,
    recorders_on,
)
from rlwandb_callbacks.testing import CorridorEnv

NAN = float("nan")


def as_lists(ended: EndedEpisodes) -> tuple[list[float], list[float], list[float]]:
    return ended.returns, ended.lengths, ended.successes


@pytest.mark.parametrize(
    ("values", "expected"),
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
def test_episodes_are_read_from_numbers_and_arrays(values: Any, expected: Any) -> None:
    assert as_lists(ended_episodes(*values)) == expected


def test_masks_select_ended_episodes_and_valid_successes() -> None:
    ended = ended_episodes(
        np.array([0.0, 0.0, 4.0]),
        np.array([0, 7, 4]),
        np.array([False, True, True]),
        mask=np.array([False, True, True]),
        success_mask=np.array([False, True, False]),
    )
    assert as_lists(ended) == ([0.0, 4.0], [7.0, 4.0], [1.0])


def test_nested_numbers_are_flattened() -> None:
    assert numbers_in([np.array([1, 2]), 3, [4.0]]).tolist() == [1, 2, 3, 4]


def test_values_without_an_ended_episode_are_not_kept() -> None:
    image = np.zeros((64, 64))
    assert relevant({"lives": 3, "image": image}) is None
    assert relevant([{"lives": 3}, {}]) is None
    assert relevant({"episode": {"r": 1.0}, "image": image}) == {"episode": {"r": 1.0}}
    assert off_graph(None) is off_graph(NAN) is off_graph([]) is None


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
        kept = off_graph(relevant(info))
        ended.add(read({"info": kept}) if kept else EndedEpisodes())
    return ended


def test_info_of_one_environment() -> None:
    ended = total(play(RecordEpisodeStatistics(CorridorEnv()), 5, count=1))
    assert as_lists(ended) == ([2.0, 2.0], [2.0, 2.0], [1.0, 1.0])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("wrapped_inside", [True, False])
def test_infos_of_a_vector_environment(mode: AutoresetMode, wrapped_inside: bool) -> None:
    """The corridors have two and three cells by their seeds 0 and 1, and two cells after a reset without a seed."""
    inner = [lambda: RecordEpisodeStatistics(CorridorEnv())] * 2 if wrapped_inside else [CorridorEnv] * 2
    envs: Any = SyncVectorEnv(inner, autoreset_mode=mode)
    envs = envs if wrapped_inside else RecordVector(envs)
    ended = total(play(envs, 3, count=2))
    envs.close()
    assert sorted(ended.returns) == sorted(ended.lengths) == [2.0, 3.0]
    assert set(ended.successes) <= {1.0}


def test_infos_in_lists_and_in_final_info() -> None:
    one = {"episode": {"r": 3.0, "l": 2, "t": 0.1}, "is_success": False}
    assert as_lists(ended_in_info([{}, one])) == ([3.0], [2.0], [0.0])
    assert as_lists(ended_in_info({"final_info": one, "lives": 3})) == ([3.0], [2.0], [0.0])
    final = np.array([None, one], dtype=object)
    assert as_lists(ended_in_info(relevant({"final_info": final}))) == ([3.0], [2.0], [0.0])
    assert as_lists(ended_in_info({"episode": 7})) == ([], [], [])
    running = {"episode": {"r": np.array([1.0, 7.0]), "l": np.array([4, 3])}, "_episode": np.array([False, True])}
    assert as_lists(ended_in_info(running)) == ([7.0], [3.0], [])


def test_kept_tensors_are_detached_and_kept_arrays_are_copies() -> None:
    weight, buffer = torch.ones(2, requires_grad=True), np.array([1.0, 2.0])
    kept = off_graph({"episode": {"r": weight * 2, "l": buffer}})
    buffer[:] = 9.0
    assert not kept["episode"]["r"].requires_grad
    assert as_lists(read({"info": kept})) == ([2.0, 2.0], [1.0, 2.0], [])


def test_plan_of_outputs_by_their_names() -> None:
    assert plan_for(("loss", "charts/episodic_return", "episode_length", "success")) == (
        ("return", "charts/episodic_return"),
        ("length", "episode_length"),
        ("success", "success"),
    )
    assert plan_for(("loss", "success", "episode_length", "q_values")) == ()
    assert plan_for(("eval/episode_return", "train/episode_return")) == (("return", "train/episode_return"),)
    assert plan_for(("episode", "_episode")) == (("episode", "episode"), ("mask", "_episode"))


def test_without_returns_there_are_no_means() -> None:
    assert EndedEpisodes(lengths=[3.0]).numbers() == {}


def test_recorders_are_found_in_wrappers_and_vector_environments() -> None:
    one = RecordEpisodeStatistics(CorridorEnv())
    assert list(recorders_in(TimeLimit(one, 5))) == [one]
    envs = SyncVectorEnv([lambda: TimeLimit(RecordEpisodeStatistics(CorridorEnv()), 5)] * 2)
    assert len(list(recorders_in(envs))) == 2
    assert list(recorders_in(CorridorEnv())) == list(recorders_in(None)) == []
    outer = RecordVector(envs)
    assert list(recorders_in(outer)) == [outer]
    envs.close()


def test_evaluation_environments_are_ignored() -> None:
    module: Any = torch.nn.Module()
    module.train_env = module.env = RecordEpisodeStatistics(CorridorEnv())
    module.eval_env = module.val_env = RecordEpisodeStatistics(CorridorEnv())
    module.env_name = "CorridorEnv"
    assert recorders_on(module) == [module.env]


def test_each_recorded_episode_is_read_once_as_far_as_the_queue_holds_it() -> None:
    module: Any = torch.nn.Module()
    module.env = RecordEpisodeStatistics(CorridorEnv(), buffer_length=3)
    recorded = RecordedEpisodes()
    play(module.env, 4, count=1)
    assert as_lists(recorded.read([module])) == ([2.0] * 2, [2.0] * 2, [])
    play(module.env, 20, count=1)
    assert module.env.episode_count == 12
    assert as_lists(recorded.read([module])) == ([2.0] * 3, [2.0] * 3, [])
    assert as_lists(recorded.read([module])) == ([], [], [])


def test_recorders_of_objects_that_a_datamodule_or_a_data_set_holds_are_found_once() -> None:
    env = RecordEpisodeStatistics(CorridorEnv())
    agent = SimpleNamespace(env=env, eval_env=RecordEpisodeStatistics(CorridorEnv()))
    dataset = SimpleNamespace(train_env=env, agent=agent)
    trainer = SimpleNamespace(datamodule=SimpleNamespace(source=agent), train_dataloader={"a": [dataset]})
    holders = env_holders(trainer, torch.nn.Module())
    assert [recorders_on(holder) for holder in holders] == [[], [env], [env]]
    play(env, 4, count=1)
    assert RecordedEpisodes().read(holders).returns == [2.0, 2.0]


class ClosedClient:
    """Stand-in for a remote environment whose connection is closed."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"the connection is closed: {name}")


def test_objects_that_refuse_to_be_read_hold_no_recorder() -> None:
    module = SimpleNamespace(
        env=ClosedClient(), agent=ClosedClient(), envs=[recorded := RecordEpisodeStatistics(CorridorEnv())]
    )
    assert recorders_on(module) == [recorded]
    assert recorders_on(ClosedClient()) == []


def test_only_the_first_batches_of_a_list_are_looked_at() -> None:
    trainer = SimpleNamespace(train_dataloader=[torch.zeros(1)] * 1_000)
    assert len(env_holders(trainer, torch.nn.Module())) < 20
