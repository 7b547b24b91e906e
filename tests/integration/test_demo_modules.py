"""The demo modules learn, can be copied and pickled, and continue from a checkpoint."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from rlwandb_callbacks.demos.dqn import DQN
from rlwandb_callbacks.demos.playing import PlayingModule
from rlwandb_callbacks.demos.ppo import PPO
from rlwandb_callbacks.demos.sac import SAC
from rlwandb_callbacks.testing import PointEnv

POINT = "rlwandb_callbacks.testing:PointEnv"


def mean_return(choose: Any, episodes: int = 20) -> float:
    env, total = PointEnv(), 0.0
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            with torch.no_grad():
                action = choose(torch.as_tensor(observation, dtype=torch.float32)[None])[0].numpy()
            observation, reward, terminated, truncated, _ = env.step(np.clip(action, -2, 2))
            total += float(reward)
            ended = terminated or truncated
    return total / episodes


def test_ppo_learns_continuous_actions(fit: Any) -> None:
    pl.seed_everything(0)
    module = PPO(POINT, num_envs=8, steps_per_batch=40, total_env_steps=8_000, hidden_size=16, minibatch_size=64)
    before = mean_return(lambda observation: module.policy(observation)["loc"])
    fit(module, limit_val_batches=0)
    after = mean_return(lambda observation: module.policy(observation)["loc"])
    assert module.env_steps == 8_000
    assert after > before / 2, (before, after)


def test_ppo_learns_discrete_actions(fit: Any) -> None:
    pl.seed_everything(0)
    module = PPO("CartPole-v1", num_envs=8, steps_per_batch=128, total_env_steps=15_360, minibatch_size=128, gamma=0.99)
    fit(module, limit_val_batches=0)
    assert np.mean(module.player.returns) > 80, "episodes of random play last 22 steps"


def test_sac_learns(fit: Any) -> None:
    pl.seed_everything(0)
    module = SAC(POINT, hidden_size=32, batch_size=64, warmup_env_steps=200, total_env_steps=700, learning_rate=3e-3)
    before = mean_return(lambda observation: module.actor(observation).mode)
    fit(module, limit_val_batches=0)
    after = mean_return(lambda observation: module.actor(observation).mode)
    assert after > before / 2, (before, after)
    assert all(parameter.requires_grad for parameter in module.critic.parameters())
    assert not any(parameter.requires_grad for parameter in module.target_critic.parameters())


@pytest.mark.parametrize("module_class", [DQN, PPO, SAC])
def test_modules_can_be_copied_and_pickled(module_class: type[PlayingModule]) -> None:
    module = module_class("Pendulum-v1" if module_class is SAC else "CartPole-v1")
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert copied.num_updates == module.num_updates
        for original, copied_parameter in zip(module.parameters(), copied.parameters(), strict=True):
            assert torch.equal(original, copied_parameter)


def test_the_count_of_env_steps_is_restored_from_a_checkpoint(fit: Any) -> None:
    def make() -> PPO:
        return PPO("CartPole-v1", num_envs=2, steps_per_batch=8, total_env_steps=48)

    trainer = fit(make(), limit_val_batches=0)
    trainer.save_checkpoint("stopped.ckpt")
    resumed = make()
    fit(resumed, limit_val_batches=0, max_epochs=2, ckpt_path="stopped.ckpt")
    assert resumed.env_steps == 96


def test_the_number_of_threads_is_restored_after_fit(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    fit(PPO("CartPole-v1", num_envs=2, steps_per_batch=8, total_env_steps=16), limit_val_batches=0)
    assert (calls[0], calls[-1]) == (1, 3)


def test_the_same_seed_gives_the_same_weights(fit: Any) -> None:
    def trained() -> list[torch.Tensor]:
        pl.seed_everything(5)
        module = SAC("Pendulum-v1", hidden_size=8, batch_size=8, warmup_env_steps=20, total_env_steps=30, seed=3)
        fit(module, limit_val_batches=0)
        return list(module.parameters())

    assert all(torch.equal(one, other) for one, other in zip(trained(), trained(), strict=True))


def test_initialization_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    PPO("CartPole-v1", num_envs=1)
    assert torch.equal(torch.get_rng_state(), state)
