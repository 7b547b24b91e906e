#!/usr/bin/env bash
# wandb 0.31.0: after an online wandb.init that the server refused, the same id cannot be opened offline in that process.
#
# Expected: wandb.init(mode="offline", id="abc") works after wandb.init(id="abc") has raised CommError.
# Seen: it raises ServerResponseError "run ID abc is in use", which is not a wandb.Error: the failed run stays in wandb-core.
# With resume="auto" and no id it is the same, as the failed call has stored its id. wandb.teardown() in between helps.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0
cd "$folder"
cat > twice.py <<'PY'
import http.server
import os
import threading


class Refuses(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
threading.Thread(target=server.serve_forever, daemon=True).start()
for name in [name for name in os.environ if name.startswith("WANDB_") or name.lower().endswith("_proxy")]:
    del os.environ[name]
os.environ |= {
    "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_address[1]}",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
}
import wandb

try:
    wandb.init(id="abc", mode="online")
    raise SystemExit("the server was not asked")
except wandb.Error as error:
    print("online:", type(error).__name__)
try:
    wandb.init(id="abc", mode="offline")
    raise SystemExit("the same id can be opened now")
except Exception as error:
    print("offline:", type(error).__name__, error)
    assert "is in use" in str(error)
    assert not isinstance(error, wandb.Error)
wandb.teardown()
run = wandb.init(id="abc", mode="offline")
print("offline after wandb.teardown():", run.id)
run.finish()
PY
"$folder/venv/bin/python" twice.py
