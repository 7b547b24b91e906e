"""MultiDiscrete, MultiBinary, Dict and Tuple actions: played, counted, drawn and replayed."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from episodes import with_panel
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Grouped
from rlwandb_callbacks.core.values import Histogram
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.evaluation.replay import replay
from rlwandb_callbacks.evaluation.summary import Evaluation, infer_action_spec


class AnyActionEnv(gym.Env[Any, Any]):
    """Environment that checks its actions and returns their sum in observation and reward."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, space: spaces.Space[Any], render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-100, 100, (3,), np.float32)
        self.action_space, self.render_mode = space, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.length = 0, 2 + seed % 3
        return np.array([seed, 0, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.steps += 1
        taken = float(np.sum(spaces.flatten(self.action_space, action)))
        return np.array([self.steps, taken, 0], np.float32), taken, self.steps >= self.length, False, {}

    def render(self) -> Any:
        return np.full((300, 200, 3), 40, np.uint8)


def play(space: spaces.Space[Any], policy: Any, *, replays: bool = True, **settings: Any) -> tuple[Evaluation, Any]:
    cfg = WandbRLConfig(
        action_logger=True,
        evaluation=EvaluationConfig(
            env=partial(AnyActionEnv, space), policy=policy, episodes=5, num_envs=2, **settings
        ),
    )
    with preserved_state(nn.Module(), seed=0):
        evaluator = Evaluator(cfg, nn.Module())
        evaluation = Evaluation([each.episode for each in evaluator.play()], 1.0, evaluator.env.actions)
    episode = evaluation.episodes[1]
    frames = list(replay(partial(evaluator.make_env, render=True), episode)) if replays else []
    return evaluation, with_panel(frames, episode, evaluator.env.actions) if frames else []


def test_multi_discrete_actions_are_played_counted_and_drawn() -> None:
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    logits = torch.tensor([0.0, 2.0, 1.0, 1.0, 3.0])
    evaluation, frames = play(space, lambda observations: logits.repeat(len(observations), 1))
    assert {tuple(action) for episode in evaluation.episodes for action in episode.actions} == {(1, 7)}
    assert isinstance(evaluation.episodes[0].scores, Grouped)
    parts = [torch.distributions.Categorical(logits=part).entropy() for part in logits.split([2, 3])]
    assert evaluation.numbers()["policy/entropy"] == pytest.approx(float(sum(parts)))
    steps = sum(episode.length for episode in evaluation.episodes)
    counted = evaluation.distributions(with_returns=False)
    assert isinstance(counted["policy/action_histogram_1"], Histogram)
    assert counted["policy/action_histogram_0"].counts.tolist() == [0, steps]
    assert counted["policy/action_histogram_1"].counts.tolist() == [0, 0, steps]
    assert counted["policy/action_histogram_1"].edges.tolist() == [4.5, 5.5, 6.5, 7.5]
    assert len(frames) == evaluation.episodes[1].length + 1
    assert len({frame.shape for frame in frames}) == 1


def test_q_values_are_averaged_over_dimensions_and_steps() -> None:
    q_values = {"q_values": [torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 8.0, 3.0]])]}

    def policy(observations: torch.Tensor) -> Any:
        return {"q_values": [part.repeat(len(observations), 1) for part in q_values["q_values"]]}

    evaluation, _ = play(spaces.MultiDiscrete([2, 3], start=[0, 5]), policy)
    assert evaluation.numbers()["q/mean"] == pytest.approx((4.0 + 8.0) / 2)
    assert "policy/entropy" not in evaluation.numbers()


def test_multi_binary_actions_are_played_counted_and_drawn() -> None:
    on = torch.tensor([0.9, 0.2])
    evaluation, frames = play(
        spaces.MultiBinary(2), lambda observations: torch.distributions.Bernoulli(on.repeat(len(observations), 1))
    )
    steps = sum(episode.length for episode in evaluation.episodes)
    counted = evaluation.distributions(with_returns=False)
    assert counted["policy/action_histogram_0"].counts.tolist() == [0, steps]
    assert counted["policy/action_histogram_1"].counts.tolist() == [steps, 0]
    expected = -sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in (0.9, 0.2))
    assert evaluation.numbers()["policy/entropy"] == pytest.approx(expected, abs=1e-6)
    assert len(frames) == evaluation.episodes[1].length + 1


def test_multi_discrete_action_with_one_dimension_has_one_histogram() -> None:
    evaluation, _ = play(spaces.MultiDiscrete([3]), lambda observations: torch.zeros(len(observations), 1).long())
    assert "policy/action_histogram" in evaluation.distributions(with_returns=False)


def test_actions_of_an_unbounded_box_are_not_clipped() -> None:
    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    evaluation, frames = play(
        space, lambda observations: torch.distributions.Normal(torch.full((len(observations), 2), 7e3), 1.0)
    )
    assert (evaluation.episodes[0].actions == 7e3).all()
    assert len({frame.shape for frame in frames}) == 1


BOTH = spaces.Dict({"steer": spaces.Box(-1.0, 1.0, (2,), np.float32), "gear": spaces.Discrete(3)})
PAIR = spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)])


def both(observations: torch.Tensor) -> Any:
    seeds = observations[:, 0]
    return {"action": {"steer": torch.stack([seeds / 10, seeds], dim=1), "gear": seeds.long() % 3}}


def both_in_rows(observations: torch.Tensor) -> Any:
    seeds = observations[:, 0].numpy()
    return {"action": [{"steer": np.array([s / 10, 0], np.float32), "gear": int(s) % 3} for s in seeds]}


def pair(observations: torch.Tensor) -> Any:
    return {"action": (observations[:, 0].long() % 3, torch.ones(len(observations), 2, dtype=torch.int8))}


@pytest.mark.parametrize(("space", "policy"), [(BOTH, both), (BOTH, both_in_rows), (PAIR, pair)])
def test_dict_and_tuple_actions_are_played_replayed_and_drawn(space: spaces.Space[Any], policy: Any) -> None:
    evaluation, frames = play(space, policy)
    for seed, episode in enumerate(evaluation.episodes):
        assert episode.actions.shape == (2 + seed % 3,)
        assert all(space.contains(action) for action in episode.actions)
        first = episode.actions[0]
        assert int(first["gear"] if isinstance(first, dict) else first[0]) == seed % 3
    assert "policy/action_histogram" not in evaluation.distributions(with_returns=True)
    assert evaluation.numbers()["eval/return_mean"] > 0
    assert len(frames) == evaluation.episodes[1].length + 1
    assert len({frame.shape for frame in frames}) == 1


def test_action_with_a_missing_part_raises_at_the_start() -> None:
    def policy(observations: torch.Tensor) -> Any:
        return {"action": {"steer": torch.zeros(len(observations), 2)}}

    with pytest.raises(PolicyError, match=r"a dict with the keys \['action'\].*for each part of the space"):
        play(BOTH, policy)


def test_action_dimensions_of_given_episodes_are_guessed_from_scores() -> None:
    evaluation, _ = play(
        spaces.MultiDiscrete([2, 3]), lambda observations: torch.zeros(len(observations), 5), replays=False
    )
    guessed = infer_action_spec(evaluation.episodes)
    assert [len(dimension.names) for dimension in guessed.groups] == [2, 3]
