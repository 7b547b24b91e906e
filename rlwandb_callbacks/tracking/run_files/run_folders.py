"""Finding the run files of a run: its folders, their order in time, and copies."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from rlwandb_callbacks.tracking.run_files.items import parse_record
from rlwandb_callbacks.tracking.run_files.record_log import BLOCK_BYTES, HEADER_BYTES, HISTORY, RUN, read_records

_PATTERNS = ("*.wandb", "*/*.wandb", "wandb/*/*.wandb")


def find_run_files(path: Path, run_id: str | None = None) -> list[Path]:
    """Returns the run files that a path stands for; folders that are links, such as ``latest-run``, are resolved.

    Args:
        path: A ``.wandb`` file or the folder of a run, which stand for themselves; or a folder ``wandb/`` or the one
            around it, which stand for all folders of one run.
        run_id: Id of the run; None for the run that was started last.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if path.suffix == ".wandb" and path.is_file():
        return [_without_link(path)]
    wanted = None if run_id is None else f"run-{run_id}.wandb"
    for pattern in _PATTERNS:
        files = {_without_link(file) for file in path.glob(pattern) if wanted in (None, file.name)}
        if files:
            newest = max(files, key=started)
            return [newest] if pattern == "*.wandb" else [file for file in files if file.name == newest.name]
    raise FileNotFoundError(f"There is no {wanted or '.wandb'} file in {path} or in the folder of a run below it.")


def in_order(files: Iterable[Path]) -> list[Path]:
    """Returns run files in the order in which they were started, each once, and without copies of folders.

    Of copies, which may have been made while the run went on, the largest is kept.
    """
    kept: list[Path] = []
    for file in sorted({file.resolve(): file for file in files}.values(), key=_size, reverse=True):
        if not any(_is_copy(file, larger) for larger in kept):
            kept.append(file)
    return sorted(kept, key=started)


def started(file: Path) -> float:
    """Returns the time in seconds at which a process began the run; that of the last change if it is not recorded.

    Names of folders have the local time, and copying changes the dates of files.
    """
    recorded = _recorded_start(file)
    return file.stat().st_mtime if recorded is None else recorded


def _recorded_start(file: Path) -> float | None:
    with file.open("rb") as opened:
        for record in islice(read_records(opened, HEADER_BYTES, _size(file), {RUN, HISTORY}), 1):
            if record.type == HISTORY:  # the run is recorded before its first row
                return None
            run = parse_record(record.content).run
            return float(run.start_time.ToMicroseconds()) / 1e6 if run.HasField("start_time") else None
    return None


def _is_copy(file: Path, larger: Path) -> bool:
    """Returns whether a file begins like a larger one: id and time of the start are in its first block."""
    if _recorded_start(file) is None:
        return False
    with file.open("rb") as opened, larger.open("rb") as opened_larger:
        beginning = opened.read(BLOCK_BYTES)
        return opened_larger.read(len(beginning)) == beginning


def _size(file: Path) -> int:
    return file.stat().st_size


def _without_link(file: Path) -> Path:
    return file.parent.resolve() / file.name if file.parent.is_symlink() else file
