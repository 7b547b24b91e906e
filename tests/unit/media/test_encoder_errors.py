"""What keeps ffmpeg from writing a video is told as it was seen, and costs the video only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import DiscreteActions
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.evaluation.jobs import ClipJob
from rlwandb_callbacks.media.clips import ClipStyle, make_clip
from rlwandb_callbacks.media.encoder_errors import EncoderError
from rlwandb_callbacks.media.frame_sources import ArrayFrames
from rlwandb_callbacks.media.mp4 import video_writer

PROGRAMS = {
    "no libx264": "echo \"Unknown encoder 'libx264'\" >&2; exit 8",
    "a missing library": "echo 'libx264.so.164: cannot open: No such file or directory' >&2; exit 127",
    "killed at once": "kill -9 $$",
    "killed later": "head -c 100000 >/dev/null; kill -9 $$",
    "terminated": "kill -15 $$",
    "ends with 0 and no file": "cat >/dev/null",
    "ends at once with 0": "exit 0",
}
FRAGMENTS = {
    "no libx264": ["exit code 8: Unknown encoder 'libx264'.", "pip install imageio-ffmpeg"],
    "a missing library": ["exit code 127: libx264.so.164: cannot open"],
    "killed at once": ["was ended by SIGKILL.", "no memory is left"],
    "killed later": ["was ended by SIGKILL.", "no memory is left"],
    "terminated": ["was ended by SIGTERM."],
    "ends with 0 and no file": ["ended with exit code 0: it had no output."],
    "ends at once with 0": ["ended with exit code 0: it had no output."],
}


@pytest.fixture
def use_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Returns a function that makes a shell script and uses it as ffmpeg."""
    pytest.importorskip("moviepy.video.io.ffmpeg_writer")

    def use(script: str) -> Path:
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", str(program))
        return program

    return use


def frames(count: int = 9, size: int = 300) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write(path: Path, pictures: Any = None, **settings: Any) -> None:
    with video_writer(path, fps=10, **settings) as video:
        for picture in frames() if pictures is None else pictures:
            video.write(picture)


@pytest.fixture
def make_job(make_episode: Callable[..., Episode], tmp_path: Path) -> Callable[..., ClipJob]:
    def make(encoder_seconds: float | None = None, size: int = 300) -> ClipJob:
        style = ClipStyle(DiscreteActions(("left", "right")), False, 30.0, 23, encoder_seconds=encoder_seconds)
        source = ArrayFrames(frames(size=size), tuple(range(9)))
        return ClipJob(source, make_episode([1.0] * 8), "best", "a caption", tmp_path / "run" / "clip", style, 400)

    return make


@pytest.mark.parametrize("case", PROGRAMS)
def test_the_message_has_the_cause_and_not_the_disk(
    use_ffmpeg: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    program = use_ffmpeg(PROGRAMS[case])
    with pytest.raises(EncoderError, match="ffmpeg could not write") as caught:
        write(tmp_path / "clip.mp4")
    for fragment in (str(program), *FRAGMENTS[case]):
        assert fragment in str(caught.value)
    assert "disk" not in str(caught.value)
    assert ("imageio-ffmpeg" in str(caught.value)) == (case == "no libx264"), "a remedy for another cause"
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


@pytest.mark.parametrize(
    ("kind", "fragment"),
    [("missing", "No such file"), ("not executable", "Permission denied"), ("not a program", "Exec format error")],
)
def test_an_ffmpeg_that_cannot_be_started_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fragment: str
) -> None:
    program = tmp_path / "given"
    if kind != "missing":
        program.write_text("no program")
        program.chmod(0o644 if kind == "not executable" else 0o755)
    monkeypatch.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", str(program))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(EncoderError, match="cannot be started") as caught:
        write(tmp_path / "clip.mp4")
    for part in (fragment, f"IMAGEIO_FFMPEG_EXE={str(program)!r}", "pip install imageio-ffmpeg"):
        assert part in str(caught.value)


def test_an_installation_without_ffmpeg_is_named_with_the_remedy(run_alone: Callable[..., str], tmp_path: Path) -> None:
    script = """
    import sys
    from pathlib import Path
    import imageio_ffmpeg._utils as utils
    import numpy as np
    utils._is_valid_exe = lambda exe: False  # neither its own, nor conda's, nor the system's
    from rlwandb_callbacks.media.encoder_errors import EncoderError
    from rlwandb_callbacks.media.mp4 import video_writer
    try:
        with video_writer(Path(sys.argv[0] or "clip").with_name("clip.mp4"), fps=10) as video:
            video.write(np.zeros((64, 64, 3), np.uint8))
    except EncoderError as error:
        print(error)
    """
    message = run_alone(script, IMAGEIO_FFMPEG_EXE="", FFMPEG_BINARY="ffmpeg-imageio")
    assert "No ffmpeg exe could be found" in message
    assert "pip install imageio-ffmpeg" in message


@pytest.mark.parametrize("script", [*PROGRAMS.values()], ids=[*PROGRAMS])
def test_the_contact_sheet_is_kept_without_ffmpeg(
    use_ffmpeg: Callable[[str], Path], make_job: Callable[..., ClipJob], tmp_path: Path, script: str
) -> None:
    expected = make_job()().values["video/best_sheet"]
    (tmp_path / "run" / "clip.png").unlink()
    (tmp_path / "run" / "clip.mp4").unlink()
    use_ffmpeg(script)
    result = make_job()()
    assert isinstance(result.error, EncoderError)
    assert list(result.values) == ["video/best_sheet"]
    sheet: Any = result.values["video/best_sheet"]
    assert np.array_equal(sheet.pixels, expected.pixels)
    assert sheet.caption == "a caption"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["clip.png"]


@pytest.mark.parametrize("size", [16, 300], ids=["when it is closed", "when it gets a frame"])
def test_an_ffmpeg_that_hangs_is_ended_with_its_children_and_the_sheet_is_kept(
    use_ffmpeg: Callable[[str], Path], make_job: Callable[..., ClipJob], tmp_path: Path, size: int
) -> None:
    use_ffmpeg(f"sleep 600 & echo $! > {tmp_path / 'child'}; wait")
    threads = threading.active_count()
    started = time.monotonic()
    result = make_job(encoder_seconds=0.5, size=size)()
    assert time.monotonic() - started < 20
    assert "took no frame for 0.5 s (half of videos.max_seconds) and was ended" in str(result.error)
    assert list(result.values) == ["video/best_sheet"]
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while (is_alive(child) or threading.active_count() > threads) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
    assert threading.active_count() == threads


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_slow_ffmpeg_that_takes_frames_is_not_ended(
    use_ffmpeg: Callable[[str], Path], make_job: Callable[..., ClipJob]
) -> None:
    import imageio_ffmpeg

    use_ffmpeg(f'sleep 0.3; exec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"')
    result = make_job(encoder_seconds=10)()
    assert result.error is None
    assert sorted(result.values) == ["video/best", "video/best_sheet"]


@pytest.mark.parametrize(
    "output", ["No space left on device", "Disk quota exceeded", "File too large", "Read-only file system"]
)
def test_a_full_disk_is_told_as_a_full_disk(
    use_ffmpeg: Callable[[str], Path], make_job: Callable[..., ClipJob], output: str
) -> None:
    use_ffmpeg(f"cat >/dev/null; echo 'av_interleaved_write_frame(): {output}' >&2; exit 228")
    with pytest.raises(OSError, match=output) as caught:
        make_job()()
    assert not isinstance(caught.value, EncoderError)
    assert "Free space on that disk, or set record_path to a folder that has room" in str(caught.value)


def test_a_folder_that_is_removed_meanwhile_is_told_as_such(use_ffmpeg: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    use_ffmpeg(f"rmdir {tmp_path / 'run'}; echo 'Error opening output: No such file or directory' >&2; exit 254")
    with pytest.raises(OSError, match="No such file or directory") as caught:
        write(tmp_path / "run" / "clip.mp4")
    assert not isinstance(caught.value, EncoderError)


def test_without_a_folder_for_temporary_files_videos_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decode: Callable[..., Any]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    write(tmp_path / "clip.mp4")
    assert len(decode(tmp_path / "clip.mp4")[1]) == 9


def test_an_encoder_error_is_raised_by_make_clip_itself(
    use_ffmpeg: Callable[[str], Path], make_episode: Callable[..., Episode], tmp_path: Path
) -> None:
    use_ffmpeg("exit 3")
    style = ClipStyle(DiscreteActions(("left", "right")), False, 30.0, 23)
    source = ArrayFrames(frames(), tuple(range(9)))
    with pytest.raises(EncoderError, match="exit code 3"):
        make_clip(source, make_episode([1.0] * 8), label="best", text="", stem=tmp_path / "clip", style=style)
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]
