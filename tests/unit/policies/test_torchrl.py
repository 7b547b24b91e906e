"""Untrained actors of TorchRL."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import (
    InteractionType,
    NormalParamExtractor,
    TensorDictModule,
    TensorDictSequential,
    set_interaction_type,
)
from torch import nn
from torchrl.data import OneHot
from torchrl.modules import (
    Actor,
    ActorValueOperator,
    DistributionalQValueActor,
    EGreedyModule,
    LSTMModule,
    OneHotCategorical,
    ProbabilisticActor,
    QValueActor,
    QValueModule,
    TanhNormal,
    ValueOperator,
)

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Gaussian, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.adapters.torchrl import TorchRLPolicy
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.runner import adapter_for

LEFT_RIGHT = spaces.Discrete(2)
PLANE = spaces.Box(-1.0, 1.0, (2,), np.float32)
OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
BATCH = TensorDict({"observation": torch.as_tensor(OBSERVATIONS)}, [5])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def act(
    actor: Any,
    space: spaces.Space[Any] = LEFT_RIGHT,
    observations: Any = OBSERVATIONS,
    *,
    action_logger: bool | str = True,
    deterministic: bool = True,
) -> PolicyStep:
    adapter = adapter_for(actor, nn.Module(), OutputReader(space, action_logger, "unknown", deterministic))
    assert isinstance(adapter, TorchRLPolicy)
    with torch.no_grad():
        return adapter.act(observations, np.ones(5, dtype=bool))


def greedy_action(actor: Any) -> torch.Tensor:
    with set_interaction_type(InteractionType.DETERMINISTIC), torch.no_grad():
        return actor(BATCH.clone())["action"]


@pytest.mark.parametrize("action_space", ["one_hot", "categorical"])
def test_q_values_and_actions_are_those_of_a_q_value_actor(action_space: str) -> None:
    network = nn.Linear(4, 2)
    actor = QValueActor(network, in_keys=["observation"], action_space=action_space)
    step = act(actor)
    assert isinstance(step.scores, QValues)
    assert step.scores.values == pytest.approx(network(BATCH["observation"]).detach().numpy())
    expected = greedy_action(actor)
    assert step.actions.tolist() == (expected.argmax(-1) if action_space == "one_hot" else expected).tolist()
    assert len(set(step.actions.tolist())) == 2


def test_q_values_are_found_under_another_key() -> None:
    network = nn.Linear(4, 2)
    body = TensorDictModule(network, in_keys=["observation"], out_keys=["worth"])
    head = QValueModule(action_value_key="worth", out_keys=["action", "worth", "best"], action_space="one_hot")
    step = act(TensorDictSequential(body, head))
    assert step.scores.values == pytest.approx(network(BATCH["observation"]).detach().numpy())


def test_q_values_of_a_distributional_network_are_its_means() -> None:
    class Atoms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 6)

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            return self.body(observations).reshape(-1, 3, 2).log_softmax(dim=-2)

    network, support = Atoms(), torch.tensor([-1.0, 0.0, 2.0])
    actor = DistributionalQValueActor(
        network, in_keys=["observation"], spec=OneHot(2), support=support, make_log_softmax=False
    )
    expected = torch.einsum("bka,k->ba", network(BATCH["observation"]).exp(), support).detach().numpy()
    step = act(actor)
    assert step.scores.values == pytest.approx(expected, abs=1e-6)
    assert step.actions.tolist() == greedy_action(actor).argmax(-1).tolist() == expected.argmax(-1).tolist()


@pytest.mark.parametrize("distribution", [OneHotCategorical, torch.distributions.Categorical])
def test_probabilities_and_mode_are_those_of_a_probabilistic_actor(distribution: Any) -> None:
    network = nn.Linear(4, 2)
    body = TensorDictModule(network, in_keys=["observation"], out_keys=["logits"])
    actor = ProbabilisticActor(body, in_keys=["logits"], distribution_class=distribution)
    expected = network(BATCH["observation"]).softmax(-1).detach().numpy()
    step = act(actor)
    assert isinstance(step.scores, Probabilities)
    assert step.scores.values == pytest.approx(expected)
    assert step.actions.tolist() == expected.argmax(-1).tolist()
    samples = np.stack([act(actor, deterministic=False).actions for _ in range(400)])
    assert samples.mean(axis=0) == pytest.approx(expected[:, 1], abs=0.12)


def gaussian_actor() -> Any:
    network = nn.Sequential(nn.Linear(4, 4), NormalParamExtractor())
    body = TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"])
    return ProbabilisticActor(body, in_keys=["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True)


def test_squashed_gaussian_has_action_units() -> None:
    actor = gaussian_actor()
    step = act(actor, PLANE)
    assert step.actions == pytest.approx(greedy_action(actor).numpy(), abs=1e-6)
    assert isinstance(step.scores, Gaussian)
    with torch.no_grad():
        samples = actor.get_dist(BATCH.clone()).sample((4000,))
    assert step.scores.mean == pytest.approx(samples.mean(0).numpy(), abs=0.3)
    assert step.scores.std == pytest.approx(samples.std(0).numpy(), abs=0.3)
    assert (step.scores.std < 1).all(), "loc and scale before squashing differ"


def test_squashed_gaussian_is_sampled_if_not_deterministic() -> None:
    actor = gaussian_actor()
    samples = [act(actor, PLANE, deterministic=False).actions for _ in range(2)]
    assert not np.allclose(*samples)


def test_actions_are_those_of_a_deterministic_actor() -> None:
    actor = Actor(nn.Linear(4, 2), in_keys=["observation"])
    step = act(actor, PLANE)
    assert step.actions == pytest.approx(greedy_action(actor).clamp(-1, 1).numpy())
    assert step.scores is None


def test_deterministic_evaluation_does_not_explore() -> None:
    actor = QValueActor(nn.Linear(4, 2), in_keys=["observation"], spec=OneHot(2))
    exploring = TensorDictSequential(actor, EGreedyModule(OneHot(2), eps_init=1.0, eps_end=1.0))
    expected = greedy_action(actor).argmax(-1).tolist()
    assert [act(exploring).actions.tolist() for _ in range(3)] == [expected] * 3
    assert len({tuple(act(exploring, deterministic=False).actions) for _ in range(9)}) > 1


def test_value_of_an_actor_critic_is_read() -> None:
    common = TensorDictModule(nn.Linear(4, 3), in_keys=["observation"], out_keys=["hidden"])
    body = TensorDictModule(nn.Linear(3, 2), in_keys=["hidden"], out_keys=["logits"])
    policy = ProbabilisticActor(body, in_keys=["logits"], distribution_class=OneHotCategorical)
    both = ActorValueOperator(common, policy, ValueOperator(nn.Linear(3, 1), in_keys=["hidden"]))
    step = act(both)
    with torch.no_grad():
        written = both(BATCH.clone())
    assert step.values == pytest.approx(written["state_value"][:, 0].numpy())
    assert step.scores.values == pytest.approx(written["logits"].softmax(-1).numpy())


def test_missing_q_values_raise() -> None:
    body = TensorDictModule(nn.Linear(4, 2), in_keys=["observation"], out_keys=["logits"])
    actor = ProbabilisticActor(body, in_keys=["logits"], distribution_class=OneHotCategorical)
    with pytest.raises(PolicyError, match="has no q-values"):
        act(actor, action_logger="q_value")


def test_dict_observations_become_entries_of_the_same_names() -> None:
    network = nn.Bilinear(2, 3, 2)
    actor = QValueActor(
        TensorDictModule(network, in_keys=["goal", ("robot", "pose")], out_keys=["action_value"]),
        action_space="categorical",
    )
    goal, pose = OBSERVATIONS[:, :2], OBSERVATIONS[:, 1:]
    step = act(actor, observations={"goal": goal, "robot": {"pose": pose}})
    expected = network(torch.as_tensor(goal), torch.as_tensor(pose)).detach().numpy()
    assert step.scores.values == pytest.approx(expected)


def test_tuple_observations_fill_the_entries_in_order() -> None:
    network = nn.Bilinear(2, 3, 2)
    actor = QValueActor(
        TensorDictModule(network, in_keys=["first", "second"], out_keys=["action_value"]), action_space="categorical"
    )
    parts = OBSERVATIONS[:, :2], OBSERVATIONS[:, 1:]
    expected = network(*map(torch.as_tensor, parts)).detach().numpy()
    assert act(actor, observations=parts).scores.values == pytest.approx(expected)
    with pytest.raises(PolicyError, match=r"reads the entries \['first', 'second'\], but the number of .* is 1\."):
        act(actor)


def test_networks_outside_the_module_run_in_evaluation_mode_and_are_restored() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.9))
    actor = QValueActor(network, in_keys=["observation"], action_space="categorical")
    network[0].eval()
    assert act(actor).scores.values == pytest.approx(network[0](BATCH["observation"]).detach().numpy())
    assert (actor.training, network[0].training, network[1].training) == (True, False, True)


def test_observations_have_the_dtype_of_the_actor() -> None:
    actor = QValueActor(nn.Linear(4, 2).double(), in_keys=["observation"], action_space="categorical")
    assert act(actor).scores.values.shape == (5, 2)


class CueEnv(gym.Env[Any, Any]):
    """Environment that shows a cue in the first observation only; the seed sets the cue and the length."""

    observation_space = spaces.Box(0.0, 3.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.length = 0, 2 + (seed * 7) % 5
        return np.array([1.0, seed % 3], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(2, np.float32), 1.0, self.steps >= self.length, False, {}


def test_recurrent_actor_gives_the_same_scores_in_one_and_in_several_environments() -> None:
    memory = LSTMModule(input_size=2, hidden_size=4, in_key="observation", out_key="features")
    head = TensorDictModule(nn.Linear(4, 2), in_keys=["features"], out_keys=["action_value"])
    actor = TensorDictSequential(memory, QValueActor(head, action_space="categorical"))
    module = nn.Module()
    module.actor = actor

    def scores(num_envs: int) -> list[Any]:
        settings = EvaluationConfig(env=CueEnv, policy="actor", episodes=7, num_envs=num_envs)
        with preserved_state(module, seed=0):
            played = Evaluator(WandbRLConfig(action_logger="q_value", evaluation=settings), module).play()
        return [each.episode.scores.values for each in played]

    alone, together = scores(1), scores(3)
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    assert not np.allclose(alone[0][-1], alone[1][-1], atol=1e-4), "the scores depend on the cue"


def test_state_is_zero_where_an_episode_starts() -> None:
    def count(observations: torch.Tensor, steps: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        steps = torch.zeros(len(observations), 1) if steps is None else steps
        return torch.cat([steps, -steps], dim=1), steps + 1

    module = TensorDictModule(count, in_keys=["observation", "steps"], out_keys=["action_value", ("next", "steps")])
    reader = OutputReader(LEFT_RIGHT, action_logger=True, tensor_meaning="unknown", deterministic=True)
    adapter = adapter_for(QValueActor(module, action_space="categorical"), nn.Module(), reader)
    begins = [[True, True], [False, False], [False, True], [False, False]]
    scores = [adapter.act(OBSERVATIONS[:2], np.array(rows)).scores.values[:, 0].tolist() for rows in begins]
    assert scores == [[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [3.0, 1.0]]
