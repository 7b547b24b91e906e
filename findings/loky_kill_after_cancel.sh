#!/usr/bin/env bash
# loky 3.7.0: cancelling a queued future and then shutting down with kill_workers=True crashes the manager thread.
#
# Expected: shutdown(kill_workers=True) ends the worker and the futures quietly, whether or not some of them were
# cancelled before, as concurrent.futures allows.
# Seen: the manager thread calls set_exception() on the future that was cancelled, which raises InvalidStateError; a
# traceback "Exception in executor manager thread" is written to stderr. Without the cancel() nothing is written.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet loky==3.7.0 cloudpickle==3.1.1
cd "$folder"
cat > program.py <<'PY'
import sys
import time

from loky import ProcessPoolExecutor

if __name__ == "__main__":
    executor = ProcessPoolExecutor(1)
    executor.submit(int, "1").result()
    futures = [executor.submit(time.sleep, 60) for _ in range(6)]  # more than fit into its call queue
    time.sleep(0.5)
    if sys.argv[1] == "cancel":
        print("cancelled:", futures[-1].cancel())
    executor.shutdown(wait=True, kill_workers=True)
PY
for mode in keep cancel; do
    timeout 60 "$folder/venv/bin/python" program.py "$mode" > "$mode.out" 2> "$mode.err"
done
echo "without cancel(), on stderr: $(wc -c < keep.err) characters"
echo "with cancel(), on stderr:"
sed -n '1p;$p' cancel.err
grep -q "cancelled: True" cancel.out
test ! -s keep.err
grep -q "Exception in executor manager thread" cancel.err
grep -q "InvalidStateError" cancel.err
echo "As described: loky 3.7.0"
