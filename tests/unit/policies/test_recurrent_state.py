"""Recurrent policies in episodes whose correct actions depend on the first observation and the step."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluations import KeptErrors
from gymnasium import spaces
from torch import nn

from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Episode, Gaussian, PolicyStep, QValues
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import preserved_state
from rlwandb_callbacks.policies.adapters.recurrent_state import StateParameter, insert_state, insert_step, split_state


class CueEnv(gym.Env[Any, Any]):
    """Environment that rewards ``(cue + step) % 3``; the first observation has the cue, the seed sets the length."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 3.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.steps = int(seed % 3), 0
        self.length = 2 + (seed * 7) % 5
        return np.array([1.0, self.cue], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        is_right = int(action) == (self.cue + self.steps) % 3
        self.steps += 1
        return np.zeros(2, np.float32), float(is_right), self.steps >= self.length, False, {}


Carried = namedtuple("Carried", ["h", "c"])  # noqa: PYI024  # users write this form


class CountingPolicy(nn.Module):
    """Optimal policy for CueEnv with a state of a given structure, whose initial count is 30 instead of zero."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.fresh_states: list[int] = []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, observations: torch.Tensor, state: Any = None) -> Any:
        if state is None:
            self.fresh_states.append(len(observations))
            cue, count = observations[:, 1], torch.full((len(observations),), 30.0)
        else:
            cue, count = self.unpacked(state)
        q_values = torch.nn.functional.one_hot((cue + count).long() % 3, 3) * self.scale
        packed = self.packed(cue, count + 1)
        return (q_values, packed) if self.form == "tuple" else {"q_values": q_values, "state": packed}

    def packed(self, cue: torch.Tensor, count: torch.Tensor) -> Any:
        match self.form:
            case "one tensor":
                return torch.stack([cue, count], dim=1)
            case "mapping":
                return {"cue": cue, "more": {"count": count[:, None], "unused": None}}
            case "named":
                return Carried(cue[:, None], count[:, None])
            case "numpy":
                return [cue.numpy(), count.numpy()]
            case _:  # as nn.LSTM, with two layers and two features, as many as environments
                return tuple(part[None, :, None].expand(2, -1, 2).clone() for part in (cue, count))

    def unpacked(self, state: Any) -> Any:
        match self.form:
            case "one tensor":
                return state.unbind(dim=1)
            case "mapping":
                return state["cue"], state["more"]["count"][:, 0]
            case "named":
                return state.h[:, 0], state.c[:, 0]
            case "numpy":
                return tuple(map(torch.as_tensor, state))
            case _:
                assert all((part == part[:1, :, :1]).all() for part in state), "layers and rows are not mixed"
                return tuple(part[0, :, 0] for part in state)


def played(
    policy: Any, *, num_envs: int, episodes: int = 9, module: nn.Module | None = None, **options: Any
) -> list[Episode]:
    settings = {
        "env": options.pop("env", CueEnv),
        "policy": policy,
        "episodes": episodes,
        "num_envs": num_envs,
        "seed": 3,
    }
    cfg = WandbRLConfig(action_logger="q_value", video_logger=False, evaluation=EvaluationConfig(**settings))
    module = module or (policy if isinstance(policy, nn.Module) else nn.Module())
    with preserved_state(module, seed=0):
        return [each.episode for each in Evaluator(cfg, module, **options).play()]


@pytest.mark.parametrize("form", ["one tensor", "mapping", "named", "numpy", "as an LSTM", "tuple"])
@pytest.mark.parametrize("num_envs", [1, 2, 4, 9])
def test_each_episode_has_its_own_state(form: str, num_envs: int) -> None:
    episodes = played(CountingPolicy(form), num_envs=num_envs)
    assert [episode.length for episode in episodes] == [2 + seed * 7 % 5 for seed in range(3, 12)]
    assert [episode.total_return for episode in episodes] == [episode.length for episode in episodes]


def test_policy_is_called_twice_only_if_an_episode_starts_while_others_continue() -> None:
    together, apart = CountingPolicy("tuple"), CountingPolicy("tuple")
    played(together, num_envs=9)
    played(apart, num_envs=1)
    assert together.fresh_states == [9], "at the start"
    assert apart.fresh_states == [1] * 9


class SequenceEnv(CueEnv):
    """Environment that observes a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Sequence(spaces.Box(0.0, 3.0, (2,), np.float32), stack=True)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed)
        return np.stack([observation] * 2), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, *rest = super().step(action)
        return np.stack([observation]), *rest


@pytest.mark.parametrize("num_envs", [1, 2, 9])
def test_recurrent_policy_for_sequences(num_envs: int) -> None:
    network = CountingPolicy("tuple")

    def policy(observations: Any, state: Any = None) -> Any:
        return network(torch.stack([sequence[-1] for sequence in observations]), state)

    episodes = played(policy, num_envs=num_envs, env=SequenceEnv)
    assert [episode.total_return for episode in episodes] == [episode.length for episode in episodes]


class Recurrent(nn.Module):
    """An LSTM with two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 4, num_layers=2)
        self.head = nn.Linear(4, 3)

    def forward(self, observations: torch.Tensor, hidden: Any = None) -> Any:
        features, hidden = self.lstm(observations[None], hidden)
        return self.head(features[0]), hidden


def test_lstm_gives_the_same_scores_in_one_and_in_several_environments() -> None:
    torch.manual_seed(0)
    network = Recurrent()
    alone, together = played(network, num_envs=1), played(network, num_envs=2)
    for one, other in zip(alone, together, strict=True):
        assert one.actions.tolist() == other.actions.tolist()
        assert one.scores.values == pytest.approx(other.scores.values, abs=1e-6)
    assert not np.allclose(alone[0].scores.values[1], alone[0].scores.values[2], atol=1e-5), (
        "the scores depend on the state"
    )


def test_state_of_a_mapping_is_passed_to_any_second_parameter() -> None:
    network = CountingPolicy("one tensor")

    def policy(observations: torch.Tensor, before: Any = None, /) -> Any:
        return network(observations, before)

    assert played(policy, num_envs=3)[0].total_return == 2 + 21 % 5


def test_second_tuple_entry_is_not_a_state_without_a_state_parameter() -> None:
    actions_seen = []

    def policy(observations: torch.Tensor, action: Any = None) -> Any:
        actions_seen.append(action)
        return torch.zeros(len(observations), 3), torch.zeros(len(observations))

    played(policy, num_envs=3)
    assert set(actions_seen) == {None}


def test_state_without_a_parameter_raises_at_the_start() -> None:
    def policy(observations: torch.Tensor) -> Any:
        return {"q_values": torch.zeros(len(observations), 3), "state": torch.zeros(len(observations), 1)}

    with pytest.raises(PolicyError, match=r"returned `state`, but takes observations only.*`state=None`"):
        played(policy, num_envs=1)


@pytest.mark.parametrize(
    ("grow", "description"),
    [
        (
            lambda state, count: 0 if state is None else state + 1,
            "1 for 3 observations after several steps, and 0 for 1 after",
        ),
        (lambda state, count: torch.zeros(4, 2), "a Tensor of shape [4, 2]"),
        (
            lambda state, count: torch.zeros(count, 1 if state is None else state.shape[1] + 1),
            "[3, 2] for 3 observations",
        ),
        (lambda state, count: torch.zeros(2 * count, count), "a Tensor of shape [6, 3]"),
    ],
    ids=["a number", "no rows", "growing", "two axes of rows"],
)
def test_policy_whose_state_has_no_batch_axis_is_called_once_per_environment(grow: Any, description: str) -> None:
    sizes = []

    def policy(observations: torch.Tensor, state: Any = None) -> Any:
        sizes.append(len(observations))
        return {"q_values": torch.zeros(len(observations), 3), "state": grow(state, len(observations))}

    with pytest.warns(UserWarning, match="called once per environment and step") as caught:
        assert len(played(policy, num_envs=2)) == 9
    assert description in str(caught[0].message)
    assert sizes[-20:] == [1] * 20


@pytest.mark.parametrize("num_envs", [1, 2, 4, 9])
def test_step_counter_as_state_counts_the_steps_of_each_episode(num_envs: int) -> None:
    def policy(observations: torch.Tensor, state: Any = None) -> Any:
        cue, count = (observations[:, 1], 0) if state is None else state
        q_values = torch.nn.functional.one_hot((cue + count).long() % 3, 3).float()
        return {"q_values": q_values, "state": (cue, count + 1)}

    errors = KeptErrors()
    episodes = played(policy, num_envs=num_envs, warn_once=errors.warn_once)
    assert [episode.total_return for episode in episodes] == [episode.length for episode in episodes]
    assert len(errors.warnings) == (1 < num_envs < 9)


def test_policy_that_fails_on_its_own_state_raises_at_the_start() -> None:
    def policy(observations: torch.Tensor, state: Any = None) -> Any:
        if state is not None:
            raise RuntimeError("expected a tuple (h, c)")
        return {"q_values": torch.zeros(len(observations), 3), "state": torch.zeros(len(observations), 1)}

    with pytest.raises(PolicyError, match=r"failed on a batch of 3 .* expected a tuple \(h, c\)"):
        played(policy, num_envs=9)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (lambda x: x, None),
        (lambda x, state=None: x, StateParameter("state", is_named=True)),
        (lambda x, action=None, hx=None: x, StateParameter("hx", is_named=True)),
        (lambda x, rnn_hxs: x, StateParameter("rnn_hxs", is_named=True, is_required=True)),
        (lambda x, *, lstm_state=None: x, StateParameter("lstm_state", is_named=True)),
        (lambda x, other=None: x, StateParameter("other", is_named=False)),
        (lambda x, other=None, /: x, StateParameter(None, is_named=False)),
        (lambda x, **more: x, StateParameter("state", is_named=False)),
        (lambda x, return_state=False: x, StateParameter("return_state", is_named=False)),
        (lambda x, next_state=None: x, StateParameter("next_state", is_named=False)),
        (lambda states: states, None),
        (Recurrent(), StateParameter("hidden", is_named=True)),
        (Recurrent().forward, StateParameter("hidden", is_named=True)),
        (max, None),
    ],
)
def test_state_parameter_is_found_in_the_signature(policy: Any, expected: StateParameter | None) -> None:
    assert StateParameter.of(policy) == expected


def test_compiled_network_has_the_same_state_parameter() -> None:
    assert StateParameter.of(torch.compile(Recurrent(), backend="eager")) == StateParameter("hidden", is_named=True)


def test_required_state_is_none_at_the_first_step() -> None:
    assert StateParameter("h", is_named=True, is_required=True).call(lambda x, h: (x, h), 1, None) == (1, None)


def test_last_entry_of_a_tuple_is_the_state() -> None:
    parameter = StateParameter("state", is_named=True)
    assert split_state(("action", "value", "state"), parameter) == (("action", "value"), "state")
    assert split_state(("logits", None), parameter) == ("logits", None)
    assert split_state(("logits", "value"), None) == (("logits", "value"), None)


def test_state_in_a_tensordict() -> None:
    tensordict = pytest.importorskip("tensordict")
    fresh, carried = (
        tensordict.TensorDict({"h": torch.full((rows, 2), value)}, batch_size=[rows])
        for rows, value in ((1, 0.0), (2, 1.0))
    )
    state = insert_state(np.array([False, True]), fresh, carried)
    assert state["h"].tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert carried["h"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_rows_of_another_step_are_inserted() -> None:
    starts = np.array([True, False])
    scores = [QValues(np.full((rows, 2), value)) for rows, value in ((1, 0.0), (2, 1.0))]
    step = insert_step(
        starts,
        PolicyStep(np.array([[5]]), scores[0], np.zeros(1)),
        PolicyStep(np.array([[6], [6]]), scores[1], np.ones(2)),
    )
    assert step.actions.tolist() == [[5], [6]]
    assert step.scores.values.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert step.values.tolist() == [0.0, 1.0]
    gaussians = [Gaussian(np.full((rows, 1), value), np.ones((rows, 1))) for rows, value in ((1, 0.0), (2, 1.0))]
    actions = [{"a": np.full(rows, value), "b": (np.full(rows, value),)} for rows, value in ((1, 0), (2, 1))]
    step = insert_step(starts, *(PolicyStep(a, g) for a, g in zip(actions, gaussians, strict=True)))
    assert step.scores.mean.tolist() == [[0.0], [1.0]]
    assert step.actions["a"].tolist() == step.actions["b"][0].tolist() == [0, 1]
