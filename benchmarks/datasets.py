"""What looking at offline data costs."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from sklearn.manifold import TSNE

from benchmarks.lines import Line, Pair, whole
from benchmarks.memory import peak_bytes
from benchmarks.videos import seconds
from rlwandb_callbacks.config import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.maps.tsne import tsne
from rlwandb_callbacks.maps.work import MapMaker, dataset_jobs
from rlwandb_callbacks.tracking.result import run_all

OBSERVED, ACTED, EPISODE_STEPS, LATENT = 17, 6, 1_000, 6
MAP_ROWS, DRAWN_ROWS = 100_000, 10_000
ROW_BYTES = 4 * (2 * OBSERVED + ACTED + 1) + 2
LARGE_BYTES, COMPRESSED_BYTES = 2 * 10**9, 2 * 10**8
PIECE_EPISODES = 200
FILE_VARIABLE = "BENCHMARK_FILE"
IMPORTED_BY_BOTH = tsne  # before times are taken


def running(episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Made-up episodes of a body with a gait, in D4RL's layout: as many numbers as HalfCheetah's, as smooth and noisy.

    A few oscillations, of which each episode has its own speeds, are seen through a fixed nonlinear mixture.
    """
    rng, mixture = np.random.default_rng(seed), np.random.default_rng(0)
    times = np.arange(EPISODE_STEPS + 1, dtype=np.float32)[:, None]
    speeds = rng.uniform(0.05, 0.4, (episodes, 1, LATENT)).astype(np.float32)
    begins = rng.uniform(0, 2 * np.pi, (episodes, 1, LATENT)).astype(np.float32)
    latent = np.sin(speeds * times + begins)
    body = np.tanh(latent @ mixture.normal(size=(LATENT, OBSERVED)).astype(np.float32))
    body += 0.05 * rng.standard_normal(body.shape, dtype=np.float32)
    states, following = body[:, :-1].reshape(-1, OBSERVED), body[:, 1:].reshape(-1, OBSERVED)
    actions = np.tanh(states @ mixture.normal(size=(OBSERVED, ACTED)).astype(np.float32))
    timeouts = np.zeros((episodes, EPISODE_STEPS), dtype=bool)
    timeouts[:, -1] = True
    return {
        "observations": states,
        "next_observations": following,
        "actions": actions,
        "rewards": states[:, 0] - 0.1 * np.square(actions).sum(axis=1),
        "terminals": np.zeros(episodes * EPISODE_STEPS, dtype=bool),
        "timeouts": timeouts.reshape(-1),
    }


def write_data(path: Path, rows: int, **storage: Any) -> Path:
    """Writes made-up transitions in D4RL's layout, piece by piece.

    Args:
        path: Of the HDF5 file.
        rows: How many; full episodes.
        storage: How h5py is to store them.
    """
    with h5py.File(path, "w") as file:
        for name, column in running(1, 0).items():
            file.create_dataset(name, (rows, *column.shape[1:]), column.dtype, **storage)
        for low in range(0, rows, PIECE_EPISODES * EPISODE_STEPS):
            high = min(low + PIECE_EPISODES * EPISODE_STEPS, rows)
            for name, column in running((high - low) // EPISODE_STEPS, seed=low).items():
                file[name][low:high] = column
    return path


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Holds the files, and is gone with this process."""
    return tempfile.TemporaryDirectory(prefix="benchmark")


@cache
def map_file() -> Path:
    """100,000 transitions."""
    return write_data(Path(folder().name) / "map.hdf5", MAP_ROWS)


@cache
def large_file() -> Path:
    """2 GB, as they are in memory."""
    return write_data(Path(folder().name) / "large.hdf5", whole_episodes(LARGE_BYTES))


@cache
def compressed_file() -> Path:
    """200 MB before compression, in h5py's own chunks, as D4RL's files are."""
    return write_data(Path(folder().name) / "small.hdf5", whole_episodes(COMPRESSED_BYTES), compression="gzip")


def whole_episodes(size: int) -> int:
    """How many transitions of full episodes take so many bytes."""
    return size // (ROW_BYTES * EPISODE_STEPS) * EPISODE_STEPS


def draw_map(engine: str) -> None:
    """All that is logged of a data set, from its file on, at default settings."""
    cfg = DatasetConfig(embedding=EmbeddingConfig(engine=engine))
    values = run_all(dataset_jobs(MapMaker(dataset=open_dataset(map_file()), embedding=cfg.embedding), cfg)).values
    if "dataset/overview" not in values:
        raise RuntimeError("There is no picture of the data set, so that there is nothing to compare.")


@cache
def peer_seconds() -> float:
    """Wall seconds of DI-engine's two maps, without its pictures: of states, and of states with actions."""
    with h5py.File(map_file()) as file:
        states, actions = file["observations"][:DRAWN_ROWS], file["actions"][:DRAWN_ROWS]

    def lay_out() -> None:
        for rows in (states, np.concatenate([states, actions], axis=1)):
            TSNE(n_components=2, init="pca", random_state=0).fit_transform(rows)

    return seconds(lay_out)


def compare_map(engine: str) -> Pair:
    """Our report with one of the engines, and scikit-learn's two maps, which are made but once."""
    map_file()
    return seconds(draw_map, engine), peer_seconds()


def sample() -> None:
    """Draws 10,000 transitions."""
    if len(open_dataset(os.environ[FILE_VARIABLE]).sample(DRAWN_ROWS, seed=0)) != DRAWN_ROWS:
        raise RuntimeError("Not all rows were drawn, so that there is nothing to compare.")


def read_whole() -> None:
    """Reads all arrays, as D4RL's ``get_dataset`` does."""
    with h5py.File(os.environ[FILE_VARIABLE]) as file:
        columns = {name: file[name][:] for name in file}
    assert len(columns["rewards"]) > DRAWN_ROWS


def compare_reading(path: Path) -> Pair:
    """Wall seconds of a sample and of the whole, of a file that the system holds in memory for both."""
    os.environ[FILE_VARIABLE] = str(path)
    return seconds(sample), seconds(read_whole)


def compare_reading_memory(path: Path) -> Pair:
    """Peak memory of a sample and of the whole."""
    os.environ[FILE_VARIABLE] = str(path)
    return peak_bytes("benchmarks.datasets:sample"), peak_bytes("benchmarks.datasets:read_whole")


MAP = "t-SNE report of 100,000 transitions with 17 features, default settings, from file to pictures"
TWO_MAPS = "scikit-learn's `TSNE` on the first 10,000 rows, twice, without pictures (what DI-engine does)"
SAMPLE, COMPRESSED_SAMPLE = "sampling 10,000 rows of a 2 GB HDF5", "sampling 10,000 rows of 200 MB in a gzip HDF5"
WHOLE = "reading it whole"
LINES = [
    Line(
        f"{MAP}, openTSNE",
        TWO_MAPS,
        0.25,
        lambda _: compare_map("opentsne"),
        pairs=1,
        note="Two maps, six pictures, table and interactive page. The data are made up, of HalfCheetah's shape.",
        profile=whole(lambda: draw_map("opentsne")),
    ),
    Line(
        f"{MAP}, scikit-learn alone",
        TWO_MAPS,
        0.6,
        lambda _: compare_map("sklearn"),
        pairs=1,
        note="`max_seconds` makes the sample smaller than with openTSNE.",
    ),
    Line(
        SAMPLE,
        WHOLE,
        0.1,
        lambda _: compare_reading(large_file()),
        note="From opening to the rows with their returns and lengths, for which the rewards and ends of all episodes "
        "are read. 17 features, D4RL's arrays, 12 million transitions. The first pair reads from disk, where little "
        "read is much won; in later ones the system holds the file in memory, and reading all of it takes a third of "
        "a second.",
        profile=whole(sample),
    ),
    Line(f"{SAMPLE}: peak memory", WHOLE, 0.1, lambda _: compare_reading_memory(large_file()), pairs=1, unit="B"),
    Line(
        COMPRESSED_SAMPLE,
        WHOLE,
        None,
        lambda _: compare_reading(compressed_file()),
        pairs=1,
        note="No ratio near 0.1 is possible: gzip has no way into the middle of a chunk, and the drawn rows lie in "
        "nearly all chunks, so that nearly all of the observations and actions are inflated. What is saved are the "
        "arrays that are not needed.",
    ),
    Line(
        f"{COMPRESSED_SAMPLE}: peak memory",
        WHOLE,
        None,
        lambda _: compare_reading_memory(compressed_file()),
        pairs=1,
        unit="B",
    ),
]
