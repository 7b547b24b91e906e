"""Evaluations follow the environment that the module holds, and leave the training alone."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import torch
from gymnasium.utils import EzPickle
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.testing import CorridorEnv


class Noisy(CorridorEnv, EzPickle):
    """Corridor that draws from all global generators when it is made and reset."""

    def __init__(self) -> None:
        super().__init__()
        EzPickle.__init__(self)
        self.draw()

    def draw(self) -> None:
        random.random()
        np.random.random()  # noqa: NPY002  # as environments do
        torch.rand(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.draw()
        return super().reset(seed=seed)


class Exiting(Noisy):
    """Corridor of which a process can have one."""

    count = 0

    def __init__(self) -> None:
        Exiting.count += 1
        if Exiting.count > 1:
            sys.exit("no second simulator")
        super().__init__()


def right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


def evaluator_of(module: nn.Module, warnings: list[str]) -> Evaluator:
    evaluation = EvaluationConfig(env="self.env", policy=right, episodes=2)
    return Evaluator(WandbRLConfig(evaluation=evaluation), module, lambda message, kind: warnings.append(message))


def random_states() -> list[Any]:
    numbers = np.random.get_state()[1].tolist()  # type: ignore[union-attr, index]  # noqa: NPY002  # a tuple
    return [random.getstate(), numbers, torch.get_rng_state().tolist()]


def test_another_environment_is_followed_without_a_trace_in_random_states() -> None:
    module: Any = nn.Module()
    module.env = CorridorEnv()
    warnings: list[str] = []
    evaluator = evaluator_of(module, warnings)
    module.env = Noisy()
    before = random_states()
    evaluator.follow()
    assert random_states() == before
    assert isinstance(evaluator.make_env().unwrapped, Noisy)
    assert warnings == []


def test_an_environment_that_ends_the_process_when_it_is_copied_does_not_end_the_training() -> None:
    module: Any = nn.Module()
    module.env = CorridorEnv()
    warnings: list[str] = []
    evaluator = evaluator_of(module, warnings)
    earlier = evaluator.make_env
    module.env = Exiting()
    evaluator.follow()
    assert evaluator.make_env is earlier
    (warning,) = warnings
    assert "cannot be copied as it is now" in warning
    assert "no second simulator" in warning
