"""Tables, pictures and videos of a run at a W&B-compatible server."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb_server import WandbServer

from rlwandb_callbacks.core.values import Image, Scalar, Table, Value, Video
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def online(server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a run at the server, and a tracker of it."""
    for name, value in server.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = wandb.init(project="p")
    return WandbTracker(run, step_metric="trainer/global_step")


def evaluation(folder: Path) -> dict[str, Value]:
    """Returns numbers, a table, three videos and four pictures, as an evaluation has them."""
    values: dict[str, Value] = {
        "eval/return_mean": Scalar(3.0),
        "eval/episodes": Table(("episode", "return"), [(0, 1.0), (1, 5.0)]),
        "eval/return_figure": Image(np.zeros((8, 8, 3), np.uint8)),
    }
    for number, label in enumerate(("best", "median", "worst")):
        path = folder / f"{label}.mp4"
        path.write_bytes(label.encode())
        values[f"video/{label}"] = Video(str(path))
        values[f"video/{label}_sheet"] = Image(np.full((8, 8, 3), number + 1, np.uint8))
    return values


def test_each_file_of_an_evaluation_is_one_request(online: WandbTracker, server: WandbServer, tmp_path: Path) -> None:
    values = evaluation(tmp_path)
    online.write({"trainer/global_step": 1}, values)
    assert online.wait(WaitLimit(60.0)) == 0
    online.run.finish()
    assert [request for request in server.requests if "rtifact" in f"{request.operation} {request.path}"] == []
    uploads = [request for request in server.requests if request.method == "PUT" and "/media/" in request.path]
    assert len(uploads) == 8, "a table, three videos and four pictures"
    numbers, files = server.rows(online.run.id)
    assert numbers["eval/return_mean"] == 3
    stored = server.files(online.run.id)
    for key in values.keys() - {"eval/return_mean"}:
        content = stored[files[key]["path"]]
        assert (files[key]["sha256"], files[key]["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert stored[files["video/best"]["path"]] == b"best"


def test_neither_rows_nor_files_wait_for_a_silent_server(
    online: WandbTracker, server: WandbServer, tmp_path: Path
) -> None:
    server.behave("never")
    started = time.monotonic()
    for step in range(10):
        online.write({"trainer/global_step": step}, evaluation(tmp_path))
    assert time.monotonic() - started < 10.0  # about 0.1 s; W&B waits more than 10 s for a table's artifact
    assert online.wait(WaitLimit(60.0)) == 0
    server.behave("normal")
    online.run.finish()
    rows = server.rows(online.run.id)
    assert [row["trainer/global_step"] for row in rows if "eval/return_mean" in row] == list(range(10))
    assert [row["trainer/global_step"] for row in rows if "eval/episodes" in row] == list(range(10))
