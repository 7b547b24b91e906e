"""Evaluation with all kinds of policies and actions: logged values and unchanged training."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import OneHotCategorical, ProbabilisticActor, QValueActor

from rlwandb_callbacks import EvaluationCallback, PolicyError, WandbRLCallback
from rlwandb_callbacks.core.values import Histogram
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, read_offline_run


class TorchRLModule(TinyQ):
    """Module with actors of TorchRL."""

    def __init__(self) -> None:
        super().__init__(batches=4)
        self.actor = QValueActor(self.q_network, in_keys=["observation"], action_space="one_hot")
        body = TensorDictModule(nn.Linear(2, 2), in_keys=["observation"], out_keys=["logits"])
        self.stochastic = ProbabilisticActor(body, in_keys=["logits"], distribution_class=OneHotCategorical)


class StableBaselinesModule(TinyQ):
    """Module with models of Stable-Baselines3, which are not submodules."""

    def __init__(self) -> None:
        super().__init__(batches=4)
        options = {"device": "cpu", "seed": 0}
        self.dqn = sb3.DQN("MlpPolicy", CorridorEnv(), buffer_size=10, policy_kwargs={"net_arch": [4]}, **options)
        self.ppo = sb3.PPO("MlpPolicy", CorridorEnv(), n_steps=8, batch_size=8, **options)


class Alternating(TinyQ):
    """Module with a recurrent policy that alternates between two actions."""

    def __init__(self) -> None:
        super().__init__(batches=4)

    def policy(self, observations: torch.Tensor, state: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        count = torch.zeros(len(observations)) if state is None else state
        right = (count % 2 == 0).float()
        return {"q_values": torch.stack([1 - right, right], dim=1), "state": count + 1}


def run_evaluation(fit: Any, module: Any, policy: str, **settings: Any) -> dict[str, Any]:
    tracker = MemoryTracker()
    options = {"env": CorridorEnv, "policy": policy, "episodes": 5, "num_envs": 2, **settings}
    cfg = {"on_error": "raise", "action_logger": True, "evaluation": options}
    fit(module, EvaluationCallback(cfg, tracker=tracker))
    return tracker.by_update()[-1]


@pytest.mark.parametrize(
    ("make", "policy", "key"),
    [
        (TorchRLModule, "actor", "q/mean"),
        (TorchRLModule, "stochastic", "policy/entropy"),
        (StableBaselinesModule, "dqn", "q/mean"),
        (StableBaselinesModule, "ppo.predict", "policy/entropy"),
    ],
)
def test_policies_of_other_libraries_are_evaluated_with_scores_and_videos(
    fit: Any, make: type[TinyQ], policy: str, key: str
) -> None:
    torch.manual_seed(0)
    row = run_evaluation(fit, make(), policy)
    assert np.isfinite(row[key])
    assert isinstance(row["policy/action_histogram"], Histogram)
    assert all(Path(row[f"video/{label}"].path).is_file() for label in ("best", "median", "worst"))


@pytest.mark.parametrize(("make", "policy"), [(TorchRLModule, "stochastic"), (StableBaselinesModule, "ppo")])
def test_weights_are_identical_with_and_without_evaluation(fit: Any, make: type[TinyQ], policy: str) -> None:
    def weights(*callbacks: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = make()
        torch.manual_seed(1)
        fit(module, *callbacks)
        model = getattr(module, "ppo", None)
        modes = [] if model is None else [torch.tensor([part.training for part in model.policy.modules()])]
        random_numbers = torch.rand(3)
        return [*module.state_dict().values(), *modes, random_numbers]

    options = {"env": CorridorEnv, "policy": policy, "deterministic": False, "every_n_steps": 1}
    cfg = {"on_error": "raise", "video_logger": False, "evaluation": options}
    with_callback = weights(EvaluationCallback(cfg, tracker=MemoryTracker()))
    for one, other in zip(weights(), with_callback, strict=True):
        assert torch.equal(one, other)


def test_recurrent_policy_has_its_own_state_in_each_episode(fit: Any) -> None:
    row = run_evaluation(fit, Alternating(), "policy")
    # A corridor of n cells takes n steps to the right, with one STAY between two steps.
    returns = {episode[2] for episode in row["eval/episodes"].rows}
    assert returns == {1.0}
    assert sorted(episode[4] for episode in row["eval/episodes"].rows) == [2 * n - 1 for n in (2, 3, 4, 5, 6)]


class MultiActionEnv(gym.Env[Any, Any]):
    """Environment whose actions have several dimensions."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, space: spaces.Space[Any], render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(0.0, 10.0, (2,), np.float32)
        self.action_space, self.render_mode = space, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.start = 0, self.np_random.random()
        return np.array([0, self.start], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.array([self.steps, self.start], np.float32), float(np.sum(action)), self.steps >= 4, False, {}

    def render(self) -> Any:
        return np.full((80, 80, 3), 30 * self.steps, np.uint8)


class LogitsModule(TinyQ):
    """Module with a policy that returns the logits of all dimensions."""

    def __init__(self, outputs: int) -> None:
        super().__init__(batches=4)
        self.policy = nn.Linear(2, outputs)


@pytest.mark.parametrize(
    ("space", "outputs"),
    [(spaces.MultiDiscrete([2, 3]), 5), (spaces.MultiBinary(4), 4)],
    ids=["MultiDiscrete", "MultiBinary"],
)
def test_multi_dimensional_actions_are_logged(fit: Any, space: Any, outputs: int, decode: Any) -> None:
    callback = WandbRLCallback(
        env=MultiActionEnv,
        evaluation={"env_kwargs": {"space": space}, "episodes": 1},
        policy="policy",
        action_logger=True,
    )
    fit(LogitsModule(outputs), callback)
    run = read_offline_run("wandb")
    row = next(row for row in run.history if "policy/entropy" in row)
    assert 0 < row["policy/entropy"] <= np.log(6 if outputs == 5 else 16) + 1e-6
    assert {f"policy/action_histogram_{i}" for i in range(2 if outputs == 5 else 4)} <= row.keys()
    _, frames = decode(run.media("video/best")[0])
    assert len(frames) == 5


def test_invalid_output_raises_an_error_that_names_the_policy(fit: Any) -> None:
    settings = {"env": MultiActionEnv, "policy": "policy", "env_kwargs": {"space": spaces.MultiDiscrete([2, 3])}}
    callback = EvaluationCallback(evaluation=settings)
    with pytest.raises(
        PolicyError, match=r"evaluation.policy 'policy': The policy returned a Tensor of shape \[3, 4\]"
    ):
        fit(LogitsModule(4), callback)


class Chunking(TinyQ):
    """Module whose training uses the actions in its queue, which it fills with two actions at a time."""

    def __init__(self) -> None:
        super().__init__(batches=7)
        self.queue: deque[torch.Tensor] = deque(maxlen=2)

    def reset(self) -> None:
        self.queue.clear()

    def select_action(self, observations: torch.Tensor) -> torch.Tensor:
        if not self.queue:
            q_values = self.q_network(observations)
            self.queue.extend([q_values, q_values + torch.tensor([0.5, 0.0])])
        return self.queue.popleft()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> Any:
        loss = (self.select_action(batch[0]).detach() - self.q_network(batch[0]) + 1.0).square().mean()
        return {"loss": loss}


CHUNKING = {"env": CorridorEnv, "policy": "select_action", "episodes": 5, "every_n_steps": 3}


def test_policy_with_a_queue_trains_as_without_evaluation(fit: Any) -> None:
    modules = []
    for callbacks in [
        (),
        (EvaluationCallback({"on_error": "raise", "evaluation": CHUNKING}, tracker=MemoryTracker()),),
    ]:
        torch.manual_seed(0)
        modules.append(Chunking())
        fit(modules[-1], *callbacks)
    weights = [torch.nn.utils.parameters_to_vector(module.parameters()) for module in modules]
    assert torch.equal(*weights)
    assert len(modules[0].queue) == len(modules[1].queue) == 1
    assert torch.equal(modules[0].queue[0], modules[1].queue[0])


class SequencePolicy(TinyQ):
    """Module whose policy takes a batch as one sequence."""

    def __init__(self) -> None:
        super().__init__(batches=6)
        self.gru = nn.GRU(2, 2)

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return self.gru(observations)[0]


def test_mixed_rows_are_told_once_in_each_training(fit: Any) -> None:
    options = {"env": CorridorEnv, "policy": "policy", "episodes": 5, "every_n_steps": 2}
    callback = EvaluationCallback({"on_error": "raise", "evaluation": options}, tracker=MemoryTracker())
    for _ in range(2):
        with pytest.warns(UserWarning, match="depends on the other observations in the batch") as caught:
            fit(SequencePolicy(), callback)
        assert len([each for each in caught if "depends on the other" in str(each.message)]) == 1
