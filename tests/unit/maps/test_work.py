from __future__ import annotations

import base64
import html
import json
import multiprocessing
import pickle
import re
import shutil
import subprocess
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
from rlwandb_callbacks.maps.cache import cache_file, load_map, save_map
from rlwandb_callbacks.maps.data_map import DataMap, arrays_of
from rlwandb_callbacks.maps.html_page import interactive_page, points_table
from rlwandb_callbacks.maps.policy_on_map import Visited
from rlwandb_callbacks.maps.sample_size import fitting_rows
from rlwandb_callbacks.maps.work import MapMaker, dataset_jobs, draw_policy_on_map
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


# Keeping maps


@pytest.mark.parametrize("spec", [None, ContinuousActions(np.array([-1.0]), np.array([np.inf])), OtherActions()])
def test_a_map_survives_being_kept(spec: Any, make_data_map: MakeMap, tmp_path: Path) -> None:
    data_map = replace(make_data_map(), warnings=("Something is odd.",))
    if spec is not None:
        data_map = replace(data_map, transitions=replace(data_map.transitions, action_spec=spec))
    save_map(tmp_path / "deep" / "map.npz", data_map)
    found: Any = load_map(tmp_path / "deep" / "map.npz")
    before, after = arrays_of(data_map), arrays_of(found)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["map.npz"]


@pytest.mark.parametrize("damage", ["absent", "empty", "torn", "text", "other arrays", "pickle"])
def test_a_damaged_file_is_no_map(damage: str, make_data_map: MakeMap, tmp_path: Path) -> None:
    file = tmp_path / "map.npz"
    if damage != "absent":
        save_map(file, make_data_map())
        content = file.read_bytes()
        file.write_bytes({"empty": b"", "torn": content[: len(content) // 2], "text": b"hello"}.get(damage, content))
    if damage == "other arrays":
        np.savez(file, words=np.array("{}"))
    if damage == "pickle":
        np.savez(file, words=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert load_map(file) is None


def test_no_changed_byte_of_a_file_is_an_error(make_data_map: MakeMap, tmp_path: Path) -> None:
    file = tmp_path / "map.npz"
    save_map(file, make_data_map())
    content = file.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 400)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        load_map(file)  # a map, or None


def test_a_folder_that_takes_no_files_is_no_trouble(make_data_map: MakeMap, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    save_map(tmp_path / "taken" / "map.npz", make_data_map())


def test_what_decides_the_map_decides_the_file() -> None:
    assert cache_file("a", {"seed": 1, "data": "x"}) == cache_file("a", {"data": "x", "seed": 1})
    assert cache_file("a", {"seed": 1}) != cache_file("a", {"seed": 2})


def test_the_second_maker_takes_what_the_first_has_made(tmp_path: Path) -> None:
    maker(planted(), tmp_path)()
    (file,) = tmp_path.iterdir()
    kept: Any = load_map(file)
    save_map(file, replace(kept, states=kept.states + 1_000))  # a mark that no fresh map has
    assert maker(planted(), tmp_path)().states.min() > 500


@pytest.mark.parametrize("other", [{"seed": 1}, {"method": "tsne"}, {"sample_size": 79}])
def test_other_settings_or_other_data_make_another_map(other: dict[str, Any], tmp_path: Path) -> None:
    maker(planted(), tmp_path)()
    maker(planted(), tmp_path, **other)()
    maker(planted(seed=1), tmp_path)()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path: Path) -> None:
    first = maker(planted(), tmp_path)()
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"broken")
    assert np.array_equal(maker(planted(), tmp_path)().states, first.states)
    assert load_map(file) is not None


def make_one(folder: str, path: str, answers: Any) -> None:
    answers.put(maker(path, Path(folder))().states.tolist())


def test_two_processes_may_make_the_same_map_at_a_time(tmp_path: Path) -> None:
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


def test_one_maker_makes_one_map_and_remembers_its_failure() -> None:
    make = maker(planted())
    assert make() is make()
    hopeless = maker(planted(observations=np.full((80, 3), np.nan, np.float32)))
    errors = []
    for _ in range(2):
        with pytest.raises(ValueError, match="only finite numbers") as caught:
            hopeless()
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
        ({"method": "tsne", "engine": "opentsne", "max_seconds": 60.0}, 10_000),
        ({"method": "tsne", "engine": "sklearn", "max_seconds": 60.0}, 6_750),
        ({"method": "tsne", "engine": "sklearn", "max_seconds": 600.0}, 10_000),
        ({"method": "tsne", "engine": "opentsne", "max_seconds": 10.0}, 2_000),
        ({"method": "tsne", "engine": "opentsne", "max_seconds": 0.1}, 500),
        ({"method": "pca", "engine": "sklearn", "max_seconds": 60.0}, 10_000),
    ],
)
def test_the_sample_fits_the_time(settings: dict[str, Any], rows: int) -> None:
    assert fitting_rows(10**7, **settings) == rows
    assert fitting_rows(37, **settings) == 37


def test_the_sample_size_can_be_set() -> None:
    assert maker(planted(), sample_size=10).rows == 10
    assert maker(planted(), sample_size=500).rows == 80
    assert len(maker(planted(), sample_size=10)()) == 10


# Tables and pages


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


def page_data(page: Html) -> dict[str, Any]:
    found = re.search(r"^const data = (\{.*\});$", page.text, re.MULTILINE)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_holds_the_points_and_needs_no_network(make_data_map: MakeMap) -> None:
    data_map = replace(make_data_map(), name="</script><b>odd", warnings=("All <b>episodes</b> are odd.",))
    page = interactive_page(data_map, max_rows=1_000)
    assert not re.search(r"https?://|src=|@import|import ", page.text)
    assert page.text.count("</script>") == 1
    data = page_data(page)
    assert data["title"] == "</script><b>odd"
    assert data["warnings"] == ["All <b>episodes</b> are odd."]
    assert "60 of 1,000 transitions" in data["about"]
    assert [coloring["label"] for coloring in data["colorings"]] == [
        "reward",
        "action",
        "episode return",
        "share of the episode",
    ]
    raw = base64.b64decode(data["bytes"])
    places = np.frombuffer(raw, "<u2", 120, data["layouts"][0]["at"]).reshape(60, 2) / 65_535
    expected = data_map.states / np.ptp(data_map.states, axis=0).max()
    assert np.allclose(places - places.mean(axis=0), expected - expected.mean(axis=0), atol=1e-4)
    (reward,) = [column for column in data["columns"] if column["name"] == "reward"]
    assert np.allclose(np.frombuffer(raw, "<f4", 60, reward["at"]), data_map.transitions.rewards)
    assert len(raw) < 60 * 100 + 500


def test_of_a_large_map_the_page_shows_a_part_and_says_so(make_data_map: MakeMap) -> None:
    data = page_data(interactive_page(make_data_map(), max_rows=20))
    assert data["count"] == 20
    assert data["about"].startswith("20 points of 60 of 1,000 transitions")


def chromium(tmp_path: Path, page: Html, *arguments: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "page.html").write_text(page.text)
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=900,700",
        "--enable-logging=stderr",
        *arguments,
        (tmp_path / "page.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    return done


IN_CHROMIUM = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="looks at the page in Chromium, which is not installed"
)


@IN_CHROMIUM
def test_a_browser_draws_the_page_without_errors(
    make_data_map: MakeMap, tmp_path: Path, rng: np.random.Generator
) -> None:
    from PIL import Image as Pictures

    states = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 30])
    page = interactive_page(make_data_map(states, rewards=np.repeat([0.0, 1.0], 30)), max_rows=100)
    shot = tmp_path / "shot.png"
    chromium(tmp_path, page, f"--screenshot={shot}")
    pixels = np.asarray(Pictures.open(shot).convert("RGB")).astype(int)[100:660, 20:700]
    dark = np.argwhere(np.abs(pixels - [68, 1, 84]).sum(axis=2) < 120)
    light = np.argwhere(np.abs(pixels - [189, 223, 38]).sum(axis=2) < 120)
    assert min(len(dark), len(light)) > 200
    assert np.linalg.norm(dark.mean(axis=0) - light.mean(axis=0)) > 200


@IN_CHROMIUM
@pytest.mark.parametrize("warnings", [(), ("All <b>episodes</b> are odd.", "So are the steps.")])
def test_what_is_wrong_with_the_data_stands_at_the_top_of_the_page(
    warnings: tuple[str, ...], make_data_map: MakeMap, tmp_path: Path
) -> None:
    page = interactive_page(replace(make_data_map(), warnings=warnings), max_rows=100)
    shown = chromium(tmp_path, page, "--dump-dom").stdout
    (listed,) = re.findall(r'</header>\s*<ul id="warnings">(.*?)</ul>\s*<div id="main">', shown)
    texts = [html.unescape(text) for text in re.findall(r'<li class="">(.*?)</li>', listed)]
    assert texts == list(warnings)


# Reports


def test_the_jobs_of_a_data_set_pickle_and_gives_numbers_pictures_table_and_page(tmp_path: Path) -> None:
    jobs = dataset_jobs(maker(planted(), tmp_path), DatasetConfig(pictures=["state_by_reward"]))
    done = run_all(pickle.loads(pickle.dumps(jobs)))
    values = done.values
    assert done.error is None
    assert values["dataset/transitions"] == Scalar(80.0)
    assert values["dataset/episodes"] == Scalar(4.0)
    assert isinstance(values["dataset/state_by_reward"], Image)
    assert isinstance(values["dataset/points"], Table)
    assert isinstance(values["dataset/interactive"], Html)
    assert "dataset/overview" not in values


def test_the_table_and_the_page_can_be_left_out() -> None:
    values = run_all(dataset_jobs(maker(planted()), DatasetConfig(pictures=[], table_rows=0))).values
    assert not {"dataset/points", "dataset/interactive"} & values.keys()


def test_where_there_is_no_map_the_numbers_are_made_all_the_same() -> None:
    nowhere = planted(observations=np.full((80, 3), np.nan))
    report = run_all(dataset_jobs(maker(nowhere), DatasetConfig()))
    assert isinstance(report.error, ValueError)
    assert report.values["dataset/transitions"] == Scalar(80.0)
    assert report.values["dataset/length_mean"] == Scalar(20.0)
    assert report.values["dataset/return_max"].value == pytest.approx(nowhere["rewards"].reshape(4, 20).sum(1).max())
    assert report.values["dataset/reward_mean"].value == pytest.approx(nowhere["rewards"].mean())
    assert report.values["dataset/action_distribution"].counts.tolist() == np.bincount(nowhere["actions"]).tolist()
    assert not {"dataset/overview", "dataset/points", "dataset/interactive"} & report.values.keys()


def test_the_job_of_a_policy_pickles_and_measures_how_far_it_is(tmp_path: Path) -> None:
    data = planted()
    far = Visited(
        observations=data["observations"] + 50,
        episodes=np.zeros(80, np.int64),
        steps=np.arange(80),
        lengths=np.full(80, 80),
    )
    values = pickle.loads(pickle.dumps(partial(draw_policy_on_map, maker(data, tmp_path), far)))()
    assert values["dataset/ood_ratio"].value > 10
    assert values["dataset/ood_distance"].value > 10
    assert isinstance(values["dataset/policy_on_data"], Image)
