"""Policy objects with the interfaces of Tianshou 2, skrl 2, rsl-rl 5 and d3rlpy 2, without these libraries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.distributions import Categorical, Independent, Normal

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Gaussian, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.adapters.libraries import LibraryAdapter
from rlwandb_callbacks.policies.multi_agent import for_each_agent
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.resolve import resolve_policy
from rlwandb_callbacks.policies.runner import adapter_for

OBSERVATIONS = np.array([[0.0], [0.5], [-0.25], [3.0]], dtype=np.float32)
RANGE = spaces.Box(np.float32(10.0), np.float32(30.0), (1,))
ROTATIONS = np.array([[20.0], [25.0], [17.5], [30.0]])  # observations as actions in [-1, 1], mapped to 10 to 30
LEFT_RIGHT = spaces.Discrete(2)


def adapter(policy: Any, space: spaces.Space[Any], *, deterministic: bool = True) -> LibraryAdapter:
    found = adapter_for(policy, nn.Module(), OutputReader(space, True, "unknown", deterministic))
    assert isinstance(found, LibraryAdapter)
    return found


def act(policy: Any, space: spaces.Space[Any], *, deterministic: bool = True) -> PolicyStep:
    with torch.no_grad():
        found = adapter(policy, space, deterministic=deterministic)
        return found.act(OBSERVATIONS, np.ones(len(OBSERVATIONS), dtype=bool))


def normal(mean: torch.Tensor) -> Normal:
    return Normal(mean, torch.full_like(mean, 0.1))


class TianshouPolicy(nn.Module):
    """Gaussian around the observation, with the mapping of Tianshou."""

    action_space: Any = RANGE
    action_scaling, action_bound_method = True, "clip"
    deterministic_eval, is_within_training_step = False, True

    def forward(self, batch: Any, state: Any = None, squashes: bool = False) -> Any:
        assert isinstance(batch.obs, np.ndarray)
        distribution = Independent(normal(torch.as_tensor(batch.obs)), 1)
        is_greedy = self.deterministic_eval and not self.is_within_training_step
        action = distribution.mode if is_greedy else distribution.sample()
        return SimpleNamespace(act=torch.tanh(action) if squashes else action, dist=distribution)

    def map_action(self, action: Any) -> Any:
        low, high = self.action_space.low, self.action_space.high
        return low + (high - low) * (np.clip(np.asarray(action), -1, 1) + 1) / 2

    def compute_action(self, observation: Any) -> Any:
        return self.map_action(self(SimpleNamespace(obs=observation[None])).act)[0]


class SquashingPolicy(TianshouPolicy):
    action_bound_method: Any = None

    def forward(self, batch: Any, state: Any = None) -> Any:
        return super().forward(batch, state, squashes=True)


class TianshouAlgorithm(nn.Module):
    """Algorithm with a critic that learns returns divided by their standard deviation, here 3."""

    gae_lambda, return_scaling = 0.95, True
    ret_rms = SimpleNamespace(var=9.0)

    def __init__(self) -> None:
        super().__init__()
        self.policy, self.critic = TianshouPolicy(), lambda observations: torch.as_tensor(2 * observations)


@pytest.mark.parametrize("part", [lambda policy: policy, lambda policy: policy.compute_action])
def test_actions_of_tianshou_are_mapped_to_the_bounds(part: Any) -> None:
    step = act(part(TianshouPolicy()), RANGE)
    assert step.actions == pytest.approx(ROTATIONS)
    assert isinstance(step.scores, Gaussian)
    assert step.scores.mean == pytest.approx(20 + 10 * OBSERVATIONS)
    assert step.scores.std == pytest.approx(np.full((4, 1), 1.0))


@pytest.mark.parametrize("deterministic", [True, False])
def test_distribution_of_tianshou_is_that_of_the_squashed_action(deterministic: bool) -> None:
    torch.manual_seed(0)
    step = act(SquashingPolicy(), RANGE, deterministic=deterministic)
    samples = 20 + 10 * np.tanh(np.random.default_rng(0).normal(OBSERVATIONS, 0.1, size=(4, 100_000)))
    assert isinstance(step.scores, Gaussian)
    assert step.scores.mean[:, 0] == pytest.approx(samples.mean(axis=1), rel=1e-2)
    assert step.scores.std[:, 0] == pytest.approx(samples.std(axis=1), rel=0.1)


def test_tianshou_samples_only_if_asked_and_keeps_its_flags() -> None:
    policy = TianshouPolicy()
    draws = np.stack([act(policy, RANGE, deterministic=False).actions for _ in range(200)])
    assert draws[:, :3].std(axis=0) == pytest.approx(np.ones((3, 1)), rel=0.2)
    act(policy, RANGE)
    assert (policy.deterministic_eval, policy.is_within_training_step) == (False, True)


def test_algorithm_of_tianshou_gives_values_in_the_scale_of_returns() -> None:
    step = act(TianshouAlgorithm(), RANGE)
    assert step.values == pytest.approx(6 * OBSERVATIONS[:, 0])
    assert step.actions == pytest.approx(ROTATIONS)


def test_q_values_of_tianshou_are_means_of_its_quantiles() -> None:
    policy = TianshouPolicy()
    policy.action_space = LEFT_RIGHT
    quantiles = torch.tensor([[[1.0, 3.0], [0.0, 6.0]]]).repeat(4, 1, 1)
    policy.forward = lambda batch, state=None: SimpleNamespace(logits=quantiles, act=np.ones(4, int))  # type: ignore[method-assign]  # stand-in
    policy.map_action = lambda action: action  # type: ignore[method-assign]  # finite actions are not mapped
    policy.compute_q_value = lambda logits, mask: logits.mean(2)
    step = act(policy, LEFT_RIGHT)
    assert isinstance(step.scores, QValues)
    assert step.scores.values.tolist() == [[2.0, 3.0]] * 4
    assert step.actions.tolist() == [1] * 4


def test_squashing_is_found_where_the_mean_begins_at_zero() -> None:
    class AtZero(SquashingPolicy):
        def forward(self, batch: Any, state: Any = None) -> Any:
            found = super().forward(SimpleNamespace(obs=self.scale * batch.obs))
            return SimpleNamespace(act=found.act, dist=found.dist, log_prob=torch.zeros(len(batch.obs)))

    policy = AtZero()
    found = adapter(policy, RANGE)
    everywhere = np.ones(len(OBSERVATIONS), dtype=bool)
    for policy.scale, expected in ((0.0, 20.0), (1.0, 20 + 10 * np.tanh(3.0))):
        scores = found.act(OBSERVATIONS, everywhere).scores
        assert isinstance(scores, Gaussian)
        assert scores.mean[3, 0] == pytest.approx(expected, rel=1e-3)


class CountingPolicy(TianshouPolicy):
    """Recurrent policy whose action is the number of steps in its state."""

    def forward(self, batch: Any, state: Any = None) -> Any:
        steps = torch.zeros(len(batch.obs), 1) if state is None else state["hidden"]
        return SimpleNamespace(act=steps, state={"hidden": steps + 0.1})


def test_recurrent_state_of_tianshou_begins_with_each_episode() -> None:
    found = adapter(CountingPolicy(), RANGE)
    everywhere, second = np.ones(2, dtype=bool), np.array([False, True])
    played = [found.act(OBSERVATIONS[:2], starts).actions[:, 0] for starts in (everywhere, ~everywhere, second)]
    assert np.stack(played) == pytest.approx(np.array([[20.0, 20.0], [21.0, 21.0], [22.0, 20.0]]))


class SkrlModel(nn.Module):
    """Model of skrl: a network, and the mixin of its distribution."""

    observation_space, state_space = spaces.Box(-np.inf, np.inf, (1,)), None

    def __init__(self, space: Any, network: Any, *, is_normalized: bool = False, recurrent: bool = False) -> None:
        super().__init__()
        self.action_space, self.network = space, network
        self.is_normalized, self.recurrent = is_normalized, recurrent

    def compute(self, inputs: Any, role: str = "") -> Any:
        state = {"rnn": [inputs["rnn"][0] + 1]} if self.recurrent else {}
        features = inputs["rnn"][0][0] if self.recurrent else inputs["observations"]
        return self.network(features), state

    def act(self, inputs: Any, *, role: str = "") -> Any:
        output, outputs = self.compute(inputs, role)
        if isinstance(self.action_space, spaces.Box):
            self.kept: Any = normal(output)
            return self.kept.sample(), {**outputs, "mean_actions": output, "log_prob": torch.zeros(len(output), 1)}
        self.kept = Categorical(probs=output) if self.is_normalized else Categorical(logits=output)
        return self.kept.sample()[:, None], {**outputs, "net_output": output}

    def distribution(self, *, role: str = "") -> Any:
        return self.kept

    def random_act(self, inputs: Any, *, role: str = "") -> Any:
        raise AssertionError("exploration")

    def get_specification(self) -> Any:
        return {"rnn": {"sequence_length": 1, "sizes": [(1, 7, 1)]}} if self.recurrent else {}


class QNetwork(SkrlModel):
    def act(self, inputs: Any, *, role: str = "") -> Any:
        assert role in ("q_network", "value")
        return self.compute(inputs)


class SkrlAgent:
    """Agent whose preprocessors divide observations by 2 and multiply values by 10; its own ``act`` explores."""

    def __init__(self, policy: Any = None, value: Any = None, q_network: Any = None) -> None:
        self.policy, self.value, self.q_network = policy, value, q_network
        self.models = {"policy": policy, "value": value, "q_network": q_network}

    def _observation_preprocessor(self, observations: Any) -> Any:
        return observations / 2

    def _value_preprocessor(self, values: Any, *, inverse: bool) -> Any:
        assert inverse
        return 10 * values

    def act(self, observations: Any, states: Any, *, timestep: int, timesteps: int) -> Any:
        raise AssertionError("exploration")


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.act])
def test_model_of_skrl_plays_its_mean(part: Any) -> None:
    step = act(part(SkrlModel(RANGE, lambda x: 20 + x)), RANGE)
    assert step.actions == pytest.approx(20 + OBSERVATIONS)
    assert isinstance(step.scores, Gaussian)
    assert step.scores.std == pytest.approx(np.full((4, 1), 0.1))


@pytest.mark.parametrize("is_normalized", [True, False])
def test_model_of_skrl_shows_probabilities(is_normalized: bool) -> None:
    probs = torch.tensor([[0.8, 0.2]])
    network = probs if is_normalized else probs.log() + 5
    model = SkrlModel(LEFT_RIGHT, lambda x: network.repeat(len(x), 1), is_normalized=is_normalized)
    step = act(model, LEFT_RIGHT)
    assert isinstance(step.scores, Probabilities)
    assert step.scores.values == pytest.approx(np.array([[0.8, 0.2]] * 4))
    assert step.actions.tolist() == [0] * 4
    draws = [act(model, LEFT_RIGHT, deterministic=False).actions for _ in range(200)]
    assert np.mean(draws) == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("part", [lambda agent: agent, lambda agent: agent.act])
def test_agent_of_skrl_is_played_with_its_preprocessors(part: Any) -> None:
    agent = SkrlAgent(SkrlModel(RANGE, lambda x: 20 + x), QNetwork(RANGE, lambda x: 1 + x))
    step = act(part(agent), RANGE)
    assert step.actions == pytest.approx(20 + OBSERVATIONS / 2)
    assert step.values == pytest.approx(10 * (1 + OBSERVATIONS[:, 0] / 2))


def test_q_network_of_an_agent_of_skrl_plays_without_exploration() -> None:
    agent = SkrlAgent(q_network=QNetwork(LEFT_RIGHT, lambda x: torch.cat([x, -x], dim=1)))
    step = act(agent, LEFT_RIGHT)
    assert isinstance(step.scores, QValues)
    assert step.scores.values[:, 0] == pytest.approx(OBSERVATIONS[:, 0] / 2)
    assert step.actions.tolist() == [0, 0, 1, 0]


def test_recurrent_state_of_skrl_begins_with_each_episode() -> None:
    found = adapter(SkrlModel(RANGE, lambda steps: 20 + steps, recurrent=True), RANGE)
    everywhere, second = np.ones(2, dtype=bool), np.array([False, True])
    played = [found.act(OBSERVATIONS[:2], starts).actions[:, 0] for starts in (everywhere, ~everywhere, second)]
    assert np.stack(played).tolist() == [[20.0, 20.0], [21.0, 21.0], [22.0, 20.0]]


class GaussianOfRslRl(nn.Module):
    def update(self, output: torch.Tensor) -> None:
        self.mean, self.std = output, torch.full_like(output, 0.1)

    @property
    def entropy(self) -> torch.Tensor:
        return Normal(self.mean, self.std).entropy().sum(dim=-1)


class RslRlModel(nn.Module):
    """Model of rsl-rl that counts the steps of its episodes in a hidden state."""

    def __init__(self, *groups: str) -> None:
        super().__init__()
        self.obs_groups, self.hidden_state = list(groups), None
        self.mlp, self.distribution = nn.Identity(), GaussianOfRslRl()

    def get_hidden_state(self) -> Any:
        return self.hidden_state

    def reset(self, dones: Any = None, hidden_state: Any = None) -> None:
        self.hidden_state = hidden_state

    def get_latent(self, obs: Any) -> torch.Tensor:
        return torch.cat([obs[group] for group in self.obs_groups], dim=-1)

    def forward(self, obs: Any, masks: Any = None, hidden_state: Any = None, stochastic_output: bool = False) -> Any:
        latent = self.get_latent(obs)
        steps = torch.zeros(1, len(latent), 1) if self.hidden_state is None else self.hidden_state
        self.hidden_state = steps + 1
        output = self.mlp(20 + latent + steps[0])
        self.distribution.update(output)
        return normal(output).sample() if stochastic_output else output


def test_model_of_rsl_rl_keeps_the_hidden_state_of_the_training() -> None:
    model = RslRlModel("policy")
    model.hidden_state = torch.full((1, 64, 1), 5.0)
    found = adapter(model, RANGE)
    everywhere, second = np.ones(2, dtype=bool), np.array([False, True])
    played = [found.act(OBSERVATIONS[:2], starts).actions[:, 0] for starts in (everywhere, ~everywhere, second)]
    assert np.stack(played).tolist() == [[20.0, 20.5], [21.0, 21.5], [22.0, 20.5]]
    assert model.hidden_state.tolist() == torch.full((1, 64, 1), 5.0).tolist()


def test_runner_of_rsl_rl_is_played_by_its_policy() -> None:
    model = RslRlModel("policy")
    algorithm = SimpleNamespace(get_policy=lambda: model, process_env_step=lambda: None)
    runner = SimpleNamespace(alg=algorithm, get_inference_policy=lambda device=None: pytest.fail("changes the mode"))
    step = act(runner, RANGE)
    assert step.actions == pytest.approx(20 + OBSERVATIONS)
    assert isinstance(step.scores, Gaussian)
    assert step.scores.entropy == pytest.approx(np.full(4, 0.5 * np.log(2 * np.pi * np.e * 0.01)))


class ActorCritic(nn.Module):
    """Recurrent actor-critic of rsl-rl 3, whose mean is the number of steps of the episode."""

    def __init__(self) -> None:
        super().__init__()
        self.obs_groups, self.memory_a = {"policy": ["state"], "critic": ["state"]}, SimpleNamespace(hidden_state=7.0)

    def act(self, obs: Any) -> torch.Tensor:
        steps = torch.zeros(len(obs["state"]), 1) if self.memory_a.hidden_state is None else self.memory_a.hidden_state
        self.memory_a.hidden_state = steps + 1
        self.distribution = normal(20 + steps)
        return self.distribution.sample()

    @property
    def action_mean(self) -> torch.Tensor:
        return self.distribution.mean

    def act_inference(self, obs: Any) -> torch.Tensor:
        raise AssertionError("gives no distribution")


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.act_inference])
def test_actor_critic_of_rsl_rl_keeps_the_hidden_state_of_the_training(part: Any) -> None:
    found = adapter(part(model := ActorCritic()), RANGE)
    everywhere, second = np.ones(2, dtype=bool), np.array([False, True])
    steps = [found.act(OBSERVATIONS[:2], starts) for starts in (everywhere, ~everywhere, second)]
    assert np.stack([step.actions[:, 0] for step in steps]).tolist() == [[20.0, 20.0], [21.0, 21.0], [22.0, 20.0]]
    assert isinstance(steps[2].scores, Gaussian)
    assert model.memory_a.hidden_state == 7.0


def test_groups_of_rsl_rl_that_the_environment_does_not_have_are_named() -> None:
    with pytest.raises(PolicyError, match=r"groups \['policy', 'history'\].*one array.*'history': \.\.\."):
        act(RslRlModel("policy", "history"), RANGE)


class D3rlpyAlgorithm:
    """Algorithm with the best action 1, and Q(s, a) = a + s."""

    action_size, impl = 2, SimpleNamespace(modules=None)
    observation_scaler = action_scaler = None

    def __init__(self, *, is_discrete: bool, has_critic: bool = True) -> None:
        self.is_discrete, self.has_critic = is_discrete, has_critic

    def predict(self, x: Any) -> Any:
        assert isinstance(x, np.ndarray)
        return np.ones(len(x), dtype=np.int64) if self.is_discrete else 20 + x

    def sample_action(self, x: Any) -> Any:
        return np.zeros(len(x), dtype=np.int64) if self.is_discrete else 25 + x

    def predict_value(self, x: Any, action: Any) -> Any:
        if not self.has_critic:
            raise NotImplementedError
        return action.reshape(len(x)) + x[:, 0]


def test_q_values_of_d3rlpy_are_those_of_all_actions() -> None:
    step = act(D3rlpyAlgorithm(is_discrete=True), LEFT_RIGHT)
    assert step.actions.tolist() == [1] * 4
    assert isinstance(step.scores, QValues)
    assert step.scores.values == pytest.approx(np.concatenate([OBSERVATIONS, OBSERVATIONS + 1], axis=1))


@pytest.mark.parametrize("part", [lambda algo: algo, lambda algo: algo.predict])
def test_d3rlpy_rates_the_action_that_it_plays(part: Any) -> None:
    algorithm = part(D3rlpyAlgorithm(is_discrete=False))
    step = act(algorithm, RANGE)
    assert step.actions == pytest.approx(20 + OBSERVATIONS)
    assert step.chosen_q == pytest.approx(20 + 2 * OBSERVATIONS[:, 0])
    assert act(algorithm, RANGE, deterministic=False).actions == pytest.approx(25 + OBSERVATIONS)


def test_d3rlpy_leaves_its_networks_in_the_mode_of_the_training() -> None:
    algorithm = D3rlpyAlgorithm(is_discrete=True)
    network = nn.Dropout()
    algorithm.impl = SimpleNamespace(modules=SimpleNamespace(policy=network, optimizer=None))
    algorithm.predict = lambda x: np.full(len(x), int(network.eval().training))  # type: ignore[method-assign]  # stand-in
    assert act(algorithm, LEFT_RIGHT).actions.tolist() == [0] * 4
    assert network.training


def test_d3rlpy_without_a_critic_is_played_without_scores() -> None:
    step = act(D3rlpyAlgorithm(is_discrete=True, has_critic=False), LEFT_RIGHT)
    assert step.actions.tolist() == [1] * 4
    assert step.scores is None


def test_an_object_that_is_not_callable_is_evaluated() -> None:
    network = nn.Linear(4, 2)
    agent = SkrlAgent(q_network=QNetwork(LEFT_RIGHT, network))
    cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy=agent, episodes=2))
    with preserved_state(nn.Module(), seed=0):
        played = [each.episode.length for each in Evaluator(cfg, nn.Module()).play()]
    expected = []
    for seed in range(2):
        env = gym.make("CartPole-v1")
        (observation, _), ended, steps = env.reset(seed=seed), False, 0
        while not ended:
            with torch.no_grad():
                action = int(network(torch.as_tensor(observation) / 2).argmax())
            observation, _, terminated, truncated, _ = env.step(action)
            ended, steps = terminated or truncated, steps + 1
        expected.append(steps)
    assert played == expected


def test_agents_share_a_policy_object() -> None:
    algorithm = D3rlpyAlgorithm(is_discrete=False)
    outputs = for_each_agent(algorithm)({"a": torch.zeros(2, 1), "b": torch.ones(2, 1)})
    assert {agent: output["action"].tolist() for agent, output in outputs.items()} == {
        "a": [[20.0]] * 2,
        "b": [[21.0]] * 2,
    }


class OtherAgent:
    def get_action(self, observation: Any, training: bool) -> int:
        return 0

    def __repr__(self) -> str:
        return "OtherAgent"


class WithoutForward(nn.Module):
    def get_action_and_value(self, x: Any, action: Any = None) -> Any:
        return x


def test_the_line_that_calls_another_object_is_named() -> None:
    with pytest.raises(PolicyError, match=r"get_action\(observation, training\).*agent\.get_action\(observations, tra"):
        resolve_policy(nn.Module(), OtherAgent())  # type: ignore[arg-type]  # that is the error


def test_the_line_that_calls_a_network_without_forward_is_named() -> None:
    cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy=WithoutForward()))
    with pytest.raises(PolicyError, match=r"WithoutForward.*lambda observations: agent\.get_action_and_value\("):
        Evaluator(cfg, nn.Module())
