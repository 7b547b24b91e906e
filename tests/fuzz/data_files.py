"""Damaged data files: valid files of every layout with bits flipped, bytes lost or parts exchanged.

Usage: data_files.py FOLDER FIRST_SEED COUNT. Opens one damaged file per seed and reads all of it. Prints ``seed layout
seconds growth_mib outcome`` for each; the outcome is ``result``, ``error`` (the package's own), or what went wrong.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.errors import DatasetError

COUNT = 24
SIDE_EFFECTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "ctypes.dlopen")


def columns(rng: np.random.Generator) -> dict[str, Any]:
    ends = np.arange(COUNT) % 8 == 7
    return {
        "observations": rng.normal(size=(COUNT, 3)).astype(np.float32),
        "actions": rng.integers(0, 3, COUNT),
        "rewards": rng.normal(size=COUNT),
        "terminals": ends & (np.arange(COUNT) < 16),
        "timeouts": ends & (np.arange(COUNT) >= 16),
    }


def records(rng: np.random.Generator, wrap: Callable[[Any], Any] = np.asarray) -> list[dict[str, Any]]:
    arrays = columns(rng)
    return [
        {"obs": wrap(arrays["observations"][row]), "action": wrap(arrays["actions"][row]), "reward": 1.0, "done": False}
        for row in range(COUNT)
    ]


def in_memory(write: Callable[[Any], None]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def flat_hdf5(rng: np.random.Generator, **options: Any) -> bytes:
    def write(stream: Any) -> None:
        with h5py.File(stream, "w") as file:
            for name, array in columns(rng).items():
                file.create_dataset(name, data=array, **options)

    return in_memory(write)


def linked_hdf5(rng: np.random.Generator) -> bytes:
    def write(stream: Any) -> None:
        with h5py.File(stream, "w") as file:
            for name, array in columns(rng).items():
                file[f"all/{name}"] = array
                file[name] = h5py.SoftLink(f"/all/{name}")

    return in_memory(write)


def minari_hdf5(rng: np.random.Generator) -> bytes:
    def write(stream: Any) -> None:
        with h5py.File(stream, "w") as file:
            for index in range(3):
                group = file.create_group(f"episode_{index}")
                image = in_memory(lambda out: Image.new("RGB", (8, 8), (40, 80, 120)).save(out, "JPEG"))
                pictures = group.create_dataset("observations/image", (9,), h5py.vlen_dtype(np.uint8))
                for row in range(9):
                    pictures[row] = np.frombuffer(image, np.uint8)
                group["observations/state"] = rng.normal(size=(9, 2))
                group["actions"], group["rewards"] = rng.integers(0, 2, 8), rng.normal(size=8)
                group["terminations"], group["truncations"] = np.arange(8) == 7, np.zeros(8, bool)

    return in_memory(write)


VALID: dict[str, Callable[[np.random.Generator], bytes]] = {
    "hdf5": flat_hdf5,
    "hdf5 gzip": lambda rng: flat_hdf5(rng, chunks=True, compression="gzip", shuffle=True),
    "hdf5 links": linked_hdf5,
    "minari": minari_hdf5,
    "npz": lambda rng: in_memory(lambda out: np.savez(out, **columns(rng))),
    "npz compressed": lambda rng: in_memory(lambda out: np.savez_compressed(out, **columns(rng))),
    "npz columns": lambda rng: in_memory(
        lambda out: np.savez(out, **{name: np.asfortranarray(array) for name, array in columns(rng).items()})
    ),
    "pickle 0": lambda rng: pickle.dumps(records(rng), protocol=0),
    "pickle 2": lambda rng: pickle.dumps(records(rng, torch.as_tensor), protocol=2),
    "pickle 4": lambda rng: pickle.dumps(records(rng), protocol=4),
    "pickle columns": lambda rng: pickle.dumps(columns(rng), protocol=5),
    "torch": lambda rng: in_memory(lambda out: torch.save(records(rng, torch.as_tensor), out)),
    "torch legacy": lambda rng: in_memory(
        lambda out: torch.save(records(rng, torch.as_tensor), out, _use_new_zipfile_serialization=False)
    ),
}


def flipped(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 17)):
        data[place] ^= 1 << int(rng.integers(8))


def overwritten(data: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 5)):
        length = int(rng.integers(1, 9))
        value = bytes(length) if rng.random() < 0.3 else (b"\xff" * length if rng.random() < 0.5 else rng.bytes(length))
        data[place : place + length] = value[: len(data) - place]


def cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def dropped(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 200))]


def repeated(data: bytearray, rng: np.random.Generator) -> None:
    start, place = rng.integers(0, len(data), 2).tolist()
    data[place:place] = data[start : start + int(rng.integers(1, 200))]


DAMAGES = (flipped, flipped, flipped, overwritten, overwritten, cut, dropped, repeated)


def damaged_members(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages a file in a zip archive and writes the archive again, with right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {item.filename: (item.compress_type, bytearray(archive.read(item))) for item in archive.infolist()}
    name = str(rng.choice(sorted(parts)))
    DAMAGES[int(rng.integers(len(DAMAGES)))](parts[name][1], rng)

    def write(out: Any) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            for key, (method, content) in parts.items():
                archive.writestr(key, bytes(content), method)

    return in_memory(write)


def damaged_file(seed: int) -> tuple[str, bytes]:
    """Returns the layout and the bytes of a damaged file."""
    rng = np.random.default_rng(seed)
    layout = str(rng.choice(list(VALID)))
    data = VALID[layout](rng)
    if zipfile.is_zipfile(io.BytesIO(data)) and rng.random() < 0.6:
        return layout, damaged_members(data, rng)
    content = bytearray(data)
    DAMAGES[int(rng.integers(len(DAMAGES)))](content, rng)
    return layout, bytes(content)


def read_all(path: Path) -> None:
    with open_dataset(path) as data:
        data.sample(COUNT, 0)
        data.episodes()
        json.dumps([*data.warnings, repr(data), repr(data.action_spec), data.digest()])


def outcome_of(path: Path) -> str:
    try:
        read_all(path)
    except DatasetError as error:
        return "error" if len(str(error)) < 5_000 else "a message of more than 5,000 characters"
    except Exception as error:  # noqa: BLE001  # reported by the caller
        return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    return "result"


def peak_mib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def refuse_side_effects(folder: Path) -> None:
    """Ends the process if reading runs a program, connects to a server, or writes a file."""

    def check(event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if event.startswith(SIDE_EFFECTS) or (is_write and folder not in Path(str(arguments[0])).parents):
            say(f"side effect: {event} {arguments!r}\n")
            raise SystemExit(3)

    sys.addaudithook(check)


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()  # before the process may end


def main(folder: Path, first: int, count: int) -> None:
    warnings.simplefilter("ignore")
    path = folder / "data"
    for warm_up in ("hdf5 gzip", "minari", "torch", "npz"):
        path.write_bytes(VALID[warm_up](np.random.default_rng(0)))
        read_all(path)
    before = peak_mib()
    refuse_side_effects(folder)
    for seed in range(first, first + count):
        layout, content = damaged_file(seed)
        path.write_bytes(content)
        say(f"{seed} {layout.replace(' ', '-')} ")
        start = time.monotonic()
        outcome = outcome_of(path)
        say(f"{time.monotonic() - start:.2f} {peak_mib() - before} {outcome}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
