from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.resolve import resolve_policy, tensor_meaning
from rlwandb_callbacks.policies.runner import PolicyRunner
from rlwandb_callbacks.testing import TinyActorCritic, TinyQ


class Agent(nn.Module):
    """Module with networks, a nested one, a method and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.q_network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        self.networks = nn.ModuleDict({"critic": nn.Linear(2, 1)})
        self.temperature = 0.5
        self.chooser = max

    def best_action(self, observations: torch.Tensor) -> torch.Tensor:
        return observations

    def _helper(self) -> None: ...


@pytest.fixture
def module_of_policies() -> Iterator[None]:
    module = types.ModuleType("policies_of_a_user")
    module.act = len
    module.number = 3
    sys.modules[module.__name__] = module
    yield
    del sys.modules[module.__name__]


def test_attribute_by_dotted_path() -> None:
    agent = Agent()
    assert resolve_policy(agent, "q_network") is agent.q_network
    assert resolve_policy(agent, "q_network.0") is agent.q_network[0]
    assert resolve_policy(agent, "networks.critic") is agent.networks["critic"]
    assert resolve_policy(agent, "best_action") == agent.best_action
    assert resolve_policy(agent, "chooser") is max


@pytest.mark.parametrize("path", ["policies_of_a_user:act", "policies_of_a_user.act"])
def test_import_path_with_colon_or_dot(module_of_policies: None, path: str) -> None:
    assert resolve_policy(Agent(), path) is len


def test_callable_is_returned_unchanged() -> None:
    network = nn.Linear(1, 1)
    assert resolve_policy(Agent(), network) is network
    assert resolve_policy(Agent(), len) is len


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["q_net", "q_network", "actor", "policy", "policy_step"], "policy_step"),
        (["q_net", "q_network", "actor", "policy"], "policy"),
        (["q_net", "q_network", "actor"], "actor"),
        (["q_net", "q_network"], "q_network"),
        (["q_net"], "q_net"),
    ],
)
def test_default_is_the_first_of_the_default_names(names: list[str], first: str) -> None:
    module = nn.Module()
    for name in names:
        setattr(module, name, nn.Linear(1, 1))
    assert resolve_policy(module, None) is getattr(module, first)


def test_default_name_that_is_not_callable_is_skipped() -> None:
    module = nn.Module()
    module.policy = "epsilon-greedy"
    module.q_net = nn.Linear(1, 1)
    assert resolve_policy(module, None) is module.q_net


@pytest.mark.parametrize(
    ("policy", "fragments"),
    [
        ("q_netwrok", ["'q_netwrok' is neither an attribute of Agent nor an import path", "Did you mean 'q_network'?"]),
        ("best_acton", ["Did you mean 'best_action'?"]),
        ("q_network.7", ["'q_network.7'"]),
        ("no_such_module:act", ["'no_such_module:act'"]),
        ("policies_of_a_user:no_such_name", ["'policies_of_a_user:no_such_name'"]),
        ("", ["''"]),
        (":", ["':'"]),
        ("temperature", ["'temperature' is 0.5 of type float", "can neither be called"]),
        ("policies_of_a_user:number", ["is 3 of type int", "can neither be called"]),
        (None, ["is not set", "Agent has none of policy_step, policy, actor, q_network, q_net"]),
    ],
)
def test_error_lists_the_networks_and_methods_of_the_module(
    module_of_policies: None, policy: str | None, fragments: list[str]
) -> None:
    agent = Agent()
    if policy is None:
        agent.main_network = agent.q_network
        del agent.q_network
    with pytest.raises(PolicyError) as caught:
        resolve_policy(agent, policy)
    message = str(caught.value)
    networks = "networks, main_network" if policy is None else "q_network, networks"
    for fragment in [*fragments, f"has the networks {networks}", "the methods best_action, chooser."]:
        assert fragment in message


def test_error_lists_no_methods_of_lightning() -> None:
    with pytest.raises(PolicyError) as caught:
        resolve_policy(TinyActorCritic(), "polic")
    message = str(caught.value)
    assert "Did you mean 'policy'?" in message
    assert "the networks actor, critic" in message
    assert "configure_optimizers, policy, train_dataloader, training_step." in message
    assert "load_from_checkpoint" not in message


def test_error_for_a_module_without_members() -> None:
    with pytest.raises(PolicyError, match=r"Module has the networks \(none\) and the methods \(none\)\."):
        resolve_policy(nn.Module(), None)


class QNetwork(nn.Module):
    """Network whose class name tells its output."""


@pytest.mark.parametrize(
    ("policy", "action_logger", "meaning"),
    [
        ("q_network", True, "q_values"),
        ("q_network", False, "q_values"),
        ("q_network", "action_probability", "q_values"),
        ("q_network", "q_value", "q_values"),
        ("agent.q_net", True, "q_values"),
        ("networks.critic", True, "q_values"),
        ("dqn", True, "q_values"),
        ("policies.agent:q_network", True, "q_values"),
        ("policy", True, "logits"),
        ("actor", False, "logits"),
        ("agent.policy", True, "logits"),
        ("agents.ppo:policy", True, "logits"),
        ("agents.policy:q_network", True, "q_values"),
        ("policy.q_net", True, "q_values"),
        ("q_network.0", True, "q_values"),
        ("dqn.policy", True, "logits"),
        ("q_policy", True, "logits"),
        ("policy", "q_value", "q_values"),
        ("head", True, "unknown"),
        ("head", "action_probability", "logits"),
        ("head", "q_value", "q_values"),
        (QNetwork(), True, "q_values"),
        (lambda observations: observations, True, "unknown"),
        (None, True, "q_values"),
    ],
)
def test_meaning_of_a_bare_tensor_by_action_logger_and_name(
    policy: Any, action_logger: bool | str, meaning: str
) -> None:
    assert tensor_meaning(policy, TinyQ(), action_logger) == meaning


class RecordingPolicy:
    """Policy that records its observations and returns action 1."""

    def __init__(self) -> None:
        self.observations: list[Any] = []

    def __call__(self, observations: Any) -> torch.Tensor:
        self.observations.append(observations)
        return torch.ones(3, dtype=torch.int64)


def observations_of_policy(observations: Any, dtype: torch.dtype = torch.float32) -> Any:
    policy = RecordingPolicy()
    reader = OutputReader(spaces.Discrete(2), action_logger=False, tensor_meaning="unknown", deterministic=True)
    step = PolicyRunner(policy, nn.Linear(1, 1).to(dtype), reader)(observations)
    assert step.actions.tolist() == [1, 1, 1]
    assert len(policy.observations) == 1
    return policy.observations[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_get_the_dtype_of_the_module_and_other_dtypes_are_kept(dtype: torch.dtype) -> None:
    assert observations_of_policy(np.ones((3, 2)), dtype).dtype == dtype
    assert observations_of_policy(np.ones((3, 2), np.float32), dtype).dtype == dtype
    assert observations_of_policy(np.ones((3, 2), np.uint8), dtype).dtype == torch.uint8
    assert observations_of_policy(np.arange(3), dtype).tolist() == [0, 1, 2]


def test_dict_and_tuple_batches_keep_their_structure() -> None:
    batch = observations_of_policy({"image": np.zeros((3, 4, 4), np.uint8), "pose": (np.ones((3, 2)), np.arange(3))})
    assert batch["image"].dtype == torch.uint8
    assert isinstance(batch["pose"], tuple)
    assert [part.shape for part in batch["pose"]] == [(3, 2), (3,)]
    assert observations_of_policy((np.ones((3, 2)), np.arange(3)))[1].tolist() == [0, 1, 2]


def test_module_without_parameters_gets_single_precision() -> None:
    policy = RecordingPolicy()
    reader = OutputReader(spaces.Discrete(2), action_logger=False, tensor_meaning="unknown", deterministic=True)
    PolicyRunner(policy, nn.Module(), reader)(np.ones((3, 2)))
    assert policy.observations[0].dtype == torch.float32


def test_unused_agent_libraries_are_not_imported() -> None:
    code = """
import sys
import torch
from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.evaluation.evaluator import Evaluator
cfg = WandbRLConfig(evaluation=EvaluationConfig(env="CartPole-v1", policy="q_network", episodes=1))
module = torch.nn.Module()
module.q_network = torch.nn.Linear(4, 2)
assert len(Evaluator(cfg, module).play()) == 1
print([name for name in ("tensordict", "torchrl", "stable_baselines3") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_episodes_start_in_all_rows_of_the_first_batch_and_in_marked_rows() -> None:
    states = []

    def policy(observations: torch.Tensor, state: Any = None) -> Any:
        states.append(None if state is None else state[:, 0].tolist())
        return torch.zeros(len(observations), 2), torch.full((len(observations), 1), float(len(states)))

    reader = OutputReader(spaces.Discrete(2), action_logger=False, tensor_meaning="unknown", deterministic=True)
    runner = PolicyRunner(policy, nn.Module(), reader)
    runner(np.zeros((2, 1)))
    runner(np.zeros((2, 1)))
    runner.mark_episode_starts(np.array([False, True]))
    runner(np.zeros((2, 1)))
    runner(np.zeros((2, 1)))
    assert states == [None, [1.0, 1.0], [2.0, 2.0], None, [3.0, 4.0]]
    runner(np.zeros((3, 1)))
    assert states[-1] is None, "a batch of another size resets the state"
