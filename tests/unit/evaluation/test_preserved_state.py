from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlwandb_callbacks.evaluation.preserved_state import SMALL_POLICY_ELEMENTS, preserved_state


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def module_in_mixed_modes() -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)), nn.Dropout())
    module.train()
    module[1].eval()
    module[1][0].train()
    return module


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002  # the global states


def everything(module: nn.Module) -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002  # the global state
        "torch": torch.get_rng_state().tolist(),
        "modes": [submodule.training for submodule in module.modules()],
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
    }


def disturb(module: nn.Module) -> None:
    draw()
    module.train()
    torch.set_num_threads(2)


def fail(module: nn.Module) -> None:
    disturb(module)
    raise ZeroDivisionError


@pytest.mark.parametrize("inside", [lambda module: None, disturb, fail])
@pytest.mark.parametrize("gradients", [True, False])
def test_everything_is_restored_also_after_an_error(
    two_threads: None, inside: Callable[[nn.Module], None], gradients: bool
) -> None:
    module = module_in_mixed_modes()
    with torch.set_grad_enabled(gradients):
        before = everything(module)
        try:
            with preserved_state(module, seed=7):
                inside(module)
        except ZeroDivisionError:
            assert inside is fail
        assert everything(module) == before


def test_later_random_numbers_are_the_same_as_without_the_block() -> None:
    module = nn.Linear(1, 1)

    def draws(observed: bool) -> list[tuple[float, float, float]]:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002  # the global state
        torch.manual_seed(1)
        first = draw()
        if observed:
            with preserved_state(module, seed=5):
                draw()
        return [first, draw()]

    assert draws(observed=True) == draws(observed=False)


def test_all_random_numbers_in_the_block_depend_on_the_seed() -> None:
    module, drawn = nn.Linear(1, 1), []
    for seed in (3, 3, 4):
        random.seed()
        with preserved_state(module, seed=seed):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**40])
def test_seeds_may_have_any_size(seed: int) -> None:
    with preserved_state(nn.Linear(1, 1), seed=seed):
        draw()


def test_the_module_is_in_evaluation_mode_without_gradients_in_the_block() -> None:
    module = module_in_mixed_modes()
    with preserved_state(module, seed=0):
        assert not any(submodule.training for submodule in module.modules())
        assert not module(torch.ones(3, 2)).requires_grad
    assert module(torch.ones(3, 2)).requires_grad


def test_gradients_and_buffers_are_not_changed() -> None:
    module = module_in_mixed_modes()
    module(torch.randn(4, 2)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    buffers = [buffer.clone() for buffer in module.buffers()]
    assert gradients
    with preserved_state(module, seed=0):
        module(torch.randn(4, 2))
    kept = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(gradients, kept, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(buffers, module.buffers(), strict=True))


@pytest.mark.parametrize(
    ("module", "threads"),
    [
        (nn.Linear(10, 10), 1),
        (nn.Module(), 1),
        (nn.LazyLinear(3), 1),
        (nn.Linear(1, SMALL_POLICY_ELEMENTS, bias=False), 1),
        (nn.Linear(1, SMALL_POLICY_ELEMENTS + 1, bias=False), 2),
        (nn.Linear(10, 10, device="meta"), 2),
    ],
    ids=["small", "empty", "lazy", "just small", "large", "elsewhere"],
)
def test_small_networks_on_the_cpu_run_on_one_thread(two_threads: None, module: nn.Module, threads: int) -> None:
    with preserved_state(module, seed=0):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


class FlaggedAgent:
    """Agent that is no network and explores in training, as the agents of pfrl."""

    training = True


class NormalizingAgent:
    def __init__(self) -> None:
        self.training, self.is_training = True, True


def test_agents_that_are_no_networks_are_in_evaluation_mode_in_the_block() -> None:
    module: Any = nn.Module()
    module.by_class, module.by_instance = FlaggedAgent(), NormalizingAgent()
    with preserved_state(module, seed=0):
        assert (module.by_class.training, module.by_instance.training) == (False, False)
        assert module.by_instance.is_training
    assert (module.by_class.training, module.by_instance.training) == (True, True)
    assert vars(module.by_class) == {}
