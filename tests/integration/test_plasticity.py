"""Rows of plasticity in trainings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from failing_modules import RaisesInTraining
from torch import nn

from rlwandb_callbacks import ConfigError, PlasticityCallback, WandbRLCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyActorCritic, TinyQ, read_offline_run


def rows_of(fit: Any, module: Any, options: dict[str, Any] | None = None, **trainer_options: Any) -> list[Any]:
    tracker = MemoryTracker()
    settings = {"on_error": "raise", "plasticity": {"every_n_steps": 2, **(options or {})}}
    fit(module, PlasticityCallback(settings, tracker=tracker), **trainer_options)
    return tracker.rows


class Known(TinyQ):
    """Network with three dormant neurons among eight, and features of rank two."""

    def __init__(self, batches: int = 4) -> None:
        super().__init__(batches)
        first = self.q_network[0]
        with torch.no_grad():
            first.weight.zero_()
            first.weight[3:, 0] = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0])
            first.weight[3:, 1] = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0])
            first.bias[:3] = -1.0
            first.bias[3:] = 1e3 * first.weight[3:].sum(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.q_network.parameters(), lr=0.5)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            self.q_network(batch[0][:1] * 0)
        self.q_network((batch[0] + 1e3).abs())
        return {"loss": self.q_network[2].bias.sum()}


def test_known_values_are_measured(fit: Any) -> None:
    module = Known()
    with torch.no_grad():
        before = torch.cat([p.flatten() for p in module.q_network.parameters()])
    first, _ = rows_of(fit, module)
    after = before.clone()
    after[-2:] -= 2 * 0.5  # two steps of 0.5 on each of two biases
    middle = before.clone()
    middle[-2:] -= 0.5
    assert first["plasticity/dormant_share_q_network"] == 3 / 8
    assert "plasticity/dead_share_q_network" not in first  # a batch of 4 rows
    assert first["plasticity/effective_rank_q_network"] <= 2
    assert first["plasticity/weight_norm_q_network"] == pytest.approx(float(after.norm()), rel=1e-5)
    expected = float((after - middle).norm() / middle.norm())
    assert first["plasticity/update_to_weight_q_network"] == pytest.approx(expected, rel=1e-4)


def test_effective_rank_of_a_network_of_known_rank(fit: Any) -> None:
    class Spans(TinyQ):
        """Network whose features have rank two for any width."""

        def __init__(self) -> None:
            super().__init__(batches=2)
            with torch.no_grad():
                self.q_network[0].bias.zero_()
                self.q_network[0].weight[:] = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.q_network(torch.eye(2).repeat(3, 1) + 0.1 * torch.rand(6, 1)).sum() * 0}

    (row,) = rows_of(fit, Spans())
    assert row["plasticity/effective_rank_q_network"] == 2
    assert row["plasticity/update_to_weight_q_network"] == 0


class Planted(TinyQ):
    """Network with one hidden layer of 64 neurons in front of which some biases are far from zero."""

    def __init__(self, activation: str, *, shifted: int = 0, bias: float = 10.0, scale: float = 1.0) -> None:
        super().__init__(batches=2)
        first = nn.Linear(2, 64)
        with torch.no_grad():
            first.bias.zero_()
            first.bias[:shifted] = bias
            first.weight.copy_(torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
            first.weight[-1] *= scale
        self.q_network = nn.Sequential(first, getattr(nn, activation)(), nn.Linear(64, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        observations = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
        return {"loss": self.q_network(observations).mean()}


@pytest.mark.parametrize(
    ("module", "dead", "dormant"),
    [
        (Planted("Tanh"), 0, 0),
        (Planted("Tanh", shifted=32), 0.5, 0),
        (Planted("ELU", shifted=64, bias=-10.0), 1, 0),
        (Planted("ReLU", scale=1e5), 0, 63 / 64),
    ],
    ids=["healthy", "saturated", "flat", "loud"],
)
def test_dead_neurons_are_counted_beside_dormant_ones(fit: Any, module: Planted, dead: float, dormant: float) -> None:
    (row,) = rows_of(fit, module)
    shares = [row[f"plasticity/{kind}_share_q_network"] for kind in ("dead", "dormant")]
    assert shares == pytest.approx([dead, dormant], abs=0.01)


def test_the_limit_of_dead_neurons_is_a_setting(fit: Any) -> None:
    (row,) = rows_of(fit, Planted("Sigmoid"), {"dead_threshold": 0.26})
    assert row["plasticity/dead_share_q_network"] == 1  # the slope of a sigmoid is at most 0.25


def test_activations_that_are_not_finite_have_no_share_of_dead_neurons(fit: Any) -> None:
    module = Planted("ReLU")
    nn.init.constant_(module.q_network[0].bias, float("nan"))  # type: ignore[arg-type]  # a linear layer
    (row,) = rows_of(fit, module)
    assert row["plasticity/dead_share_q_network"] != row["plasticity/dead_share_q_network"]


def test_rows_follow_the_schedule_for_every_network_under_manual_optimization(fit: Any) -> None:
    rows = rows_of(fit, TinyActorCritic(batches=6), {"every_n_steps": 3})
    assert [row["time/updates"] for row in rows] == [3, 6]
    metrics = {key.removeprefix("plasticity/") for key in rows[0] if key.startswith("plasticity/")}
    weights = {f"{metric}_{name}" for metric in ("weight_norm", "update_to_weight") for name in ("actor", "critic")}
    assert metrics == weights | {"dormant_share_critic", "effective_rank_critic"}  # the actor has no hidden layer
    assert all(row["plasticity/update_to_weight_critic"] > 0 for row in rows)


def test_rows_describe_the_batch_that_steps_under_gradient_accumulation(fit: Any) -> None:
    rows = rows_of(fit, TinyQ(batches=8), accumulate_grad_batches=2)
    assert [row["time/updates"] for row in rows] == [2, 4]
    assert all(row["plasticity/update_to_weight_q_network"] > 0 for row in rows)


def test_networks_can_be_named_and_a_wrong_name_is_an_error_before_the_first_step(fit: Any) -> None:
    module = TinyQ(batches=2)
    (row,) = rows_of(fit, module, {"networks": ["q_network.0", "target_network"]})
    assert "plasticity/weight_norm_q_network_0" in row
    assert not any("weight_norm_target" in key for key in row)  # nothing trains it
    untouched = TinyQ(batches=2)
    with pytest.raises(ConfigError, match=r"plasticity.networks names 'q_netwrok', .*Did you mean 'q_network'"):
        rows_of(fit, untouched, {"networks": ["q_netwrok"]})
    assert untouched.env_steps == 0


def test_a_network_copied_within_a_recorded_batch_has_no_hooks(fit: Any) -> None:
    class Copies(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            outputs = super().training_step(batch, batch_idx)
            self.copied = copy.deepcopy(self.q_network)
            return outputs

    module = Copies(batches=2)
    rows_of(fit, module)
    assert not any(part._forward_hooks for part in module.copied.modules())


def test_only_the_weights_of_compiled_networks_are_measured(fit: Any) -> None:
    module = TinyQ(batches=2)
    module.q_network = torch.compile(module.q_network, backend="eager")  # type: ignore[assignment]  # a compiled module
    (row,) = rows_of(fit, module)
    keys = {key for key in row if key.startswith("plasticity/")}
    assert keys == {"plasticity/weight_norm_q_network", "plasticity/update_to_weight_q_network"}


def test_nonfinite_activations_do_not_end_training(fit: Any) -> None:
    class NaN(TinyQ):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.q_network(batch[0]).mean() * float("nan")}

    rows = rows_of(fit, NaN(batches=4))
    assert rows[1]["plasticity/dormant_share_q_network"] != rows[1]["plasticity/dormant_share_q_network"]
    assert "plasticity/effective_rank_q_network" not in rows[1]


def test_a_network_that_cannot_be_measured_does_not_end_training(fit: Any) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[..., 0:1] @ self.weight[:1]).squeeze()[0, 0]

    class WithOdd(TinyQ):
        def __init__(self) -> None:
            super().__init__(batches=2)
            self.odd = nn.Sequential(Odd(), nn.ReLU())

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": self.odd(batch[0])}

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.warns(UserWarning, match="Measuring plasticity failed"):
        fit(WithOdd(), PlasticityCallback({"plasticity": {"every_n_steps": 2}}, tracker=MemoryTracker()))


def test_it_is_part_of_the_group_when_enabled(fit: Any) -> None:
    settings = {"on_error": "raise", "plasticity": {"enabled": True, "every_n_steps": 4}}
    fit(TinyQ(), WandbRLCallback(settings))
    run = read_offline_run("wandb")
    assert [row["time/updates"] for row in run.history if "plasticity/dormant_share_q_network" in row] == [4, 8]
    assert not [part for part in WandbRLCallback().callbacks if isinstance(part, PlasticityCallback)]


def test_hooks_are_removed_after_an_exception_within_a_batch(fit: Any) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        rows_of(fit, RaisesInTraining(), {"every_n_steps": 1})
    assert not nn.modules.module._global_forward_hooks
