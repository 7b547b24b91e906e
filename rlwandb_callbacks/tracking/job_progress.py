"""The progress bar of the jobs that the end of a training waits for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rlwandb_callbacks.core.output import seconds_between_refreshes, stream_of_progress, unfailing_output

SHOW_AFTER_SECONDS = 1.0


@contextlib.contextmanager
def progress_of_jobs(total: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar if the block takes long; the block passes the number of jobs that are done so far."""
    from tqdm import tqdm

    stream = stream_of_progress()
    options = {"desc": "rlwandb: finishing", "unit": "job", "leave": False, "file": stream}
    options |= {"delay": SHOW_AFTER_SECONDS, "mininterval": seconds_between_refreshes(stream)}
    with unfailing_output(), tqdm(total=total, **options) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show
