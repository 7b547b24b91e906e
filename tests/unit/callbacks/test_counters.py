from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks.callbacks.counters import Counters
from rlwandb_callbacks.callbacks.env_steps import EnvSteps, as_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (2.5, 2.5),
        (0, 0),
        (torch.tensor(7), 7),
        (torch.tensor([7.5]), 7.5),
        (torch.tensor([[8]]), 8),
        (np.array(7), 7),
        (np.array([[7.5]]), 7.5),
        (np.int64(9), 9),
        (np.float32(0.5), 0.5),
        (torch.tensor(3.0, requires_grad=True), 3.0),
    ],
)
def test_single_numbers_are_read_from_tensors_and_arrays(value: Any, expected: float) -> None:
    number = as_number(value)
    assert number == expected
    assert isinstance(number, int | float)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "12",
        [1],
        {"env_steps": 1},
        torch.tensor([1, 2]),
        torch.empty(0),
        np.array([1, 2]),
        np.empty(0),
        1j,
        torch.tensor(1j),
        np.array("text"),
        len,
    ],
)
def test_other_values_are_not_numbers(value: Any) -> None:
    assert as_number(value) is None


def test_nan_is_a_number() -> None:
    assert math.isnan(as_number(torch.tensor(math.nan)))


@pytest.mark.parametrize("state", [{"updates": 120}, {"updates": 120, "env_steps": 4800.0}, {"updates": 0}])
def test_counters_continue_from_their_state(state: dict[str, float]) -> None:
    counters = Counters()
    counters.restore(state)
    assert counters.state() == state
    assert pickle.loads(pickle.dumps(counters)).state() == state


def test_counters_can_be_copied_after_a_step_that_returned_a_tensor_with_a_graph() -> None:
    counters = Counters()
    epoch_loop = SimpleNamespace(total_batch_idx=0, global_step=1, _batches_that_stepped=1)
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=epoch_loop), optimizers=[])
    module: Any = SimpleNamespace(automatic_optimization=True)
    counters.advance(trainer, module, {"env_steps": 2 * torch.ones((), requires_grad=True)})
    assert copy.deepcopy(counters).state() == {"updates": 1}


def test_a_property_that_fails_is_no_count() -> None:
    class Agent:
        @property
        def env_steps(self) -> int:
            raise RuntimeError("the trainer is not attached yet")

    results = SimpleNamespace(_results=None)
    trainer: Any = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_loop=results), _logger_connector=SimpleNamespace(_callback_metrics={})
    )
    module: Any = Agent()
    steps = EnvSteps()
    steps.read(trainer, module)
    assert steps.total is None


def test_an_empty_state_starts_from_zero() -> None:
    counters = Counters()
    counters.restore({})
    assert counters.state() == {"updates": 0}
