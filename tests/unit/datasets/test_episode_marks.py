"""Ends of episodes are found in every container, under all names that they have, or a warning names the key."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.datasets.formats.field_names import looks_like_mark

LENGTHS = [3, 5, 2, 4, 6, 1]
ENDS = np.cumsum(LENGTHS)
COUNT = int(ENDS[-1])
LAST = np.isin(np.arange(COUNT), ENDS - 1)
TERMINAL = np.isin(np.arange(COUNT), ENDS[::2] - 1)  # of every second episode, from the first
CUT = LAST & ~TERMINAL
FIRST = np.concatenate(([True], LAST[:-1]))
IDS = np.repeat(np.arange(6), LENGTHS)
STEPS = np.concatenate([np.arange(length) for length in LENGTHS])
REWARDS = np.arange(COUNT, dtype=np.float32)
STEP_TYPES = np.select([LAST, FIRST], [2, 0], 1)

# Marks, whether episodes are marked as terminated, and whether as truncated.
EVERY_SECOND, ALL, NONE = [True, False] * 3, [True] * 6, [False] * 6
CUT_ONES = [False, True] * 3
MARKS: dict[str, tuple[dict[str, Any], list[bool], list[bool]]] = {
    "dones": ({"dones": LAST}, ALL, NONE),
    "done in a column": ({"done": LAST[:, None]}, ALL, NONE),
    "terminated, truncations": ({"terminated": TERMINAL, "truncations": CUT}, EVERY_SECOND, CUT_ONES),
    "RLlib": ({"terminateds": TERMINAL, "truncateds": CUT}, EVERY_SECOND, CUT_ONES),
    "tianshou": ({"terminated": TERMINAL, "truncated": CUT, "done": LAST}, EVERY_SECOND, CUT_ONES),
    "Stable-Baselines3, done at time limits too": ({"dones": LAST, "timeouts": CUT}, EVERY_SECOND, CUT_ONES),
    "IQL": ({"terminals": TERMINAL, "dones_float": LAST}, EVERY_SECOND, CUT_ONES),
    "episode_terminals": ({"terminals": TERMINAL, "episode_terminals": LAST}, EVERY_SECOND, CUT_ONES),
    "not_done": ({"not_done": (~LAST).astype(np.float32)[:, None]}, ALL, NONE),
    "Dreamer": ({"is_first": FIRST, "is_last": LAST, "is_terminal": TERMINAL}, EVERY_SECOND, CUT_ONES),
    "Dreamer, version 2": ({"is_first": FIRST, "is_last": LAST, "discount": 1.0 - TERMINAL}, EVERY_SECOND, CUT_ONES),
    "dm_env": ({"step_type": STEP_TYPES, "discount": 0.99 * ~TERMINAL}, EVERY_SECOND, CUT_ONES),
    "OGBench, terminals at every end": ({"terminals": LAST, "masks": 1.0 - TERMINAL}, EVERY_SECOND, CUT_ONES),
    "NeoRL, rows of first steps": ({"done": TERMINAL, "index": ENDS - LENGTHS}, EVERY_SECOND, NONE),
    "cumulative ends": ({"episode_ends": ENDS}, NONE, ALL),
    "rows of last steps": ({"episode_ends": ENDS - 1}, NONE, ALL),
    "lengths": ({"terminals": TERMINAL, "episode_lengths": np.array(LENGTHS)}, EVERY_SECOND, CUT_ONES),
    "starts": ({"episode_starts": FIRST}, NONE, NONE),
    "LeRobot": ({"episode_index": IDS, "frame_index": STEPS, "index": np.arange(COUNT)}, NONE, NONE),
    "steps alone": ({"timesteps": STEPS}, NONE, NONE),
    "names of episodes": ({"traj_ids": np.array([f"walk_{i}" for i in IDS], dtype="S8")}, NONE, NONE),
}
NAMES = {"d4rl": ("observations", "actions", "rewards"), "di-engine": ("obs", "action", "reward")}


def columns(names: tuple[str, str, str]) -> dict[str, Any]:
    observations = np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32)
    return dict(zip(names, (observations, np.ones((COUNT, 2), np.float32), REWARDS), strict=True))


def write(container: str, arrays: dict[str, Any], folder: Path) -> Any:
    path = folder / container
    if container == "HDF5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    elif container == "npz":
        with path.open("wb") as file:
            np.savez(file, **arrays)
    else:
        path.write_bytes(pickle.dumps({name: np.asarray(array) for name, array in arrays.items()}))
    return path


def assert_episodes(data: OfflineDataset, terminated: list[bool], truncated: list[bool]) -> None:
    found = data.episodes()
    assert found.lengths.tolist() == LENGTHS
    assert found.returns.tolist() == [3, 25, 17, 46, 99, 20]  # sums of 0…2, 3…7, 8…9, 10…13, 14…19, 20
    assert found.terminated.tolist() == terminated
    assert found.truncated.tolist() == truncated


@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize(("marks", "terminated", "truncated"), MARKS.values(), ids=MARKS.keys())
def test_marks_of_any_name_end_episodes_in_every_container(
    layout: str, marks: dict[str, Any], terminated: list[bool], truncated: list[bool], tmp_path: Path
) -> None:
    arrays = columns(NAMES[layout]) | marks  # type: ignore[arg-type]
    texts = any(np.asarray(array).dtype.kind in "SU" for array in marks.values())
    for container in ("HDF5", "npz", *([] if texts else ["pickle"])):
        data = open_dataset(write(container, arrays, tmp_path))
        assert data.layout == (layout if container == "HDF5" else data.layout)
        assert_episodes(data, terminated, truncated)
        expected = ("Not read, although", ": index.") if "frame_index" in marks else ()
        assert all(any(part in warning for warning in data.warnings) for part in expected)
        assert expected or not any("Not read" in warning for warning in data.warnings)
    assert_episodes(open_dataset(arrays), terminated, truncated)


@pytest.mark.parametrize(
    "marks",
    [
        {"next_done": LAST},
        {"index": np.arange(COUNT)},
        {"demo_ends": LAST},
        {"step_type": np.zeros((COUNT, 3))},
        {"episode_ends": ENDS[:-2]},
        {"masks": 1.0 - LAST},
        {"mask": 1.0 - LAST},
        {"episode_index": 3},
    ],
    ids=lambda marks: next(iter(marks)),
)
@pytest.mark.parametrize("container", ["HDF5", "npz", "pickle"])
def test_marks_that_are_not_understood_are_named(container: str, marks: dict[str, Any], tmp_path: Path) -> None:
    data = open_dataset(write(container, columns(NAMES["d4rl"]) | marks, tmp_path))
    assert data.num_episodes == 1
    (warning,) = (text for text in data.warnings if "Not read" in text)
    assert f"suggests a mark of episodes: {next(iter(marks))}." in warning
    assert "episode_ids" in warning


def test_second_names_of_a_field_are_named(tmp_path: Path) -> None:
    arrays = columns(NAMES["d4rl"]) | {"dones": LAST, "done": LAST & False, "states": np.zeros((COUNT, 9))}
    data = open_dataset(write("HDF5", arrays, tmp_path))
    assert data.episodes().lengths.tolist() == LENGTHS
    assert (
        "Not read, as another key has the same meaning: done (dones was read), states (observations was read)."
    ) in data.warnings


def test_masks_within_episodes_are_not_read_as_terminal_states() -> None:
    padding = np.ones(COUNT)
    padding[4] = 0
    data = open_dataset(columns(NAMES["d4rl"]) | {"terminals": LAST, "masks": padding})
    assert_episodes(data, ALL, NONE)
    assert any("masks" in warning for warning in data.warnings)


@pytest.mark.parametrize("ends", ["terminals", "dones"])
def test_masks_beside_whole_rewards_are_read(ends: str) -> None:
    base = columns(NAMES["d4rl"]) | {"rewards": np.arange(COUNT)}
    data = open_dataset(base | {ends: LAST, "masks": 1 - TERMINAL})
    assert_episodes(data, TERMINAL[LAST].tolist(), (~TERMINAL[LAST]).tolist())


def test_masks_of_rows_that_all_count_deny_no_terminal_state() -> None:
    arrays = columns(NAMES["d4rl"]) | {"terminals": LAST, "masks": np.ones(COUNT)}
    data = open_dataset(arrays | {"next_observations": arrays["observations"] + 1})
    assert_episodes(data, ALL, NONE)
    assert any("masks" in warning for warning in data.warnings)


@pytest.mark.parametrize("name", ["time_outs", "time_limit", "TimeLimit.truncated"])
def test_time_limits_beside_dones_are_no_terminal_states(name: str) -> None:
    data = open_dataset(columns(NAMES["d4rl"]) | {"dones": LAST, name: LAST & ~TERMINAL})
    assert_episodes(data, TERMINAL[LAST].tolist(), (~TERMINAL[LAST]).tolist())


def of_ogbench(successes: Any = (), *, compact: bool = True) -> dict[str, Any]:
    """Arrays of ``ogbench.utils.load_dataset``, with rewards and masks as ``relabel_dataset`` adds them.

    In the file, each trajectory has one row more: its last observation, beside an action without a next state.

    Args:
        successes: Steps at which the task is solved.
        compact: Whether the row more is kept, and declared as not valid.
    """
    rows = np.concatenate([[*range(low, high), high - 1] for low, high in zip(ENDS - LENGTHS, ENDS, strict=True)])
    is_extra = np.isin(np.arange(len(rows)), np.cumsum(np.array(LENGTHS) + 1) - 1)
    solved = np.isin(rows, successes) & ~is_extra
    base = {name: array[rows] for name, array in columns(NAMES["d4rl"]).items()}
    if len(successes):
        base |= {"rewards": solved - 1.0, "masks": 1.0 - solved}
    before = np.append(is_extra[1:], False)
    if compact:
        return base | {"valids": 1.0 - is_extra, "terminals": np.float32(is_extra | before)}
    base |= {"terminals": np.float32(before), "next_observations": np.roll(base["observations"], -1, axis=0)}
    return {name: array[~is_extra] for name, array in base.items()}


def test_rows_that_are_not_valid_are_left_out() -> None:
    data = open_dataset(of_ogbench())
    assert (data.num_transitions, len(of_ogbench()["terminals"])) == (COUNT, COUNT + 6)
    assert_episodes(data, NONE, ALL)  # terminals are ends of trajectories there, and no masks tell of the task
    assert data.warnings == ("6 of 27 rows are not valid, as the data set says, and were left out.",)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("successes", "terminated"),
    [([4, 5, 16], NONE), ([-1], NONE), (ENDS[:2] - 1, [True, True] + [False] * 4), ([5, 15, 20], [False] * 5 + [True])],
    ids=["within trajectories", "never", "at ends", "both"],
)
def test_masks_of_tasks_tell_which_trajectories_end_in_a_terminal_state(
    successes: Any, terminated: list[bool], compact: bool
) -> None:
    arrays = of_ogbench(successes, compact=compact)
    data = open_dataset(arrays)
    assert data.episodes().lengths.tolist() == LENGTHS
    assert data.episodes().terminated.tolist() == terminated
    assert data.episodes().truncated.tolist() == [not is_terminal for is_terminal in terminated]
    assert data.episodes().returns.sum() == np.isin(np.arange(COUNT), successes).sum() - COUNT
    assert not any("masks" in warning for warning in data.warnings)


def test_usual_marks_with_other_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="done holds 2; allowed are 0 and 1"):
        open_dataset(columns(NAMES["d4rl"]) | {"done": np.full(COUNT, 2)}).episodes()


STRANGE: dict[str, Any] = {
    "d": np.ones((COUNT, 3)),
    "done": np.zeros((COUNT, 3)),
    "dones": np.full(COUNT, 2),
    "cont": np.full(COUNT, 0.99),
    "continues": np.where(TERMINAL, 0, 0.997),
    "episode_start": np.repeat(ENDS - LENGTHS, LENGTHS),
    "episode_ends": np.repeat(ENDS - 1, LENGTHS),
    "episode_starts": np.arange(6),
    "index": np.arange(6),
    "episode_lengths": np.array([1, 1, 1, 1, 1, COUNT - 5]),
    "step_type": np.full(COUNT, 7),
    "is_last": np.full(COUNT, np.nan),
    "is_first": np.full(COUNT, 3),
    "episode_done": np.arange(COUNT) % 4 == 0,
    "episode_id": np.arange(COUNT),
    "episode": np.arange(COUNT) // 2 % 2,
    "timestep": np.zeros(COUNT),
    "timesteps": np.arange(COUNT) % 2,
    "frame_index": np.arange(COUNT) // 2,
    "masks": np.ones(COUNT),
    "valid": np.arange(COUNT) % 4 > 0,
    "valids": np.full(COUNT, 0.5),
}


@pytest.mark.parametrize("container", ["HDF5", "npz"])
@pytest.mark.parametrize("name", STRANGE)
def test_less_usual_marks_never_overrule_terminals_and_timeouts(name: str, container: str, tmp_path: Path) -> None:
    timeouts = {} if name == "masks" else {"timeouts": CUT}
    arrays = columns(NAMES["d4rl"]) | {"terminals": TERMINAL if timeouts else LAST, name: STRANGE[name]} | timeouts
    data = open_dataset(write(container, arrays, tmp_path))
    assert_episodes(data, EVERY_SECOND if timeouts else ALL, CUT_ONES if timeouts else NONE)
    (warning,) = data.warnings
    assert f"a mark of episodes: {name}." in warning


@pytest.mark.parametrize("name", ["d", "cont", "step_type", "is_last", "valid", "timestep"])
def test_less_usual_marks_without_sense_are_left_out_where_they_are_alone(name: str) -> None:
    data = open_dataset(columns(NAMES["d4rl"]) | {name: STRANGE[name]})
    assert (data.num_episodes, data.num_transitions) == (1, COUNT)
    assert any(f"a mark of episodes: {name}." in warning for warning in data.warnings)


@pytest.mark.parametrize(
    "lengths", [np.array(LENGTHS)[:, None], np.array(LENGTHS, dtype=float)], ids=["(E, 1)", "float"]
)
def test_lengths_may_have_another_shape_or_dtype(lengths: Any) -> None:
    assert_episodes(open_dataset(columns(NAMES["d4rl"]) | {"episode_lengths": lengths}), NONE, ALL)


def test_keys_that_are_no_marks_are_not_reported() -> None:
    others = ["next_observations", "episode_returns", "action_mask", "log_probs", "num_episodes", "qpos", "infos/goal"]
    assert not any(map(looks_like_mark, others))
    data = open_dataset(columns(NAMES["d4rl"]) | {"terminals": LAST} | {name: np.zeros(COUNT) for name in others})
    assert data.warnings == ()


def test_nearly_constant_marks_are_reported_as_inverted() -> None:
    (warning,) = open_dataset(columns(NAMES["d4rl"]) | {"dones": ~LAST}).warnings
    assert "probably inverted" in warning


@pytest.mark.parametrize(
    ("marks", "terminated", "truncated"),
    [
        ({"dones": LAST}, ALL, NONE),
        ({"dones": LAST, "timeouts": CUT}, EVERY_SECOND, CUT_ONES),
        ({"terminated": TERMINAL, "truncated": CUT, "done": LAST}, EVERY_SECOND, CUT_ONES),
    ],
)
def test_one_group_for_each_episode_may_have_other_names(
    marks: dict[str, Any], terminated: list[bool], truncated: list[bool], write_hdf5: Any
) -> None:
    arrays = columns(NAMES["di-engine"]) | marks  # type: ignore[arg-type]
    episodes = {
        f"episode_{index}": {name: array[low:high] for name, array in arrays.items()}
        for index, (low, high) in enumerate(zip(ENDS - LENGTHS, ENDS, strict=True))
    }
    data = open_dataset(write_hdf5(episodes))
    assert data.layout == "minari"
    assert_episodes(data, terminated, truncated)
    np.testing.assert_array_equal(data.sample(COUNT, 0).observations, arrays["obs"])
