#!/usr/bin/env bash
# wandb 0.31.0: wandb.teardown() finishes the open run and leaves wandb.run set to it.
#
# Expected: wandb.run is None, as after run.finish(), so that a library that uses an open run, or opens one, opens one.
# Seen: wandb.run is the ended run; logging to it raises AlreadyJoinedError, while run.finish() leaves None.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0
cd "$folder"
cat > ended.py <<'PY'
import os

for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
import wandb

wandb.init().finish()
print("after run.finish(), wandb.run is", wandb.run)
assert wandb.run is None
run = wandb.init()
run.log({"a": 1})
wandb.teardown()
print("after wandb.teardown(), wandb.run is the ended run:", wandb.run is run)
assert wandb.run is run
try:
    wandb.run.log({"a": 2})
    raised = "nothing"
except Exception as error:
    raised = type(error).__name__
print("logging to it raises", raised)
assert raised == "AlreadyJoinedError"
PY
"$folder/venv/bin/python" ended.py
