"""Functions that do not open a run; tests/integration tests runs with wandb."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import wandb

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.core.values import Histogram, Image, Scalar, Table
from rlwandb_callbacks.tracking.wandb_run import choose_mode, is_run
from rlwandb_callbacks.tracking.wandb_values import to_wandb


@pytest.mark.parametrize(
    ("configured", "in_environment", "mode"),
    [
        ("offline", None, "offline"),
        ("disabled", "online", "disabled"),
        (None, "offline", None),
        (None, "disabled", None),
    ],
)
def test_configured_mode_is_kept(
    monkeypatch: pytest.MonkeyPatch, configured: str | None, in_environment: str | None, mode: str | None
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if in_environment is not None:
        monkeypatch.setenv("WANDB_MODE", in_environment)
    assert choose_mode(RunConfig(mode=configured)) == (mode, None)


@pytest.mark.parametrize("value", [None, "run", object()])
def test_other_objects_are_not_runs(value: Any) -> None:
    assert not is_run(value)


def test_scalars_and_histograms_keep_their_values() -> None:
    assert to_wandb(Scalar(2)) == 2.0
    assert math.isnan(to_wandb(Scalar(math.nan)))
    histogram = to_wandb(Histogram(np.array([1, 2]), np.array([0.0, 1.0, 3.0])))
    assert (histogram.histogram, histogram.bins) == ([1, 2], [0.0, 1.0, 3.0])


def test_images_and_tables_keep_their_content() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = to_wandb(Image(pixels, "a caption"))
    assert isinstance(image, wandb.Image)
    assert np.array_equal(np.asarray(image.image), pixels)
    table = to_wandb(Table(("a", "b"), [(1, None), (2.5, "x")]))
    assert (table.columns, table.data) == (["a", "b"], [[1, None], [2.5, "x"]])
