#!/usr/bin/env bash
# rich 15.0.0 in a notebook (ipykernel 7): flushing an unfinished line within a live display raises RecursionError.
#
# Expected: sys.stderr.write("50 %") and sys.stderr.flush() print the text, as progress bars such as tqdm's do, also while
# rich.progress.Progress is displayed (Lightning's RichProgressBar, its default where rich is installed).
# Seen: rich replaces sys.stderr by a proxy whose flush() displays what it holds before it forgets it. Displaying in a
# notebook flushes sys.stderr, which is the proxy, so that it displays the same text again, without an end. A whole line
# is printed as expected.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rich==15.0.0 ipykernel==7.3.0 ipython==9.18.1 nbclient==0.11.0 nbformat==5.11.1
cd "$folder"
cat > notebook.py <<'PY'
import nbclient
import nbformat

CODE = """
import sys
import rich.progress

def outcome_of(text):
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except RecursionError:
        return "RecursionError"
    return "printed"

with rich.progress.Progress(console=None) as progress:
    progress.add_task("training", total=10)
    seen = {"a whole line": outcome_of("50 %\\n"), "an unfinished line": outcome_of("50 %")}
open("seen", "w").write(repr(seen))
"""
cell = nbformat.v4.new_code_cell(CODE)
nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3", timeout=120).execute()
PY
"$folder/venv/bin/python" -m ipykernel install --prefix "$folder/venv" > /dev/null 2>&1
"$folder/venv/bin/python" notebook.py 2> /dev/null || true
cat seen
grep -q "'a whole line': 'printed', 'an unfinished line': 'RecursionError'" seen
echo
echo "as described"
