"""Finds out from the log of W&B's own process what it gave up sending, which ``run.finish`` does not say."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

MAX_LOG_BYTES = 2**28  # limits the time of reading; a run without trouble has a few dozen lines
MARKS = {
    b"filestream: fatal error": "rows",  # W&B sends no more rows after it
    b'"task":"DefaultUploadTask': "files",
    b"runfiles: CreateRunFiles": "files",
    b"sender: failed to log artifact": "files",
}
STATUS = re.compile(rb"(?:failed to upload: |status: |error )([45]\d\d\b(?: [A-Z][A-Za-z-]+)*)")


def find_upload_errors(log: Path) -> dict[str, str]:
    """Returns what W&B gave up sending, ``rows`` or ``files``, with the server's first answer to it.

    The answer is a status such as ``403 Forbidden``; it is empty if the server gave none. W&B tries again where that
    may help, and logs an error only after the last try.

    Args:
        log: W&B's ``debug-internal.log`` of a run that has finished. One that cannot be read has no errors.
    """
    found: dict[str, str] = {}
    num_bytes = 0
    with contextlib.suppress(OSError), log.open("rb") as file:
        for line in file:
            num_bytes += len(line)
            if b'"level":"ERROR' in line and (what := _lost_in(line)) is not None:
                status = STATUS.search(line)
                found[what] = found.get(what) or ("" if status is None else status[1].decode())
            if num_bytes > MAX_LOG_BYTES:
                break
    return found


def _lost_in(line: bytes) -> str | None:
    return next((what for mark, what in MARKS.items() if mark in line), None)


def describe_upload_errors(run: Any) -> str | None:
    """Returns what W&B gave up sending of a run that has finished, as the start of a message; None if nothing."""
    log = getattr(run.settings, "log_internal", None)
    if run.offline or log is None:
        return None
    found = find_upload_errors(Path(log))
    if not found:
        return None
    lost = " and ".join(f"{what} ({found[what]})" if found[what] else what for what in sorted(found, reverse=True))
    return f"W&B gave up sending {lost} of run {run.id} to {run.settings.base_url}; {log} has the errors."
