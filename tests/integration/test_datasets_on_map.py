"""Data sets in a training: the logged map, the policy on the data, and errors before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caught_warnings import package_warnings
from PIL import Image

from rlwandb_callbacks import ConfigError, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

SHARED = {"evaluation": {"env": CorridorEnv, "policy": "q_network", "episodes": 3}, "video_logger": False}
MAP_KEYS = {
    "dataset/overview",
    "dataset/state_by_reward",
    "dataset/state_by_action",
    "dataset/state_action_by_reward",
    "dataset/state_by_return",
    "dataset/state_by_time",
    "dataset/points",
    "dataset/interactive",
    "dataset/episodes",
    "dataset/return_mean",
}


def write_corridors(path: str = "corridors.npz", **columns: Any) -> str:
    """Writes episodes of CorridorEnv with corridors of all lengths."""
    env = CorridorEnv()
    rng = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {"observations": [], "actions": [], "rewards": [], "terminals": [], "timeouts": []}
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            action = int(rng.random() < 0.7)
            rows["observations"].append(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            rows["actions"].append(action)
            rows["rewards"].append(reward)
            rows["terminals"].append(terminated)
            rows["timeouts"].append(truncated)
    np.savez(path, **{name: np.array(values) for name, values in rows.items()} | columns)
    return path


def test_map_table_page_and_policy_on_data_are_logged(fit: Any) -> None:
    callback = WandbRLCallback(SHARED, vis_dataset=True, dataset_path=write_corridors(), on_error="raise")
    fit(TinyValidatedQ(), callback)
    run = read_offline_run("wandb")
    keys = {key for row in run.history for key in row}
    assert keys >= MAP_KEYS
    assert run.exit_code == 0
    first = next(row for row in run.history if "dataset/overview" in row)
    assert first["trainer/global_step"] == 0
    with Image.open(run.media("dataset/overview")[0]) as picture:
        assert picture.size == (1500, 1200)
        assert len(picture.convert("RGB").getcolors(2**24)) > 300
    assert "dataset/policy_on_data" in keys
    with Image.open(run.media("dataset/policy_on_data")[0]) as picture:
        assert picture.width > 1_000
    (ratio,), (distance,) = run.column("dataset/ood_ratio"), run.column("dataset/ood_distance")
    assert 0 <= distance < 1
    assert 0 < ratio < 2  # the data contain all states of the corridor
    table = json.loads(run.media("dataset/points")[0].read_text())
    assert table["columns"][:6] == ["x", "y", "x_state_action", "y_state_action", "reward", "return"]
    assert len(table["data"]) == run.column("dataset/transitions")[0]
    assert "Plotly.newPlot" in run.media("dataset/interactive")[0].read_text()


EXAMPLE = {  # of DI-engine's users
    "record_path": "./video_pendulum_cql",
    "gradient_logger": True,
    "plot_logger": True,
    "action_logger": "action probability",
    "vis_dataset": True,
}


class WritesItsData(TinyValidatedQ):
    """Writes its data set when training starts, after our callbacks have looked for one."""

    def on_train_start(self) -> None:
        Path("video_pendulum_cql").mkdir(exist_ok=True)
        write_corridors("video_pendulum_cql/corridors.npz")


class WritesItsDataInPlain(TinyQ):
    on_train_start = WritesItsData.on_train_start


@pytest.mark.parametrize(("module", "with_env"), [(WritesItsData, True), (WritesItsDataInPlain, False)])
def test_the_offline_example_draws_the_data_under_its_record_path(module: Any, with_env: bool, fit: Any) -> None:
    played = {"evaluation": SHARED["evaluation"]} if with_env else {}
    first = MemoryTracker()
    fit(module(), WandbRLCallback(EXAMPLE, tracker=first, on_error="raise", **played))  # the data come while it trains
    second, played["dataset"] = MemoryTracker(), {"pictures": []}
    fit(
        module(), WandbRLCallback(EXAMPLE, tracker=second, on_error="raise", **played)
    )  # they lie beside maps and videos
    for tracker in (first, second):
        assert len(tracker.column("dataset/points")) == 1
        assert len(tracker.column("dataset/ood_ratio")) == (1 if with_env else 0)
        assert tracker.column("dataset/episodes") == [20.0]


def test_no_data_under_the_record_path_is_one_warning(fit: Any) -> None:
    tracker = MemoryTracker()
    with pytest.warns(UserWarning, match="rlwandb") as caught:
        fit(TinyValidatedQ(), WandbRLCallback(EXAMPLE, **SHARED, tracker=tracker), max_epochs=3)
    (message,) = package_warnings(caught)
    assert "no offline data were found under ./video_pendulum_cql" in message
    assert len(tracker.column("eval/return_mean")) == 3


def test_several_data_sets_under_the_record_path_raise_before_the_first_step(fit: Any) -> None:
    Path("video_pendulum_cql/more").mkdir(parents=True)
    write_corridors("video_pendulum_cql/a.npz")
    write_corridors("video_pendulum_cql/more/b.npz")
    module = TinyQ()
    with pytest.raises(ConfigError, match=r"2 data sets lie under .*a\.npz, .*b\.npz\. Set dataset_path"):
        fit(module, WandbRLCallback(EXAMPLE, tracker=MemoryTracker()))
    assert module.env_steps == 0


def test_several_data_sets_that_come_later_are_one_warning(fit: Any) -> None:
    class WritesTwo(WritesItsData):
        def on_train_start(self) -> None:
            super().on_train_start()
            write_corridors("video_pendulum_cql/second.npz")

    tracker = MemoryTracker()
    with pytest.warns(UserWarning, match="2 data sets lie under"):
        fit(WritesTwo(), WandbRLCallback(EXAMPLE, tracker=tracker), max_epochs=2)
    assert tracker.column("dataset/points") == []


def test_policy_on_data_is_logged_without_a_validation_loop(fit: Any) -> None:
    tracker = MemoryTracker()
    callback = WandbRLCallback(
        SHARED,
        vis_dataset=True,
        dataset_path=write_corridors(),
        on_error="raise",
        tracker=tracker,
        dataset={"pictures": []},
    )
    fit(TinyQ(), callback)
    assert len(tracker.column("dataset/ood_ratio")) == 1
    assert len(tracker.column("dataset/points")) == 1


def test_what_is_not_read_is_a_warning_when_training_starts(fit: Any) -> None:
    write_corridors("corridors.npz")
    with np.load("corridors.npz") as arrays:
        buffer = {name: np.concatenate([array, np.zeros((500, *array.shape[1:]))]) for name, array in arrays.items()}
    np.savez("buffer.npz", **buffer, next_done=buffer["terminals"])
    tracker = MemoryTracker()
    with pytest.warns(UserWarning, match="rlwandb") as caught:
        fit(TinyValidatedQ(), WandbRLCallback(vis_dataset=True, dataset_path="buffer.npz", tracker=tracker))
    first, second = package_warnings(caught)
    assert first.startswith("rlwandb: buffer.npz: Not read, although the name suggests a mark of episodes: next_done.")
    assert second.startswith("rlwandb: buffer.npz: 500 of ")
    assert tracker.column("dataset/episodes") == [20.0]
    caption = tracker.column("dataset/overview")[0].caption
    assert "next_done" in caption
    assert "500 of" in caption


def test_policy_on_data_can_be_disabled(fit: Any) -> None:
    tracker = MemoryTracker()
    chosen = {"policy_on_data": False, "pictures": ["state_by_time"], "table_rows": 0}
    callback = WandbRLCallback(
        SHARED, vis_dataset=True, dataset_path=write_corridors(), tracker=tracker, dataset=chosen
    )
    fit(TinyValidatedQ(), callback)
    keys = {key for row in tracker.rows for key in row}
    assert keys & (MAP_KEYS | {"dataset/policy_on_data", "dataset/ood_ratio"}) == {
        "dataset/state_by_time",
        "dataset/episodes",
        "dataset/return_mean",
    }


def test_second_run_uses_the_cached_map(fit: Any) -> None:
    path = write_corridors()
    chosen = {"pictures": [], "table_rows": 10}
    tables = []
    for _ in range(2):
        tracker = MemoryTracker()
        fit(TinyQ(), WandbRLCallback(vis_dataset=True, dataset_path=path, tracker=tracker, dataset=chosen))
        tables += tracker.column("dataset/points")
        (file,) = (Path("rl_videos") / "cache").iterdir()
        if len(tables) == 1:
            with np.load(file) as kept:
                np.savez(file, **{**kept, "states": kept["states"] + 1_000})  # marks the cached map
    assert min(row[0] for row in tables[1].rows) > 500 > max(row[0] for row in tables[0].rows)


@pytest.mark.parametrize(
    ("path", "fragments"),
    [
        ("nowhere.hdf5", ["nowhere.hdf5", "does not exist"]),
        ("text.hdf5", ["text.hdf5"]),
        ("other.npz", ["other.npz", "speeds"]),
        ("short.npz", ["short.npz"]),
    ],
)
def test_unreadable_data_raise_before_the_first_step(path: str, fragments: list[str], fit: Any) -> None:
    Path("text.hdf5").write_text("no data")
    np.savez("other.npz", speeds=np.ones(3))
    write_corridors("short.npz", rewards=np.ones(3))
    module = TinyQ()
    with pytest.raises(ConfigError) as caught:
        fit(module, WandbRLCallback(vis_dataset=True, dataset_path=path, tracker=MemoryTracker()))
    assert all(word in str(caught.value) for word in fragments)
    assert module.env_steps == 0


@pytest.mark.parametrize("observations", [np.nan, 1.0], ids=["NaN only", "all equal"])
def test_degenerate_data_do_not_stop_training(observations: float, fit: Any) -> None:
    tracker = MemoryTracker()
    path = "degenerate.npz"
    np.savez(
        path, observations=np.full((5, 2), observations, np.float32), actions=np.zeros(5, int), rewards=np.zeros(5)
    )
    callback = WandbRLCallback(
        SHARED, vis_dataset=True, dataset_path=path, tracker=tracker, dataset={"pictures": ["overview"]}
    )
    if np.isnan(observations):
        with pytest.warns(UserWarning, match="only finite numbers"):
            fit(TinyValidatedQ(), callback)
        assert max(tracker.column("logging/errors")) >= 1
        assert tracker.column("dataset/transitions") == [5.0]
        assert tracker.column("dataset/length_mean") == [5.0]
    else:
        fit(TinyValidatedQ(), callback)
        assert "all rows are equal" in tracker.column("dataset/overview")[0].caption
        assert len(tracker.column("dataset/ood_ratio")) == 1
    assert len(tracker.column("eval/return_mean")) == 1


def test_observations_that_do_not_match_the_data_warn_once(fit: Any) -> None:
    np.savez(
        "wide.npz",
        observations=np.random.default_rng(0).normal(size=(50, 5)),
        actions=np.zeros(50),
        rewards=np.ones(50),
    )
    tracker = MemoryTracker()
    callback = WandbRLCallback(
        SHARED, vis_dataset=True, dataset_path="wide.npz", tracker=tracker, dataset={"pictures": []}
    )
    with pytest.warns(UserWarning, match="has 2 numbers .* have 5"):
        fit(TinyValidatedQ(), callback, max_epochs=3)
    assert len(tracker.column("eval/return_mean")) == 3
    assert len(tracker.column("dataset/points")) == 1


def test_worker_process_makes_the_map_and_the_policy_on_data(fit: Any) -> None:
    callback = WandbRLCallback(
        SHARED,
        vis_dataset=True,
        dataset_path=write_corridors(),
        dataset={"pictures": ["overview"]},
        executor="process",
        queue_full="wait",
        on_error="raise",
    )
    fit(TinyValidatedQ(), callback, max_epochs=3)
    run = read_offline_run("wandb")
    assert [row["trainer/global_step"] for row in run.history if "dataset/overview" in row] == [0]
    assert [row["trainer/global_step"] for row in run.history if "dataset/ood_ratio" in row] == [7, 15, 23]
    assert all(picture.stat().st_size > 1_000 for picture in run.media("dataset/policy_on_data"))
    assert len(list((Path("rl_videos") / "cache").iterdir())) == 1
