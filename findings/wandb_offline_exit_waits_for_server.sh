#!/usr/bin/env bash
# wandb 0.31.0: the exit of a process with an offline run waits 10 s for the server if it accepts and does not answer.
#
# Expected: in offline mode nothing is sent, and the process ends after finish().
# Seen: at exit the client posts its own telemetry to <WANDB_BASE_URL>/sdk/otel/v1/metrics, also in offline mode, and waits
# 10 s for the answer (a firewall that drops packets has the same effect). WANDB_ERROR_REPORTING=false ends the wait.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0
cd "$folder"
cat > offline.py <<'PY'
import wandb

with wandb.init(mode="offline") as run:
    run.log({"a": 1})
PY
cat > compare.py <<'PY'
import os
import socket
import subprocess
import sys
import time


def seconds(port: int, **more: str) -> float:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    environment = kept | {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_SILENT": "true", **more}
    started = time.monotonic()
    subprocess.run([sys.executable, "offline.py"], env=environment, check=True, timeout=120)
    return time.monotonic() - started


with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never answers
    port = server.getsockname()[1]
    seconds(port, WANDB_ERROR_REPORTING="false")  # the first start compiles modules
    waits, is_quick = seconds(port), seconds(port, WANDB_ERROR_REPORTING="false")
print(f"offline run, silent server: {waits:.1f} s; with WANDB_ERROR_REPORTING=false: {is_quick:.1f} s")
assert waits - is_quick > 8, "the exit no longer waits"
PY
"$folder/venv/bin/python" compare.py
