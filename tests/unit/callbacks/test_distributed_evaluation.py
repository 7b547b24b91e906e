"""The part of one rank in an evaluation: its random numbers, and episodes of ranks that have failed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from rlwandb_callbacks import WandbRLConfig
from rlwandb_callbacks.callbacks.evaluation.distributed import DistributedEvaluation, EvaluationResult
from rlwandb_callbacks.callbacks.evaluation.rank_results import RankResult
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.config.root import with_one_evaluation
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.video_mode import Mode, VideoState

GONE = RankResult(error=RuntimeError("the simulator is gone"), missing=(1, 3))


class SeedIsReturn(gym.Env[Any, Any]):
    """Env of one step, whose reward is its seed and the action."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.number = float(seed or 0)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), self.number + 0.5 * float(action), True, False, {}


class FailsAtThree(SeedIsReturn):
    """Env that fails with one seed wherever it is played."""

    def step(self, action: Any) -> Any:
        if self.number == 3:
            raise RuntimeError("seed 3 is impossible")
        return super().step(action)


class Coin(nn.Module):
    """Policy of random actions, of the global generator or one of its own."""

    def __init__(self, *, has_generator: bool) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3) if has_generator else None

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.randint(2, (len(observations),), generator=self.generator)


class Agent(nn.Module):
    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy


class ScriptedRanks(Ranks):
    """One of two ranks; what the other one gathers is given."""

    def __init__(self, index: int, *of_other: Any) -> None:
        super().__init__(SimpleNamespace(world_size=2, global_rank=index))
        self._of_other = list(of_other)

    def gather(self, value: Any) -> list[Any]:
        other = self._of_other.pop(0) if self._of_other else RankResult()
        return [value, other] if self.index == 0 else [other, value]

    def broadcast(self, value: Any) -> Any:
        return value


def evaluate(ranks: Ranks, policy: nn.Module, episodes: int = 4, env: type = SeedIsReturn) -> EvaluationResult:
    settings = {"env": env, "policy": "policy", "episodes": episodes, "num_envs": 1, "deterministic": False}
    cfg, agent = with_one_evaluation(WandbRLConfig(evaluation=settings), None), Agent(policy)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def preserve(stream: int = 0) -> Iterator[None]:
        with preserved_state(agent, seed=0, stream=stream, policy="policy"):
            yield

    with preserve():
        evaluator = Evaluator(cfg, agent)
    return DistributedEvaluation(cfg, evaluator, preserve, ranks, False).play(VideoState(Mode.NUMBERS))


def actions(result: EvaluationResult) -> list[int]:
    return [int(episode.actions[0]) for episode in result.episodes]


@pytest.mark.parametrize("has_generator", [False, True])
def test_ranks_draw_other_random_numbers(has_generator: bool) -> None:
    drawn = []
    for index in (0, 1):
        ranks = ScriptedRanks(index)
        ranks.is_zero = True
        drawn.append(actions(evaluate(ranks, Coin(has_generator=has_generator), episodes=64)))
    assert len(drawn[0]) == len(drawn[1]) == 32
    assert 0.2 < np.mean(np.array(drawn[0]) == np.array(drawn[1])) < 0.8  # 1 if both throw the same coins


def test_state_is_restored_after_a_stream_of_its_own() -> None:
    coin = Coin(has_generator=True)
    assert coin.generator is not None
    before = (coin.generator.get_state(), torch.get_rng_state(), random.getstate())
    with preserved_state(Agent(coin), seed=0, stream=1, policy="policy"):
        coin(torch.zeros(5, 1))
    assert torch.equal(coin.generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]


def test_episodes_of_a_rank_that_fails_are_played_by_others_in_the_order_of_seeds() -> None:
    result = evaluate(ScriptedRanks(0, GONE, GONE), Coin(has_generator=False))
    assert [episode.seed for episode in result.episodes] == [0, 1, 2, 3]
    ((what, error),) = result.problems
    assert what == "Part of the evaluation"
    assert str(error).startswith("2 episodes are played by other ranks instead (seeds 1, 3): on rank 1: RuntimeError: ")


def test_episodes_that_no_rank_plays_are_named_as_left_out() -> None:
    result = evaluate(ScriptedRanks(0, GONE, GONE), Coin(has_generator=False), env=FailsAtThree)
    assert [episode.seed for episode in result.episodes] == [0, 1, 2]
    texts = [str(error) for _, error in result.problems]
    assert [text.partition(":")[0] for text in texts] == [
        "1 episode is left out (seed 3)",
        "1 episode is played by other ranks instead and 1 episode is left out (seeds 1, 3)",
    ]
