"""Measures of plasticity on inputs with known results."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlwandb_callbacks.callbacks.plasticity.measures import (
    dead_fraction,
    dormant_fraction,
    effective_rank,
    total_norm,
    update_to_weight,
)


def test_neurons_up_to_the_threshold_times_the_mean_of_their_layer_are_dormant() -> None:
    loud, quiet = np.array([4.0, 4.0, 0.1, 0.0]), np.array([4e-3, 4e-3, 1e-4, 0.0])  # means 2.025 and 2.025e-3
    assert dormant_fraction([loud], threshold=0.025) == 0.25
    assert dormant_fraction([loud], threshold=0.1 / 2.025) == 0.5
    assert dormant_fraction([loud, quiet], threshold=0.025) == 0.25
    assert dormant_fraction([loud, np.ones(12)]) == 1 / 16


def test_neurons_below_the_threshold_are_dead_whatever_the_others_are() -> None:
    assert dead_fraction([np.array([0.025, 0.0249, 0.0, 1e6])]) == 0.5
    assert dead_fraction([np.array([0.2, 0.0]), np.ones(2)], threshold=0.25) == 0.5
    assert dead_fraction([]) is None
    assert math.isnan(dead_fraction([np.array([np.nan, 1.0])]) or 0)


@pytest.mark.parametrize("fan_in", [64, 256])
def test_the_first_update_of_adam_is_large_for_any_loss(fan_in: int) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(fan_in, 256, bias=False)
    before = layer.weight.detach().clone()
    layer(torch.randn(32, fan_in)).square().mean().backward()
    torch.optim.Adam(layer.parameters(), lr=1e-3).step()
    update = (layer.weight.detach() - before).norm().numpy()
    ratio = update_to_weight(update[None], before.norm().numpy()[None])
    assert ratio == pytest.approx(1e-3 * math.sqrt(3 * fan_in), rel=0.02)


@pytest.mark.parametrize(("inputs", "rank"), [(256, 449), (8, 394)])
def test_effective_rank_of_healthy_features_grows_with_the_rows(inputs: int, rank: int) -> None:
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(512, inputs)) @ rng.normal(size=(inputs, 512)), 0)
    assert effective_rank(features[:16]) == 16
    assert effective_rank(features) == pytest.approx(rank, abs=8)


def test_a_layer_without_activation_is_dormant() -> None:
    assert dormant_fraction([np.zeros(3), np.ones(1)], threshold=0.0) == 0.75
    assert dormant_fraction([]) is None
    assert math.isnan(dormant_fraction([np.array([np.nan, 1.0])]) or 0)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_features_of_known_rank(rank: int) -> None:
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(32, rank)))[0], np.linalg.qr(rng.normal(size=(16, rank)))[0]
    assert effective_rank(left @ right.T) == rank
    assert effective_rank(1e-6 * left @ right.T + 0) == rank


@pytest.mark.parametrize(("delta", "rank"), [(0.005, 3), (0.02, 2), (0.4, 1)])
def test_effective_rank_leaves_out_a_fraction_of_the_singular_values(delta: float, rank: int) -> None:
    assert effective_rank(np.diag([60.0, 39.0, 1.0]), delta=delta) == rank


def test_effective_rank_of_zero_missing_and_nan_features() -> None:
    assert effective_rank(np.zeros((4, 3))) == 0
    assert effective_rank(np.zeros((0, 3))) is None
    assert effective_rank(np.full((2, 2), np.nan)) is None


def test_norms_are_those_of_all_parameters_together() -> None:
    assert total_norm(np.array([2.0, 3.0, 6.0])) == 7.0
    assert update_to_weight(np.array([0.0, 0.07]), np.array([7.0, 0.0])) == pytest.approx(0.01)
    assert update_to_weight(np.array([1.0]), np.array([0.0])) is None
