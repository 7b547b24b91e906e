from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlwandb_callbacks.core.files import atomic_write, check_writable, folder_in, remove_unfinished
from rlwandb_callbacks.errors import ConfigError


def test_a_writable_folder_is_created(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "a" / "b"), setting="record_path")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_an_unwritable_folder_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"record_path is '.*file/videos'.*Not a directory.*Set it to a writable folder"
    with pytest.raises(ConfigError, match=message):
        check_writable(str(tmp_path / "file" / "videos"), setting="record_path")


def leave_unfinished(folder: Path, name: str = "clip.mp4") -> tuple[Path, int]:
    """Starts to write a file in a process of its own, which is then killed; returns what it left, and its id."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom rlwandb_callbacks.core.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('part')\n"
        "    print(unfinished, os.getpid(), sep='\\n', flush=True)\n"
        "    os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, str(folder / name)]
    path, pid = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.split("\n")[:2]
    assert Path(path).is_file()
    return Path(path), int(pid)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    left = [leave_unfinished(tmp_path)[0], leave_unfinished(tmp_path / "run", "a map.npz")[0]]
    (tmp_path / "run" / "clip.mp4").write_text("complete")
    assert sorted(remove_unfinished(tmp_path)) == sorted(left)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "clip.mp4"]


def test_what_a_running_process_writes_is_kept(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "clip.mp4") as unfinished:
        unfinished.write_text("part")
        assert remove_unfinished(tmp_path) == []
    assert (tmp_path / "clip.mp4").read_text() == "part"


def test_what_a_process_elsewhere_writes_is_removed_after_a_day(tmp_path: Path) -> None:
    left, pid = leave_unfinished(tmp_path)
    machine, _, rest = left.name.removeprefix(".clip.").partition("-")
    elsewhere = f"{int(machine, 16) ^ 1:08x}"
    names = [f".clip.{elsewhere}-{rest}", f".clip.{rest.removeprefix(f'{pid}-')}"]  # and one of an earlier version
    left.unlink()
    for name in names:
        (tmp_path / name).write_text("part")
    assert remove_unfinished(tmp_path) == []
    for name in names:
        os.utime(tmp_path / name, (0, time.time() - 90_000))
    assert sorted(path.name for path in remove_unfinished(tmp_path)) == sorted(names)


def test_other_files_links_and_folders_are_not_touched(tmp_path: Path) -> None:
    left, _ = leave_unfinished(tmp_path)
    other = tmp_path.parent / f"{tmp_path.name}_other"
    other.mkdir()
    (other / left.name).write_text("elsewhere")
    (tmp_path / "link").symlink_to(other)
    (tmp_path / left.name.replace(".part", ".whole")).write_text("of the user")
    (tmp_path / f"clip{left.name}").write_text("not hidden")
    folder = tmp_path / left.name.replace(".clip", ".sheet")
    folder.mkdir()
    assert remove_unfinished(tmp_path) == [left]
    assert (other / left.name).read_text() == "elsewhere"
    assert folder.is_dir()


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert remove_unfinished(tmp_path / "none") == []


@pytest.mark.parametrize("name", ["..", ".", "../..", "a/b", "/etc", "a\\..\\b", "x\0y"])
def test_a_folder_of_any_name_is_directly_in_its_parent(tmp_path: Path, name: str) -> None:
    folder = folder_in(tmp_path, name)
    assert folder.resolve().parent == tmp_path.resolve()
    folder.mkdir()


def test_a_folder_keeps_a_name_that_leads_nowhere_else(tmp_path: Path) -> None:
    assert [folder_in(tmp_path, name) for name in ("abc", "a b.é", "")] == [
        tmp_path / "abc",
        tmp_path / "a b.é",
        tmp_path,
    ]


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("abc", "abc-2"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert folder_in(tmp_path, "abc") == tmp_path / "abc-3"
