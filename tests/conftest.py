"""Isolation of all tests: offline W&B, no account, one thread, an empty folder, no open run."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from rlwandb_callbacks.config import WandbRLConfig

for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "SDL_VIDEODRIVER": "dummy"}
torch.set_num_threads(1)
# A worker takes a second to start: only tests of workers and of complete programs use one.
WandbRLConfig.__init__.__kwdefaults__["executor"] = "inline"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests that take long, unless ``RLWANDB_LONG_TESTS`` is set."""
    if os.environ.get("RLWANDB_LONG_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(pytest.mark.skip(reason="takes long: make test-long"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs each test in an empty folder, without the user's accounts, and finishes runs that it leaves open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    yield
    import wandb
    from wandb.sdk.lib.module import unset_globals

    wandb.teardown()  # also resets the folder in which W&B was first used
    if wandb.run is not None:  # which nothing can be logged to any more
        unset_globals()
    # The runs and videos of the whole suite would fill a small disk.
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(autouse=True)
def seeded_generators() -> None:
    """Seeds all global generators, so that random numbers do not depend on the order of tests."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # Lightning and environments may use the global generator
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """Returns a seeded generator for test data."""
    return np.random.default_rng(0)


Fit = Callable[..., pl.Trainer]


@pytest.fixture
def fit() -> Fit:
    """Returns a function that trains a module with the given callbacks; keywords are those of the Trainer."""

    def run(module: pl.LightningModule, *callbacks: Any, ckpt_path: str | None = None, **options: Any) -> pl.Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
        trainer = pl.Trainer(
            **{**quiet, "logger": False, "enable_checkpointing": False, **options}, callbacks=list(callbacks)
        )
        trainer.fit(module, ckpt_path=ckpt_path)
        return trainer

    return run


@pytest.fixture
def decode() -> Callable[[Path | str], tuple[dict[str, Any], np.ndarray]]:
    """Returns a function that decodes a video with ffmpeg to its metadata and frames ``[N, H, W, 3]``."""

    def read(path: Path | str) -> tuple[dict[str, Any], np.ndarray]:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        process = subprocess.run(command, capture_output=True, check=True)
        stream = re.search(
            r"Video: (\w+)[^\n]*?, (\w+)[^\n]*?, (\d+)x(\d+)[^\n]*?, ([\d.]+) fps", process.stderr.decode()
        )
        codec, pixel_format, width, height, fps = stream.groups()
        size = int(width), int(height)
        meta = {"codec": codec, "pix_fmt": pixel_format, "size": size, "fps": float(fps)}
        return meta, np.frombuffer(process.stdout, np.uint8).reshape(-1, size[1], size[0], 3)

    return read
