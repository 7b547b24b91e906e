from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pettingzoo
import pytest
import torch
from evaluations import Evaluations, KeptErrors
from gymnasium import spaces
from torch import nn
from torch.distributions import Normal

from rlwandb_callbacks.config import WandbRLConfig, as_config
from rlwandb_callbacks.core.action_spec import ContinuousActions
from rlwandb_callbacks.core.episode import Gaussian, Grouped, Probabilities, QValues, row_of
from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.pettingzoo import AGENT_REWARDS, MultiAgentEnv, is_parallel
from rlwandb_callbacks.errors import EnvError, PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.replay import replay
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.media.panel_content import bars_of
from rlwandb_callbacks.policies.multi_agent import join_scores
from rlwandb_callbacks.policies.scores import mean_chosen_q


class Meeting(pettingzoo.ParallelEnv):
    """Two walkers on a line of cells; each leaves at the end, the second earns twice as much for a step right."""

    metadata = {"name": "meeting", "render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012  # as in PettingZoo
    action_spaces = {"a": spaces.Discrete(2), "b": spaces.Discrete(3, start=5)}  # noqa: RUF012  # as in PettingZoo

    def __init__(self, render_mode: str | None = None, cells: int = 3, limit: int = 30) -> None:
        self.render_mode, self.cells, self.limit = render_mode, cells, limit
        self.possible_agents = ["a", "b"]
        self.taken: list[dict[str, Any]] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(0, 99, (2,), np.float32)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.at, self.steps = list(self.possible_agents), {"a": 0, "b": -((seed or 0) % 3)}, 0
        return self._seen(), {agent: {} for agent in self.agents}

    def _seen(self) -> dict[str, Any]:
        return {agent: np.array([self.at[agent], 1.0], np.float32) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        self.taken.append(actions)
        assert set(actions) == set(self.agents)
        assert all(self.action_spaces[agent].contains(action) for agent, action in actions.items())
        self.steps += 1
        moves = {agent: int(actions[agent]) - (5 if agent == "b" else 0) for agent in self.agents}
        for agent, move in moves.items():
            self.at[agent] += move
        rewards = {agent: float(move * (2 if agent == "b" else 1)) for agent, move in moves.items()}
        seen, done = self._seen(), {agent: self.at[agent] >= self.cells for agent in self.agents}
        cut = {agent: self.steps >= self.limit and not done[agent] for agent in self.agents}
        infos = {agent: {"at": self.at[agent]} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (done[agent] or cut[agent])]
        return seen, rewards, done, cut, infos

    def render(self) -> Any:
        frame = np.zeros((20, 40, 3), np.uint8)
        for row, agent in enumerate(self.possible_agents):
            frame[row * 10 : row * 10 + 10, 4 * max(self.at[agent], 0) :][:, :4] = 255
        return frame


def test_joint_action_and_summed_reward() -> None:
    env = MultiAgentEnv(Meeting(cells=3))
    assert env.action_space == spaces.MultiDiscrete([2, 3], start=[0, 5])
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = env.step(np.array([1, 7]))
    assert (reward, terminated, truncated) == (1.0 + 4.0, False, False)
    assert info == {AGENT_REWARDS: {"a": 1.0, "b": 4.0}, "a_at": 1, "b_at": 2}
    assert env.parallel_env.taken == [{"a": 1, "b": 7}]


def test_agent_that_has_left_observes_zeros_and_does_not_act() -> None:
    env = MultiAgentEnv(Meeting(cells=2))
    env.reset(seed=0)
    env.step(np.array([1, 7]))
    assert env.parallel_env.agents == ["a"]
    observation, reward, terminated, truncated, info = env.step(np.array([1, 7]))
    assert observation["b"].tolist() == [0.0, 0.0]
    assert env.observation_space.contains(observation)
    assert (reward, terminated, truncated, info[AGENT_REWARDS]) == (1.0, True, False, {"a": 1.0})


def test_truncation_of_all_agents_truncates_the_episode() -> None:
    env = MultiAgentEnv(Meeting(limit=1))
    env.reset(seed=0)
    assert env.step(np.array([0, 5]))[2:4] == (False, True)


class Boxes(Meeting):
    """Acts in boxes of different shapes."""

    action_spaces = {  # noqa: RUF012  # as in PettingZoo
        "a": spaces.Box(-1, 1, (2, 2), np.float32),
        "b": spaces.Box(0, np.inf, (1,), np.float32),
    }

    def step(self, actions: dict[str, Any]) -> Any:
        self.taken.append({agent: action.tolist() for agent, action in actions.items()})
        none = dict.fromkeys(self.agents, False)
        return self._seen(), dict.fromkeys(self.agents, 0.0), none, none, {agent: {} for agent in self.agents}


class Mixed(Meeting):
    """One agent acts in a box, and the other does not."""

    action_spaces = {"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,))}  # noqa: RUF012  # as in PettingZoo


def test_boxes_are_concatenated() -> None:
    env = MultiAgentEnv(Boxes())
    assert env.action_space.low.tolist() == [-1.0] * 4 + [0.0]
    assert env.action_space.high.tolist() == [1.0] * 4 + [np.inf]
    env.reset(seed=0)
    env.step(np.array([0.0, 0.25, 0.5, 0.75, 9.0], np.float32))
    assert env.parallel_env.taken == [{"a": [[0.0, 0.25], [0.5, 0.75]], "b": [9.0]}]


def test_unsupported_environments_raise_with_what_is_allowed() -> None:
    from pettingzoo.classic.rps import rps

    with pytest.raises(EnvError, match=r"is turn-based \(AEC\).*aec_to_parallel"):
        env_factory(rps.env, {}).open()
    with pytest.raises(EnvError, match=r"Discrete\(2\), Box.*they must be Box for all agents, or discrete"):
        env_factory(Mixed, {}).open()
    assert not is_parallel(object())


def config(env: Any, policy: Any, **keywords: Any) -> WandbRLConfig:
    return as_config({"evaluation": {"env": env, "policy": policy, "episodes": 3, **keywords}, "return_logger": False})


def both_go(observations: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    assert {agent: tuple(batch.shape)[1:] for agent, batch in observations.items()} == {"a": (2,), "b": (2,)}
    size = len(observations["a"])
    return {"a": torch.tensor([[0.0, 1.0]]).expand(size, 2), "b": torch.full((size,), 6)}


@pytest.mark.parametrize("env", [Meeting, Meeting(), lambda render_mode=None: Meeting(render_mode)])
def test_returns_are_logged_per_agent_and_videos_selected_by_the_sum(
    env: Any, errors: KeptErrors, tmp_path: Path, decode: Callable[..., Any]
) -> None:
    cfg = config(env, both_go)
    episodes, clips = Evaluations(cfg, tmp_path, errors)()
    assert (errors.errors, errors.warnings) == ([], [])
    # The second walker starts at 0, -1 and -2 and goes to 3, two points a step; the first has three steps to go.
    assert [episode.total_return for episode in episodes] == [3 + 6.0, 3 + 8.0, 3 + 10.0]
    assert [episode.agent_returns["b"] for episode in episodes] == [6.0, 8.0, 10.0]
    evaluator = Evaluator(cfg, nn.Module())
    numbers = Evaluation(episodes, None, evaluator.env.actions).numbers()
    assert (numbers["eval/return_mean_a"], numbers["eval/return_mean_b"]) == (3.0, 8.0)
    assert numbers["eval/info_b_at_last"] == 3.0
    assert evaluator.env.fps == 7
    assert "seed 2" in clips["video/best"].caption
    assert len(decode(clips["video/best"].path)[1]) == 6


def test_shared_policy_is_called_for_each_agent() -> None:
    shapes = []

    def shared(observations: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(observations.shape))
        return torch.tensor([[0.0, 1.0]]).expand(len(observations), 2)

    class Same(Meeting):
        action_spaces = {"a": spaces.Discrete(2), "b": spaces.Discrete(2, start=5)}  # noqa: RUF012  # as above

    evaluator = Evaluator(config(Same, shared, shared_policy=True), nn.Module())
    episodes = [each.episode for each in evaluator.play()]
    assert shapes[:2] == [(3, 2), (3, 2)]
    assert episodes[0].actions.tolist() == [[1, 6]] * 3


def test_scores_of_each_agent_are_shown_under_its_name() -> None:
    q_a, q_b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0, 4.0]])

    def q_values(observations: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        size = len(observations["a"])
        return {"a": q_a.expand(size, 2), "b": q_b.expand(size, 3)}

    evaluator = Evaluator(config(Meeting, q_values), nn.Module())
    episode = evaluator.play()[0].episode
    assert isinstance(episode.scores, Grouped)
    assert [group.values[0].tolist() for group in episode.scores.groups] == [[1.0, 2.0], [3.0, 5.0, 4.0]]
    bars = bars_of(evaluator.env.actions, row_of(episode.scores, 0), episode.actions[0])
    assert [(bar.label, bar.value) for bar in bars if bar.is_chosen] == [("a 1", 2.0), ("b 6", 5.0)]
    assert mean_chosen_q([episode], first=[0, 5]) == 3.5


def test_gaussians_of_agents_are_concatenated() -> None:
    def policy(observations: dict[str, torch.Tensor]) -> dict[str, Normal]:
        size = len(observations["a"])
        return {"a": Normal(torch.full((size, 2, 2), 0.5), 0.1), "b": Normal(torch.full((size, 1), 2.0), 0.2)}

    evaluator = Evaluator(config(Boxes, policy, max_steps=2), nn.Module())
    scores = evaluator.play()[0].episode.scores
    assert isinstance(scores, Gaussian)
    assert scores.mean[0].tolist() == [0.5] * 4 + [2.0]
    assert scores.std[0].tolist() == pytest.approx([0.1] * 4 + [0.2])
    assert scores.entropy == pytest.approx([sum(0.5 * np.log(2 * np.pi * np.e * s**2) for s in [0.1] * 4 + [0.2])] * 2)
    assert isinstance(evaluator.env.actions, ContinuousActions)
    assert evaluator.env.actions.names == ("a[0]", "a[1]", "a[2]", "a[3]", "b")


def test_scores_of_different_types_are_not_joined() -> None:
    assert join_scores([QValues(np.zeros((1, 2))), None]) is None
    assert join_scores([QValues(np.zeros((1, 2))), Probabilities(np.full((1, 2), 0.5))]) is None


@pytest.mark.parametrize(
    ("policy", "fragments"),
    [
        (lambda _: torch.zeros(3, 2), ["returned a Tensor", "a, b is missing", "evaluation.shared_policy=True"]),
        (lambda _: {"a": torch.zeros(3, 2)}, ["with the keys ['a']", "b is missing"]),
        (lambda _: {"a": torch.zeros(3, 2), "b": torch.zeros(3, 7)}, ["Tensor of shape [3, 7]"]),
    ],
)
def test_output_without_an_agent_raises_at_the_start(policy: Any, fragments: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        Evaluator(config(Meeting, policy), nn.Module())
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


def test_policies_of_libraries_for_one_agent_name_the_missing_agents() -> None:
    class Model:
        """Has the interface of Stable-Baselines3's models."""

        observation_space, action_space = None, None

        def predict(self, observation: Any, deterministic: bool = False) -> Any:
            return np.zeros(len(observation["a"]), np.int64), None

    with pytest.raises(PolicyError, match=r"a, b is missing.*shared_policy=True"):
        Evaluator(config(Meeting, Model()), nn.Module())


def test_a_real_game_is_played_and_replayed() -> None:
    from pettingzoo.classic.rps import rps

    def policy(observations: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {agent: (seen.reshape(len(seen), -1)[:, 0] + 1).long() % 3 for agent, seen in observations.items()}

    evaluator = Evaluator(config(rps.parallel_env, policy, episodes=2, max_steps=3), nn.Module())
    episode = evaluator.play()[0].episode
    assert sorted(episode.agent_returns) == ["player_0", "player_1"]
    assert sum(1 for _ in replay(lambda: evaluator.make_env(render=True), episode)) == 4


def test_import_path_of_a_pettingzoo_environment() -> None:
    env = env_factory("pettingzoo.classic.rps.rps:parallel_env", {"max_cycles": 4})()
    assert isinstance(env, MultiAgentEnv)
    assert env.action_space == spaces.MultiDiscrete([3, 3])
