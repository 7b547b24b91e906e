"""Trainings against a server that is gone, slow or failing: nothing waits, and nothing is lost.

The long form with 10,000 updates is ``python -m benchmarks.online``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from online_load import train_against
from wandb_server import WandbServer

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("fault", ["gone", "500 at random", pytest.param("slow", marks=pytest.mark.long)])
def test_hooks_do_not_wait_for_the_server_and_no_row_is_lost(server: WandbServer, fault: str, tmp_path: Path) -> None:
    report = train_against(
        server,
        fault,
        tmp_path,
        updates=500,
        evaluations=2,
        finish_seconds=6.0,
        executor="inline",
        timeout_seconds=200,
    )
    assert report.returncode == 0, report.stderr
    assert report.longest_hook_seconds < 5.0, report.longest_hook  # about 0.5 s, most of it for videos
    missing = report.missing_updates, report.missing_evaluations, report.missing_pictures, report.missing_videos
    assert missing == (0, 0, 0, 0), report.stderr
