"""Shell commands that send a run from its folder to W&B's server, while it goes on or later.

``wandb sync`` sends what is there and marks the folder as sent. If the run goes on, later rows stay behind: the same
command skips the folder from then on, with exit code 0, and ``wandb clean`` removes it.
"""

from __future__ import annotations

import contextlib
import inspect
import shlex
from pathlib import Path
from typing import Any

AFTER_TRAINING = "The command that uploads it is printed at the end of training."
MARKED = (
    "`wandb sync` was used while the run went on, and has marked its folder as sent. --include-synced sends every row "
    "again: the earlier ones are there twice then if the run was begun with resume, or if the server appends rows."
)


def run_folder(run: Any) -> Path:
    """Returns the folder of a run; a WandbLogger gives W&B a relative one."""
    return Path(run.dir).parent.absolute()


def sync_command(run: Any) -> str:
    """Returns the command that sends a run that has ended."""
    return sync_command_of(run_folder(run))


def sync_command_of(folder: Path) -> str:
    """Returns the command that sends the run of a folder.

    W&B skips runs that were online, which it tells by the name of the folder, and runs that were sent, each unless it
    is told not to.
    """
    options = [] if folder.resolve().name.startswith("offline-") else ["--include-online"]
    if is_marked_as_sent(folder):
        options.append("--include-synced")
    return " ".join(["wandb sync", *options, shlex.quote(str(folder))])


def is_marked_as_sent(folder: Path) -> bool:
    """Returns whether ``wandb sync`` has sent the run of a folder, or the rows that it had then."""
    return any(folder.glob("*.wandb.synced"))


def live_sync_command(run: Any) -> str | None:
    """Returns the command that sends an offline run while it goes on, and all of it; None if W&B has none.

    The command ends with the run. It does not if the run's process is killed.
    """
    with contextlib.suppress(Exception):  # the parts of W&B below are not public
        from wandb.cli import beta_sync

        if {"live", "skip_confirmation"} <= inspect.signature(beta_sync.sync).parameters.keys():
            return f"wandb beta sync --yes --live {shlex.quote(str(run_folder(run)))}"
    return None


def describe_live_sync(run: Any) -> str:
    """Returns how to upload an offline run that begins, as a message."""
    command = live_sync_command(run)
    return AFTER_TRAINING if command is None else f"{AFTER_TRAINING} To upload it while it goes on: {command}"


def describe_sync(run: Any) -> str:
    """Returns how to upload an offline run that ends, as a message."""
    return f"To upload run {run.id}: {explained_sync_command(run)}"


def explained_sync_command(run: Any) -> str:
    """Returns the command that sends a run that has ended, and what it does if that is not plain."""
    folder = run_folder(run)
    command = sync_command_of(folder)
    return f"{command} ({MARKED})" if is_marked_as_sent(folder) else command
