"""Size of videos, and what encoding them costs, against the options of one reference frame."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np

from benchmarks.lines import Line, Pair
from benchmarks.memory import process_tree
from rlwandb_callbacks.core.action_spec import ActionSpec, ContinuousActions, DiscreteActions
from rlwandb_callbacks.core.episode import Episode, Gaussian, QValues
from rlwandb_callbacks.media.drawing import enlarge, limit_size, pad_to_even
from rlwandb_callbacks.media.mp4 import video_writer
from rlwandb_callbacks.media.panel import Panel

STEPS, FPS, POLL_SECONDS = 120, 30, 0.004
KINDS = {
    "CartPole with panel": ("CartPole-v1", True),
    "Atari with panel": ("ALE/Breakout-v5", True),
    "MuJoCo with panel": ("HalfCheetah-v5", True),
    "CarRacing": ("CarRacing-v3", False),
}
LOWEST_PSNR_DIFFERENCE = -0.1  # in dB
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
REFERENCE_OPTIONS = (
    *("-vcodec", "libx264", "-preset", "veryfast", "-threads", "1", "-crf", "23", "-vf", "format=yuv420p"),
    *("-x264-params", "rc-lookahead=4:bframes=1:chroma-qp-offset=-6", "-movflags", "+faststart"),
)


@dataclass(frozen=True)
class Cost:
    """Cost of one video: size and peak memory of the encoder in bytes, CPU seconds of the encoder, PSNR in dB."""

    size: float
    seconds: float
    memory: float
    psnr: float


@cache
def pictures(kind: str) -> np.ndarray:
    """Returns the pictures of an episode with random numbers in the panel, ``[N, H, W, 3]``."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    env_id, has_panel = KINDS[kind]
    if env_id.startswith("ALE/"):
        import ale_py

        gym.register_envs(ale_py)
    env: Any = gym.make(env_id, render_mode="rgb_array").unwrapped  # goes on after the end
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    is_discrete = isinstance(env.action_space, gym.spaces.Discrete)
    values = rng.normal(size=(STEPS, int(env.action_space.n) if is_discrete else env.action_space.shape[0]))
    actions = values.argmax(axis=1) if is_discrete else values.astype(np.float32).clip(-1, 1)
    if env_id.startswith("CarRacing"):  # drives through bends
        actions = np.array([(0.3 * np.sin(step / 15), 0.4, 0) for step in range(STEPS)], np.float32)
    frames, rewards = [env.render()], []
    for action in actions:
        rewards.append(float(env.step(action)[1]))
        frames.append(env.render())
    env.close()
    drawn = [enlarge(limit_size(frame)) for frame in frames]
    if has_panel:
        spec: ActionSpec = ContinuousActions(-np.ones(values.shape[1]), np.ones(values.shape[1]))
        scores: Any = Gaussian(values, np.full(values.shape, 0.3))
        if is_discrete:
            spec, scores = DiscreteActions(tuple("abcdefgh"[: values.shape[1]])), QValues(values)
        episode = Episode(actions=actions, rewards=np.asarray(rewards), terminated=True, scores=scores)
        panel = Panel.for_frames(drawn[0], episode, spec)
        drawn = [panel.beside(frame, step) for step, frame in enumerate(drawn)]
    return np.stack([pad_to_even(frame) for frame in drawn])


def write_ours(frames: np.ndarray, path: Path, preset: str) -> None:
    """Encodes with our writer."""
    with video_writer(path, fps=FPS, preset=preset) as video:
        for frame in frames:
            video.write(frame)


def write_reference(frames: np.ndarray, path: Path) -> None:
    """Encodes with one reference frame, a key frame every 250 frames, and no tags."""
    height, width = frames.shape[1:3]
    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FPS), "-i", "-")
    command = [FFMPEG, "-y", "-loglevel", "error", *given, *REFERENCE_OPTIONS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for frame in frames:
            process.stdin.write(frame.tobytes())


def cost(kind: str, write: Callable[[np.ndarray, Path], None]) -> Cost:
    """Measures the encoding of the pictures of a kind."""
    frames = pictures(kind)
    peak, has_ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not has_ended.wait(POLL_SECONDS):
            peak = max([peak, *(peak_of(process) for process in process_tree(os.getpid())[1:])])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        watcher = threading.Thread(target=watch)
        watcher.start()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        write(frames, path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        has_ended.set()
        watcher.join()
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(path.stat().st_size, seconds, peak, psnr(frames, path))


def peak_of(process: int) -> int:
    """Returns the peak memory of a process of ffmpeg in bytes, and 0 of others."""
    try:
        is_encoder = Path(f"/proc/{process}/exe").readlink().samefile(FFMPEG)  # and not yet a copy of this process
        status = Path(f"/proc/{process}/status").read_text() if is_encoder else ""
    except OSError:
        return 0
    return next((int(text.split()[1]) * 1024 for text in status.splitlines() if text.startswith("VmHWM:")), 0)


def psnr(frames: np.ndarray, path: Path) -> float:
    """Returns the peak signal-to-noise ratio of a video's RGB pixels in dB."""
    command = [FFMPEG, "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    pairs = zip(frames, decoded.reshape(frames.shape), strict=True)
    error = np.mean([np.mean((frame.astype(np.float32) - shown) ** 2) for frame, shown in pairs])
    return float(10 * np.log10(255**2 / error))


@cache
def compare(kind: str, preset: str, _: int) -> tuple[Cost, Cost]:
    """Measures a preset and the reference."""
    ours, reference = cost(kind, lambda frames, path: write_ours(frames, path, preset)), cost(kind, write_reference)
    if ours.psnr - reference.psnr < LOWEST_PSNR_DIFFERENCE:
        raise RuntimeError(f"{kind}: the PSNR is {ours.psnr:.2f} dB, that of the reference {reference.psnr:.2f} dB.")
    return ours, reference


def measure(kind: str, preset: str, name: str) -> Callable[[int], Pair]:
    """Returns the measurement of a line."""

    def pair(number: int) -> Pair:
        ours, reference = compare(kind, preset, number)
        return getattr(ours, name), getattr(reference, name)

    return pair


REFERENCE = "x264 veryfast with one reference frame and 250 frames between key frames, untagged"
ABOUT = (
    "The panel has random numbers, which change in every frame. The PSNR is at most 0.1 dB below the reference's, "
    "otherwise the line fails. Key frames, which make videos seekable, are at most 30 frames apart (smallest: 250)."
)
TARGETS = {"small": (0.5, 1.35, 1.3), "smallest": (0.5, 1.35, 1.3), "light": (None, 1.1, 1.05)}
LINES = [
    line
    for preset, (size, seconds, memory) in TARGETS.items()
    for kind in KINDS
    for line in (
        Line(f"video of {kind}, {preset}: bytes", REFERENCE, size, measure(kind, preset, "size"), unit="B", note=ABOUT),
        Line(
            f"video of {kind}, {preset}: CPU time of the encoder", REFERENCE, seconds, measure(kind, preset, "seconds")
        ),
        Line(
            f"video of {kind}, {preset}: peak memory of the encoder",
            REFERENCE,
            memory,
            measure(kind, preset, "memory"),
            unit="B",
        ),
    )
]
