"""The helpers for users' own tests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import rlwandb_callbacks.testing
from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.presets import PRESETS
from rlwandb_callbacks.core.values import Image, Scalar
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, PointEnv, TinyActorCritic, TinyQ, read_offline_run

STEP = {"trainer/global_step": 7}


def test_rows_contain_axes_plain_numbers_and_other_values_unchanged() -> None:
    tracker, image = MemoryTracker(), Image(np.zeros((2, 2, 3), np.uint8))
    tracker.write({**STEP, "time/updates": 3}, {"train/loss": Scalar(0.5), "video/best_sheet": image})
    tracker.write(STEP, {})
    tracker.write({"trainer/global_step": 8}, {"train/loss": Scalar(0.25), "parameters/q.0/weight": Scalar(1.0)})
    assert tracker.rows[0] == {
        "trainer/global_step": 7,
        "time/updates": 3,
        "train/loss": 0.5,
        "video/best_sheet": image,
    }
    assert tracker.rows[1] == STEP
    assert tracker.column("train/loss") == [0.5, 0.25]
    assert tracker.column("trainer/global_step") == [7, 7, 8]
    assert tracker.column("train/entropy") == []


@pytest.mark.parametrize(
    ("axes", "values", "error", "message"),
    [
        ({}, {}, ValueError, "needs the axis 'trainer/global_step'"),
        ({"time/updates": 1}, {"train/loss": Scalar(1.0)}, ValueError, "needs the axis 'trainer/global_step'"),
        (STEP, {"loss": Scalar(1.0)}, ValueError, "'loss' is not a valid key"),
        (STEP, {"train/a/loss": Scalar(1.0)}, ValueError, "exactly one slash"),
        (STEP, {"trainer/global_step": Scalar(1.0)}, ValueError, "not be an axis"),
        (STEP, {"train/loss": 1.0}, TypeError, "'train/loss' is 1.0, which is not a Value"),
        (STEP, {"train/loss": torch.tensor(1.0)}, TypeError, "not a Value"),
    ],
)
def test_invalid_rows_are_errors(
    axes: dict[str, float], values: dict[str, Any], error: type[Exception], message: str
) -> None:
    tracker = MemoryTracker()
    with pytest.raises(error, match=message):
        tracker.write(axes, values)
    assert tracker.rows == []


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("evaluation", ["eval", "eval/near", "eval/near/PointMaze-v3", "eval_rl"])
def test_rows_with_the_names_of_a_preset_are_valid(preset: str, evaluation: str) -> None:
    naming, tracker = Naming(preset), MemoryTracker(naming=preset)
    values = {f"{evaluation}/return_mean": Scalar(1.0), "train/loss": Scalar(2.0), "train/target_q_value": Scalar(3.0)}
    tracker.write(naming.axes({**STEP, "time/env_steps": 9}, values), naming.row(values))
    assert [value for value in tracker.rows[0].values() if value in (1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0]


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"naming is 'sb2'; it must be None or one of \['cleanrl'"):
        MemoryTracker(naming="sb2")


def test_flushes_are_counted() -> None:
    tracker = MemoryTracker()
    tracker.flush()
    tracker.flush()
    assert tracker.flushes == 2


@pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")  # advice about spaces; violations raise
@pytest.mark.parametrize("make_env", [CorridorEnv, PointEnv])
def test_envs_pass_the_checker_of_gymnasium(make_env: Any) -> None:
    check_env(make_env("rgb_array"), skip_render_check=True)


@pytest.mark.parametrize("seed", range(7))
def test_the_seed_sets_the_length_of_a_corridor(seed: int) -> None:
    env = CorridorEnv("rgb_array", size=(9, 16))
    env.reset(seed=seed)
    length = 2 + seed % 5
    for step in range(1, length + 1):
        _, reward, terminated, truncated, info = env.step(1)
        assert (reward, terminated, truncated, info) == (1.0, step == length, False, {"is_success": step == length})
        assert np.nonzero(env.render()[0, :, 0])[0].tolist() == [2 * step, 2 * step + 1]


def test_a_corridor_is_truncated_after_twenty_steps() -> None:
    env = CorridorEnv()
    env.reset(seed=0)
    outcomes = [env.step(0)[1:4] for _ in range(20)]
    assert outcomes == [(-1.0, False, False)] * 19 + [(-1.0, False, True)]
    assert env.render() is None


def test_the_reward_of_a_point_is_its_negative_distance() -> None:
    env = PointEnv()
    (start,), _ = env.reset(seed=3)
    assert abs(start) <= 3
    rewards = [env.step(np.array([-start]))[1] for _ in range(10)]
    assert rewards == pytest.approx([-abs(start * -(turn - 1)) for turn in range(1, 11)], abs=1e-5)
    assert env.step(np.array([0.0]))[3]


def test_modules_have_policies() -> None:
    assert TinyQ().q_network(torch.zeros(3, 2)).shape == (3, 2)
    assert TinyActorCritic().policy(torch.zeros(3, 1)).mean.shape == (3, 1)
    assert math.isclose(TinyActorCritic().policy(torch.zeros(3, 1)).stddev[0].item(), 0.5)


def test_exports_resolve_and_other_names_raise() -> None:
    for name in rlwandb_callbacks.testing.__all__:
        assert getattr(rlwandb_callbacks.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rlwandb_callbacks.testing.nothing  # noqa: B018  # the look-up is the test


def test_the_former_name_of_the_tracker_is_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match="use MemoryTracker"):
        assert rlwandb_callbacks.testing.MemorySink is MemoryTracker


def test_an_empty_run_file_is_read_as_an_empty_run(tmp_path: Path) -> None:
    (tmp_path / "run-x.wandb").touch()
    run = read_offline_run(tmp_path, wait_seconds=0.02)
    assert (run.history, run.exit_code) == ([], None)
