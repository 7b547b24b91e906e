from __future__ import annotations

from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.testing import CorridorEnv


def test_objects_are_imported_by_either_way_of_writing() -> None:
    assert import_object("rlwandb_callbacks.testing:CorridorEnv") is CorridorEnv
    assert import_object("rlwandb_callbacks.testing.CorridorEnv") is CorridorEnv
    assert import_object("rlwandb_callbacks.testing:CorridorEnv.reset") is CorridorEnv.reset
