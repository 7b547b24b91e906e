"""Names of the tasks of a vector."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from rlwandb_callbacks.environments.tasks import task_names
from rlwandb_callbacks.testing import CorridorEnv, PointEnv


class Task(CorridorEnv):
    """Environment with arguments; ``seed`` and ``rank`` do not make it another task."""

    count = 0

    def __init__(self, goal: str = "near", speed: float = 1.0, seed: int = 0, rank: int = 0) -> None:
        super().__init__()
        Task.count += 1
        self.goal, self.speed, self.seed, self.rank, self.number = goal, speed, seed, rank, Task.count


class OtherTask(Task):
    """Another class with the same spaces."""


class Named(gym.Wrapper[Any, Any, Any, Any]):
    """Names the task of an environment."""

    def __init__(self, env: Any, task_name: str) -> None:
        super().__init__(env)
        self.task_name = task_name


CASES = [
    ([Task, OtherTask, Task], ("Task", "OtherTask", "Task")),
    ([lambda: Task("near"), lambda: Task("far")], ("near", "far")),
    ([lambda: Task("far", 1.0), lambda: Task("far", 2.5)], ("speed_1.0", "speed_2.5")),
    (
        [lambda: Task("near"), lambda: OtherTask("near"), lambda: OtherTask("far")],
        ("Task", "OtherTask-near", "OtherTask-far"),
    ),
    ([lambda: Named(Task(), "push it"), lambda: Named(Task(), "pull")], ("push_it", "pull")),
    ([lambda: TimeLimit(Task("near"), 9), lambda: TimeLimit(Task("far"), 9)], ("near", "far")),
    ([lambda: Task(seed=1), lambda: Task(seed=2)], ()),
    ([lambda: Task(rank=1), lambda: Task(rank=2)], ()),
    ([Task, Task], ()),
    (
        [lambda: gym.make("CartPole-v1"), lambda: gym.make("CartPole-v1", sutton_barto_reward=True)],
        ("default", "sutton_barto_reward_True"),
    ),
]


@pytest.mark.parametrize(("functions", "expected"), CASES)
def test_tasks_are_told_apart_by_what_differs_between_environments(functions: Any, expected: tuple[str, ...]) -> None:
    envs = SyncVectorEnv(functions)
    assert task_names(envs) == expected
    envs.close()


def test_three_environments_of_subprocesses_are_made_once_more_if_they_do_not_differ() -> None:
    made: list[int] = []

    def make(index: int) -> Any:
        made.append(index)
        return Task()

    envs = AsyncVectorEnv([partial(make, index) for index in range(5)])
    made.clear()
    assert task_names(envs) == ()
    assert made == [0, 1, 4]
    envs.close()


def test_all_environments_of_subprocesses_are_described_in_their_order() -> None:
    envs = AsyncVectorEnv([partial(Task), partial(Task), partial(OtherTask), partial(Task), partial(OtherTask)])
    assert task_names(envs) == ("Task", "Task", "OtherTask", "Task", "OtherTask")
    envs.close()


class Drawn(PointEnv):
    """Environment with a mass of its own and the port of its simulator."""

    def __init__(self, mass: float, port: int) -> None:
        super().__init__()
        self.mass, self.port = mass, port


@pytest.mark.parametrize(("masses", "num_tasks"), [([1.0] * 4, 0), ([1.0, 2.0, 1.0, 2.0], 2), (range(11), 0)])
def test_ports_and_numbers_that_are_drawn_for_each_environment_are_no_tasks(masses: Any, num_tasks: int) -> None:
    envs = SyncVectorEnv([partial(Drawn, mass=mass, port=5000 + index) for index, mass in enumerate(masses)])
    assert len(set(task_names(envs))) == num_tasks
    envs.close()


def test_environments_of_subprocesses_are_made_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = AsyncVectorEnv([Task, OtherTask])
    assert task_names(envs) == ("Task", "OtherTask")
    envs.close()
    same = AsyncVectorEnv([Task, Task])
    monkeypatch.setattr(same, "env_fns", [lambda: pytest.fail("made although all are the same")] * 2)
    assert task_names(same) == ()
    same.close()


def test_single_environments_and_vectors_without_any_have_no_tasks() -> None:
    assert task_names(PointEnv()) == ()
    assert task_names(gym.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")) == ()
