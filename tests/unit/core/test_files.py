from __future__ import annotations

from pathlib import Path

import pytest

from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.errors import ConfigError


def test_a_folder_is_made_where_files_can_be_written(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "a" / "b"), setting="record_path")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"record_path is '.*file/videos'.*Not a directory.*Set it to a folder"):
        check_writable(str(tmp_path / "file" / "videos"), setting="record_path")
