"""Fixtures for small data sets with known content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

Arrays = dict[str, Any]
DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def data_folder() -> Path:
    return DATA


@pytest.fixture
def make_arrays() -> Callable[..., Arrays]:
    """Returns a function that makes flat D4RL arrays with episodes of given lengths; every second one is truncated."""

    def make(lengths: tuple[int, ...] = (3, 5, 2), width: int = 4, seed: int = 0) -> Arrays:
        rng = np.random.default_rng(seed)
        count = sum(lengths)
        ends = np.cumsum(lengths) - 1
        terminals, timeouts = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        terminals[ends[::2]] = True
        timeouts[ends[1::2]] = True
        return {
            "observations": rng.normal(size=(count, width)).astype(np.float32),
            "actions": rng.uniform(-1, 1, size=(count, 2)).astype(np.float32),
            "rewards": rng.normal(size=count).astype(np.float32),
            "terminals": terminals,
            "timeouts": timeouts,
        }

    return make


@pytest.fixture
def write_hdf5(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a tree of arrays to an HDF5 file; keywords are options of each data set."""

    def write(tree: dict[str, Any], name: str = "data.bin", *, userblock: int = 0, **options: Any) -> Path:
        def fill(group: Any, inner: dict[str, Any]) -> None:
            for key, value in inner.items():
                if isinstance(value, dict):
                    fill(group.create_group(key), value)
                else:
                    group.create_dataset(key, data=value, **(options if np.ndim(value) else {}))

        path = tmp_path / name
        with h5py.File(path, "w", userblock_size=userblock) as file:
            fill(file, tree)
        return path

    return write
