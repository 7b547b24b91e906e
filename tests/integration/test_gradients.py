"""Gradient and parameter histograms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import wandb

from rlwandb_callbacks import GradientsCallback
from rlwandb_callbacks.testing import OfflineRun, TinyActorCritic, TinyQ, read_offline_run


def logged(fit: Any, module: Any, options: dict[str, Any] | None = None, **trainer_options: Any) -> OfflineRun:
    gradients = {"log_freq": 2, **(options or {})}
    fit(module, GradientsCallback({"on_error": "raise", "gradients": gradients}), **trainer_options)
    return read_offline_run("wandb")


def keys_below(run: OfflineRun, group: str) -> set[str]:
    return {key.removeprefix(group) for row in run.history for key in row if key.startswith(group)}


TRAINED = {"q_network.0.weight", "q_network.0.bias", "q_network.2.weight", "q_network.2.bias"}


def test_histograms_of_what_trains_appear_although_forward_is_never_called(fit: Any) -> None:
    run = logged(fit, TinyQ(batches=8))
    assert keys_below(run, "gradients/") == TRAINED
    assert keys_below(run, "parameters/") == TRAINED
    counts = [sum(value["values"]) for value in run.column("gradients/q_network.0.weight")]
    assert counts == [16, 16, 16, 16]
    assert [row["trainer/global_step"] for row in run.history if "gradients/q_network.0.weight" in row] == [1, 3, 5, 7]


def test_a_gradient_histogram_is_that_of_its_own_batch(fit: Any) -> None:
    class Known(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": (self.q_network[2].bias * float(batch_idx + 1)).sum()}

    run = logged(fit, Known(batches=4), {"log": "gradients"})
    assert [value["bins"] for value in run.column("gradients/q_network.2.bias")] == [[2.0, 2.0], [4.0, 4.0]]
    assert not keys_below(run, "parameters/")


def test_a_parameter_histogram_counts_all_elements_between_their_extremes(fit: Any) -> None:
    module = TinyQ(batches=2)
    run = logged(fit, module, {"log": "parameters"})
    weight = module.q_network[0].weight.detach()
    (value,) = run.column("parameters/q_network.0.weight")
    assert sum(value["values"]) == weight.numel()
    assert value["bins"][0] == pytest.approx(float(weight.min()))
    assert value["bins"][-1] == pytest.approx(float(weight.max()))
    assert not keys_below(run, "gradients/")


def test_both_networks_under_manual_optimisation(fit: Any) -> None:
    run = logged(fit, TinyActorCritic(batches=4))
    assert {name.split(".")[0] for name in keys_below(run, "gradients/")} == {"actor", "critic"}


def test_names_are_the_same_in_the_second_run_of_a_process_and_for_compiled_networks(fit: Any) -> None:
    logged(fit, TinyQ(batches=2))
    module = TinyQ(batches=2)
    module.q_network = torch.compile(module.q_network, backend="eager")  # type: ignore[assignment]  # a compiled module
    assert keys_below(logged(fit, module), "gradients/") == TRAINED


def test_the_graph_is_logged_once(fit: Any) -> None:
    run = logged(fit, TinyQ(batches=2), {"log_graph": True})
    assert run.summary["graph_0"]["_type"] == "graph-file"


def test_gradients_that_are_nan_are_no_error(fit: Any) -> None:
    class NaN(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.q_network(batch[0]).mean() * float("nan")}

    assert logged(fit, NaN(batches=4)).exit_code == 0


def test_a_watch_of_the_user_stays_and_is_no_end_of_training(fit: Any) -> None:
    module = TinyQ(batches=2)
    run = wandb.init()
    run.watch(module, log="gradients", log_freq=1, idx=0)
    with pytest.warns(UserWarning, match="Watching gradients failed"):
        fit(module, GradientsCallback({"gradients": {"log_freq": 2}}))
    run.log({"mine/x": 1})
    run.unwatch(module)
    run.finish()
    assert (
        "gradients/q_network.0.weight" in read_offline_run("wandb").history[-1] | read_offline_run("wandb").history[0]
    )
