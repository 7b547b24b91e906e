"""Online runs: the server has the same rows, files and alerts as an offline run, whoever opened the run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from pytorch_lightning.loggers import WandbLogger
from wandb_server import WandbServer, run_program

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, OfflineRun, TinyValidatedQ, read_offline_run

pytestmark = pytest.mark.timeout(270)
PROGRAM = Path(__file__).parents[1] / "programs" / "distributed.py"
CLOCKS = {"_step", "_timestamp", "_runtime", "_wandb", "time/logging_seconds", "time/logging_share"}
EXPLODES = "Q-values explode"
# The sync command of older versions of W&B first asks the server whether it knows alerts, and openwandb does not.
OLD_SYNC = importlib.util.find_spec("wandb.sync") is not None


class Explodes(TinyValidatedQ):
    """Module whose q-values grow by a factor of 1000 per batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {**super().training_step(batch, batch_idx), "q_values": torch.full((3,), 1000.0**batch_idx)}


def make_callback(**run: Any) -> WandbRLCallback:
    return WandbRLCallback(
        on_error="raise",
        gradient_logger=True,
        metrics={"every_n_steps": 2},
        gradients={"log_freq": 4},
        evaluation={"env": CorridorEnv, "policy": "q_network", "episodes": 3},
        alerts={"enabled": True},
        run=run,
    )


def train_with_callbacks_own_run(fit: Any, run_id: str) -> None:
    fit(TinyValidatedQ(), make_callback(id=run_id, project="p"))


def train_with_wandb_logger(fit: Any, run_id: str) -> None:
    fit(TinyValidatedQ(), make_callback(), logger=WandbLogger(id=run_id, project="p"))
    wandb.finish()


def train_in_users_run(fit: Any, run_id: str) -> None:
    with wandb.init(id=run_id, project="p") as run:
        run.log({"mine": 1.0})
        fit(TinyValidatedQ(), make_callback())
        run.log({"mine": 2.0})


def values_by_key(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns each key's values with their axis, as texts, in the order of ``_step``; without clocks and random ids."""
    values: dict[str, list[str]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in CLOCKS:
                known = {k: v for k, v in value.items() if "artifact" not in k} if isinstance(value, dict) else value
                values.setdefault(key, []).append(json.dumps([row.get("trainer/global_step"), known], sort_keys=True))
    return values


def media_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [value for row in rows for value in row.values() if isinstance(value, dict) and "sha256" in value]


def check_server_has(local: OfflineRun, server: WandbServer, run_id: str) -> None:
    """Asserts that a run at the server has the rows of a local run key by key, in rising steps, and its files."""
    rows, files = server.rows(run_id), server.files(run_id)
    expected = values_by_key(local.history)
    assert {"train/loss", "eval/return_mean", "video/best", "eval/episodes"} <= expected.keys()
    assert values_by_key(rows) == expected
    assert [row["_step"] for row in rows] == list(range(len(local.history)))
    assert len(media_of(rows)) == len(media_of(local.history)) >= 8
    for media in media_of(rows):
        content = files[media["path"]]
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (media["sha256"], media["size"])


@pytest.mark.parametrize("train", [train_with_callbacks_own_run, train_with_wandb_logger, train_in_users_run])
def test_online_server_has_the_rows_and_files_of_an_offline_run(
    fit: Any, train: Any, server: WandbServer, go_online: Callable[[], None]
) -> None:
    torch.manual_seed(0)
    train(fit, f"offline-{train.__name__}")
    offline = read_offline_run("wandb")
    go_online()
    torch.manual_seed(0)
    train(fit, f"online-{train.__name__}")
    check_server_has(offline, server, f"online-{train.__name__}")


def test_sync_command_sends_all_rows_files_and_alerts_of_an_offline_run(
    fit: Any, server: WandbServer, tmp_path: Path
) -> None:
    fit(Explodes(), make_callback(id="synced", project="p"))
    offline = read_offline_run("wandb")
    command = "import sys; from wandb.cli.cli import cli; sys.argv[0] = 'wandb'; cli()"
    arguments = ("sync", str(offline.folder))
    result = run_program(command, server.environment(tmp_path), cwd=tmp_path, arguments=arguments)
    assert result.returncode == 0, result.stderr
    check_server_has(offline, server, "synced")
    assert [alert.title for alert in offline.alerts] == [EXPLODES]
    if not OLD_SYNC:
        assert [alert["title"] for alert in server.alerts] == [EXPLODES]


def test_alerts_arrive_at_the_server(fit: Any, server: WandbServer, go_online: Callable[[], None]) -> None:
    go_online()
    fit(Explodes(), make_callback(id="alerted", project="p"))
    assert [(alert["title"], alert["severity"], alert["runName"]) for alert in server.alerts] == [
        (EXPLODES, "WARN", "alerted")
    ]


def test_distributed_training_is_one_run_at_the_server(server: WandbServer, tmp_path: Path) -> None:
    known = set(server.run_ids())
    result = run_program(
        PROGRAM, server.environment(tmp_path), cwd=tmp_path, timeout_seconds=240, arguments=("ddp", "2", "1", "plain")
    )
    assert result.returncode == 0, result.stderr
    (run_id,) = set(server.run_ids()) - known
    check_server_has(read_offline_run(tmp_path / "wandb"), server, run_id)
    assert sum("eval/return_mean" in row for row in server.rows(run_id)) == 2


def test_an_evaluation_uploads_eight_files_and_no_artifact(
    fit: Any, server: WandbServer, go_online: Callable[[], None]
) -> None:
    go_online()
    fit(TinyValidatedQ(), make_callback(id="uploads", project="p"))
    uploads = sorted(request.path.split("/")[6] for request in server.requests if "/media/" in request.path)
    assert uploads == ["images"] * 4 + ["table"] + ["videos"] * 3
    assert [request for request in server.requests if "rtifact" in request.operation + request.path] == []
