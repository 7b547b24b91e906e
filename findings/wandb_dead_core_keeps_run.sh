#!/usr/bin/env bash
# wandb 0.31.0: once wandb-core has died (the system's memory killer, say), a process can open no further run by itself.
#
# Expected: run.finish() ends the run, or wandb.init() of the next one notices that the process behind the old one is gone.
# Seen: run.finish() and each later wandb.init() raise ConnectionResetError. wandb.teardown() raises it as well, but a run
# can be opened after it.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0 psutil==7.2.2
cd "$folder"
cat > dead.py <<'PY'
import os

for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
import psutil
import wandb


def error_of(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


run = wandb.init()
run.log({"a": 1})
for child in psutil.Process().children(recursive=True):
    if "wandb-core" in " ".join(child.cmdline()):
        child.kill()
        child.wait()
while error_of(lambda: run.log({"a": 2})) == "nothing":
    pass
print("finish raises", finish := error_of(run.finish))
print("init raises", init := error_of(wandb.init))
print("teardown raises", teardown := error_of(wandb.teardown))
assert "nothing" not in (finish, init, teardown)
later = wandb.init()
later.log({"a": 3})
print("a run can be opened after teardown:", later is not run)
later.finish()
PY
"$folder/venv/bin/python" dead.py
