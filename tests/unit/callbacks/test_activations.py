"""Activations of many kinds of networks are recorded, and the networks are left unchanged."""

from __future__ import annotations

import contextlib
import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from rlwandb_callbacks.callbacks.plasticity.activations import (
    ActivationRecorder,
    ForwardPass,
    is_compiled,
    is_layer,
    mean_activation,
    sampled_rows,
)

OBSERVATIONS = torch.linspace(-1, 1, 24).reshape(6, 4)


def recorded(network: nn.Module, *batches: torch.Tensor) -> ForwardPass:
    recorder = ActivationRecorder({"network": network}, contextlib.nullcontext)
    try:
        for batch in batches or (OBSERVATIONS,):
            network(batch)
    finally:
        recorder.close()
    return recorder.passes["network"]


def sizes(forward: ForwardPass) -> list[int]:
    return [len(layer) for layer in forward.activations]


def test_activations_are_module_outputs_and_features_the_input_of_the_last_layer() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2), nn.Tanh())
    forward = recorded(network)
    hidden = network[:2](OBSERVATIONS)
    features = network[:4](OBSERVATIONS)
    assert sizes(forward) == [5, 3]
    assert torch.allclose(forward.activations[0], hidden.abs().mean(0))
    assert torch.allclose(forward.activations[1], features.abs().mean(0))
    assert forward.features is not None
    assert torch.equal(forward.features, features)
    assert not forward.features.requires_grad


class Functional(nn.Module):
    """The same network with functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x), inplace=True)
        return self.third(functional.relu(self.second(x)))


def test_activation_functions_are_read_from_the_input_of_the_next_layer() -> None:
    network = Functional()
    forward = recorded(network)
    hidden = functional.relu(network.first(OBSERVATIONS))
    assert sizes(forward) == [5, 3]
    assert torch.allclose(forward.activations[0], hidden.abs().mean(0))


def test_inplace_activations_and_one_module_for_all_layers() -> None:
    relu = nn.ReLU(inplace=True)
    forward = recorded(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), relu, nn.Linear(5, 3), relu, nn.Linear(3, 2)))
    assert sizes(forward) == [5, 3]
    assert all((layer >= 0).all() for layer in forward.activations)


@pytest.mark.parametrize("with_modules", [True, False])
def test_a_channel_of_a_convolution_is_one_neuron(with_modules: bool) -> None:
    class Convolutional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), nn.Linear(4 * 4 * 4, 2)
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            relu = self.relu if with_modules else functional.relu
            return self.head(relu(self.second(relu(self.first(x)))).flatten(1))

    network, images = Convolutional(), torch.rand(5, 1, 8, 8)
    nn.init.constant_(network.second.weight[1], 0)
    nn.init.constant_(network.second.bias[1:2], -1)
    forward = recorded(network, images)
    assert sizes(forward) == [3, 4]
    assert forward.activations[1][1] == 0
    assert forward.features is not None
    assert forward.features.shape == (5, 64)


def test_two_heads_share_one_hidden_layer() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.mean, self.std = nn.Linear(4, 5), nn.Linear(5, 1), nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = torch.tanh(self.body(x))
            return self.mean(features) + self.std(features)

    assert sizes(recorded(Heads())) == [5]


def test_twin_critics_in_one_network_have_separate_hidden_layers() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q1 = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
            self.q2 = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.q1(x) + self.q2(x * 1)

    assert sizes(recorded(Twins())) == [5, 6]


def test_recurrent_layers_and_custom_layers() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mu = nn.Parameter(torch.ones(6, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.mu

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.head = nn.GRU(4, 6), Noisy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.memory(x)[0])

    forward = recorded(Recurrent())
    assert sizes(forward) == [6]
    assert forward.features is not None
    assert forward.features.shape == (6, 6)


def test_only_the_first_pass_with_gradients_is_recorded() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    recorder = ActivationRecorder({"network": network}, contextlib.nullcontext)
    with torch.no_grad():
        network(OBSERVATIONS[:1])
    network(OBSERVATIONS)
    network(OBSERVATIONS * 100)
    recorder.close()
    forward = recorder.passes["network"]
    assert sizes(forward) == [5]
    assert torch.allclose(forward.activations[0], network[:2](OBSERVATIONS).abs().mean(0))
    assert forward.features is not None
    assert len(forward.features) == 6


def test_a_network_without_hidden_layers_has_no_activations() -> None:
    forward = recorded(nn.Linear(4, 2))
    assert (forward.activations, forward.features) == ([], None)


def test_networks_can_be_pickled_and_copied_while_recorded_and_keep_no_hooks() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    recorder = ActivationRecorder({"network": network}, contextlib.nullcontext)
    copied = copy.deepcopy(network)
    pickle.loads(pickle.dumps(network))
    recorder.close()
    assert not any(part._forward_hooks for one in (network, copied) for part in one.modules())
    assert not nn.modules.module._global_forward_hooks


def test_layers_and_compiled_modules_are_recognized() -> None:
    assert is_layer(nn.Linear(1, 1))
    assert not any(is_layer(one) for one in (nn.ReLU(), nn.LayerNorm([2, 2]), nn.Sequential(nn.Linear(1, 1))))
    network = nn.Sequential(nn.Linear(1, 1))
    assert not is_compiled(network)
    assert is_compiled(nn.ModuleList([torch.compile(network, backend="eager")]))
    network.compile(backend="eager")
    assert is_compiled(network)


def test_rows_of_sequences_and_images() -> None:
    assert sampled_rows(torch.zeros(2, 3, 5), count=9).shape == (6, 5)
    assert sampled_rows(torch.zeros(2, 3, 4, 5), count=9).shape == (2, 60)
    assert sampled_rows(torch.zeros(5), count=9).shape == (1, 5)
    assert mean_activation(torch.ones(5)).tolist() == [[1.0] * 5]


def test_rows_are_evenly_spaced_whatever_the_default_dtype_is() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        rows = sampled_rows(torch.arange(1000, dtype=torch.float64)[:, None], count=512).ravel()
    finally:
        torch.set_default_dtype(before)
    assert (rows[0], rows[-1], set(rows.diff().tolist())) == (0, 999, {1, 2})
