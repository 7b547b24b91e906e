"""Offline folders of one run: a job that was started again has one of each start."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from rlwandb_callbacks.tracking.sync_commands import run_folder

TIME_PATTERN = "????????_??????"  # of the start, such as 20260131_235959


def folders_of_run(folder: Path, run_id: str) -> list[Path]:
    """Returns the folders of a run in W&B's ``folder``, the latest last; an id may end with the id of another run."""
    found = folder.glob(f"*run-{TIME_PATTERN}-{glob.escape(run_id)}")
    return sorted(found, key=lambda each: each.name.removeprefix("offline-"))


def describe_overwritten(run: Any) -> str | None:
    """Describes what an offline run replaces at W&B's server, if it is not begun as a part of the same run.

    ``wandb sync`` sends the rows of each folder from the first line on, unless the run was begun with ``resume``.
    """
    resume = getattr(run.settings, "resume", None)
    if not run.offline or resume in ("allow", "must", "auto"):
        return None
    folder = run_folder(run)
    earlier = [other for other in folders_of_run(folder.parent, run.id) if other.name != folder.name]
    if not earlier:
        return None
    setting = "without resume" if resume is None else f"with resume={resume!r}"
    effect = "W&B's server refuses it" if resume == "never" else "its rows replace those of the earlier one"
    return (
        f"{earlier[-1]} has rows of run {run.id} too, and the run was begun {setting}: if both are "
        f"uploaded, {effect}. Begin each part of a job with resume='allow' (run.resume, or wandb.init(resume=...)), or "
        "with an id of its own."
    )
