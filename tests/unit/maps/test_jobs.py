from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.config import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.core.action_spec import ContinuousActions, OtherActions
from rlwandb_callbacks.core.values import Html, Image, Scalar, Table
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.maps.data_map import DataMap, load_map, save_map, to_arrays
from rlwandb_callbacks.maps.jobs import (
    MapMaker,
    affordable_rows,
    dataset_jobs,
    draw_policy_on_map,
    map_file,
    missing_page,
)
from rlwandb_callbacks.maps.policy_on_map import VisitedStates
from rlwandb_callbacks.tracking.result import run_all

MakeMap = Callable[..., DataMap]


def planted(count: int = 80, seed: int = 0, **columns: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    given = {
        "observations": rng.normal(size=(count, 3)).astype(np.float32),
        "actions": rng.integers(0, 2, size=count),
        "rewards": rng.normal(size=count),
        "terminals": np.arange(count) % 20 == 19,
    }
    return given | columns


def maker(data: dict[str, np.ndarray] | str, folder: Path | None = None, **settings: Any) -> MapMaker:
    embedding = EmbeddingConfig(**{"method": "pca", **settings})
    return MapMaker(
        dataset=open_dataset(data), embedding=embedding, cache_folder=None if folder is None else str(folder)
    )


# Files


@pytest.mark.parametrize("spec", [None, ContinuousActions(np.array([-1.0]), np.array([np.inf])), OtherActions()])
def test_a_saved_map_is_loaded_unchanged(spec: Any, make_data_map: MakeMap, tmp_path: Path) -> None:
    data_map = replace(make_data_map(), warnings=("Something is odd.",))
    if spec is not None:
        data_map = replace(data_map, transitions=replace(data_map.transitions, action_spec=spec))
    save_map(tmp_path / "deep" / "map.npz", data_map)
    found: Any = load_map(tmp_path / "deep" / "map.npz")
    before, after = to_arrays(data_map), to_arrays(found)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["map.npz"]


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "other arrays", "pickle"])
def test_loading_a_damaged_file_returns_none(damage: str, make_data_map: MakeMap, tmp_path: Path) -> None:
    file = tmp_path / "map.npz"
    if damage != "missing":
        save_map(file, make_data_map())
        content = file.read_bytes()
        file.write_bytes(
            {"empty": b"", "truncated": content[: len(content) // 2], "text": b"hello"}.get(damage, content)
        )
    if damage == "other arrays":
        np.savez(file, metadata=np.array("{}"))
    if damage == "pickle":
        np.savez(file, metadata=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert load_map(file) is None


def test_loading_a_file_with_a_changed_byte_never_raises(make_data_map: MakeMap, tmp_path: Path) -> None:
    file = tmp_path / "map.npz"
    save_map(file, make_data_map())
    content = file.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 400)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        load_map(file)  # a map, or None


def test_saving_to_an_unwritable_folder_does_not_raise(make_data_map: MakeMap, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    save_map(tmp_path / "taken" / "map.npz", make_data_map())


def test_the_file_depends_on_the_settings_only() -> None:
    assert map_file("a", {"seed": 1, "data": "x"}) == map_file("a", {"data": "x", "seed": 1})
    assert map_file("a", {"seed": 1}) != map_file("a", {"seed": 2})


def test_a_second_maker_reads_the_map_of_the_first(tmp_path: Path) -> None:
    maker(planted(), tmp_path)()
    (file,) = tmp_path.iterdir()
    kept: Any = load_map(file)
    save_map(file, replace(kept, states=kept.states + 1_000))  # a mark that no new map has
    assert maker(planted(), tmp_path)().states.min() > 500


@pytest.mark.parametrize("other", [{"seed": 1}, {"method": "tsne"}, {"sample_size": 79}])
def test_other_settings_or_data_make_another_map(other: dict[str, Any], tmp_path: Path) -> None:
    maker(planted(), tmp_path)()
    maker(planted(), tmp_path, **other)()
    maker(planted(seed=1), tmp_path)()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_cache_file_is_replaced(tmp_path: Path) -> None:
    first = maker(planted(), tmp_path)()
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"broken")
    assert np.array_equal(maker(planted(), tmp_path)().states, first.states)
    assert load_map(file) is not None


def make_one(folder: str, path: str, answers: Any) -> None:
    answers.put(maker(path, Path(folder))().states.tolist())


def test_two_processes_can_make_the_same_map_at_the_same_time(tmp_path: Path) -> None:
    path = str(tmp_path / "data.npz")
    np.savez(path, **planted())
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    processes = [spawn.Process(target=make_one, args=(str(tmp_path / "cache"), path, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_maker_keeps_its_map_or_its_error() -> None:
    make = maker(planted())
    assert make() is make()
    invalid = maker(planted(observations=np.full((80, 3), np.nan, np.float32)))
    errors = []
    for _ in range(2):
        with pytest.raises(ValueError, match="only finite numbers") as caught:
            invalid()
        errors.append(caught.value)
    assert errors[0] is errors[1]


# Samples


def test_rows_that_are_not_finite_are_dropped_and_counted() -> None:
    data = planted()
    data["observations"][:5] = np.nan
    data["rewards"][7] = np.inf
    data_map = maker(data)()
    assert len(data_map) == 74
    assert data_map.notes == ("6 with NaN or infinite numbers left out",)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"engine": "opentsne", "max_seconds": 60.0}, 10_000),
        ({"engine": "sklearn", "max_seconds": 60.0}, 6_750),
        ({"engine": "sklearn", "max_seconds": 600.0}, 10_000),
        ({"engine": "opentsne", "max_seconds": 10.0}, 2_000),
        ({"engine": "opentsne", "max_seconds": 0.1}, 500),
        ({"engine": "pca", "max_seconds": 60.0}, 10_000),
    ],
)
def test_the_sample_size_fits_the_time_limit(settings: dict[str, Any], rows: int) -> None:
    assert affordable_rows(10**7, **settings) == rows
    assert affordable_rows(37, **settings) == 37


def test_the_sample_size_can_be_set() -> None:
    assert maker(planted(), sample_size=10).rows == 10
    assert maker(planted(), sample_size=500).rows == 80
    assert len(maker(planted(), sample_size=10)()) == 10


# Jobs


def test_the_jobs_of_a_data_set_can_be_pickled_and_return_numbers_pictures_table_and_page(tmp_path: Path) -> None:
    jobs = dataset_jobs(maker(planted(), tmp_path), DatasetConfig(pictures=["state_by_reward"]))
    result = run_all(pickle.loads(pickle.dumps(jobs)))
    values = result.values
    assert result.error is None
    assert values["dataset/transitions"] == Scalar(80.0)
    assert values["dataset/episodes"] == Scalar(4.0)
    assert isinstance(values["dataset/state_by_reward"], Image)
    assert isinstance(values["dataset/points"], Table)
    assert isinstance(values["dataset/interactive"], Html)
    assert "dataset/overview" not in values


def test_the_table_and_the_page_can_be_disabled() -> None:
    values = run_all(dataset_jobs(maker(planted()), DatasetConfig(pictures=[], table_rows=0))).values
    assert not {"dataset/points", "dataset/interactive"} & values.keys()


def test_without_plotly_only_the_page_is_missing_and_a_warning_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = DatasetConfig(pictures=["state_by_reward"])
    assert missing_page(cfg) is None
    monkeypatch.setattr("rlwandb_callbacks.maps.html_page.find_spec", lambda name: None)
    assert 'pip install "rlwandb-callbacks[interactive]"' in str(missing_page(cfg))
    result = run_all(dataset_jobs(maker(planted()), cfg))
    assert result.error is None
    assert {"dataset/state_by_reward", "dataset/points", "dataset/episodes"} <= result.values.keys()
    assert "dataset/interactive" not in result.values
    assert missing_page(DatasetConfig(table_rows=0)) is None


def test_the_numbers_are_made_without_a_map() -> None:
    invalid = planted(observations=np.full((80, 3), np.nan))
    result = run_all(dataset_jobs(maker(invalid), DatasetConfig()))
    assert isinstance(result.error, ValueError)
    assert result.values["dataset/transitions"] == Scalar(80.0)
    assert result.values["dataset/length_mean"] == Scalar(20.0)
    assert result.values["dataset/return_max"].value == pytest.approx(invalid["rewards"].reshape(4, 20).sum(1).max())
    assert result.values["dataset/reward_mean"].value == pytest.approx(invalid["rewards"].mean())
    assert result.values["dataset/action_distribution"].counts.tolist() == np.bincount(invalid["actions"]).tolist()
    assert not {"dataset/overview", "dataset/points", "dataset/interactive"} & result.values.keys()


def test_the_job_of_a_policy_can_be_pickled_and_measures_its_distance(tmp_path: Path) -> None:
    data = planted()
    far = VisitedStates(
        observations=data["observations"] + 50,
        episodes=np.zeros(80, np.int64),
        steps=np.arange(80),
        lengths=np.full(80, 80),
    )
    values = pickle.loads(pickle.dumps(partial(draw_policy_on_map, maker(data, tmp_path), far)))()
    assert values["dataset/ood_ratio"].value > 10
    assert values["dataset/ood_distance"].value > 10
    assert isinstance(values["dataset/policy_on_data"], Image)
