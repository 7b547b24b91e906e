"""The end of an online run waits for W&B's server no longer than it may, and what was not sent can be sent later."""

from __future__ import annotations

import re
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_server import ProgramResult, WandbServer, run_program

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.testing import read_offline_run
from rlwandb_callbacks.tracking.finishing import can_abort, sync_command
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_run import open_run, release_run

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not can_abort(), reason="W&B before 0.27 cannot be told to end its uploads"),
]
PROGRAM = Path(__file__).parents[1] / "programs" / "finished.py"
WANDB = "import sys; from wandb.cli.cli import cli; sys.argv[0] = 'wandb'; cli()"
FAULTS: dict[str, dict[str, Any]] = {
    "gone": {"fault": "gone"},
    "silent": {"fault": "never"},
    "no rows": {"fault": "status", "status": 500, "of": "file_stream"},
    "no files": {"fault": "status", "status": 500, "of": "files"},
}


def open_and_log(run_id: str) -> Any:
    """Returns a run of our own with ten rows."""
    run = open_run(RunConfig(project="p", id=run_id))
    for value in range(10):
        run.log({"a": value})
    return run


def release(run: Any, seconds: float) -> tuple[str | None, float]:
    """Releases a run; returns the message and the time that it took."""
    started = time.perf_counter()
    message = release_run(run, 0, WaitLimit(seconds))
    return message, time.perf_counter() - started


def sync(server: WandbServer, folder: Path, command: str) -> None:
    """Runs the command of a message."""
    words = shlex.split(command)
    assert words[0] == "wandb"
    result = run_program(WANDB, server.environment(folder), cwd=folder, arguments=tuple(words[1:]))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("alerts", [0, 1])
def test_release_ends_in_time_and_the_file_is_whole(
    online: WandbServer, monkeypatch: pytest.MonkeyPatch, fault: str, alerts: int
) -> None:
    monkeypatch.setattr("rlwandb_callbacks.tracking.finishing.MIN_SECONDS", 1.0)
    run = open_and_log(f"released-{fault.replace(' ', '-')}-{alerts}")
    online.behave(**FAULTS[fault])
    for _ in range(alerts):  # holds up all that follows if it cannot be sent
        run.alert("title", "text")
    run.log({"a": 10})
    message, seconds = release(run, 1.0)
    assert message is not None
    assert message.endswith(f"To send them later: {sync_command(run)}")
    assert seconds < 10
    local = read_offline_run(Path(run.dir).parent)
    assert (local.column("a"), local.exit_code) == (list(range(11)), 0)


def test_all_rows_arrive_by_the_command_once_the_server_is_back(online: WandbServer, tmp_path: Path) -> None:
    run = open_and_log("sent-later")
    online.behave("gone")
    run.alert("title", "text")
    run.log({"a": 10})
    message, _ = release(run, 0.0)
    assert message is not None
    online.behave("normal")
    sync(online, tmp_path, message.split("later: ")[1])
    assert [row["a"] for row in online.rows("sent-later")] == list(range(11))


def test_runs_open_after_one_that_was_given_up_also_under_its_id(online: WandbServer) -> None:
    run = open_and_log("given-up")
    online.behave("gone")
    release(run, 0.0)
    assert wandb.run is None
    online.behave("normal")
    for run_id in ("next", "given-up"):
        run = open_and_log(run_id)
        assert release(run, 60.0)[0] is None
        assert [row["a"] for row in online.rows(run_id)] == list(range(10))


def test_other_runs_of_the_process_go_on_when_one_is_given_up(online: WandbServer) -> None:
    own = open_and_log("own")
    with wandb.init(project="p", id="other", reinit="create_new") as other:
        online.behave("gone")
        own.alert("title", "text")
        assert release(own, 0.0)[0] is not None
        online.behave("normal")
        other.log({"b": 1})
    assert [row["b"] for row in online.rows("other")] == [1]


def test_slow_server_is_waited_for(online: WandbServer) -> None:
    run = open_and_log("slow")
    online.behave("late", seconds=1.0)
    message, seconds = release(run, 60.0)
    assert message is None
    assert seconds > 1
    assert len(online.rows("slow")) == 10


def test_ctrl_c_ends_the_wait(online: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_and_log("interrupted")
    online.behave("gone")

    def interrupt(self: WaitLimit) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(WaitLimit, "turn_seconds", interrupt)
    messages: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        release_run(run, 0, WaitLimit(600.0), on_interrupt=messages.append)
    assert wandb.run is None
    assert messages[0].startswith("Ctrl-C has ended the wait")
    assert messages[0].endswith(f"To send them later: {sync_command(run)}")
    assert len(read_offline_run(Path(run.dir).parent).history) == 10


@pytest.mark.parametrize(
    ("status", "of", "lost"),
    [
        (401, "all", "rows (401 Unauthorized) and files (401"),
        (403, "files", "files (403 Forbidden)"),
        (404, "file_stream", "rows (404 Not Found)"),
    ],
)
def test_what_the_server_refuses_is_told_with_the_command_that_sends_it(
    online: WandbServer, tmp_path: Path, status: int, of: str, lost: str
) -> None:
    run = open_and_log(f"refused-{status}")
    online.behave("status", status=status, of=of)
    run.log({"table": wandb.Html("<p>page</p>")})
    message, _ = release(run, 60.0)
    assert message is not None
    assert message.startswith(f"W&B gave up sending {lost}")
    online.behave("normal")
    sync(online, tmp_path, message.split("later: ")[1])
    assert [row["a"] for row in online.rows(run.id)[:10]] == list(range(10))
    assert any(name.endswith(".html") for name in online.files(run.id))


def test_finish_timeout_of_the_user_is_told_like_our_own(online: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    run = open_and_log("own-timeout")
    online.behave("gone")
    message, seconds = release(run, 600.0)
    assert message is not None
    assert sync_command(run) in message
    assert seconds < 20


def test_offline_run_is_sent_without_the_option_for_online_runs() -> None:
    run = open_run(RunConfig(mode="offline"))
    assert sync_command(run) == f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"
    assert release(run, 60.0)[0] is None


def test_errors_of_finish_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(RunConfig(mode="offline"))
    finish = run.finish

    def fail(exit_code: int) -> None:
        finish(exit_code)
        raise OSError("disk full")

    monkeypatch.setattr(run, "finish", fail)
    with pytest.raises(OSError, match="disk full"):
        release(run, 60.0)


STOP = """
import time
from pathlib import Path

def stop():
    Path("reached").touch()
    while not Path("go").exists():
        time.sleep(0.02)
"""


def break_server_in_the_middle(server: WandbServer, folder: Path, fault: str = "gone") -> None:
    """Takes the server away once the program in a folder has come to its stop."""

    def wait_and_break() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (folder / "reached").exists():
                server.behave(fault)
                (folder / "go").touch()
                return
            time.sleep(0.02)

    threading.Thread(target=wait_and_break, daemon=True).start()


def run_source(
    server: WandbServer, folder: Path, source: str, *, fault: str = "gone", **environment: str
) -> ProgramResult:
    """Runs source code in which the server goes away at ``stop()``."""
    break_server_in_the_middle(server, folder, fault)
    variables = server.environment(folder) | environment
    return run_program(STOP + source, variables, cwd=folder, timeout_seconds=90)


def train(server: WandbServer, folder: Path, *arguments: str, **environment: str) -> ProgramResult:
    """Runs the training; the server goes away in its middle."""
    break_server_in_the_middle(server, folder)
    variables = server.environment(folder) | environment
    return run_program(PROGRAM, variables, cwd=folder, timeout_seconds=90, arguments=arguments)


def exit_seconds(result: ProgramResult, ended: float) -> float:
    """Returns how long the process took to exit after the training."""
    return ended - float(result.stdout.split("ended at ")[1].split()[0])


def waited_seconds(result: ProgramResult) -> float:
    """Returns how long the end of the training waited."""
    return float(result.stdout.split("waited ")[1].split()[0])


def test_process_exits_even_if_wandb_does_not_close_the_run(server: WandbServer, tmp_path: Path) -> None:
    source = """
from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.tracking import exit_wait, finishing, wandb_run
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from wandb.sdk.lib.service.service_connection import ServiceConnection

exit_wait.ABORT_SECONDS = finishing.MIN_SECONDS = 1.0
ServiceConnection.inform_finish = lambda self, run_id: None  # as if the request had no effect
run = wandb_run.open_run(RunConfig(project="p"))
stop()
run.alert("title", "text")
assert "To send them later" in wandb_run.release_run(run, 0, WaitLimit(0.0))
"""
    result = run_source(server, tmp_path, source)
    assert result.returncode == 0, result.stderr
    assert result.seconds < 60


def test_process_exits_soon_if_the_server_is_silent(server: WandbServer, tmp_path: Path) -> None:
    source = """
from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.tracking import finishing, wandb_run
from rlwandb_callbacks.tracking.wait_limit import WaitLimit

finishing.MIN_SECONDS = 1.0
run = wandb_run.open_run(RunConfig(project="p"))
stop()
run.log({"a": 1})
assert "To send them later" in wandb_run.release_run(run, 0, WaitLimit(0.0))
print("ended at", time.time())
"""
    result = run_source(server, tmp_path, source, fault="never")
    ended = time.time()
    assert result.returncode == 0, result.stderr
    assert exit_seconds(result, ended) < 9  # W&B's process has 2 s for its own reports, those of this one had 10 s


def test_process_that_waits_for_a_run_of_the_user_says_why_and_how_to_end_it(
    server: WandbServer, tmp_path: Path
) -> None:
    source = """
import wandb
from rlwandb_callbacks.tracking import exit_wait, wandb_run

exit_wait.EXPLAIN_SECONDS = 1.0
run = wandb_run.use_run(wandb.init(project="p"))
stop()
run.log({"a": 1})
wandb_run.release_run(run)
wandb_run.release_run(run)  # as a second training does
"""
    result = run_source(server, tmp_path, source, WANDB_FINISH_TIMEOUT="5")
    assert result.stderr.count("keeps this process from ending") == 1, result.stderr
    assert "wandb sync --include-online" in result.stderr
    assert "WANDB_FINISH_TIMEOUT" in result.stderr
    assert result.seconds < 80


def test_process_that_does_not_wait_says_nothing(server: WandbServer, tmp_path: Path) -> None:
    source = """
import wandb
from rlwandb_callbacks.tracking import exit_wait, wandb_run

exit_wait.EXPLAIN_SECONDS = 0.0
run = wandb_run.use_run(wandb.init(project="p"))
wandb_run.release_run(run)
run.finish()
"""
    result = run_source(server, tmp_path, source)
    assert result.returncode == 0, result.stderr
    assert "keeps this process from ending" not in result.stderr


def test_training_and_its_process_end_in_time_and_the_command_of_the_warning_sends_all(
    server: WandbServer, tmp_path: Path
) -> None:
    result = train(server, tmp_path, "own", "alert", "3")
    exits_in = exit_seconds(result, time.time())
    assert result.returncode == 0, result.stderr
    assert waited_seconds(result) < 30
    assert exits_in < 30
    commands = re.findall(r"To send them later: (.*)", result.stderr)
    assert len(commands) == 1, result.stderr
    local = read_offline_run(tmp_path / "wandb")
    assert local.exit_code == 0
    assert [row["trainer/global_step"] for row in local.history if "train/loss" in row] == list(range(8))

    server.behave("normal")
    sync(server, tmp_path, commands[0])
    run_id = local.folder.resolve().name.rsplit("-", 1)[1]
    sent = [(row["_step"], row["train/loss"]) for row in server.rows(run_id) if "train/loss" in row]
    assert sent == [(row["_step"], row["train/loss"]) for row in local.history if "train/loss" in row]
    assert {path for path in local.files if path.startswith("media/")} <= server.files(run_id).keys()


@pytest.mark.long
def test_finish_timeout_in_the_environment_ends_the_process_of_a_wandb_logger(
    server: WandbServer, tmp_path: Path
) -> None:
    result = train(server, tmp_path, "logger", "none", "3", WANDB_FINISH_TIMEOUT="2")
    assert exit_seconds(result, time.time()) < 30
    assert result.returncode == 0, result.stderr
