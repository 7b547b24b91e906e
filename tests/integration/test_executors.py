"""Trainings with executors whose workers have another working folder than the training."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np

from rlwandb_callbacks import DatasetCallback, EvaluationCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyValidatedQ


class Elsewhere(Executor):
    """Runs each work at once in another working folder, as the workers of a cluster do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            future.set_result(work(*args, **kwargs))
        finally:
            os.chdir(before)
        return future


def test_relative_paths_are_those_of_the_training(fit: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rng = np.random.default_rng(0)
    rows = {"observations": rng.normal(size=(60, 2)), "actions": rng.integers(0, 2, 60), "rewards": np.ones(60)}
    np.savez("data.npz", **rows, terminals=np.arange(60) % 20 == 19)
    tracker = MemoryTracker()
    options = {"executor": Elsewhere(elsewhere), "record_path": "files", "tracker": tracker, "on_error": "raise"}
    map_of_data = DatasetCallback(dataset_path="data.npz", dataset={"embedding": {"method": "pca"}}, **options)
    evaluation = EvaluationCallback(env=CorridorEnv, policy="q_network", **options)
    fit(TinyValidatedQ(batches=2), map_of_data, evaluation, val_check_interval=2, num_sanity_val_steps=0)
    assert tracker.column("dataset/overview")
    assert tracker.column("video/best")
    assert list(Path("files").glob("*_best.mp4"))
    assert list(Path("files", "cache").glob("map_*.npz"))
    assert list(elsewhere.iterdir()) == []
