"""Plays videos in Chromium and reads their pixels."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

IN_CHROMIUM = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
LONGEST_SECONDS = 120
PAGE = """<body><script>
(async () => {
  const next = (name) => new Promise((resolve) => video.addEventListener(name, resolve, { once: true }));
  const video = document.createElement("video");
  document.body.append(video);
  const loaded = next("loadeddata");
  video.src = "data:video/mp4;base64,CONTENT";
  await loaded;
  const canvas = new OffscreenCanvas(video.videoWidth, 1).getContext("2d", { willReadFrequently: true });
  const rows = [];
  for (const second of SECONDS) {
    const sought = next("seeked");
    const drawn = new Promise((resolve) => video.requestVideoFrameCallback(resolve));
    video.currentTime = second;
    await sought;
    await Promise.race([drawn, new Promise((resolve) => setTimeout(resolve, 2000))]);
    canvas.drawImage(video, 0, -ROW);
    rows.push(Array.from(canvas.getImageData(0, 0, video.videoWidth, 1).data));
  }
  return rows;
})().catch(String).then((seen) => fetch("/", { method: "POST", body: JSON.stringify(seen) }));
</script>"""


def pixels_in_chromium(folder: Path, video: Path, *, seconds: Sequence[float], row: int) -> list[np.ndarray]:
    """Seeks to times in a video and returns one row of pixels of each picture, ``[W, 3]``.

    Args:
        folder: Folder for Chromium's profile.
        video: Path of the video.
        seconds: Times in seconds.
        row: Index of the row.
    """
    content = base64.b64encode(video.read_bytes()).decode()
    page = PAGE.replace("CONTENT", content).replace("SECONDS", json.dumps(list(seconds))).replace("ROW", str(row))
    answers: list[bytes] = []
    has_answered = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_POST(self) -> None:
            answers.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            has_answered.set()

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        address = f"http://127.0.0.1:{server.server_port}"
        with subprocess.Popen(["chromium", *options, address], stderr=subprocess.DEVNULL) as browser:
            try:
                assert has_answered.wait(LONGEST_SECONDS), "Chromium has not answered"
            finally:
                browser.kill()
                server.shutdown()
    rows = json.loads(answers[0])
    assert isinstance(rows, list), rows
    return [np.reshape(each, (-1, 4))[:, :3] for each in rows]
