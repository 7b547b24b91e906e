from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from torch import nn
from wandb.integration.torch.wandb_torch import TorchHistory

from rlwandb_callbacks.callbacks.gradients.bins import count_bins, module_norms
from rlwandb_callbacks.callbacks.gradients.histograms import (
    gradient_copies,
    parameter_copies,
    tensor_histogram,
    tensor_row,
)
from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostArray, HostCopies, TensorCopies, as_floats, thinned
from rlwandb_callbacks.testing import read_offline_run


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def sparse(rows: list[int], values: list[float], size: int = 6) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (size,), check_invariants=True)


TENSORS: dict[str, torch.Tensor] = {
    "normal": drawn(33, 7),
    "large": drawn(300, 701),
    "cubed": drawn(50_000) ** 3,
    "far from zero": 1000 + drawn(5000) * 1e-3,
    "small": drawn(999) * 1e-20,
    "smaller than normal numbers": drawn(999) * 1e-43,
    "huge": drawn(999) * 1e35,
    "one": torch.tensor([2.5]),
    "scalar": torch.tensor(-3.0),
    "two": torch.tensor([0.1, 0.7]),
    "constant": torch.full((4, 4), 0.1),
    "zero": torch.zeros(5),
    "empty": torch.zeros(0),
    "whole numbers": torch.arange(65.0).repeat(3),
    "mostly zero": torch.relu(drawn(5000)),
    "half": drawn(400, dtype=torch.float16),
    "brain": drawn(400, dtype=torch.bfloat16),
    "double": drawn(400, dtype=torch.float64) * 1e-3,
    "complex": torch.complex(drawn(300), drawn(301)[1:]),
    "transposed": drawn(30, 40).t(),
    "channels last": drawn(4, 3, 5, 6).contiguous(memory_format=torch.channels_last),
    "with holes": torch.tensor([1.0, math.nan, math.inf, 4.0, -math.inf, 2.0]),
    "one finite": torch.tensor([math.nan, 2.0, math.inf]),
    "nothing finite": torch.tensor([math.nan, math.inf, -math.inf]),
    "sparse": sparse([1, 4, 1], [1.0, -2.0, 3.0]),
    "sparse and positive": sparse([1, 4], [1.0, 2.0]),
    "sparse and negative": sparse([0, 5], [-1.0, -2.0]),
    "sparse and zero": sparse([0, 5], [0.0, 0.0]),
    "sparse and full": sparse(list(range(6)), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "sparse and empty": sparse([], []),
    "sparse with holes": sparse([0, 2, 5], [math.nan, 2.0, -1.0]),
}


def ours(tensor: torch.Tensor, **options: Any) -> Any:
    return tensor_histogram(HostCopies([TensorCopies({"it": tensor}, **options)]).arrays()["it"])


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_every_histogram_is_the_one_that_wandb_watch_makes() -> None:
    run = wandb.init()
    for name, tensor in TENSORS.items():
        TorchHistory().log_tensor_stats(tensor, name)
    run.log({"done": 1})
    run.finish()
    (row,) = read_offline_run("wandb").history
    made = {name: ours(tensor) for name, tensor in TENSORS.items()}
    assert {name for name, histogram in made.items() if histogram is not None} == row.keys() & TENSORS.keys()
    assert len(row.keys() & TENSORS.keys()) == len(TENSORS) - 3
    for name in row.keys() & TENSORS.keys():
        assert made[name].edges.tolist() == row[name]["bins"], name
        assert made[name].counts.tolist() == row[name]["values"], name


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 7, 1001, 100_001])
def test_bins_are_counted_with_the_roundings_of_torch(count: int, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=generator, dtype=dtype)
    for values in (normal, normal**3, normal.abs() + 5, normal * 1e-12, torch.relu(normal) + 0.1):
        low, high = float(values.min()), float(values.max())
        if low < high:
            expected = torch.histc(values, bins=64, min=low, max=high)
            assert count_bins(values.numpy(), low, high).tolist() == expected.tolist()


def test_a_sample_covers_every_row_and_column() -> None:
    table = torch.arange(512 * 512)
    kept = thinned(table, 4096)
    assert 3000 < kept.numel() <= 4096
    assert len((kept % 512).unique()) == len((kept // 512).unique()) == 512
    assert thinned(table, 512 * 512) is table
    assert thinned(table, None) is table
    assert thinned(table, 1).tolist() == [0]
    assert thinned(torch.arange(0), 5).numel() == 0


def test_a_sample_has_the_shape_of_the_whole() -> None:
    values = drawn(300, 1002)
    whole, part = ours(values), ours(values, sample=65_536)
    assert 0.75 * 65_536 < part.counts.sum() <= 65_536
    assert ours(values, sample=values.numel()).counts.tolist() == whole.counts.tolist()
    middles = (part.edges[:-1] + part.edges[1:]) / 2
    assert np.average(middles, weights=part.counts) == pytest.approx(float(values.mean()), abs=0.02)
    assert np.average(middles**2, weights=part.counts) == pytest.approx(float(values.square().mean()), rel=0.02)


def test_implicit_zeros_shrink_with_the_sample() -> None:
    rows = torch.arange(0, 10_000, 10)
    tensor = torch.sparse_coo_tensor(rows[None], torch.ones(1000), (10_000,), check_invariants=True)
    array = HostCopies([TensorCopies({"it": tensor}, sample=100)]).arrays()["it"]
    assert array.implicit_zeros / array.values.size == pytest.approx(9.0, abs=0.01)


def test_copies_do_not_change_with_what_was_copied() -> None:
    tensor = torch.ones(3)
    copies = HostCopies([TensorCopies({"it": tensor})])
    tensor.zero_()
    assert copies.arrays()["it"].values.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_numbers_of_every_type_are_read_exactly(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.5, -3.0, 2.0**-10, 1e4, math.inf]).to(dtype)
    expected = values.real if values.is_complex() else values
    read = as_floats(values)
    assert read.tolist() == expected.tolist()
    assert read.dtype == (np.float64 if dtype == torch.float64 else np.float32)


def network_with(**gradients: torch.Tensor | None) -> dict[str, nn.Parameter]:
    parameters = {}
    for name, gradient in gradients.items():
        like = torch.zeros(2) if gradient is None else gradient
        parameters[name.replace("__", ".")] = nn.Parameter(torch.zeros(like.shape, dtype=like.dtype))
        parameters[name.replace("__", ".")].grad = gradient
    return parameters


def row_of(parameters: dict[str, nn.Parameter], **options: Any) -> dict[str, Any]:
    return tensor_row(HostCopies([gradient_copies(parameters, **options)]).arrays())


def test_a_row_has_histograms_norms_and_the_number_of_holes() -> None:
    row = row_of(
        network_with(
            q__0__weight=torch.tensor([3.0, 0.0]),
            q__0__bias=torch.tensor([4.0]),
            log_alpha=torch.tensor(12.0),
            q__1__weight=None,
        )
    )
    assert {key: value.value for key, value in row.items() if not key.startswith("gradients/")} == {
        "train/grad_nonfinite": 0,
        "grad_norm/q.0": 5.0,
        "grad_norm/log_alpha": 12.0,
        "grad_norm/total": 13.0,
    }
    assert {key for key in row if key.startswith("gradients/")} == {
        "gradients/q.0.weight",
        "gradients/q.0.bias",
        "gradients/log_alpha",
    }


def test_holes_are_counted_and_make_norms_what_they_are() -> None:
    row = row_of(network_with(a__w=torch.tensor([1.0, math.nan, math.inf]), b__w=torch.tensor([math.nan] * 2)))
    assert row["train/grad_nonfinite"].value == 4
    assert row["gradients/a.w"].counts.tolist() == [1]
    assert "gradients/b.w" not in row
    assert math.isnan(row["grad_norm/b"].value)


def test_sparse_gradients_are_summed_up_first() -> None:
    embedding = nn.Embedding(5, 1, sparse=True)
    embedding(torch.tensor([3, 3, 1])).sum().backward()
    row = row_of(dict(embedding.named_parameters()))
    assert row["gradients/weight"].counts.sum() == 5
    assert row["gradients/weight"].edges[-1] == 2.0
    assert row["grad_norm/total"].value == pytest.approx(math.sqrt(5))
    assert row["train/grad_nonfinite"].value == 0


def test_norms_are_of_all_elements_whatever_the_sample() -> None:
    gradient = drawn(100, 100)
    row = row_of(network_with(q__weight=gradient), sample=10)
    assert row["grad_norm/total"].value == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert row["gradients/q.weight"].counts.sum() <= 10


def test_without_gradients_there_is_nothing_to_say() -> None:
    assert row_of(network_with(q__weight=None)) == {}
    assert row_of({}) == {}


def test_parameters_have_64_bins_under_wandbs_names() -> None:
    parameters = {"q.0.weight": nn.Parameter(drawn(20, 10)), "q.0.bias": nn.Parameter(torch.zeros(3))}
    row = tensor_row(HostCopies([parameter_copies(parameters)]).arrays())
    assert list(row) == ["parameters/q.0.weight", "parameters/q.0.bias"]
    assert len(row["parameters/q.0.weight"].counts) == 64
    assert row["parameters/q.0.weight"].counts.sum() == 200


def test_copies_of_several_moments_make_one_row() -> None:
    first = gradient_copies(network_with(actor__w=torch.tensor([3.0])))
    second = gradient_copies(network_with(critic__w=torch.tensor([4.0], dtype=torch.float64)))
    row = tensor_row(HostCopies([first, second]).arrays())
    assert {"gradients/actor.w", "gradients/critic.w"} < row.keys()
    assert row["grad_norm/total"].value == 5.0


@pytest.mark.parametrize("norms", [{}, {"w": 2.0}])
def test_norms_of_nothing_and_of_one(norms: dict[str, float]) -> None:
    assert module_norms(norms)["total"] == sum(norms.values())


def test_threads_of_torch_are_left_alone() -> None:
    before = torch.get_num_threads()
    tensor_histogram(HostArray(drawn(100_000).numpy()))
    assert torch.get_num_threads() == before


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
def test_what_lies_on_a_gpu_comes_by_one_copy_for_which_the_caller_does_not_wait() -> None:
    network = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64).double(), nn.Linear(64, 64).bfloat16()]).cuda()
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    parameters = dict(network.named_parameters())
    HostCopies([gradient_copies(parameters)]).arrays()  # memory is pinned for the first time
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        torch.cuda.set_sync_debug_mode("error")
        try:
            copies = HostCopies([gradient_copies(parameters), parameter_copies(parameters)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    assert sum(event.count for event in profile.key_averages() if "DtoH" in event.key) == 1
    row = tensor_row(copies.arrays())
    for name, parameter in parameters.items():
        expected = ours(parameter.grad.cpu())
        assert row[f"gradients/{name}"].edges.tolist() == expected.edges.tolist()
        assert row[f"gradients/{name}"].counts.tolist() == expected.counts.tolist()
