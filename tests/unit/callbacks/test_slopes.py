"""The share of dead neurons is the planted one for every activation function and however it is called."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rlwandb_callbacks.callbacks.plasticity import slopes
from rlwandb_callbacks.callbacks.plasticity.activations import ActivationRecorder, ForwardPass
from rlwandb_callbacks.callbacks.plasticity.measures import dead_fraction, dormant_fraction
from rlwandb_callbacks.callbacks.plasticity.slopes import is_checkpointing, ones_like_output, ones_like_saved

_FLAT_BELOW = """
    ReLU GELU LeakyReLU ELU SiLU Tanh Sigmoid Softplus Mish Hardtanh CELU SELU ReLU6 Hardswish Hardsigmoid Softsign
"""
_FLAT_ABOVE = "Tanh Sigmoid Hardtanh ReLU6 Hardsigmoid Softsign LogSigmoid"
FLAT_BELOW, FLAT_ABOVE = _FLAT_BELOW.split(), _FLAT_ABOVE.split()  # flat for very negative and very positive inputs
Module = Callable[[torch.Tensor], torch.Tensor]


def observations(rows: int = 256, *, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(rows, 16, generator=torch.Generator().manual_seed(0))


def layer(inputs: int = 16, outputs: int = 64, *, dead: float = 0.0, bias: float = -10.0) -> nn.Linear:
    """Layer whose pre-activations have a standard deviation of about 1, around ``bias`` for the share ``dead``."""
    linear = nn.Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(1)) * inputs**-0.5)
        linear.bias.zero_()
        linear.bias[: int(dead * outputs)] = bias
    return linear


class Net(nn.Module):
    """Network with a forward function of its own."""

    def __init__(self, function: Callable[..., torch.Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def recorded(network: nn.Module, batch: torch.Tensor) -> ForwardPass:
    recorder = ActivationRecorder({"network": network}, contextlib.nullcontext)
    try:
        network(batch)
    finally:
        recorder.close()
    return recorder.passes["network"]


def dead_share(network: nn.Module, batch: torch.Tensor | None = None) -> float | None:
    forward = recorded(network, observations() if batch is None else batch)
    return dead_fraction([slope.float().numpy() for slope in forward.mean_slopes()])


def dormant_share(network: nn.Module, batch: torch.Tensor | None = None) -> float | None:
    forward = recorded(network, observations() if batch is None else batch)
    return dormant_fraction([layer.numpy() for layer in forward.activations])


def with_activation(first: nn.Linear, activation: Module) -> Net:
    return Net(lambda net, x: net.last(activation(net.first(x))), first=first, last=nn.Linear(first.out_features, 3))


@pytest.mark.parametrize("name", sorted({*FLAT_BELOW, *FLAT_ABOVE, "PReLU"}))
def test_no_neuron_of_a_healthy_layer_is_dead_for_any_scale_of_the_inputs(name: str) -> None:
    network = nn.Sequential(layer(), getattr(nn, name)(), nn.Linear(64, 3))
    assert [dead_share(network, observations(scale=scale)) for scale in (1.0, 0.01)] == [0, 0]


@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize(
    ("name", "bias"), [*((name, -10.0) for name in FLAT_BELOW), *((name, 10.0) for name in FLAT_ABOVE)]
)
def test_neurons_on_the_flat_side_of_any_activation_function_are_dead(name: str, bias: float, share: float) -> None:
    pre = layer(dead=share, bias=4 * bias)
    assert dead_share(nn.Sequential(pre, getattr(nn, name)(), nn.Linear(64, 3))) == share


def test_mean_slopes_are_those_of_finite_differences() -> None:
    functions: list[Module] = [
        torch.tanh,
        functional.gelu,
        lambda x: x * torch.sigmoid(x),
        lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3))),
        lambda x: torch.where(x > 0, x, 0.1 * x),
        lambda x: 1 / (1 + torch.exp(-x)),
        lambda x: functional.relu(x) ** 2,
        torch.sin,
        lambda x: x.clamp(min=-0.5, max=0.5),
    ]
    first, step = layer(), 1e-5
    pre = first.double()(observations().double()).detach()
    for function in functions:
        network = with_activation(first, function).double()
        (measured,) = recorded(network, observations().double()).mean_slopes()
        expected = ((function(pre + step) - function(pre - step)) / (2 * step)).abs().mean(0)
        assert torch.allclose(measured.double(), expected, atol=1e-4)


def test_the_function_closest_to_the_layer_counts() -> None:
    first = layer()
    network = nn.Sequential(first, nn.Tanh(), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 3))
    (measured,) = recorded(network, observations()).mean_slopes()
    assert torch.allclose(measured, (1 - torch.tanh(first(observations())) ** 2).mean(0), atol=1e-5)


def test_one_loud_neuron_makes_no_other_dead() -> None:
    loud = layer(outputs=256)
    with torch.no_grad():
        loud.weight[0] *= 20_000
    network = nn.Sequential(loud, nn.ReLU(), nn.Linear(256, 3))
    assert (dead_share(network), dormant_share(network)) == (0, 255 / 256)


@pytest.mark.parametrize(
    "activation",
    [
        functional.relu,
        lambda x: functional.relu(x, inplace=True),
        lambda x: x.relu_(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(inplace=True),
        nn.Sequential(nn.Identity(), nn.ReLU()),
    ],
)
def test_functions_and_in_place_functions_have_the_slopes_of_modules(activation: Module) -> None:
    assert dead_share(with_activation(layer(dead=0.5), activation)) == 0.5


def test_in_place_modules_on_sequences_overwrite_a_view() -> None:
    network = nn.Sequential(layer(dead=0.5), nn.ReLU(inplace=True), nn.Linear(64, 3))
    assert dead_share(network, observations().reshape(32, 8, 16)) == 0.5


def test_one_activation_module_serves_all_layers() -> None:
    tanh = nn.Tanh()
    network = nn.Sequential(layer(dead=0.5), tanh, layer(64, 64, dead=0.25), tanh, nn.Linear(64, 3))
    assert dead_share(network) == 0.375


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_slopes_are_those_at_the_output_of_a_norm(norm: Callable[[int], nn.Module]) -> None:
    shifted: Any = norm(64)
    nn.init.constant_(shifted.bias[:16], -10)
    network = nn.Sequential(layer(), shifted, nn.ReLU(), nn.LayerNorm(64), nn.Dropout(0.1), nn.Linear(64, 3))
    assert dead_share(network, observations(scale=1000)) == 0.25


def test_channels_of_convolutions_are_neurons() -> None:
    def conv(inputs: int, outputs: int, dead: int) -> nn.Conv2d:
        convolution = nn.Conv2d(inputs, outputs, 3)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # it has a bias
        nn.init.constant_(convolution.bias[:dead], -10)  # type: ignore[index]  # as above
        return convolution

    def network(*between: nn.Module) -> nn.Module:
        return nn.Sequential(conv(3, 4, 1), *between, conv(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))

    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert dead_share(network(nn.ReLU()), images) == 3 / 8
    assert dead_share(network(nn.BatchNorm2d(4), nn.Tanh()), images) == 2 / 8
    pooled = nn.Sequential(conv(3, 4, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert dead_share(pooled, images) == 1 / 4
    upwards = nn.Sequential(
        layer(16, 4 * 9, dead=0.25), nn.Unflatten(1, (4, 3, 3)), nn.ReLU(), nn.ConvTranspose2d(4, 1, 3)
    )
    assert dead_share(upwards) == 1 / 4
    last = Net(lambda net, x: net.last(torch.relu(net.first(x).permute(0, 2, 3, 1))), first=conv(3, 4, 1))
    last.last = nn.Linear(4, 2)
    assert dead_share(last, images) == 1 / 4
    assert dead_share(network(nn.ReLU()), images[:1].repeat(12, 1, 1, 1)) is None


def test_members_of_an_ensemble_have_their_own_neurons() -> None:
    class Ensemble(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, inputs, outputs) * inputs**-0.5)
            self.bias = nn.Parameter(torch.zeros(4, 1, outputs))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.baddbmm(self.bias, x.expand(4, -1, -1), self.weight)

    first = Ensemble(16, 64)
    nn.init.constant_(first.bias[1], -10)
    network = nn.Sequential(first, nn.ReLU(), Ensemble(64, 1))
    assert (dead_share(network), dormant_share(network)) == (0.25, 0.25)
    features = recorded(network, observations()).features
    assert features is not None
    assert torch.equal(features, network[:2](observations())[0])


@pytest.mark.parametrize("parametrization", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrized_layers_are_layers(parametrization: str) -> None:
    first = getattr(nn.utils.parametrizations, parametrization)(layer(dead=0.5))
    assert dead_share(nn.Sequential(first, nn.ReLU(), nn.Linear(64, 3))) == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision(dtype: torch.dtype) -> None:
    network = nn.Sequential(layer(dead=0.5), nn.Tanh(), nn.Linear(64, 3)).to(dtype)
    assert dead_share(network, observations().to(dtype)) == 0.5


def test_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert dead_share(nn.Sequential(layer(dead=0.5), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 3))) == 0.5


def test_branches_and_residual_connections_count_each_layer_once() -> None:
    branches = Net(
        lambda net, x: net.value(torch.tanh(net.left(h := torch.relu(net.body(x))))) + net.adv(net.right(h).tanh()),
        body=layer(dead=0.25),
        left=layer(64, 64, dead=0.5),
        right=layer(64, 64),
        value=nn.Linear(64, 1),
        adv=nn.Linear(64, 3),
    )
    assert dead_share(branches) == 0.25
    residual = Net(
        lambda net, x: net.last(functional.relu(net.skip(x)) + net.out(functional.relu(net.inner(x)))),
        skip=layer(dead=0.25),
        inner=layer(dead=0.75),
        out=nn.Linear(64, 64),  # linear: has no slope
        last=nn.Linear(64, 3),
    )
    assert dead_share(residual) == 0.5


def test_inputs_with_gradients_are_no_neurons() -> None:
    critic = nn.Sequential(layer(dead=0.5), nn.ReLU(), nn.Linear(64, 1))
    actions = observations().requires_grad_().clone()
    forward = recorded(critic, actions)
    assert [len(found) for found in forward.activations] == [64]
    assert dead_share(critic, actions) == 0.5
    assert recorded(nn.Linear(16, 1), actions).features is None


@pytest.mark.parametrize("rows", [1, 7])
def test_few_or_equal_rows_say_nothing(rows: int) -> None:
    network = nn.Sequential(layer(), nn.ReLU(), nn.Linear(64, 3))
    assert dead_share(network, observations(rows)) is None
    assert dead_share(network, observations(1).repeat(256, 1)) is None


def test_layers_below_dead_ones_get_equal_inputs_and_are_left_out() -> None:
    network = nn.Sequential(layer(dead=1.0), nn.ReLU(), layer(64, 64), nn.ReLU(), nn.Linear(64, 3))
    assert dead_share(network) == 1.0


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 3)),
        Net(lambda net, x: net.last(net.first(x)[0]), first=nn.LSTM(16, 8), last=nn.Linear(8, 3)),
        nn.Sequential(nn.GRUCell(16, 8), nn.Linear(8, 3)),
        nn.Sequential(nn.Linear(16, 16), nn.GLU(), nn.Linear(8, 3)),
        nn.Sequential(nn.Linear(16, 8), nn.Softmax(-1), nn.Linear(8, 3)),
        nn.Sequential(nn.Linear(16, 8), nn.Tanh()),
        nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).requires_grad_(False),
    ],
)
def test_linear_recurrent_gated_last_and_frozen_layers_have_no_slopes(network: nn.Module) -> None:
    assert dead_share(network) is None


def test_a_feature_layer_before_a_recurrent_one_is_read() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        last: torch.Tensor = net.last(net.memory(torch.relu(net.first(x)))[1][0][-1])
        return last

    network = Net(forward, first=layer(dead=0.5), memory=nn.LSTM(64, 8), last=nn.Linear(8, 3))
    assert dead_share(network, observations().reshape(64, 4, 16)) == 0.5


def test_networks_within_vmap_are_left_out() -> None:
    networks = [nn.Sequential(layer(), nn.ReLU(), nn.Linear(64, 3)) for _ in range(2)]
    parameters, buffers = stack_module_state(networks)
    base = networks[0]
    network = Net(
        lambda net, x: torch.vmap(lambda p, b: functional_call(net.base, (p, b), (x,)))(parameters, buffers), base=base
    )
    forward = recorded(network, observations())
    assert (forward.activations, forward.mean_slopes()) == ([], [])


def test_compiled_functions_contain_no_recording() -> None:
    network = nn.Sequential(layer(), nn.ReLU(inplace=True), nn.Linear(64, 3))
    compiled = torch.compile(network.forward, backend="eager", fullgraph=True)  # an error if something is not traced
    recorder = ActivationRecorder({"network": network}, contextlib.nullcontext)
    output = compiled(observations())
    recorder.close()
    assert torch.equal(output, network(observations()))


def test_checkpointed_layers_are_left_out_and_not_computed_again() -> None:
    calls: list[bool] = []

    def block(net: Any, x: torch.Tensor) -> torch.Tensor:
        calls.append(is_checkpointing(sys._getframe()))
        return torch.relu(net.first(x))

    network = Net(
        lambda net, x: net.last(torch.relu(net.second(checkpoint(block, net, x, use_reentrant=False)))),
        first=layer(),
        second=layer(64, 64, dead=0.5, bias=-100.0),
        last=nn.Linear(64, 3),
    )
    assert dead_share(network) == 0.5
    assert calls == [True]
    assert not is_checkpointing(sys._getframe())


def test_reading_slopes_runs_no_hook_draws_no_number_and_keeps_gradients() -> None:
    ran: list[object] = []
    relu = nn.RReLU()
    relu.register_full_backward_hook(lambda *arguments: ran.append(arguments))
    network = nn.Sequential(layer(dead=0.5), relu, nn.Linear(64, 3))
    gradients = []
    for record in (False, True):
        torch.manual_seed(0)
        network.zero_grad()
        recorder = ActivationRecorder({"network": network} if record else {}, contextlib.nullcontext)
        loss = network(observations()).sum()
        recorder.close()
        assert not ran
        loss.backward()
        ran.clear()
        gradients.append([torch.rand(1), *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_shape_of_an_output_is_known_without_metadata_of_nodes() -> None:
    x = observations().requires_grad_()
    for output in (torch.relu(x), functional.prelu(x, torch.ones(1)), torch.where(x > 0, x, 0), x / (1 + x.abs())):
        for ones in (ones_like_saved(output.grad_fn), ones_like_output(output.grad_fn)):
            assert ones is not None
            assert torch.equal(ones, torch.ones_like(x))
    assert ones_like_saved((x - x.abs()).grad_fn) is None
    older_node = SimpleNamespace(_saved_self=torch.zeros(3))
    ones = ones_like_output(older_node)
    assert ones is not None
    assert ones.tolist() == [1, 1, 1]


def test_slopes_are_unknown_where_no_output_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slopes, "ones_like_output", ones_like_saved)
    assert dead_share(nn.Sequential(layer(), nn.Tanhshrink(), nn.Linear(64, 3))) is None
    assert dead_share(nn.Sequential(layer(dead=0.5), nn.Tanh(), nn.Linear(64, 3))) == 0.5


def test_very_long_ways_between_layers_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slopes, "MAX_NODES", 20)
    network = with_activation(layer(), torch.tanh)
    assert dead_share(network) == 0
    network = with_activation(layer(), lambda x: sum([x.tanh(), *(0 * x for _ in range(30))], torch.zeros(())))
    assert dead_share(network) is None


def test_an_in_place_function_with_noise_is_not_run_again() -> None:
    network = nn.Sequential(layer(), nn.RReLU(inplace=True), nn.Linear(64, 3))
    torch.manual_seed(0)
    expected = network(observations().reshape(32, 8, 16))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    recorder = ActivationRecorder({"network": network}, contextlib.nullcontext)
    assert torch.equal(network(observations().reshape(32, 8, 16)), expected)
    recorder.close()
    assert torch.equal(torch.get_rng_state(), state)
