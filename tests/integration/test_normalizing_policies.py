"""Observations are normalized once, whether the environment or the policy object does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyValidatedQ

LENGTH = 5


class CenteredEnv(gym.Env[Any, Any]):
    """Environment whose observations are normal around a center with a standard deviation of 3."""

    observation_space = spaces.Box(-1e6, 1e6, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, center: float = 100.0, render_mode: str | None = None) -> None:
        self.center, self.render_mode, self.steps = center, render_mode, 0

    def _observation(self) -> Any:
        return (self.center + self.np_random.normal(scale=3, size=2)).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observation(), 1.0, self.steps >= LENGTH, False, {}


def raw_observations() -> NDArray[Any]:
    """Returns the observations of the episode with seed 0 that are given to the policy."""
    env = CenteredEnv()
    return np.stack([env.reset(seed=0)[0], *(env.step(0)[0] for _ in range(LENGTH - 1))])


def trained(make: Callable[[], Any] = CenteredEnv, steps: int = 40) -> VecNormalize:
    """Returns a vector of Stable-Baselines3 that has normalized some observations."""
    envs = VecNormalize(DummyVecEnv([make]), clip_obs=8.0)
    envs.seed(1)
    envs.reset()
    for _ in range(steps):
        envs.step(np.array([0]))
    return envs


def model_of(envs: Any) -> Any:
    return PPO("MlpPolicy", envs, n_steps=8, batch_size=8, device="cpu", policy_kwargs={"net_arch": [4]})


class Playing(TinyValidatedQ):
    """Module with a policy that asks the model of ``self.agent`` itself."""

    def __init__(self) -> None:
        super().__init__(batches=1)

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.agent.predict(observations.numpy(), deterministic=True)[0])


def seen_by_network(fit: Any, held: dict[str, Any], model: Any, policy: Any, env: Any = CenteredEnv) -> NDArray[Any]:
    """Evaluates one episode of a module with attributes, and returns the observations that the network got in it."""
    module = Playing()
    vars(module).update(held)
    seen: list[NDArray[Any]] = []
    model.policy.features_extractor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy().copy()))
    evaluation = {"env": env, "policy": policy, "episodes": 1, "num_envs": 1}
    cfg = {"on_error": "raise", "video_logger": False, "evaluation": evaluation}
    fit(module, EvaluationCallback(cfg, tracker=MemoryTracker()))
    different = [batch for last, batch in zip([None, *seen], seen, strict=False) if not np.array_equal(last, batch)]
    return np.concatenate(different[-LENGTH:])


def normalized(raw: NDArray[Any], rms: Any, epsilon: float = 1e-8, clip: float = 8.0) -> NDArray[Any]:
    return np.clip((raw - rms.mean) / np.sqrt(rms.var + epsilon), -clip, clip)


HOLDERS: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "model": (lambda model: {"agent": model}, "agent"),
    "nested model": (lambda model: {"holder": SimpleNamespace(model=model)}, "holder.model"),
    "method of the model": (lambda model: {"agent": model}, "agent.predict"),
    "model beside its vector": (lambda model: {"agent": model, "envs": model.get_env()}, "agent"),
    "model beside one that saw more": (
        lambda model: {"agent": model, "other": model_of(trained(partial(CenteredEnv, 0.0), 90))},
        "agent",
    ),
    "bare network": (lambda model: {"agent": model}, "agent.policy"),
    "function that asks the model": (lambda model: {"agent": model}, "act"),
}


@pytest.mark.filterwarnings("ignore:.*normalizes observations and evaluation.env does not")
@pytest.mark.parametrize("kind", HOLDERS)
def test_network_of_a_model_sees_the_observations_of_its_training(fit: Any, kind: str) -> None:
    hold, policy = HOLDERS[kind]
    envs = trained()
    model = model_of(VecMonitor(envs))
    seen = seen_by_network(fit, hold(model), model, policy)
    assert seen == pytest.approx(normalized(raw_observations(), envs.obs_rms), abs=1e-4)


def test_normalization_inside_that_of_the_model_is_applied_before_it(fit: Any) -> None:
    inner = NormalizeObservation(CenteredEnv())
    envs = trained(lambda: inner)
    model = model_of(envs)
    with pytest.warns(UserWarning, match=r"self\.agent\.env normalizes observations and evaluation\.env does not"):
        seen = seen_by_network(fit, {"agent": model}, model, "agent")
    once = normalized(raw_observations(), inner.obs_rms, inner.epsilon, np.inf)
    assert seen == pytest.approx(normalized(once, envs.obs_rms), abs=1e-4)


@pytest.mark.parametrize("is_held", [False, True], ids=["made", "held"])
def test_evaluation_environment_leaves_the_normalization_to_the_model(fit: Any, is_held: bool) -> None:
    envs = trained()
    model = model_of(envs)
    held = {"agent": model, "spare": NormalizeObservation(CenteredEnv())}
    env: Any = "self.spare" if is_held else lambda render_mode=None: NormalizeObservation(CenteredEnv())
    seen = seen_by_network(fit, held, model, "agent", env)
    assert seen == pytest.approx(normalized(raw_observations(), envs.obs_rms), abs=1e-4)
