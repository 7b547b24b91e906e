"""Reading runs: values of changing kind, definitions, media, and only what was asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from run_files import history, run_end, summary, write_run_file
from wandb.proto import wandb_internal_pb2 as pb

from rlwandb_callbacks.testing import MetricDefinition, OfflineRun, read_offline_run


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfflineRun]:
    """A run of W&B's own in which each key holds values of several kinds in turn."""
    folder = tmp_path_factory.mktemp("changing")
    settings = wandb.Settings(silent=True, console="off")
    config = {"lr": 0.1, "net": {"width": 64, "depth": 2}}
    with wandb.init(mode="offline", dir=folder, config=config, settings=settings) as run:
        run.define_metric("x", step_metric="env_steps")
        run.define_metric("x", summary="max")
        run.define_metric("hidden", hidden=True)
        run.define_metric("hidden", summary="min,mean")
        run.log({"x": 1, "list": [1, 2], "number": 1, "nothing": None, "nan": math.nan, "flag": True, "a.b": 3})
        run.log({"x": 3, "list": np.arange(40), "number": {"p": {"q": 1}}, "env_steps": 500})
        run.log({"x": 2, "list": [1, 2, 3], "number": [4, 5], "text": '12 "number" {'})
        run.log({"list": np.arange(50), "number": {"p": 7}, "a": {"b": 4}})
        run.log({"number": {"p": {"q": {"r": math.inf}}}})
        run.summary["nested"] = {"p": 1, "q": 2}
        del run.summary["nested"]["p"]
        run.summary["emptied"] = {"p": 1}
        del run.summary["emptied"]["p"]
        run.summary["removed"] = 1
        del run.summary["removed"]
        run.config.update({"net": {"width": 32}}, allow_val_change=True)
    return read_offline_run(folder)


def test_a_key_may_hold_a_list_a_histogram_a_number_and_a_mapping_in_turn(changing: OfflineRun) -> None:
    assert changing.column("number") == [1, {"p": {"q": 1}}, [4, 5], {"p": 7}, {"p": {"q": {"r": math.inf}}}]
    short, many, three, more = changing.column("list")
    assert (short, three) == ([1, 2], [1, 2, 3])
    assert [sum(histogram["values"]) for histogram in (many, more)] == [40, 50]
    assert (changing.column("nothing"), changing.column("flag"), changing.column("text")) == (
        [None],
        [True],
        ['12 "number" {'],
    )
    assert math.isnan(changing.column("nan")[0])


def test_columns_are_those_of_the_rows(changing: OfflineRun) -> None:
    keys = {key for row in changing.history for key in row} | {"absent", "l", "is", ""}
    columns = changing.columns(*keys)
    for key in keys - {"nan"}:
        assert changing.column(key) == columns[key] == [row[key] for row in changing.history if key in row]


def test_the_latest_kind_of_a_key_stands_in_the_summary(changing: OfflineRun) -> None:
    assert changing.summary["number"] == {"p": {"q": {"r": math.inf}}}
    assert sum(changing.summary["list"]["values"]) == 50
    assert (changing.summary["a.b"], changing.summary["a"]) == (3, {"b": 4})


def test_removals_of_nested_keys_are_applied_to_the_summary(changing: OfflineRun) -> None:
    assert changing.summary["nested"] == {"q": 2}
    assert not {"removed", "emptied"} & changing.summary.keys()


def test_definitions_of_one_key_complete_each_other(changing: OfflineRun) -> None:
    assert changing.metrics["x"] == MetricDefinition("env_steps", step_sync=True, summary=("max",))
    assert changing.metrics["hidden"] == MetricDefinition("", False, hidden=True, summary=("min", "mean"))


def test_the_config_is_that_of_the_end(changing: OfflineRun) -> None:
    assert {key: changing.config[key] for key in ("lr", "net")} == {"lr": 0.1, "net": {"width": 32}}


def test_a_definition_that_replaces_another_keeps_nothing_of_it(tmp_path: Path) -> None:
    records = [pb.Record() for _ in range(3)]
    for record, name in zip(records, ["x", "x", ""], strict=True):
        record.metric.name, record.metric.step_metric = name, "old"
    records[1].metric.step_metric = ""
    records[1].metric.summary.min = True
    getattr(records[1].metric, "_control").overwrite = True  # noqa: B009  # the name of the field
    run = read_offline_run(write_run_file(tmp_path / "run-x.wandb", [*records, run_end()]))
    assert run.metrics == {"x": MetricDefinition("", False, summary=("min",))}


KEYS = ["a", "aa", "b/a", "a" * 127, "a" * 128, "ä/ö", "12", "\n\x01a", "[", "key with spaces", "\x12\x01a"]
VALUES: list[Any] = [
    0,
    -1.5,
    "a",
    "x" * 127,
    "x" * 128,
    "ä" * 90,
    None,
    True,
    [1] * 100,
    {"a": {"a": 1}},
    2**60,
    1e-300,
]


def test_columns_are_right_for_any_keys_and_values(tmp_path: Path) -> None:
    """Keys within other keys and within texts, and keys and values around the lengths at which the encoding changes."""
    generator = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for _ in range(300):
        keys = generator.permutation(KEYS)[: generator.integers(len(KEYS) + 1)]
        rows.append({str(key): VALUES[generator.integers(len(VALUES))] for key in keys})
    records = [history(**row) for row in rows]
    for record in records[::3]:  # older releases of W&B wrote the plain field
        for item in record.history.item:
            item.key = item.nested_key[0]
            item.ClearField("nested_key")
    run = read_offline_run(write_run_file(tmp_path / "run-x.wandb", [*records, run_end()]))
    assert run.history == rows
    for key, column in run.columns(*KEYS).items():
        assert column == [row[key] for row in rows if key in row], key


def test_only_what_is_asked_for_is_decoded(tmp_path: Path) -> None:
    rows = [history(a=1, broken=0), history(a=2.5)]
    rows[0].history.item[1].value_json = "{"
    broken = summary(a=1)
    broken.summary.update[0].value_json = "{"
    run = read_offline_run(write_run_file(tmp_path / "run-x.wandb", [broken, *rows, run_end(3)]))
    assert run.column("a") == [1, 2.5]
    assert list(run.series("a")["a"].values) == [1, 2.5]
    assert (run.exit_code, run.column("absent")) == (3, [])
    with pytest.raises(json.JSONDecodeError):
        run.column("broken")
    with pytest.raises(json.JSONDecodeError):
        _ = run.summary


@pytest.mark.skipif("number" not in pb.HistoryItem.DESCRIPTOR.fields_by_name, reason="wandb older than 0.31")
def test_values_in_typed_fields_are_read(tmp_path: Path) -> None:
    values = {"number": 0.5, "integer": 0, "text": "1", "boolean": False, "json": '{"a": [1]}'}
    both, typed = pb.Record(), pb.Record()
    for name, value in values.items():
        for record in (both, typed):
            setattr(record.history.item.add(nested_key=[name]), name, value)
    both.history.item[0].value_json = "0.5"
    typed.history.item.add(nested_key=["none"], none=0)
    run = read_offline_run(write_run_file(tmp_path / "run-x.wandb", [both, typed, run_end()]))
    assert run.history == [values | {"json": {"a": [1]}}, values | {"json": {"a": [1]}, "none": None}]
    assert (run.column("number"), run.column("none")) == ([0.5, 0.5], [None])


def test_media_of_a_key_may_stand_alone_in_lists_and_beside_numbers(tmp_path: Path) -> None:
    video = {"_type": "video-file", "path": "media/videos/v_0.mp4"}
    values = [
        video,
        0.5,
        {"_type": "images/separated", "filenames": ["a.png", "b.png"]},
        {"_type": "videos", "videos": [video, video], "captions": False},
        [1, 2],
        {"clip": {"good": video}, "filenames": 3, "videos": 2},
    ]
    file = write_run_file(tmp_path / "run" / "run-x.wandb", [*(history(v=value) for value in values), run_end()])
    names = [str(path.relative_to(tmp_path / "run" / "files")) for path in read_offline_run(file).media("v")]
    assert names == [video["path"], "a.png", "b.png", video["path"], video["path"], video["path"]]


def test_media_within_mappings_are_found_at_any_depth(tmp_path: Path) -> None:
    image = {"_type": "image-file", "path": "media/i.png", "masks": {"m": {"_type": "mask", "path": "media/m.json"}}}
    values = [{"v": 1, "img": image, "deeper": {"img": image}}, {"videos": 3, "filenames": 1, "path": 2}]
    file = write_run_file(tmp_path / "run" / "run-x.wandb", [*(history(mixed=value) for value in values), run_end()])
    assert read_offline_run(file).media("mixed") == [tmp_path / "run" / "files" / "media" / "i.png"] * 2


def test_integers_of_any_size_are_exact_in_columns_and_rounded_in_series(tmp_path: Path) -> None:
    numbers = [2**53 + 1, 2**70, -(10**400)]
    records = [history(n=number, x=number) for number in numbers]
    run = read_offline_run(write_run_file(tmp_path / "run-x.wandb", [*records, run_end()]))
    assert run.column("n") == numbers
    series = run.series("n", axis="x")["n"]
    assert series.values.tolist() == series.positions.tolist() == [2.0**53, 2.0**70, -math.inf]
