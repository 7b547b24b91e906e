"""A data set reads no other file, and takes no more time and memory than it has room for."""

from __future__ import annotations

import io
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.datasets.discover import no_dataset
from rlwandb_callbacks.errors import DatasetError

SECRET = "root:x:0:0:the-secret-of-another-file"
ROWS = 20
MIB = 2**20
FIELDS = ("observations", "actions", "rewards", "terminals")
Write = Callable[[h5py.File], None]


def arrays(*without: str) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    whole = {
        "observations": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": rng.normal(size=(ROWS, 1)),
        "rewards": np.ones(ROWS),
        "terminals": np.arange(ROWS) % 10 == 9,
    }
    return {name: array for name, array in whole.items() if name not in without}


def flat(path: Path, write: Write | None = None, without: Iterable[str] = ("observations",)) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays(*(without if write else ())).items():
            file[name] = array
        if write:
            write(file)
    return path


def refusal(path: Path, dataset_format: str | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(path, dataset_format).sample(5, 0)
    assert SECRET[:16] not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "passwd").write_text(SECRET * 10)
    return tmp_path / "passwd"


def virtual(file: h5py.File, source: h5py.VirtualSource, dtype: str = "f4") -> None:
    layout = h5py.VirtualLayout((ROWS, 3), dtype)
    layout[:] = source
    file.create_virtual_dataset("observations", layout)


def test_values_in_another_file_are_refused(tmp_path: Path, secret: Path) -> None:
    external = {"external": [(str(secret), 0, 3 * ROWS)]}

    def storage(file: h5py.File) -> None:
        file.create_dataset("observations", (ROWS, 3), "u1", **external)

    def storage_behind_virtual(file: h5py.File) -> None:
        virtual(file, h5py.VirtualSource(file.create_dataset("part", (ROWS, 3), "u1", **external)), "u1")

    def storage_of_marks(file: h5py.File) -> None:
        file["observations"] = arrays()["observations"]
        del file["terminals"]
        file.create_dataset("terminals", (ROWS,), "u1", **external)

    for write in (storage, storage_behind_virtual, storage_of_marks):
        message = refusal(flat(tmp_path / f"{write.__name__}.h5", write))
        assert f"takes its values from another file, {secret}, which is not read" in message


def test_links_to_other_files_are_refused(tmp_path: Path) -> None:
    other = flat(tmp_path / "other.h5")

    def direct(file: h5py.File) -> None:
        file["observations"] = h5py.ExternalLink(str(other), "/observations")

    def within_dict(file: h5py.File) -> None:
        file["observations/position"] = h5py.ExternalLink(str(other), "/observations")

    def behind_soft_link(file: h5py.File) -> None:
        file["all"] = h5py.ExternalLink(str(other), "/")
        file["observations"] = h5py.SoftLink("/all/observations")

    for write in (direct, within_dict, behind_soft_link):
        message = refusal(flat(tmp_path / f"{write.__name__}.h5", write))
        assert f"is a link to another file, {other}, which is not read" in message
    minari = tmp_path / "minari.h5"
    with h5py.File(minari, "w") as file:
        file["episode_0"] = h5py.ExternalLink(str(other), "/")
    assert "/episode_0 is a link to another file" in refusal(minari)


def test_virtual_data_sets_of_other_files_are_refused(tmp_path: Path) -> None:
    other = flat(tmp_path / "other.h5")
    source = h5py.VirtualSource(str(other), "observations", (ROWS, 3))
    message = refusal(flat(tmp_path / "a.h5", lambda file: virtual(file, source)))
    assert f"is a virtual data set made of another file, {other}" in message


def test_links_within_the_file_are_followed(tmp_path: Path) -> None:
    expected = arrays()["observations"]

    def soft(file: h5py.File) -> None:
        file["all/data"] = expected
        file["second"] = h5py.SoftLink("all")
        file["observations"] = h5py.SoftLink("/second/data")

    def same_file(file: h5py.File) -> None:
        file["part"] = expected
        virtual(file, h5py.VirtualSource(file["part"]))

    def unrelated_link(file: h5py.File) -> None:
        file["observations"] = expected
        file["video"] = h5py.ExternalLink("/dev/zero", "/")

    for write in (soft, same_file, unrelated_link):
        data = open_dataset(flat(tmp_path / f"{write.__name__}.h5", write))
        np.testing.assert_array_equal(data.sample(ROWS, 0).observations, expected)


def test_groups_and_links_that_lead_to_themselves_are_refused(tmp_path: Path) -> None:
    def itself(file: h5py.File) -> None:
        file["observations"] = h5py.SoftLink("/observations")

    def parent(file: h5py.File) -> None:
        file.create_group("observations")["a"] = h5py.SoftLink("/observations")

    def hard(file: h5py.File) -> None:
        group = file.create_group("observations")
        group["a"] = group["b"] = group

    def wide(file: h5py.File) -> None:  # 10**7 arrays through 7 groups
        group = file.create_group("leaf")
        group["x"] = np.zeros((ROWS, 1))
        for level in range(7):
            outer = file.create_group(f"level{level}")
            for name in "abcdefghij":
                outer[name] = group
            group = outer
        file["observations"] = group

    assert "more than 16 links" in refusal(flat(tmp_path / "itself.h5", itself))
    for write in (parent, hard, wide):
        assert "linked to itself" in refusal(flat(tmp_path / f"{write.__name__}.h5", write))


def test_arrays_that_declare_far_more_than_is_stored_are_refused(tmp_path: Path) -> None:
    for options in ({"chunks": (2**20,)}, {}):

        def many(file: h5py.File, options: dict[str, Any] = options) -> None:
            for name in FIELDS:
                file.create_dataset(name, (2**40,), "u1", **options)

        message = refusal(flat(tmp_path / "a.h5", many, FIELDS))
        assert "declares 1,099,511,627,776 rows" in message

    def episode(file: h5py.File) -> None:
        for index in range(3):
            for name in ("observations", "actions", "rewards"):
                file.create_dataset(f"episode_{index}/{name}", (2**22,), "u1", chunks=(2**20,))

    assert "its 3 episodes declares 12,582,912 rows" in refusal(flat(tmp_path / "a.h5", episode, FIELDS))

    def wide(file: h5py.File) -> None:
        file.create_dataset("observations", (ROWS, 2**32), "f4", chunks=(1, 2**20))

    assert "a row takes 16,384 MiB" in refusal(flat(tmp_path / "a.h5", wide))

    def chunk(file: h5py.File) -> None:
        file.create_dataset("observations", (ROWS, 3), "f4", chunks=(2**26, 3), maxshape=(None, 3), compression="gzip")

    assert "can only be read in parts of 768 MiB; allowed are 256 MiB" in refusal(flat(tmp_path / "a.h5", chunk))


def zeros(size: int) -> Iterable[bytes]:
    return itertools.repeat(bytes(MIB), size // MIB)


def npz(path: Path, **members: Iterable[bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, parts in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                for part in parts:
                    stream.write(part)
        for name, array in arrays(*members).items():
            stream_of_array = io.BytesIO()
            np.save(stream_of_array, array)
            archive.writestr(f"{name}.npy", stream_of_array.getvalue())
    return path


def header(shape: tuple[int, ...], *, column_major: bool = False) -> bytes:
    stream = io.BytesIO()
    content = {"shape": shape, "descr": "|u1", "fortran_order": column_major}
    np.lib.format.write_array_header_1_0(stream, content)
    return stream.getvalue()


READ_WITH_LIMIT = """
import sys
from pathlib import Path
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.errors import DatasetError

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024

import h5py, torch
for path in sys.argv[1:]:
    before = peak()
    try:
        open_dataset(path).sample(5, 0)
        print(f"{path}: read")
    except DatasetError as error:
        print(f"{Path(path).name} grew by {peak() - before} MiB: {error}"[:200])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_compressed_files_that_would_fill_memory_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    size = 272 * MIB

    def inflating(file: h5py.File) -> None:
        chunk = file.create_dataset("observations", (ROWS, 4), "u1", chunks=(ROWS, 4), compression="gzip")
        stream = zlib.compressobj(1)
        content = b"".join(stream.compress(part) for part in zeros(size)) + stream.flush()
        chunk.id.write_direct_chunk((0, 0), content)

    large = Image.new("L", (5_000, 5_000))
    picture = io.BytesIO()
    large.save(picture, "JPEG")

    def jpeg(file: h5py.File) -> None:
        dataset = file.create_dataset("episode_0/observations", (ROWS,), h5py.vlen_dtype(np.uint8))
        dataset[0] = np.frombuffer(picture.getvalue(), np.uint8)
        for name in ("actions", "rewards"):
            file[f"episode_0/{name}"] = np.zeros(ROWS)

    by_column = npz(
        tmp_path / "columns.npz",
        observations=itertools.chain([header((ROWS, size // ROWS), column_major=True)], zeros(size)),
    )
    numbered = tmp_path / "numbered.pkl"
    numbered.write_bytes(b"\x80\x02]r" + struct.pack("<I", 2**24) + b".")
    files = {
        by_column: "can only be read in parts of 272 MiB",
        npz(
            tmp_path / "rows.npz", rewards=itertools.chain([header((size,))], zeros(size))
        ): "declares 285,212,672 rows",
        npz(
            tmp_path / "header.npz",
            rewards=itertools.chain([b"\x93NUMPY\x02\x00" + struct.pack("<I", size)], zeros(size)),
        ): "is not a complete array",
        flat(tmp_path / "inflating.h5", inflating): "holds a compressed chunk with more than the 80 bytes",
        flat(tmp_path / "jpeg.h5", jpeg, FIELDS): "has 5000 × 5000 pixels",
        numbered: "holds a part with the number 16,777,216",
    }
    command = [sys.executable, "-c", READ_WITH_LIMIT, *map(str, files)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert len(lines) == len(files)
    for line, (path, reason) in zip(lines, files.items(), strict=True):
        assert path.name in line
        assert reason in line
        assert int(line.split(" grew by ")[1].split()[0]) < 200, line


def test_a_row_of_variable_length_beyond_the_file_is_refused(tmp_path: Path) -> None:
    for options in ({}, {"chunks": (4,)}, {"chunks": (4,), "compression": "gzip"}):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("episode_0/observations", (4,), h5py.vlen_dtype(np.uint8), **options)
            dataset[:] = [np.arange(9, dtype=np.uint8)] * 4
            for name in ("actions", "rewards"):
                file[f"episode_0/{name}"] = np.zeros(4)
        references = struct.pack("<I", 9)
        content = path.read_bytes()
        if "compression" not in options:
            assert content.count(references) >= 4
        with h5py.File(path, "r+") as file:
            dataset = file["episode_0/observations"]
            if dataset.chunks is None:
                offset = dataset.id.get_offset()
            else:
                mask, raw = dataset.id.read_direct_chunk((0,))
                raw = zlib.decompress(raw) if "compression" in options else raw
                raw = struct.pack("<I", 2**26) + raw[4:]
                dataset.id.write_direct_chunk((0,), zlib.compress(raw) if "compression" in options else raw, mask)
        if not options:
            path.write_bytes(content[:offset] + struct.pack("<I", 2**26) + content[offset + 4 :])
        assert "declares a row of 67,108,864 bytes" in refusal(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "minari" / "data").mkdir(parents=True)
    os.mkfifo(tmp_path / "minari" / "data" / "main_data.hdf5")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # paths of sockets are short
        server.bind("socket")
        for name, kind in (("pipe", "a pipe"), ("link", "a device"), ("minari", "a pipe"), ("socket", "a socket")):
            assert f"is {kind}" in refusal(tmp_path / name)
            assert "regular file" in refusal(tmp_path / name, "minari")
        for dataset_format in ("d4rl", "npz", "di-engine-pickle"):
            assert "is a pipe" in refusal(tmp_path / "pipe", dataset_format)
    assert refusal(tmp_path / "minari", "npz")


def test_links_to_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(flat(tmp_path / "a.h5"))
    assert open_dataset(tmp_path / "link.h5").num_transitions == ROWS


def test_the_bytes_of_unknown_files_are_in_no_message(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "replay.bin").symlink_to(secret)
    for dataset_format in (None, "d4rl", "npz", "di-engine-pickle", "minari"):
        refusal(tmp_path / "data" / "replay.bin", dataset_format)
    message = no_dataset(str(tmp_path / "data"))
    assert "replay.bin has no known layout" in message
    assert SECRET[:8] not in message
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(20))
    assert "a Parquet file; give its table as a DataFrame" in refusal(tmp_path / "a.parquet")


def minari(folder: Path, metadata: str | dict[str, Any]) -> Path:
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for name, array in arrays("terminals").items():
            file[f"episode_0/{name}"] = array
    text = metadata if isinstance(metadata, str) else json.dumps({"action_space": json.dumps(metadata)})
    (folder / "data" / "metadata.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    "metadata",
    [
        {"type": "Discrete", "start": 0, "n": 10**12},
        {"type": "Box", "low": [0], "high": [1], "shape": [10**12]},
        {"type": "Discrete", "start": float("inf"), "n": 2},
        "[" * 100_000,
        json.dumps({"action_space": "[" * 100_000}),
    ],
    ids=["actions", "width", "infinity", "depth", "depth of the space"],
)
def test_metadata_that_declare_too_much_are_left_out(metadata: Any, tmp_path: Path) -> None:
    data = open_dataset(minari(tmp_path / "a", metadata))
    assert data.num_transitions == ROWS
    assert data.action_spec is not None


def test_metadata_that_are_no_regular_file_are_left_out(tmp_path: Path) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        folder = minari(tmp_path / make.__name__, "{}")
        (folder / "data" / "metadata.json").unlink()
        make(folder / "data" / "metadata.json")
        assert open_dataset(folder).num_transitions == ROWS


def test_the_name_of_a_format_in_metadata_is_not_a_part_of_the_code_in_a_message(tmp_path: Path) -> None:
    folder = minari(tmp_path / "a", json.dumps({"data_format": 'arrow"); print("x"); ("'}))
    (folder / "data" / "main_data.hdf5").unlink()
    assert 'print("x")' not in refusal(folder)


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    def write(file: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((ROWS, 3))
        plist.set_filter(32_999, h5py.h5z.FLAG_OPTIONAL, (1,))
        space = h5py.h5s.create_simple((ROWS, 3))
        h5py.h5d.create(file.id, b"observations", h5py.h5t.NATIVE_FLOAT, space, plist)

    message = refusal(flat(tmp_path / "a.h5", write))
    assert "compressed by HDF5 filter 32999, which is not installed: pip install hdf5plugin" in message
