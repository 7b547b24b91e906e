"""What a training in spawned processes leaves for later calls of the same Trainer.

``ddp_spawn`` and the strategies of notebooks train in processes that end with ``fit``. Lightning brings weights and
metrics back to the process that has called it, and nothing of its callbacks. So rank zero leaves the run and the counts
in a file, where the next ``trainer.validate``, which may start processes of its own, finds them.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import tempfile
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Handover:
    """File from the processes of a training to the one that has started them; it is deleted when that ends.

    Copies in the same process have files of their own.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"rlwandb-{uuid.uuid4().hex}.json"
        weakref.finalize(self, _delete, self._path, self._pid)

    def __getstate__(self) -> dict[str, Any]:
        """Returns the path and the process."""
        return {"_path": self._path, "_pid": self._pid}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes the file of the process that has started this one, or a new one in a copy."""
        self.__dict__.update(state)
        if self._pid == os.getpid():
            self.__init__()  # type: ignore[misc]  # a copy has a file of its own

    def leave(self, content: Mapping[str, Any]) -> None:
        """Writes some plain values, unless this is the process that reads them."""
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid != self._pid:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(dict(content), file)

    def clear(self) -> None:
        """Removes what was left, as there is something newer."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """Returns what was left last; empty if nothing was."""
        with contextlib.suppress(OSError, ValueError):
            content: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            return content
        return {}


def _delete(path: Path, pid: int) -> None:
    if pid == os.getpid():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
