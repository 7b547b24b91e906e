#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0): with rdcc_w0=1.0 the chunk cache does not keep to its limit rdcc_nbytes.
#
# Expected: a cache of 16 MiB holds at most two decompressed chunks of 8 MiB, whatever the preemption weight. h5py's
# documentation recommends rdcc_w0=1 where data are read once.
# Seen: when every chunk is read in part (100 of its 8,192 rows, as in sampling), a weight of 0.0 to 0.99 keeps to the
# limit (at most 26 MiB above the base), and 1.0 keeps all 64 chunks: 514 MiB. No warning. A weight below 1 avoids it.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import resource
import sys

import h5py
import numpy as np

CHUNKS, ROWS = 64, 8192


def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if sys.argv[1] == "write":
    with h5py.File("data.h5", "w") as file:
        data = file.create_dataset("x", (CHUNKS * ROWS, 128), "f8", chunks=(ROWS, 128), compression="gzip")
        for start in range(0, CHUNKS * ROWS, ROWS):
            data[start : start + ROWS] = np.arange(ROWS * 128).reshape(ROWS, 128) % 7
else:
    base = peak_kib()
    with h5py.File("data.h5", "r", rdcc_nbytes=16 * 2**20, rdcc_w0=float(sys.argv[1])) as file:
        data = file["x"]
        for start in range(0, CHUNKS * ROWS, ROWS):
            data[start + 100 : start + 200]
    print((peak_kib() - base) // 1024)
PY
"$folder/venv/bin/python" measure.py write
failed=0
for weight in 0.0 0.75 0.99 1.0; do
    peak=$("$folder/venv/bin/python" measure.py "$weight")
    echo "rdcc_w0=$weight, limit 16 MiB: peak $peak MiB above the base"
    if [ "$weight" = 1.0 ]; then [ "$peak" -gt 400 ] || failed=1; else [ "$peak" -lt 60 ] || failed=1; fi
done
[ "$failed" -eq 0 ] && echo "As described: h5py 3.16.0" || { echo "the behavior has changed"; exit 1; }
