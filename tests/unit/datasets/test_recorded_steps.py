"""Steps that RLlib recorded count once, in the right episodes; missing ones are reported."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.errors import DatasetError

CYCLE = [6, 13, 9]  # lengths of the episodes of each environment; rewards are 1, 2, 3, …
Rows = list[dict[str, Any]]


def sample(env: int, steps: int) -> Rows:
    """Steps of one environment, whose observations are its number and that of the step, counted over all episodes."""
    lengths = itertools.cycle(CYCLE)
    rows: Rows = []
    for episode in itertools.count():
        length = next(lengths)
        for step in range(length):
            if len(rows) == steps:
                return rows
            count = len(rows) + episode  # an episode has one observation more than steps
            is_last = step == length - 1
            rows.append(
                {
                    "eps_id": f"{env}-{episode}",
                    "agent_id": None,
                    "obs": np.array([env, count], np.float32),
                    "actions": step % 3,
                    "rewards": step + 1.0,
                    "new_obs": np.array([env, count + 1], np.float32),
                    "terminateds": is_last and episode % 2 == 0,
                    "truncateds": is_last and episode % 2 == 1,
                    "weights_seq_no": 0,
                }
            )
    raise AssertionError


def record(samplings: int = 4, size: int = 8, *, envs: int = 1, limit: int | None = None) -> Rows:
    """Writes what ``OfflineSingleAgentEnvRunner`` of ray 2.60 writes, all files one after the other."""
    streams = [sample(env, samplings * size) for env in range(envs)]
    buffer: Rows = []
    written: Rows = []
    for index in range(samplings):
        chunks = []
        for stream in streams:
            rows = stream[index * size : (index + 1) * size]
            chunks += [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["eps_id"])]
        done = [chunk for chunk in chunks if chunk[-1]["terminateds"] or chunk[-1]["truncateds"]]
        buffer += [row for chunk in [*done, *(chunk for chunk in chunks if chunk not in done)] for row in chunk]
        if limit is None:
            written += buffer
        elif len(buffer) >= limit:
            while len(buffer) >= limit:
                part, buffer = buffer[:limit], buffer[limit:]
            written += part  # the last part only
    return written


def columns(rows: Rows) -> dict[str, Any]:
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


class Items:
    """A map-style data set."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._rows[row]


def dicts(rows: Rows) -> Rows:
    return [row | {key: {"a": row[key][0], "b": row[key][1:]} for key in ("obs", "new_obs")} for row in rows]


FORMS: dict[str, Callable[[Rows], Any]] = {
    "columns": columns, "rows": list, "items": Items, "dict observations": dicts,
}  # fmt: skip


def assert_counts(data: OfflineDataset, envs: int) -> None:
    found = data.episodes()
    assert sorted(found.lengths.tolist()) == sorted([6, 13, 9, 4] * envs)
    assert sorted(found.returns.tolist()) == sorted([21.0, 91.0, 45.0, 10.0] * envs)
    assert (found.terminated.sum(), found.truncated.sum()) == (2 * envs, envs)  # the last one is open
    steps = data.sample(999, seed=0)
    for episode in range(data.num_episodes):
        assert (np.diff(steps.observations[steps.episodes == episode][:, 1]) == 1).all()


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS.keys())
def test_steps_that_were_written_again_count_once(make: Callable[[Rows], Any], envs: int) -> None:
    rows = record(envs=envs)
    assert len(rows) == (8 + 16 + 24 + 32) * envs
    data = open_dataset(make(rows))
    assert_counts(data, envs)
    assert data.reading_warnings[-1].startswith(f"{48 * envs} of {80 * envs} rows were left out")
    assert not any("missing" in warning for warning in data.warnings)


def test_a_recording_without_repeated_steps_is_kept_as_it_is() -> None:
    data = open_dataset(columns(record(envs=2)[-64:]))  # the last sampling holds all
    assert_counts(data, 2)
    assert not any("rows were left out" in warning for warning in data.warnings)


def test_equal_steps_of_an_agent_that_does_not_move_are_kept() -> None:
    rows = sample(0, 10)[6:]  # of one episode
    for row in rows[:3]:  # it bumps into a wall three times
        row |= {"obs": rows[3]["obs"], "new_obs": rows[3]["obs"], "actions": 0, "rewards": 0.0}
    data = open_dataset(columns([*rows, *rows]))
    assert data.episodes().lengths.tolist() == [4]
    assert "4 of 8 rows were left out" in data.warnings[0]


@pytest.mark.parametrize(("limit", "samplings"), [(4, 4), (6, 5)])
def test_steps_that_were_lost_within_episodes_are_reported(limit: int, samplings: int) -> None:
    data = open_dataset(columns(record(samplings, limit=limit)))  # of the second episode, rows 8-11 and 16-18, or 12-17
    (warning,) = (text for text in data.warnings if text.startswith("Steps are missing"))
    assert "missing at 1 place within episodes: " in warning
    assert "output_max_rows_per_file" in warning


def test_steps_that_were_lost_at_the_end_of_an_episode_are_reported() -> None:
    rows = sample(0, 32)
    data = open_dataset(columns(rows[:16] + rows[20:]))
    (warning,) = (text for text in data.warnings if text.startswith("Steps are missing"))
    assert "missing at the end of 1 of 4 episodes" in warning


def assert_kept(source: Any, lengths: list[int]) -> None:
    data = open_dataset(source)
    assert data.episodes().lengths.tolist() == lengths
    assert not any("missing" in warning or "left out" in warning for warning in data.warnings)


def test_steps_are_kept_where_next_observations_are_scaled_otherwise() -> None:
    rows = sample(0, 28) + sample(1, 28)
    arrays = columns([row | {"obs": row["obs"] * 0, "actions": 0, "rewards": 0.0} for row in rows])  # equal steps
    assert_kept(arrays | {"new_obs": arrays["obs"] + 0.5}, [6, 13, 9] * 2)


def test_steps_of_several_agents_are_kept() -> None:
    rows = [row | {"agent_index": agent} for agent in (0, 1) for row in sample(agent, 28)]
    assert_kept(columns([row | {"eps_id": row["eps_id"][2:]} for row in rows]), [6, 13, 9] * 2)


def test_ends_without_a_mark_are_not_called_lost_where_time_limits_are_not_marked() -> None:
    arrays = columns(sample(0, 28))
    del arrays["truncateds"]
    assert_kept(arrays, [6, 13, 9])


def test_steps_with_different_keys_are_read_as_other_lists_are() -> None:
    rows = sample(0, 28)
    del rows[-1]["new_obs"]
    assert_kept(rows, [6, 13, 9])


def test_compressed_observations_name_the_remedy() -> None:
    arrays = columns(record()) | {"obs": np.array(["BCJNGGhA"] * 80), "new_obs": np.array(["BCJNGGhB"] * 80)}
    with pytest.raises(DatasetError, match=r"obs, new_obs hold text.*unpack_if_needed.*output_compress_columns=\[\]"):
        open_dataset(arrays)


def test_a_folder_of_recorded_steps_names_the_conversion(tmp_path: Path) -> None:
    (tmp_path / "out/cartpole/run-000001-00001").mkdir(parents=True)
    (tmp_path / "out/cartpole/run-000001-00001/0_000000-0.parquet").write_bytes(b"PAR1")
    for folder in ("out", "out/cartpole", "out/cartpole/run-000001-00001"):
        with pytest.raises(DatasetError, match="holds steps that RLlib recorded") as caught:
            open_dataset(tmp_path / folder)
        assert "print(*data.warnings" in str(caught.value)
