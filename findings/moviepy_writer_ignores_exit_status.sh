#!/usr/bin/env bash
# moviepy 2.2.1: write_videofile() returns normally although ffmpeg was ended by a signal, or failed at the end.
#
# Expected: an error if ffmpeg ends with another status than 0 and the video is not complete.
# Seen: FFMPEG_VideoWriter.close() waits for ffmpeg and does not look at its exit status. An ffmpeg that reads all frames
# and is then killed, as the system does when no memory is left (a program that stands for it here), gives no error, and
# there is no file.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet moviepy==2.2.1 imageio-ffmpeg==0.6.0 "numpy<3"
cd "$folder"
cat > ffmpeg <<'SH'
#!/bin/sh
case "$*" in *rawvideo*) cat > /dev/null; kill -KILL $$ ;; esac
SH
chmod +x ffmpeg
FFMPEG_BINARY="$folder/ffmpeg" timeout 120 "$folder/venv/bin/python" - <<'PY'
import os
from importlib.metadata import version

import moviepy
import numpy as np
from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

clip = moviepy.ImageSequenceClip([np.zeros((64, 64, 3), np.uint8)] * 3, fps=10)
clip.write_videofile("clip.mp4", logger=None)
print("write_videofile() returned; the file exists:", os.path.exists("clip.mp4"))
assert not os.path.exists("clip.mp4")
writer = FFMPEG_VideoWriter("clip.mp4", (64, 64), 10)
writer.write_frame(np.zeros((64, 64, 3), np.uint8))
process = writer.proc
writer.close()
print("close() returned; exit status of ffmpeg:", process.returncode)
assert process.returncode == -9
print("As described: moviepy", version("moviepy"))
PY
