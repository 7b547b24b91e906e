"""Errors of a critic in a training, as logged to the run file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import (
    CorridorEnv,
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


def test_no_bias_is_logged_without_a_discount_factor(fit: Any) -> None:
    run = run_evaluation(fit, Overestimating(), CorridorEnv, gamma=None)
    assert run.column("q/mean") == [40.0]
    assert run.column("q/bias") == run.column("q/judged_share") == []


def test_bias_can_be_monitored(fit: Any) -> None:
    cfg = {"video_logger": False, "evaluation": {"env": CorridorEnv, "policy": "policy", "gamma": GAMMA}}
    trainer = fit(Overestimating(), WandbRLCallback(cfg))
    assert float(trainer.callback_metrics["q/bias"]) == pytest.approx(38.5, abs=0.5)
