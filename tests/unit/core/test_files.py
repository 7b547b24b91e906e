from __future__ import annotations

from pathlib import Path

import pytest

from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.errors import ConfigError


def test_a_writable_folder_is_created(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "a" / "b"), setting="record_path")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_an_unwritable_folder_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"record_path is '.*file/videos'.*Not a directory.*Set it to a writable folder"
    with pytest.raises(ConfigError, match=message):
        check_writable(str(tmp_path / "file" / "videos"), setting="record_path")
