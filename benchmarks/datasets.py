"""Cost of reading offline data and of its maps."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from sklearn.manifold import TSNE

from benchmarks.lines import Line, Pair, profile_call
from benchmarks.memory import peak_bytes
from benchmarks.videos import seconds
from rlwandb_callbacks.config import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.maps.jobs import MapMaker, dataset_jobs
from rlwandb_callbacks.maps.tsne import tsne
from rlwandb_callbacks.tracking.result import run_all

OBSERVATION_SIZE, ACTION_SIZE, EPISODE_STEPS, LATENT_SIZE = 17, 6, 1_000, 6
MAP_ROWS, SAMPLED_ROWS = 100_000, 10_000
ROW_BYTES = 4 * (2 * OBSERVATION_SIZE + ACTION_SIZE + 1) + 2
LARGE_BYTES, COMPRESSED_BYTES = 2 * 10**9, 2 * 10**8
BLOCK_EPISODES = 200
FILE_VARIABLE = "BENCHMARK_FILE"
IMPORTED_BY_BOTH = tsne  # so that the import is not measured


def synthetic_gait(episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Returns synthetic episodes of a gait in D4RL's layout, with HalfCheetah's sizes, smoothness and noise.

    A few oscillations, whose speeds differ between episodes, go through a fixed nonlinear mixture.
    """
    rng, mixture = np.random.default_rng(seed), np.random.default_rng(0)
    times = np.arange(EPISODE_STEPS + 1, dtype=np.float32)[:, None]
    speeds = rng.uniform(0.05, 0.4, (episodes, 1, LATENT_SIZE)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, (episodes, 1, LATENT_SIZE)).astype(np.float32)
    latent = np.sin(speeds * times + phases)
    body = np.tanh(latent @ mixture.normal(size=(LATENT_SIZE, OBSERVATION_SIZE)).astype(np.float32))
    body += 0.05 * rng.standard_normal(body.shape, dtype=np.float32)
    states, next_states = body[:, :-1].reshape(-1, OBSERVATION_SIZE), body[:, 1:].reshape(-1, OBSERVATION_SIZE)
    actions = np.tanh(states @ mixture.normal(size=(OBSERVATION_SIZE, ACTION_SIZE)).astype(np.float32))
    timeouts = np.zeros((episodes, EPISODE_STEPS), dtype=bool)
    timeouts[:, -1] = True
    return {
        "observations": states,
        "next_observations": next_states,
        "actions": actions,
        "rewards": states[:, 0] - 0.1 * np.square(actions).sum(axis=1),
        "terminals": np.zeros(episodes * EPISODE_STEPS, dtype=bool),
        "timeouts": timeouts.reshape(-1),
    }


def write_data(path: Path, rows: int, **storage: Any) -> Path:
    """Writes synthetic transitions in D4RL's layout, block by block.

    Args:
        path: HDF5 file to write.
        rows: Number of transitions, a multiple of the episode length.
        storage: Options of h5py's data sets.
    """
    with h5py.File(path, "w") as file:
        for name, column in synthetic_gait(1, 0).items():
            file.create_dataset(name, (rows, *column.shape[1:]), column.dtype, **storage)
        for start in range(0, rows, BLOCK_EPISODES * EPISODE_STEPS):
            stop = min(start + BLOCK_EPISODES * EPISODE_STEPS, rows)
            for name, column in synthetic_gait((stop - start) // EPISODE_STEPS, seed=start).items():
                file[name][start:stop] = column
    return path


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Returns the folder of the files, which is deleted when this process ends."""
    return tempfile.TemporaryDirectory(prefix="benchmark")


@cache
def map_file() -> Path:
    """Returns a file of 100,000 transitions."""
    return write_data(Path(folder().name) / "map.hdf5", MAP_ROWS)


@cache
def large_file() -> Path:
    """Returns a file of 2 GB, uncompressed."""
    return write_data(Path(folder().name) / "large.hdf5", whole_episodes(LARGE_BYTES))


@cache
def compressed_file() -> Path:
    """Returns a file of 200 MB before gzip compression, in h5py's default chunks, like D4RL's files."""
    return write_data(Path(folder().name) / "small.hdf5", whole_episodes(COMPRESSED_BYTES), compression="gzip")


def whole_episodes(size: int) -> int:
    """Returns the number of transitions, in complete episodes, that fit into this many bytes."""
    return size // (ROW_BYTES * EPISODE_STEPS) * EPISODE_STEPS


def make_maps(engine: str) -> None:
    """Makes everything that is logged of a data set, from its file, with default settings."""
    cfg = DatasetConfig(embedding=EmbeddingConfig(engine=engine))
    values = run_all(dataset_jobs(MapMaker(dataset=open_dataset(map_file()), embedding=cfg.embedding), cfg)).values
    if "dataset/overview" not in values:
        raise RuntimeError("The data set has no overview figure, so there is nothing to compare.")


@cache
def peer_seconds() -> float:
    """Returns the wall seconds of DI-engine's two maps without their figures: states, and states with actions."""
    with h5py.File(map_file()) as file:
        states, actions = file["observations"][:SAMPLED_ROWS], file["actions"][:SAMPLED_ROWS]

    def lay_out() -> None:
        for rows in (states, np.concatenate([states, actions], axis=1)):
            TSNE(n_components=2, init="pca", random_state=0).fit_transform(rows)

    return seconds(lay_out)


def compare_map(engine: str) -> Pair:
    """Compares our report with one engine to scikit-learn's two maps, which are made only once."""
    map_file()
    return seconds(make_maps, engine), peer_seconds()


def sample() -> None:
    """Samples 10,000 transitions."""
    if len(open_dataset(os.environ[FILE_VARIABLE]).sample(SAMPLED_ROWS, seed=0)) != SAMPLED_ROWS:
        raise RuntimeError("Not all rows were sampled, so there is nothing to compare.")


def read_whole() -> None:
    """Reads all arrays, as D4RL's ``get_dataset`` does."""
    with h5py.File(os.environ[FILE_VARIABLE]) as file:
        columns = {name: file[name][:] for name in file}
    assert len(columns["rewards"]) > SAMPLED_ROWS


def compare_reading(path: Path) -> Pair:
    """Compares the wall seconds of a sample and of the whole file; the file is in the page cache for both."""
    os.environ[FILE_VARIABLE] = str(path)
    return seconds(sample), seconds(read_whole)


def compare_reading_memory(path: Path) -> Pair:
    """Compares the peak memory of a sample and of the whole file."""
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
        note="Two maps, six figures, table and interactive page. The data is synthetic, of HalfCheetah's shape.",
        profile=profile_call(lambda: make_maps("opentsne")),
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
        note="From opening the file to rows with their returns and lengths, for which the rewards and ends of all "
        "episodes are read. 17 features, D4RL's arrays, 12 million transitions. The first pair reads from disk, where "
        "reading less saves most; later ones read from the page cache, where reading the whole file takes a third of "
        "a second.",
        profile=profile_call(sample),
    ),
    Line(f"{SAMPLE}: peak memory", WHOLE, 0.1, lambda _: compare_reading_memory(large_file()), pairs=1, unit="B"),
    Line(
        COMPRESSED_SAMPLE,
        WHOLE,
        None,
        lambda _: compare_reading(compressed_file()),
        pairs=1,
        note="A ratio near 0.1 is impossible: a gzip chunk can only be read as a whole, and the sampled rows lie in "
        "nearly all chunks, so that nearly all observations and actions are decompressed. Only the arrays that are "
        "not needed are saved.",
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
