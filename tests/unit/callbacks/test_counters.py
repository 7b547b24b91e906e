from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from rlwandb_callbacks.callbacks.counters import Counters, as_number


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
def test_one_number_is_read_from_whatever_holds_it(value: Any, expected: float) -> None:
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
def test_anything_else_is_no_number(value: Any) -> None:
    assert as_number(value) is None


def test_nan_stays_what_it_is() -> None:
    assert math.isnan(as_number(torch.tensor(math.nan)))


@pytest.mark.parametrize("state", [{"updates": 120}, {"updates": 120, "env_steps": 4800.0}, {"updates": 0}])
def test_counters_go_on_from_their_state(state: dict[str, float]) -> None:
    counters = Counters()
    counters.restore(state)
    assert counters.state() == state
    assert pickle.loads(pickle.dumps(counters)).state() == state


def test_counters_can_be_copied_while_they_hold_what_a_step_returned() -> None:
    counters = Counters()
    counters.restore({"updates": 3})
    counters._env_steps_output = 2 * torch.ones((), requires_grad=True)
    assert copy.deepcopy(counters).state() == {"updates": 3}


def test_a_state_of_somebody_else_starts_from_zero() -> None:
    counters = Counters()
    counters.restore({})
    assert counters.state() == {"updates": 0}
