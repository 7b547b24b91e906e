"""Files, queues, threads and what they use are left alone by an evaluation, and what cannot be copied is named."""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlwandb_callbacks.evaluation.preserved_state import preserved_state

BUFFER: deque[int] = deque(maxlen=4)


class Agent(nn.Module):
    """Network with a memory of four numbers, which its method fills."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: deque[int] = deque([0], maxlen=4)
        self.storage: dict[str, Any] = {"rewards": np.zeros(4), "count": 0}
        self.num_steps = 0
        self.log_file: Any = None

    def fill(self, steps: Queue[int | None]) -> None:
        while (step := steps.get()) is not None:
            self._store(step)
            steps.task_done()
        steps.task_done()

    def _store(self, step: int) -> None:
        self.memory.append(step)
        self.storage["rewards"][step % 4] = step
        self.storage["count"] += 1


class Collector(threading.Thread):
    """Thread that fills a memory, and counts its steps in attributes."""

    def __init__(self, steps: Queue[int | None], memory: deque[int]) -> None:
        super().__init__(daemon=True)
        self.steps, self.memory, self.num_steps, self.last = steps, memory, 0, [0]

    def run(self) -> None:
        while (step := self.steps.get()) is not None:
            self.memory.append(step)
            self.num_steps += 1
            self.last[0] = step
            self.steps.task_done()
        self.steps.task_done()


def fill_global(steps: Queue[int | None]) -> None:
    while (step := steps.get()) is not None:
        BUFFER.append(step)
        steps.task_done()
    steps.task_done()


def fill(steps: Queue[int | None], memory: deque[int]) -> None:
    while (step := steps.get()) is not None:
        memory.append(step)
        steps.task_done()
    steps.task_done()


@contextmanager
def running(thread: threading.Thread, steps: Queue[int | None]) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        steps.put(None)
        thread.join(5)


def act_on_global() -> int:
    return len(BUFFER)


@pytest.mark.parametrize(
    "new_thread",
    [
        lambda agent, steps: threading.Thread(target=fill, args=(steps, agent.memory), daemon=True),
        lambda agent, steps: threading.Thread(target=functools.partial(fill, memory=agent.memory), args=(steps,)),
        lambda agent, steps: threading.Thread(target=agent.fill, kwargs={"steps": steps}, daemon=True),
        lambda agent, steps: Collector(steps, agent.memory),
    ],
    ids=["function", "partial", "method of the module", "subclass of Thread"],
)
def test_memory_that_another_thread_fills_keeps_what_it_got_during_an_evaluation(
    new_thread: Callable[[Agent, Queue[int | None]], threading.Thread],
) -> None:
    agent, steps, warnings = Agent(), Queue[int | None](), list[str]()
    thread = new_thread(agent, steps)
    agent.__dict__["thread"] = thread
    with running(thread, steps):
        with preserved_state(agent, seed=0, warn=warnings.append):
            agent.num_steps += 1
            for step in range(1, 7):
                steps.put(step)
            steps.join()
        assert list(agent.memory) == [3, 4, 5, 6]
        assert warnings == []
        assert agent.num_steps == 0  # the thread does not use it
        if isinstance(thread, Collector):
            assert (thread.num_steps, thread.last) == (6, [6])


def test_arrays_and_dicts_that_a_method_in_another_thread_fills_keep_their_content() -> None:
    agent, steps = Agent(), Queue[int | None]()
    with running(threading.Thread(target=agent.fill, args=(steps,), daemon=True), steps):
        with preserved_state(agent, seed=0):
            for step in range(1, 5):
                steps.put(step)
            steps.join()
        assert agent.storage["count"] == 4
        assert agent.storage["rewards"].tolist() == [4, 1, 2, 3]


def test_global_memory_that_another_thread_fills_keeps_what_it_got() -> None:
    steps = Queue[int | None]()
    BUFFER.clear()
    with running(threading.Thread(target=fill_global, args=(steps,), daemon=True), steps):
        with preserved_state(Agent(), seed=0, policy=act_on_global):
            steps.put(1)
            steps.join()
        assert list(BUFFER) == [1]
    with preserved_state(Agent(), seed=0, policy=act_on_global):  # no thread uses it any more
        BUFFER.append(2)
    assert list(BUFFER) == [1]


class Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in type stubs only
    """Handler of a user, which counts its records."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def test_files_queues_and_handlers_are_left_alone(tmp_path: Path) -> None:
    agent: Any = Agent()
    agent.requests, agent.handler, agent.files = Queue(), Handler(), {}
    agent.requests.put(1)
    for step in range(2):
        with preserved_state(agent, seed=0):
            agent.log_file = agent.log_file or (tmp_path / "log.txt").open("w")
            agent.files.setdefault("log", agent.log_file)
            agent.log_file.write(f"{step}")
            agent.requests.put(2)
            agent.handler.handle(logging.makeLogRecord({}))
    agent.log_file.close()
    assert (tmp_path / "log.txt").read_text() == "01"
    assert agent.files == {"log": agent.log_file}
    assert (agent.requests.qsize(), agent.requests.unfinished_tasks, agent.handler.count) == (3, 3, 2)


class NoState(random.Random):
    def getstate(self) -> Any:
        raise OSError("device of random numbers has no state")


class NoClear(dict[Any, Any]):
    def clear(self) -> None:
        raise OSError("entries are on a disk")


class NoLength(list[int]):
    def __len__(self) -> int:
        raise OSError("connection is closed")


@pytest.mark.parametrize("value", [NoState(), NoClear(), NoLength()])
def test_value_that_cannot_be_copied_or_restored_costs_one_warning_and_all_else_is_restored(value: Any) -> None:
    module: Any = nn.Linear(2, 2)
    module.value, module.count, module.last = value, 0, {"step": 0}
    warnings, torch_state, numpy_state = list[str](), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with preserved_state(module, seed=0, warn=warnings.append):
        module.count = module.last["step"] = 1
        if isinstance(value, NoClear):
            value["step"] = 1
        torch.rand(1)
    assert (module.count, module.last, module.training) == (0, {"step": 0}, True)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    (message,) = warnings
    assert "the state of 'value' of Linear" in message
    assert "cannot be copied or restored (OSError: " in message


class Proxy:
    """Proxy whose object is missing: everything that is read raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no object is bound to this proxy")


def test_object_that_raises_when_it_is_read_is_left_alone_without_a_warning() -> None:
    module, warnings = nn.Linear(2, 2), list[str]()
    module.__dict__["proxy"], module.__dict__["count"] = Proxy(), 0
    with preserved_state(module, seed=0, warn=warnings.append):
        module.__dict__["count"] = 1
    assert module.__dict__["count"] == 0
    assert warnings == []


def test_everything_is_restored_if_the_warning_is_raised_as_an_error() -> None:
    module: Any = nn.Linear(2, 2)
    module.value, module.count = NoState(), 0
    state = random.getstate()

    def warn(message: str) -> None:
        raise UserWarning(message)

    with pytest.raises(UserWarning, match="'value' of Linear"), preserved_state(module, seed=0, warn=warn):
        module.count = 1
    assert module.count == 0
    assert random.getstate() == state
