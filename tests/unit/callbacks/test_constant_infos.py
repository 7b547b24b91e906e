from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import Evaluations, KeptErrors
from pytorch_lightning.callbacks import ModelCheckpoint

from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.testing import CorridorEnv


class WithConstants(CorridorEnv):
    """Corridor whose ``info`` has constants, and a level that a curriculum raises."""

    level = 2

    def step(self, action: Any) -> Any:
        *others, info = super().step(action)
        constants = {"env_id": 0, "gravity": 9.8, "players": ["a"], "map": "corridor", "level": WithConstants.level}
        return *others, {**info, **constants, "position": self._position, "collisions": 0}


@pytest.mark.parametrize(("keys", "first"), [(None, set()), (["gravity", "env_id"], {"env_id", "gravity"})])
def test_constants_are_no_curves(keys: list[str] | None, first: set[str], tmp_path: Path) -> None:
    errors = KeptErrors()
    settings = {
        "env": WithConstants,
        "policy": lambda observations: torch.ones(len(observations), dtype=torch.int64),
        "episodes": 5,
        "info_keys": keys,
    }
    evaluate = Evaluations(as_config({"evaluation": settings}), tmp_path, errors, makes_videos=False)
    logged = []
    for WithConstants.level in (2, 2, 3):
        evaluate()
        names = (key.removeprefix("eval/info_") for key in evaluate.published if key.startswith("eval/info_"))
        logged.append({name.removesuffix("_mean") for name in names if name.endswith("_mean")})
    evaluate.finish()
    curves = {"position", "collisions"} if keys is None else set()
    assert logged == [first | curves] * 2 + [first | curves | ({"level"} if keys is None else set())]
    assert errors.errors == []


def test_a_constant_that_a_checkpoint_monitors_is_published(tmp_path: Path) -> None:
    settings = {"env": WithConstants, "policy": lambda observations: torch.ones(len(observations), dtype=torch.int64)}
    cfg = as_config({"evaluation": {**settings, "episodes": 3}})
    evaluate = Evaluations(cfg, tmp_path, KeptErrors(), makes_videos=False)
    evaluate._trainer.callbacks.append(ModelCheckpoint(monitor="eval/info_gravity_last"))
    evaluate()
    assert evaluate.published["eval/info_gravity_last"] == pytest.approx(9.8)
    assert "eval/info_level_last" not in evaluate.published
    evaluate.finish()
