"""What W&B's own log says about uploads that it gave up; the lines are those of wandb 0.31."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlwandb_callbacks.tracking.finishing import describe_given_up
from rlwandb_callbacks.tracking.upload_errors import find_upload_errors

ROWS = {
    "level": "ERROR+4",
    "msg": "filestream: fatal error: filestream: failed to upload: 401 Unauthorized url=http://h:500/file_stream: {}",
}
FILE = {
    "level": "ERROR",
    "msg": "file transfer: upload: failed to upload: status: 403 Forbidden: body: 500 times",
    "task": "DefaultUploadTask{FileKind: 3, Path: /404/x.png, Name: x.png, Url: http://h/x.png?signature=secret}",
}
NO_URL = {"level": "ERROR", "msg": 'runfiles: CreateRunFiles returned error: returned error 404: {"data":null}'}
GONE = {"level": "ERROR", "msg": "PUT http://h/x giving up after 3 attempt(s): refused", "task": "DefaultUploadTask{}"}
HARMLESS = [
    {"level": "INFO", "msg": "filestream: sending request"},
    {"level": "INFO", "msg": "file transfer: uploading file", "task": "DefaultUploadTask{}"},
    {"level": "WARN", "msg": "api: retrying HTTP error", "status": 500, "method": "POST"},
    {"level": "ERROR", "msg": "api: HTTP error", "status": 404, "method": "POST"},
    {"level": "ERROR", "msg": "stream: failed to shut down analytics", "error": "401 Unauthorized"},
]


def write_log(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "debug-internal.log"
    path.write_text("".join(json.dumps({"time": "t", **line}, separators=(",", ":")) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], {}),
        ([ROWS], {"rows": "401 Unauthorized"}),
        ([FILE, FILE], {"files": "403 Forbidden"}),
        ([NO_URL], {"files": "404"}),
        ([GONE], {"files": ""}),
        ([GONE, FILE, ROWS], {"files": "403 Forbidden", "rows": "401 Unauthorized"}),
    ],
)
def test_what_was_given_up_is_found_with_the_answer(
    tmp_path: Path, lines: list[dict[str, Any]], found: dict[str, str]
) -> None:
    assert find_upload_errors(write_log(tmp_path, *HARMLESS, *lines, *HARMLESS)) == found


def test_a_log_that_cannot_be_read_has_no_errors(tmp_path: Path) -> None:
    assert find_upload_errors(tmp_path) == find_upload_errors(tmp_path / "missing") == {}


def test_a_long_log_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlwandb_callbacks.tracking.upload_errors.MAX_LOG_BYTES", 1000)
    assert find_upload_errors(write_log(tmp_path, *HARMLESS * 10, ROWS)) == {}


def test_the_message_has_the_command_and_no_part_of_an_address(tmp_path: Path) -> None:
    def new_run(*, offline: bool) -> Any:
        settings = SimpleNamespace(log_internal=str(log), base_url="http://h")
        return SimpleNamespace(id="r", dir=str(tmp_path / "files"), offline=offline, settings=settings)

    log = write_log(tmp_path, ROWS, FILE)
    message = describe_given_up(new_run(offline=False))
    assert message is not None
    assert message.startswith(
        "W&B gave up sending rows (401 Unauthorized) and files (403 Forbidden) of run r to http://h;"
    )
    assert message.endswith(f"To send them later: wandb sync --include-online {tmp_path}")
    assert "secret" not in message
    assert describe_given_up(new_run(offline=True)) is None
