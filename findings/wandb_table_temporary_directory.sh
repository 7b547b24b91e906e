#!/usr/bin/env bash
# wandb 0.31.0: temporary directories of logged tables stay after finish(), those of the last 100 until the process ends.
#
# Expected: the directory into which a logged wandb.Table is written for its artifact is removed when the run ends at the
# latest.
# Seen: a run with 105 tables leaves 105 directories in the temporary folder after finish(). The last 100 artifacts are
# kept in a cache of the process; older ones refer to their table and back, so that only a collection of cycles removes
# them: gc.collect() removes 5 of the 105, each with "ResourceWarning: Implicitly cleaning up <TemporaryDirectory ...>".
# With warnings as errors (pytest's filterwarnings = error) this is an "Exception ignored" in whatever code runs at that
# moment, and pytest lets that test fail, which has logged no table.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0
mkdir "$folder/tmp"
cd "$folder"
TMPDIR="$folder/tmp" WANDB_MODE=offline WANDB_SILENT=true "$folder/venv/bin/python" - <<'PY'
import gc
import os
import tempfile
import warnings

import wandb

gc.disable()
run = wandb.init(dir=os.getcwd())
wandb.Artifact("first", "any")  # imports the module whose own directory is removed at exit
before = set(os.listdir(tempfile.gettempdir()))
for step in range(105):
    run.log({"table": wandb.Table(columns=["x"], data=[[step]])})
run.finish()
left = set(os.listdir(tempfile.gettempdir())) - before
print("directories left after finish():", len(left))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gc.collect()
messages = [str(w.message) for w in caught if "Implicitly cleaning up <TemporaryDirectory" in str(w.message)]
remaining = left & set(os.listdir(tempfile.gettempdir()))
print("after gc.collect():", len(remaining), "directories,", len(messages), "warnings, such as")
print(" ", messages[0].replace(tempfile.gettempdir(), "$TMPDIR"))
assert (len(left), len(remaining), len(messages)) == (105, 100, 5)
print("As described: wandb", wandb.__version__)
PY
