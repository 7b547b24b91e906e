"""Fixtures shared by unit tests: episodes, transitions, maps and collected errors."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from evaluations import KeptErrors

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.maps.data_map import DataMap, make_map


@pytest.fixture
def errors() -> KeptErrors:
    return KeptErrors()


@pytest.fixture
def raised_errors() -> KeptErrors:
    return KeptErrors(raises=True)


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    """Returns a function that makes an episode from its rewards; keywords set other fields."""

    def make(rewards: Sequence[float] = (1.0, 1.0), **keywords: Any) -> Episode:
        given = {"actions": np.zeros(len(rewards), dtype=np.int64), "terminated": True} | keywords
        return Episode(rewards=np.array(rewards, dtype=np.float64), **given)

    return make


@pytest.fixture
def run_alone() -> Callable[[str], str]:
    """Returns a function that runs a script in a new Python process without a display and returns its output."""

    def run(script: str, **environment: str) -> str:
        clean = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL")}
        process = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


@pytest.fixture
def little_room() -> Iterator[None]:
    """Limits the size of written files to 64 KiB, to simulate a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def make_transitions() -> Callable[..., Transitions]:
    """Returns a function that makes transitions from observations, 10 per episode; keywords set other fields."""

    def make(observations: np.ndarray, *, per_episode: int = 10, **keywords: Any) -> Transitions:
        count = len(observations)
        rows = np.arange(count)
        given: dict[str, Any] = {
            "actions": rows % 2,
            "rewards": np.linspace(0, 1, count),
            "rows": rows,
            "episodes": rows // per_episode,
            "steps": rows % per_episode,
            "lengths": np.full(count, per_episode),
            "returns": (rows // per_episode).astype(np.float64),
            "action_spec": DiscreteActions(("left", "right")),
        }
        return Transitions(observations=observations, **given | keywords)

    return make


@pytest.fixture
def make_data_map(make_transitions: Callable[..., Transitions]) -> Callable[..., DataMap]:
    """Returns a function that makes a PCA map of the given states or of 60 random ones; keywords set other fields."""

    def make(
        observations: np.ndarray | None = None, *, method: str = "pca", total: int = 1_000, **keywords: Any
    ) -> DataMap:
        if observations is None:
            observations = np.random.default_rng(0).normal(size=(60, 3))
        settings = {"name": "planted.npz", "engine": "opentsne", "perplexity": 30.0, "seed": 0}
        return make_map(make_transitions(observations, **keywords), total=total, method=method, **settings)

    return make
