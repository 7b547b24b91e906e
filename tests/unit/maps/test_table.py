from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rlwandb_callbacks.core.action_spec import ContinuousActions
from rlwandb_callbacks.maps.data_map import DataMap
from rlwandb_callbacks.maps.table import points_table

MakeMap = Callable[..., DataMap]


def test_the_table_has_a_row_for_each_point(make_data_map: MakeMap) -> None:
    data_map = make_data_map()
    table = points_table(data_map, max_rows=100)
    assert len(table.rows) == 60
    row = dict(zip(table.columns, table.rows[17], strict=True))
    assert row == {
        "x": pytest.approx(data_map.states[17, 0], abs=1e-5),
        "y": pytest.approx(data_map.states[17, 1], abs=1e-5),
        "x_state_action": pytest.approx(data_map.state_actions[17, 0], abs=1e-5),
        "y_state_action": pytest.approx(data_map.state_actions[17, 1], abs=1e-5),
        "reward": pytest.approx(17 / 59, abs=1e-5),
        "return": 1.0,
        "action": 1,
        "action_name": "right",
        "episode": 1,
        "step": 7,
    }


def test_vector_actions_have_columns_and_long_tables_are_thinned(make_data_map: MakeMap) -> None:
    spec = ContinuousActions(-np.ones(9), np.ones(9))
    table = points_table(make_data_map(actions=np.zeros((60, 9)), action_spec=spec), max_rows=7)
    assert [name for name in table.columns if name.startswith("action")] == [f"action_{i}" for i in range(6)]
    assert [row[table.columns.index("episode")] for row in table.rows] == [0, 0, 1, 2, 3, 4, 5]
