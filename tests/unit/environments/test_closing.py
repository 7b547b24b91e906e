"""Closing of environments that share something with those of the training."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.vector import AsyncVectorEnv

from rlwandb_callbacks.environments.closing import close, closing
from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.errors import EnvError
from rlwandb_callbacks.testing import CorridorEnv


class OnDisplay(CorridorEnv):
    """Environment that draws on pygame's display, and quits pygame when it is closed."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        pygame.init()
        self.surface = pygame.display.set_mode((32, 32))

    def render(self) -> Any:
        self.surface.fill((90, 20, 20))
        return np.ascontiguousarray(pygame.surfarray.array3d(self.surface))

    def close(self) -> None:
        pygame.font.quit()
        pygame.display.quit()
        pygame.quit()


def test_display_of_the_training_is_left_open_by_other_environments() -> None:
    training = OnDisplay("rgb_array")
    try:
        with closing(OnDisplay("rgb_array")):
            pass
        close(env_factory(OnDisplay, {})(render=True))
        close(env_factory(lambda: AsyncVectorEnv([OnDisplay]), {}).open())
        assert training.render()[0, 0].tolist() == [90, 20, 20]
        assert pygame.font.get_init()
    finally:
        training.close()
    assert not pygame.get_init()
    with pytest.raises(pygame.error):
        training.render()


def test_environment_that_another_process_has_not_registered_is_explained() -> None:
    def make(render_mode: str | None = None) -> Any:
        return gym.make("OnlyInTheScript-v0", render_mode=render_mode)

    with pytest.raises(EnvError, match=r"has not imported the package that registers it.*executor='thread'"):
        env_factory(make, {})(render=True)


class Exits(CorridorEnv):
    """Environment that ends its process."""

    def step(self, action: Any) -> Any:
        sys.exit(3)


@pytest.mark.filterwarnings("ignore:.*(multi-threaded, use of fork|pending call to `step`)")
def test_all_processes_of_a_vector_end_if_one_has_ended_by_itself() -> None:
    envs = AsyncVectorEnv([Exits, CorridorEnv])
    envs.reset(seed=0)
    with pytest.raises(EOFError):
        envs.step(np.array([1, 1]))
    with pytest.raises(EOFError):
        close(envs)
    for process in envs.processes:
        process.join(timeout=10)
    assert [process.is_alive() for process in envs.processes] == [False, False]
    assert envs.closed


class IgnoresSigterm(CorridorEnv):
    """Environment whose process ignores SIGTERM, as those do that a training by Lightning forks."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


@pytest.mark.filterwarnings("ignore:.*(multi-threaded, use of fork|pending call to `step`)")
def test_processes_of_a_vector_end_although_they_ignore_sigterm() -> None:
    envs = AsyncVectorEnv([Exits, IgnoresSigterm], context="fork")
    envs.reset(seed=0)
    with pytest.raises(EOFError):
        envs.step(np.array([1, 1]))
    with pytest.raises(EOFError):
        close(envs)
    assert [process.is_alive() for process in envs.processes] == [False, False]
