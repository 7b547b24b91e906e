from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlwandb_callbacks.callbacks.evaluation.discount import find_discount
from rlwandb_callbacks.callbacks.metrics.gradient_norms import gradient_norm
from rlwandb_callbacks.callbacks.metrics.learning_rates import LearningRates
from rlwandb_callbacks.callbacks.metrics.numbers import as_tensor, reduce_over_ranks, to_numbers
from rlwandb_callbacks.callbacks.optimizer_steps import OptimizerSteps
from rlwandb_callbacks.callbacks.trained_parameters import trained_parameters
from rlwandb_callbacks.testing import TinyQ


def learning_rates(optimizers: Any, module: Any) -> dict[str, float]:
    return LearningRates().read(optimizers, module, OptimizerSteps())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (2.5, 2.5),
        (True, 1.0),
        (torch.tensor(4), 4.0),
        (torch.tensor([1, 2]), 1.5),
        (torch.tensor([True, False, False, False]), 0.25),
        (torch.tensor([[1.0, 2.0], [3.0, 6.0]]), 3.0),
        (torch.tensor([1.0, 2.0]).half(), 1.5),
        (torch.tensor([1.0, 2.0]).bfloat16(), 1.5),
        (torch.tensor([1.0, 3.0], requires_grad=True), 2.0),
        (np.array([1.0, 2.0]), 1.5),
        (np.float32(0.5), 0.5),
        (np.array([1, 2], np.uint8), 1.5),
        ([1, 2, 6], 3.0),
        ((1.0,), 1.0),
        ([torch.tensor(1.0), torch.tensor(3.0)], 2.0),
    ],
)
def test_each_kind_of_value_is_averaged(value: Any, expected: float) -> None:
    assert to_numbers({"loss": value}) == {"loss": expected}


def test_tensors_with_a_graph_are_read_also_in_lists() -> None:
    weight = torch.tensor([1.0, 3.0], requires_grad=True)
    numbers = to_numbers(
        {"loss": weight.sum(), "q_value": [2 * weight, weight], "entropy": (weight.sum(), weight.mean())}
    )
    assert numbers == {"loss": 4.0, "q_value": 3.0, "q_value_min": 1.0, "q_value_max": 6.0, "entropy": 3.0}


@pytest.mark.parametrize(
    "value",
    [None, "text", {}, {"a": 1}, [], torch.empty(0), np.empty(0), torch.tensor(1j), object(), [[1, 2], [3]], ["a"]],
)
def test_values_without_numbers_are_left_out(value: Any) -> None:
    assert to_numbers({"loss": 1.0, "odd": value, "entropy": 2.0}) == {"loss": 1.0, "entropy": 2.0}


def test_nan_and_infinity_are_kept() -> None:
    numbers = to_numbers({"loss": torch.tensor(math.nan), "entropy": math.inf})
    assert math.isnan(numbers["loss"])
    assert numbers["entropy"] == math.inf


@pytest.mark.parametrize("name", ["q_value", "target_q_value"])
def test_q_values_of_several_states_have_a_range(name: str) -> None:
    values = torch.tensor([[1.0, 5.0], [-3.0, 1.0]])
    assert to_numbers({name: values}) == {name: 1.0, f"{name}_min": -3.0, f"{name}_max": 5.0}
    assert to_numbers({name: torch.tensor([2.0])}) == {name: 2.0}
    assert to_numbers({"td_error": values}) == {"td_error": 1.0}


def test_large_integers_are_not_rounded() -> None:
    assert to_numbers({"steps": torch.tensor(123_456_789), "loss": torch.tensor(0.1)})["steps"] == 123_456_789.0


def test_names_keep_their_order() -> None:
    assert list(to_numbers({"td_error": 1, "q_value": [1, 2], "loss": 3})) == [
        "td_error",
        "q_value",
        "q_value_min",
        "q_value_max",
        "loss",
    ]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float32])
def test_tensors_of_all_types_are_averaged_on_their_device(dtype: torch.dtype) -> None:
    values = torch.ones(2, dtype=dtype, device="meta")
    assert as_tensor(values).mean().device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_means_are_not_rounded_to_half_precision_on_other_devices(dtype: torch.dtype) -> None:
    tensor = as_tensor(torch.empty(2, dtype=dtype, device="meta"))
    assert tensor is not None
    assert tensor.mean().dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_values_of_several_devices_and_types_are_read_together() -> None:
    numbers = to_numbers(
        {
            "loss": torch.tensor(0.5, device="cuda"),
            "length": torch.tensor([3, 4], device="cuda"),
            "done": torch.tensor([True, False], device="cuda"),
            "q_value": torch.tensor([1.0, 3.0], device="cuda", dtype=torch.bfloat16),
            "entropy": torch.tensor(2.0),
        }
    )
    assert numbers == {
        "loss": 0.5,
        "length": 3.5,
        "done": 0.5,
        "q_value": 2.0,
        "q_value_min": 1.0,
        "q_value_max": 3.0,
        "entropy": 2.0,
    }


class Agent(nn.Module):
    """An actor and a critic that share a body."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        self.critic = nn.ModuleDict({"first": nn.Linear(1, 1), "second": nn.Linear(1, 1)})
        self.log_alpha = nn.Parameter(torch.zeros(()))


def sgd(parameters: Any, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def groups(*parts: tuple[nn.Module, float]) -> list[dict[str, Any]]:
    return [{"params": list(module.parameters()), "lr": lr} for module, lr in parts]


def test_the_rate_of_a_single_group_is_lr() -> None:
    agent = Agent()
    assert learning_rates([sgd(agent.parameters(), 0.25)], agent) == {"lr": 0.25}


def test_the_groups_of_an_optimizer_are_numbered() -> None:
    agent = Agent()
    optimizer = sgd(groups((agent.actor, 0.1), (agent.critic, 0.2)))
    assert learning_rates([optimizer], agent) == {"lr": 0.1, "lr_pg0": 0.1, "lr_pg1": 0.2}


def test_optimizers_are_named_after_the_part_that_they_train() -> None:
    agent = Agent()
    optimizers = [
        sgd(agent.actor.parameters(), 0.1),
        sgd(groups((agent.critic["first"], 0.2), (agent.critic["second"], 0.3))),
        sgd([agent.log_alpha], 0.4),
    ]
    assert learning_rates(optimizers, agent) == {
        "lr": 0.1,
        "lr_actor": 0.1,
        "lr_critic_pg0": 0.2,
        "lr_critic_pg1": 0.3,
        "lr_log_alpha": 0.4,
    }


def test_parts_with_a_common_prefix_have_different_names() -> None:
    agent = Agent()
    optimizers = [sgd(network.parameters(), lr) for network, lr in zip(agent.critic.values(), (0.1, 0.2), strict=True)]
    assert learning_rates(optimizers, agent) == {"lr": 0.1, "lr_critic_first": 0.1, "lr_critic_second": 0.2}


def test_optimizers_of_the_same_part_are_numbered() -> None:
    agent = Agent()
    optimizers = [sgd(agent.actor[0].parameters(), 0.1), sgd(agent.actor[1].parameters(), 0.2)]
    assert learning_rates(optimizers, agent) == {"lr": 0.1, "lr_actor_0": 0.1, "lr_actor_1": 0.2}


def test_an_index_in_a_list_of_layers_is_not_a_name() -> None:
    agent = Agent()
    optimizers = [sgd(agent.actor[1].parameters(), 0.1), sgd(agent.critic.parameters(), 0.2)]
    assert learning_rates(optimizers, agent) == {"lr": 0.1, "lr_actor": 0.1, "lr_critic": 0.2}


def test_optimizers_of_all_or_of_foreign_parameters_are_numbered() -> None:
    agent = Agent()
    optimizers = [sgd(agent.parameters(), 0.1), sgd([torch.zeros(1, requires_grad=True)], 0.2)]
    assert learning_rates(optimizers, agent) == {"lr": 0.1, "lr_optimizer0": 0.1, "lr_optimizer1": 0.2}


def test_lr_follows_a_scheduler() -> None:
    agent = Agent()
    optimizer = sgd(agent.parameters(), 0.8)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    assert learning_rates([optimizer], agent) == {"lr": 0.4}


def test_without_optimizers_there_is_no_lr() -> None:
    assert learning_rates([], Agent()) == {}


def test_names_follow_a_parameter_group_that_is_added_later() -> None:
    agent, rates = Agent(), LearningRates()
    optimizer = sgd(groups((agent.actor, 0.1), (agent.critic["first"], 0.2)))
    assert list(rates.read([optimizer], agent, OptimizerSteps())) == ["lr", "lr_pg0", "lr_pg1"]
    optimizer.add_param_group({"params": [agent.log_alpha], "lr": 0.3})
    assert rates.read([optimizer], agent, OptimizerSteps()) == {"lr": 0.1, "lr_pg0": 0.1, "lr_pg1": 0.2, "lr_pg2": 0.3}


def parameter_with(gradient: torch.Tensor | None) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float32 if gradient is None else gradient.dtype))
    parameter.grad = gradient
    return parameter


def test_the_gradient_norm_is_that_of_all_gradients_together() -> None:
    parameters = [
        parameter_with(torch.tensor([3.0, 0.0])),
        parameter_with(None),
        parameter_with(torch.tensor([0.0, -4.0])),
    ]
    assert gradient_norm(parameters).item() == pytest.approx(5.0)


def test_the_gradient_norm_equals_that_of_gradient_clipping() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    network(torch.randn(7, 3)).square().sum().backward()
    norm = gradient_norm(network.parameters())
    assert norm.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-3).item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_gradient_norm_of_other_floating_types(dtype: torch.dtype) -> None:
    parameters = [parameter_with(torch.tensor([3.0, 4.0], dtype=dtype)), parameter_with(torch.tensor([0.0, 12.0]))]
    assert gradient_norm(parameters).item() == pytest.approx(13.0)


def test_the_norm_of_half_precision_gradients_may_exceed_their_range() -> None:
    parameters = [parameter_with(torch.tensor([60_000.0, 0.0]).half()) for _ in range(2)]
    assert gradient_norm(parameters).item() == pytest.approx(60_000 * math.sqrt(2))


def test_repeated_rows_of_a_sparse_gradient_are_added_first() -> None:
    embedding = nn.Embedding(5, 1, sparse=True)
    embedding(torch.tensor([3, 3, 1])).sum().backward()
    assert gradient_norm(embedding.parameters()).item() == pytest.approx(math.sqrt(2**2 + 1))


def test_without_gradients_there_is_no_norm() -> None:
    assert gradient_norm([]) is None
    assert gradient_norm([parameter_with(None)]) is None


def test_the_gradient_norm_has_no_graph() -> None:
    parameter = parameter_with(torch.tensor([3.0, 4.0], requires_grad=True))
    assert not gradient_norm([parameter]).requires_grad


def test_trained_parameters_need_gradients_and_belong_to_an_optimizer() -> None:
    module = TinyQ()
    module.q_network[0].bias.requires_grad_(False)
    trained = trained_parameters([module.configure_optimizers(), sgd(module.target_network.parameters())], module)
    assert list(trained) == ["q_network.0.weight", "q_network.2.weight", "q_network.2.bias"]
    assert trained["q_network.2.bias"] is module.q_network[2].bias
    assert trained_parameters([], module) == {}


def test_names_do_not_depend_on_compilation() -> None:
    module = nn.ModuleDict({"q": nn.ModuleDict({"_orig_mod": nn.Linear(1, 1)})})
    assert list(trained_parameters([sgd(module.parameters())], module)) == ["q.weight", "q.bias"]


@pytest.mark.parametrize(
    ("configured", "hyper_parameters", "attribute", "expected"),
    [
        (0.5, {"gamma": 0.6}, 0.7, 0.5),
        (0.0, {"gamma": 0.6}, 0.7, 0.0),
        (None, {"gamma": 0.6}, 0.7, 0.6),
        (None, {}, 0.7, 0.7),
        (None, {}, None, None),
        (None, {"gamma": 1}, None, 1.0),
        (None, {"gamma": "high"}, 0.7, 0.7),
        (None, {"gamma": torch.tensor(0.5)}, None, 0.5),
        (None, {"gamma": torch.ones(2)}, 0.7, 0.7),
        (None, {"gamma": 5.0}, None, None),
        (None, {"gamma": True}, None, None),
    ],
)
def test_gamma_comes_from_the_config_else_from_the_module(
    configured: float | None, hyper_parameters: dict[str, Any], attribute: float | None, expected: float | None
) -> None:
    module = nn.Module()
    module.hparams = hyper_parameters
    if attribute is not None:
        module.gamma = attribute
    assert find_discount(configured, module).gamma == expected


def test_gamma_of_a_plain_module_is_unknown() -> None:
    assert find_discount(None, nn.Linear(1, 1)) == (None, None)


def test_ranks_have_equal_weight_and_ranges_are_kept() -> None:
    ranks = [{"q": 1.0, "q_min": -1.0, "q_max": 2.0}, {"q": 2.0, "q_min": -4.0, "q_max": 1.0}, {"q": 6.0}]
    assert reduce_over_ranks(ranks) == {"q": 3.0, "q_min": -4.0, "q_max": 2.0}


def test_one_rank_keeps_its_numbers_and_their_order() -> None:
    assert list(reduce_over_ranks([{"b": 1.0, "a": 2.0}]).items()) == [("b", 1.0), ("a", 2.0)]
    assert reduce_over_ranks([{}, {}]) == {}


def test_nan_on_one_rank_is_nan_on_all() -> None:
    assert math.isnan(reduce_over_ranks([{"loss": math.nan}, {"loss": 1.0}])["loss"])
