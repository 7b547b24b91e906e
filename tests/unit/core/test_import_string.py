from __future__ import annotations

from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.testing import CorridorEnv


def test_both_spellings_of_an_import_path_are_accepted() -> None:
    assert import_object("rlwandb_callbacks.testing:CorridorEnv") is CorridorEnv
    assert import_object("rlwandb_callbacks.testing.CorridorEnv") is CorridorEnv
    assert import_object("rlwandb_callbacks.testing:CorridorEnv.reset") is CorridorEnv.reset
