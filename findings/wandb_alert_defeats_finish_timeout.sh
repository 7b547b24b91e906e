#!/usr/bin/env bash
# wandb 0.31.0: an alert that cannot be sent makes run.finish() wait beyond finish_timeout, and so does the exit of Python.
#
# Expected: "If this is set to a number greater than zero, W&B gives up on uploading a run's data after this many seconds
# at the end of a run, unblocking your script" (documentation of Settings.finish_timeout).
# Seen: with finish_timeout=3 and a server that went away before the end, run.finish() returns after 3 s; after
# run.alert(...) it does not return (20 s are waited here; it ends when the alert's retries do). W&B's process sends
# alerts one by one in the loop that also handles the end of the run, and starts the clock of finish_timeout only there.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0 openwandb==0.5.25
cd "$folder"
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export HOME="$folder" NETRC="$folder/netrc" WANDB_BASE_URL="http://127.0.0.1:$port" WANDB_SILENT=true PORT="$port"
export WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567
"$folder/venv/bin/python" - <<'PY'
import os
import signal
import socket
import subprocess
import sys
import time

PROGRAM = """
import sys, threading, time
import wandb

run = wandb.init(project="p", settings=wandb.Settings(finish_timeout=3))
run.log({"a": 1})
print("open", flush=True)
sys.stdin.readline()  # the server goes away
if sys.argv[1] == "alert":
    run.alert("title", "text")
finishing = threading.Thread(target=run.finish, daemon=True)
started = time.monotonic()
finishing.start()
finishing.join(20)
print("waiting" if finishing.is_alive() else f"{time.monotonic() - started:.0f}", flush=True)
"""


def finish(alert):
    serve = [sys.executable, "-m", "openwandb", "serve", "--host", "127.0.0.1", "--port", os.environ["PORT"]]
    with open(f"{alert}.log", "wb") as log:
        server = subprocess.Popen([*serve, "--data-dir", alert, "--log-level", "error"], stdout=log, stderr=log)
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, alert],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )
    try:
        assert program.stdout.readline() == "open\n"
        server.kill()
        server.wait()
        program.stdin.write("\n")
        program.stdin.flush()
        return program.stdout.readline().strip()
    finally:
        server.kill()
        os.killpg(program.pid, signal.SIGKILL)


without, with_alert = finish("none"), finish("alert")
print(f"finish_timeout=3, server gone: finish() took {without} s; after an alert it is {with_alert} after 20 s")
assert 2 <= int(without) <= 8
assert with_alert == "waiting"
print("As described.")
PY
