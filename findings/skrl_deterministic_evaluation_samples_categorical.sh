#!/usr/bin/env bash
# skrl 2.1.1: evaluation with stochastic_evaluation=False samples the actions of a categorical policy.
#
# Expected: with stochastic_evaluation=False (the default: "Whether to use actions rather than (deterministic) mean
# actions during evaluation"), a policy takes the same action whenever it gets the same observation.
# Seen: that holds for GaussianMixin, whose outputs have "mean_actions". The outputs of CategoricalMixin (and of
# MultiCategoricalMixin) have none, and the trainers fall back to the sample: with probabilities of 0.7 and 0.3 and one
# observation, 100 steps of SequentialTrainer.eval() take both actions (71 and 29). No warning. The best action is the
# argmax of outputs["net_output"].
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 skrl==2.1.1 gymnasium==1.3.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.models.torch import CategoricalMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer


class ConstantEnv(gym.Env):
    """Always the same observation, so that a deterministic policy always takes the same action."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, action_space):
        self.action_space, self.actions = action_space, []

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.actions.append(np.round(np.asarray(action, dtype=float), 6).tolist())
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Categorical(CategoricalMixin, Model):
    def __init__(self, env):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        CategoricalMixin.__init__(self)

    def compute(self, inputs, role):
        return torch.tensor([[0.7, 0.3]]).log().repeat(len(inputs["observations"]), 1), {}


class Gaussian(GaussianMixin, Model):
    def __init__(self, env):
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device="cpu")
        GaussianMixin.__init__(self)

    def compute(self, inputs, role):
        return torch.full((len(inputs["observations"]), 1), 0.5), {"log_std": torch.zeros(1)}


def evaluated_actions(action_space, model):
    inner = ConstantEnv(action_space)
    env = wrap_env(inner, verbose=False)
    agent = PPO(
        models={"policy": model(env), "value": None}, memory=None, observation_space=env.observation_space,
        action_space=env.action_space, device="cpu",
        cfg={"experiment": {"write_interval": 0, "checkpoint_interval": 0}},
    )
    cfg = {"timesteps": 100, "stochastic_evaluation": False, "headless": True, "disable_progressbar": True}
    torch.manual_seed(0)
    SequentialTrainer(cfg=cfg, env=env, agents=agent).eval()
    return inner.actions


gaussian = evaluated_actions(spaces.Box(-2.0, 2.0, (1,), np.float32), Gaussian)
categorical = evaluated_actions(spaces.Discrete(2), Categorical)
counts = [categorical.count(0.0), categorical.count(1.0)]
print("Gaussian policy, actions:", sorted(set(map(str, gaussian))))
print("Categorical policy, counts of the actions:", dict(enumerate(counts)))
assert gaussian == [[0.5]] * 100
assert counts[0] + counts[1] == 100 and min(counts) > 10
print("As described: skrl", version("skrl"))
PY
