"""Commands that send a run, by the name and the content of its folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlwandb_callbacks.tracking import sync_commands
from rlwandb_callbacks.tracking.offline_parts import describe_overwritten


def new_folder(name: str, *, marked: bool = False) -> Path:
    folder = Path("wandb", name).absolute()
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").touch()
    if marked:
        (folder / "run-abc.wandb.synced").touch()
    return folder


def new_run(folder: Path, *, offline: bool = True, resume: str | None = None) -> Any:
    settings = SimpleNamespace(resume=resume)
    return SimpleNamespace(id="abc", dir=str(folder / "files"), offline=offline, settings=settings)


@pytest.mark.parametrize(
    ("name", "marked", "options"),
    [
        ("offline-run-20260101_000000-abc", False, ""),
        ("run-20260101_000000-abc", False, "--include-online "),
        ("renamed", False, "--include-online "),
        ("offline-run-20260101_000000-abc", True, "--include-synced "),
        ("run-20260101_000000-abc", True, "--include-online --include-synced "),
    ],
)
def test_the_command_has_the_options_that_a_folder_needs(name: str, marked: bool, options: str) -> None:
    folder = new_folder(name, marked=marked)
    assert sync_commands.sync_command(new_run(folder)) == f"wandb sync {options}{shlex.quote(str(folder))}"


def test_rows_that_are_sent_twice_are_told() -> None:
    run = new_run(new_folder("offline-run-20260101_000000-abc", marked=True))
    assert "the earlier ones are there twice" in sync_commands.describe_sync(run)


def test_a_link_to_a_folder_is_taken_as_the_folder() -> None:
    folder = new_folder("offline-run-20260101_000000-abc")
    link = folder.with_name("latest-run")
    link.symlink_to(folder)
    assert sync_commands.sync_command_of(link) == f"wandb sync {link}"


def test_no_command_is_named_at_the_start_that_wandb_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.cli import beta_sync

    monkeypatch.setattr(beta_sync, "sync", lambda paths, *, dry_run: None)
    run = new_run(new_folder("offline-run-20260101_000000-abc"))
    assert sync_commands.live_sync_command(run) is None
    assert "wandb" not in sync_commands.describe_live_sync(run)


@pytest.mark.parametrize(
    ("resume", "earlier", "told"),
    [
        (None, "offline-run-20260101_000000-abc", "its rows replace those of the earlier one"),
        (None, "run-20260101_000000-abc", "its rows replace"),
        ("never", "offline-run-20260101_000000-abc", "W&B's server refuses it"),
        ("allow", "offline-run-20260101_000000-abc", None),
        (None, "offline-run-20260101_000000-xabc", None),
        (None, "offline-run-20260101_000000-ab", None),
        (None, "offline-run-20260101_000000-x-abc", None),
    ],
)
def test_an_offline_run_that_replaces_an_earlier_part_is_told(
    resume: str | None, earlier: str, told: str | None
) -> None:
    new_folder(earlier)
    run = new_run(new_folder("offline-run-20260101_000001-abc"), resume=resume)
    message = describe_overwritten(run)
    assert message is None if told is None else told in str(message)
