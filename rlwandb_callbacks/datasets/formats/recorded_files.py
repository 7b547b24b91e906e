"""Folders of steps that RLlib recorded, and the code that converts them, as a message shows it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

_RUN = re.compile(r"run-\w+-\d+")  # run-<worker>-<sampling>
_MAX_INSPECTED = 1_000
# Of one worker, the names of folders and files are in the order of time.
_CONVERSION = """
    from pathlib import Path
    import pandas
    from ray.rllib.utils.compression import unpack_if_needed
    from rlwandb_callbacks import open_dataset

    names = ["eps_id", "obs", "actions", "rewards", "new_obs", "terminateds", "truncateds"]
    files = sorted(Path({folder!r}).rglob("*.parquet"))
    frame = pandas.concat([pandas.read_parquet(file, columns=names) for file in files], ignore_index=True)
    for name in ("obs", "new_obs", "actions"):
        frame[name] = frame[name].map(unpack_if_needed)
    data = open_dataset(frame)
    print(*data.warnings, sep="\\n")  # such as on steps that are missing
    data.save("data.npz")
"""


def is_recording_folder(path: Path) -> bool:
    """Returns whether a folder is one of RLlib's samplings, or holds some, at most two levels below it."""
    inside = itertools.chain(path.glob("*/"), path.glob("*/*/"))
    return _is_run(path) or any(map(_is_run, itertools.islice(inside, _MAX_INSPECTED)))


def _is_run(folder: Path) -> bool:
    return bool(_RUN.fullmatch(folder.name)) and any(folder.glob("*.parquet"))


def recording_conversion(folder: Path) -> str:
    """Returns code that converts the files, without compression and without steps that were written again."""
    return _CONVERSION.format(folder=str(folder))
