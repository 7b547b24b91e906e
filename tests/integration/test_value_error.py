"""Errors of a critic in a training, as logged to the run file."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from rlwandb_callbacks import Episode, WandbRLCallback
from rlwandb_callbacks.testing import (
    CorridorEnv,
    MemoryTracker,
    OfflineRun,
    PointEnv,
    TinyValidatedQ,
    read_offline_run,
)

GAMMA = 0.5
LENGTHS = (2, 3, 4, 5, 6)  # of the corridors for seeds 0 to 4


class Overestimating(TinyValidatedQ):
    """Module that walks right, with reward 1 per step, and predicts 40."""

    def policy(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = len(observations)
        return {"q_values": torch.tensor([[7.0, 40.0]]).expand(batch, 2), "value": torch.full((batch,), 4.0)}


class AlwaysStay(TinyValidatedQ):
    """Module that stays, with reward -1 at each of 20 steps, and predicts V(s) = -1.5."""

    def policy(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = len(observations)
        return {"action": torch.zeros(batch, dtype=torch.int64), "value": torch.full((batch, 1), -1.5)}


class MoveToZero(TinyValidatedQ):
    """Module that moves the point to zero and predicts Q(s, a) = 3 + 2|x|."""

    def policy(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        step = (-observations).clamp(-2.0, 2.0)
        return {"loc": step, "scale": torch.full_like(step, 0.1), "state_action_value": 3.0 + 2.0 * observations.abs()}


def run_evaluation(fit: Any, module: Any, env: type, **evaluation: Any) -> OfflineRun:
    cfg = {"on_error": "raise", "video_logger": False, "run": {"project": "test"}}
    settings = {"env": env, "policy": "policy", "episodes": 5, "gamma": GAMMA, **evaluation}
    fit(module, WandbRLCallback({**cfg, "evaluation": settings}))
    return read_offline_run("wandb")


def discounted_returns(steps: int) -> np.ndarray:
    return (1 - GAMMA ** np.arange(steps, 0, -1)) / (1 - GAMMA)


def test_bias_of_an_overestimating_critic(fit: Any) -> None:
    run = run_evaluation(fit, Overestimating(), CorridorEnv)
    expected = 40.0 - np.concatenate([discounted_returns(length) for length in LENGTHS])
    assert run.column("q/bias") == [pytest.approx(expected.mean(), abs=1e-6)]
    assert run.column("q/abs_error") == [pytest.approx(np.abs(expected).mean(), abs=1e-6)]
    assert run.column("q/judged_share") == [1.0]


def test_figure_is_logged(fit: Any) -> None:
    (picture,) = run_evaluation(fit, Overestimating(), CorridorEnv).media("q/prediction_vs_return")
    with Image.open(picture) as opened:
        assert opened.size == (700, 600)


def test_bias_of_state_values_in_truncated_episodes(fit: Any) -> None:
    run = run_evaluation(fit, AlwaysStay(), CorridorEnv)
    judged = discounted_returns(20)[:16]  # 0.5 ** 5 is the first weight below 0.05
    assert run.column("q/bias") == [pytest.approx((-1.5 + judged).mean(), abs=1e-6)]
    assert run.column("q/abs_error") == [pytest.approx(np.abs(-1.5 + judged).mean(), abs=1e-6)]
    assert run.column("q/judged_share") == [0.8]


def test_bias_of_a_critic_for_continuous_actions(fit: Any) -> None:
    run = run_evaluation(fit, MoveToZero(), PointEnv, seed=0)
    rng = [np.random.default_rng(np.random.SeedSequence(seed)) for seed in range(5)]
    starts = np.abs([each.uniform(-3, 3) for each in rng])
    errors = [3.0 + 2.0 * start + max(start - 2.0, 0.0) for start in starts]  # a start beyond 2 takes two steps
    later = [2.0 * max(start - 2.0, 0.0) + 3.0 * 5 for start in starts]  # the other five of the six judged steps
    assert run.column("q/bias") == [pytest.approx((sum(errors) + sum(later)) / 30, abs=1e-5)]
    assert run.column("q/judged_share") == [0.6]


def test_episodes_truncated_too_early_have_no_bias(fit: Any) -> None:
    run = run_evaluation(fit, AlwaysStay(), CorridorEnv, max_steps=4)
    assert run.column("q/judged_share") == [0.0]
    assert run.column("q/bias") == run.column("q/prediction_vs_return") == []


class Chain(gym.Env):
    """Pays 1 per step and ends with probability 0.01."""

    observation_space, action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, bool(self.np_random.random() < 0.01), False, {}


class LimitedChain(Chain):
    """Cuts its episodes itself, and does not say when."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._step = 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, self._step >= 200, info


class ExactCritic(TinyValidatedQ):
    """Module whose V(s) is exact in the chain."""

    def policy(self, observations: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = len(observations)
        value = torch.full((batch,), 1 / (1 - 0.99 * 0.99))
        return {"action": torch.zeros(batch, dtype=torch.int64), "value": value}


LIMITED = {
    "wrapper": {"env": lambda: gym.wrappers.TimeLimit(Chain(), 200)},
    "vector": {"env": lambda: gym.vector.SyncVectorEnv([lambda: gym.wrappers.TimeLimit(Chain(), 200)] * 4)},
    "max_steps": {"env": Chain, "max_steps": 200},
    "hidden": {"env": LimitedChain},
}


@pytest.mark.parametrize("limited", LIMITED.values(), ids=LIMITED)
def test_nothing_is_judged_if_the_limit_is_short_even_if_all_episodes_end_before_it(
    fit: Any, limited: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MemoryTracker()
    seeds = {"episodes": 4, "seed": 0} if "Limited" not in str(limited["env"]) else {"episodes": 30}
    settings = {"policy": "policy", "gamma": 0.99, **seeds, **limited}
    caplog.set_level("INFO")
    fit(ExactCritic(), WandbRLCallback(video_logger=False, evaluation=settings, tracker=tracker), max_epochs=2)
    assert tracker.column("q/judged_share") == [0.0, 0.0]
    assert tracker.column("q/bias") == []
    assert caplog.text.count("q/bias, q/abs_error and q/prediction_vs_return are not logged") == 1
    lengths = [row[4] for row in tracker.column("eval/episodes")[0].rows]
    assert (max(lengths) < 200) == (limited["env"] is not LimitedChain)


def test_an_exact_critic_has_little_bias_with_a_longer_limit(fit: Any) -> None:
    tracker = MemoryTracker()
    settings = {"env": Chain, "policy": "policy", "gamma": 0.99, "episodes": 100, "max_steps": 500}
    fit(ExactCritic(), WandbRLCallback(video_logger=False, evaluation=settings, tracker=tracker))
    ((bias,), (share,)) = tracker.column("q/bias"), tracker.column("q/judged_share")
    assert abs(bias) < 5.0  # of 50; the standard error of 100 episodes
    assert 0.5 < share < 1.0


def test_a_limit_that_an_earlier_evaluation_has_shown_holds_for_later_ones(fit: Any) -> None:
    episodes = {
        0: Episode(actions=np.zeros(200), rewards=np.ones(200), terminated=False, truncated=True, values=np.ones(200)),
        1: Episode(actions=np.zeros(100), rewards=np.ones(100), terminated=True, values=np.ones(100)),
    }

    class Gives(TinyValidatedQ):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return {"episodes": [episodes[self.current_epoch]]}

    tracker, resumed = MemoryTracker(), MemoryTracker()
    cfg = {"evaluation": {"gamma": 0.99}}
    trainer = fit(Gives(batches=1), WandbRLCallback(cfg, tracker=tracker), max_epochs=1)
    trainer.save_checkpoint("first.ckpt")
    fit(Gives(batches=1), WandbRLCallback(cfg, tracker=resumed), max_epochs=2, ckpt_path="first.ckpt")
    assert tracker.column("q/judged_share")[0] == 0.0
    assert resumed.column("q/judged_share")[-1] == 0.0
    assert resumed.column("q/bias") == []


def test_no_bias_is_logged_without_a_discount_factor(fit: Any) -> None:
    run = run_evaluation(fit, Overestimating(), CorridorEnv, gamma=None)
    assert run.column("q/mean") == [40.0]
    assert run.column("q/bias") == run.column("q/judged_share") == []


def test_bias_can_be_monitored(fit: Any) -> None:
    cfg = {"video_logger": False, "evaluation": {"env": CorridorEnv, "policy": "policy", "gamma": GAMMA}}
    trainer = fit(Overestimating(), WandbRLCallback(cfg))
    assert float(trainer.callback_metrics["q/bias"]) == pytest.approx(38.5, abs=0.5)
