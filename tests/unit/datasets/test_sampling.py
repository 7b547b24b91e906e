"""Samples are uniform, seeded, ascending and without repeats, and take little memory, however a file is stored."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rlwandb_callbacks.datasets import columns as columns_module
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.datasets.formats import hdf5
from rlwandb_callbacks.errors import DatasetError

COUNT, WIDTH = 3000, 7
STORAGES: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunks of few rows": {"chunks": (3, WIDTH)},
    "chunks that split rows": {"chunks": (100, 2)},
    "one chunk": {"chunks": (COUNT, WIDTH)},
    "a chunk larger than the array": {"chunks": (COUNT + 50, WIDTH + 1), "maxshape": (None, None)},
    "guessed chunks": {"chunks": True},
    "gzip": {"compression": "gzip", "chunks": (128, WIDTH)},
    "gzip, shuffled, checked": {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (128, 3)},
    "gzip in one chunk": {"compression": "gzip", "shuffle": True, "chunks": (COUNT, WIDTH)},
    "lzf": {"compression": "lzf", "chunks": (500, 4)},
    "checked only": {"fletcher32": True, "chunks": (500, WIDTH)},
    "rounded": {"scaleoffset": 3, "chunks": (500, WIDTH)},
}


def columns(count: int = COUNT) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    timeouts = np.zeros(count, dtype=bool)
    timeouts[99::100] = True
    return {
        "observations": rng.integers(0, 1000, (count, WIDTH)).astype(np.float32),
        "actions": rng.integers(0, 4, (count, 1)).astype(np.float32),
        "rewards": np.arange(count, dtype=np.float64),
        "timeouts": timeouts,
    }


@pytest.mark.parametrize("block_bytes", [columns_module.BLOCK_BYTES, 100], ids=["", "small blocks"])
@pytest.mark.parametrize("options", STORAGES.values(), ids=STORAGES.keys())
def test_rows_are_right_however_they_are_stored(
    options: dict[str, Any], block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns_module, "BLOCK_BYTES", block_bytes)
    arrays = columns()
    with h5py.File(tmp_path / "a", "w") as file:
        for name, array in arrays.items():
            fitting = options if array.ndim == 2 and array.shape[1] == WIDTH else {}
            file.create_dataset(name, data=array, **fitting)
    for data in (open_dataset(tmp_path / "a"), open_dataset(tmp_path / "a").__enter__()):
        for count in (1, 2, 40, COUNT // 2, COUNT):
            sample = data.sample(count, seed=count)
            np.testing.assert_array_equal(sample.observations, arrays["observations"][sample.rows])
            np.testing.assert_array_equal(sample.actions, arrays["actions"][sample.rows, 0])
            np.testing.assert_array_equal(sample.rewards, sample.rows)
            np.testing.assert_array_equal(sample.steps, sample.rows % 100)
            np.testing.assert_array_equal(sample.episodes, sample.rows // 100)
        data.close()


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "shuffle": True}], ids=["stored", "compressed"])
def test_columns_in_one_chunk_are_scanned_in_order(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlwandb_callbacks.datasets.formats.episode_marks.BLOCK_ROWS", 256)
    arrays = columns()
    with h5py.File(tmp_path / "a", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=array.shape, **options)
    found = open_dataset(tmp_path / "a").episodes()
    np.testing.assert_array_equal(found.returns, arrays["rewards"].reshape(-1, 100).sum(axis=1))
    assert found.truncated.all()


def test_chunks_that_were_never_written_are_zeros(tmp_path: Path) -> None:
    arrays = columns(400)
    with h5py.File(tmp_path / "a", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        del file["observations"]
        file.create_dataset("observations", (400, WIDTH), "f4", chunks=(50, WIDTH))[100:200] = 5
    sample = open_dataset(tmp_path / "a").sample(400, 0)
    assert sample.observations.sum() == 100 * WIDTH * 5


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_of_npz_are_right(compressed: bool, tmp_path: Path) -> None:
    arrays = columns()
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)
    with open_dataset(tmp_path / "a.npz") as data:
        for seed in range(3):
            sample = data.sample(500, seed)
            np.testing.assert_array_equal(sample.observations, arrays["observations"][sample.rows])


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_npz_is_an_error_when_it_is_read(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **columns())
    content = bytearray(path.read_bytes())
    content[4000:4100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="data are damaged"):
        open_dataset(path).sample(COUNT, 0)


def test_large_chunks_that_are_read_whole_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "LARGE_CHUNK_BYTES", 1000)
    for name, options, reported in (
        ("compressed", {"chunks": (COUNT, WIDTH), "compression": "gzip"}, True),
        ("split rows", {"chunks": (COUNT, 2)}, True),
        ("small", {"chunks": (30, WIDTH), "compression": "gzip"}, False),
        ("uncompressed", {"chunks": (COUNT, WIDTH)}, False),
        ("contiguous", {}, False),
    ):
        arrays = columns()
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("observations", data=arrays.pop("observations"), **options)
            for key, array in arrays.items():
                file[key] = array
        found = [text for text in open_dataset(tmp_path / name).warnings if "which are read whole" in text]
        assert len(found) == reported, name
        assert all("/observations is stored in chunks of" in text for text in found)


def test_samples_are_ascending_unique_and_seeded() -> None:
    data = open_dataset(columns())
    for count in (1, 10, 2999, 3000, 9000):
        rows = data.sample(count, seed=4).rows
        assert len(rows) == min(count, COUNT)
        assert (np.diff(rows) > 0).all()
        assert rows[0] >= 0
        assert rows[-1] < COUNT
    assert data.sample(10, 4).rows.tolist() == data.sample(10, 4).rows.tolist() != data.sample(10, 5).rows.tolist()


def test_every_row_is_equally_likely() -> None:
    data = open_dataset(columns(200))
    drawn = np.zeros(200)
    for seed in range(600):
        drawn[data.sample(20, seed).rows] += 1
    expected = 600 * 20 / 200  # each a binomial count of mean 60 and standard deviation 7.3
    assert abs(drawn - expected).max() < 5 * 7.35
    assert 0.7 < ((drawn - expected) ** 2).mean() / 54 < 1.35
    assert abs(drawn[:100].sum() / drawn.sum() - 0.5) < 0.03


def test_sample_of_large_observations_is_limited_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.datasets.dataset.MAX_SAMPLE_BYTES", 100 * WIDTH * 4)
    assert len(open_dataset(columns()).sample(1000, 0)) == 100


def test_digest_depends_on_the_content_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = columns()

    def digest_with(**changed: Any) -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        with h5py.File(path, "w") as file:
            for name, array in (arrays | changed).items():
                file.create_dataset(name, data=array, track_times=False)
        return open_dataset(path).digest()

    def one_off(name: str, row: int) -> Any:
        array = arrays[name].copy()
        array[row] = ~array[row] if array.dtype == bool else array[row] + 1
        return array

    first = digest_with()
    assert first == digest_with()
    assert len(first) == 32
    changed = {digest_with(**{name: one_off(name, row)}) for name in arrays for row in (0, 1234, COUNT - 1)}
    assert len(changed | {first}) == 13
    monkeypatch.setattr("rlwandb_callbacks.datasets.digest.FULL_DIGEST_BYTES", 1000)
    spread = digest_with()
    assert spread == digest_with()
    assert len({digest_with(**{name: one_off(name, 1234)}) for name in ("rewards", "timeouts")} | {spread}) == 3
    assert open_dataset(arrays).digest() == open_dataset(columns()).digest()
    assert open_dataset(arrays).digest() != open_dataset(arrays | {"observations": one_off("observations", 5)}).digest()


MEASURE = r"""
import re, sys
from pathlib import Path
import h5py, numpy as np
from rlwandb_callbacks.datasets import columns as columns_module
from rlwandb_callbacks.datasets import open_dataset

def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024

before = peak()
sample = open_dataset(sys.argv[1]).sample(2000, 0)
sampling = peak() - before
with h5py.File(sys.argv[1]) as file:
    for name in file:
        rows = file[name][()]
        if name == "observations":
            assert (rows[sample.rows] == sample.observations).all()
print(sampling, peak() - before)
"""
ROWS, WIDE = 120_000, 256


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 25),
        ({"chunks": (64, WIDE)}, 25),
        ({"chunks": (ROWS, WIDE)}, 25),
        ({"chunks": True}, 25),
        ({"chunks": (1000, WIDE), "compression": "gzip", "compression_opts": 1}, 25),
        ({"chunks": True, "compression": "gzip", "compression_opts": 1}, 25),
        ({"chunks": (30_000, WIDE), "compression": "gzip", "compression_opts": 1, "shuffle": True}, 110),
    ],
    ids=[
        "contiguous",
        "chunks",
        "one chunk",
        "guessed chunks",
        "gzip",
        "gzip in guessed chunks",
        "gzip in 30 MB chunks",
    ],
)
def test_sampling_120_megabytes_takes_little_memory(options: dict[str, Any], limit: int, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from Linux")
    with h5py.File(tmp_path / "a", "w") as file:
        observations = file.create_dataset("observations", (ROWS, WIDE), "f4", **options)
        observations[...] = np.repeat(np.arange(ROWS, dtype=np.float32), WIDE).reshape(ROWS, WIDE)
        file["actions"] = np.zeros((ROWS, 2), np.float32)
        file["rewards"] = np.zeros(ROWS, np.float32)
        file["timeouts"] = np.arange(ROWS) % 1000 == 999
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "a")]
    sampling, whole = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert whole > 110
    assert sampling < limit


def test_scattered_rows_of_a_large_chunk_decompress_it_once(tmp_path: Path) -> None:
    path, chunk = tmp_path / "a.h5", (6_000, 500)
    with h5py.File(path, "w") as file:
        content = np.random.default_rng(0).integers(0, 9, (12_000, 500)).astype(np.float32)
        file.create_dataset("observations", data=content, chunks=chunk, compression="gzip", compression_opts=1)
        file["actions"], file["rewards"] = np.zeros((12_000, 1)), np.zeros(12_000)
        file["terminals"] = np.arange(12_000) % 1000 == 999
    with h5py.File(path) as file:
        start = time.process_time()
        file["observations"][: chunk[0]]
        one_chunk = time.process_time() - start
    with open_dataset(path) as data:
        data.episodes()
        start = time.process_time()
        data.sample(100, 0)
        assert time.process_time() - start < 20 * one_chunk  # 100 rows in 2 chunks, which are also checked
