"""Messages about policies that cannot be called with observations alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from evaluations import evaluated
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.acting_methods import acting_advice
from rlwandb_callbacks.policies.resolve import resolve_policy
from rlwandb_callbacks.testing import CorridorEnv


class NeedsDevice:
    """Agent that is called with states and a device, as that of lightning-bolts."""

    def __call__(self, state: Any, device: str) -> list[int]:
        return [0] * len(state)

    def get_action(self, state: Any, device: str) -> list[int]:
        return self(state, device)


class NeedsState(nn.Module):
    def forward(self, observations: Any, lstm_state: Any, done: Any) -> Any:
        return observations


class BatchAgent:
    """Agent with the methods of pfrl."""

    def act(self, obs: Any) -> Any: ...

    def batch_act(self, batch_obs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("policy", "arguments", "line"),
    [
        (NeedsDevice(), "state, device", "lambda observations: policy(observations, device=...)"),
        (NeedsDevice().get_action, "state, device", "lambda observations: agent.get_action(observations, device=...)"),
        (NeedsState(), "observations, lstm_state, done", "policy(observations, lstm_state=..., done=...)"),
    ],
)
def test_arguments_that_are_missing_are_named_with_a_line_that_passes_them(
    policy: Any, arguments: str, line: str
) -> None:
    module: Any = nn.Module()
    module.agent = policy
    with pytest.raises(PolicyError) as error:
        evaluated(policy, module=module, env=CorridorEnv, episodes=2)
    assert f"It needs the arguments {arguments}." in str(error.value)
    assert line in str(error.value)


def test_other_errors_of_a_policy_are_not_explained_by_its_arguments() -> None:
    assert acting_advice(NeedsDevice(), ValueError("no such device")) == ""
    assert acting_advice(lambda observations: observations, TypeError("unsupported operand")) == ""


def test_method_for_batches_is_named_first() -> None:
    assert "lambda observations: agent.batch_act(list(observations.cpu().numpy()))" in acting_advice(BatchAgent())


def test_attribute_may_be_named_with_self_as_environments_are() -> None:
    module: Any = nn.Module()
    module.agent = nn.Module()
    module.agent.q = nn.Linear(2, 2)
    assert resolve_policy(module, "self.agent.q") is module.agent.q


class ContinuousCorridor(CorridorEnv):
    """Corridor whose direction is the sign of the action."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space: Any = spaces.Box(-1.0, 1.0, (1,))

    def step(self, action: Any) -> Any:
        return super().step(int(action[0] > 0))


def test_list_of_the_actions_of_each_environment_is_stacked() -> None:
    def policy(observations: Any) -> list[torch.Tensor]:
        return [torch.tensor([0.5]) for _ in observations]

    (first, *_), warnings = evaluated(policy, env=ContinuousCorridor)
    assert first.actions.tolist() == [[0.5]] * len(first.actions)
    assert warnings == []
