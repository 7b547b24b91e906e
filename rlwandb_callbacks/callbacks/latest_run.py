"""The latest run of a session, also that of a training in other processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlwandb_callbacks.callbacks.counters import Counters
from rlwandb_callbacks.callbacks.handover import Handover


class LatestRun:
    """Id and folder of the latest W&B run, from which ``trainer.validate`` continues it.

    Attributes:
        id: Id of the run; None if there was none.
    """

    def __init__(self) -> None:
        self.id: str | None = None
        self._folder: Path | None = None
        self._handover = Handover()

    @property
    def folder(self) -> Path | None:
        """Local folder of the run, also of one in a process that a training has started; None if there was none."""
        folder = self._handover.read().get("folder")
        return self._folder if folder is None else Path(folder)

    def clear(self) -> None:
        """Removes what other processes left, as a newer run was opened in this one, or a disabled one."""
        self._handover.clear()

    def replace(self, run: Any) -> None:
        """Takes a run that was opened in this process."""
        self.id, self._folder = run.id, Path(run.dir).parent

    def restore(self, counters: Counters) -> None:
        """Takes the run and the counts of a training in other processes, if there was one."""
        left = self._handover.read()
        if "run" in left and self.id is None:
            self.id = left["run"]
            counters.restore(left.get("counts", {}))

    def leave(self, counters: Counters) -> None:
        """Leaves the run and the counts for the process that has started this one, if there is one."""
        if self.id is not None:
            self._handover.leave({"run": self.id, "folder": str(self._folder), "counts": counters.state()})
