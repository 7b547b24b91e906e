from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from torch import nn
from wandb.integration.torch.wandb_torch import TorchHistory

from rlwandb_callbacks.callbacks.gradients.histograms import (
    copy_gradients,
    copy_parameters,
    count_bins,
    module_norms,
    tensor_histogram,
    tensor_row,
)
from rlwandb_callbacks.callbacks.gradients.tensor_copies import (
    HostArray,
    HostTransfer,
    TensorCopies,
    as_floats,
    subsampled,
)
from rlwandb_callbacks.testing import read_offline_run


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def sparse(rows: list[int], values: list[float], size: int = 6) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (size,), check_invariants=True)


TENSORS: dict[str, torch.Tensor] = {
    "normal": normal(33, 7),
    "large": normal(300, 701),
    "cubed": normal(50_000) ** 3,
    "far from zero": 1000 + normal(5000) * 1e-3,
    "small": normal(999) * 1e-20,
    "huge": normal(999) * 1e35,
    "one": torch.tensor([2.5]),
    "scalar": torch.tensor(-3.0),
    "two": torch.tensor([0.1, 0.7]),
    "constant": torch.full((4, 4), 0.1),
    "zero": torch.zeros(5),
    "empty": torch.zeros(0),
    "whole numbers": torch.arange(65.0).repeat(3),
    "mostly zero": torch.relu(normal(5000)),
    "half": normal(400, dtype=torch.float16),
    "brain": normal(400, dtype=torch.bfloat16),
    "double": normal(400, dtype=torch.float64) * 1e-3,
    "complex": torch.complex(normal(300), normal(301)[1:]),
    "transposed": normal(30, 40).t(),
    "channels last": normal(4, 3, 5, 6).contiguous(memory_format=torch.channels_last),
    "with nonfinite": torch.tensor([1.0, math.nan, math.inf, 4.0, -math.inf, 2.0]),
    "one finite": torch.tensor([math.nan, 2.0, math.inf]),
    "nothing finite": torch.tensor([math.nan, math.inf, -math.inf]),
    "sparse": sparse([1, 4, 1], [1.0, -2.0, 3.0]),
    "sparse and positive": sparse([1, 4], [1.0, 2.0]),
    "sparse and negative": sparse([0, 5], [-1.0, -2.0]),
    "sparse and zero": sparse([0, 5], [0.0, 0.0]),
    "sparse and full": sparse(list(range(6)), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "sparse and empty": sparse([], []),
    "sparse with nonfinite": sparse([0, 2, 5], [math.nan, 2.0, -1.0]),
}


def histogram_of(tensor: torch.Tensor, **options: Any) -> Any:
    return tensor_histogram(HostTransfer([TensorCopies({"tensor": tensor}, **options)]).arrays()["tensor"])


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
def test_every_histogram_equals_that_of_wandb_watch() -> None:
    run = wandb.init()
    for name, tensor in TENSORS.items():
        TorchHistory().log_tensor_stats(tensor, name)
    run.log({"done": 1})
    run.finish()
    (row,) = read_offline_run("wandb").history
    histograms = {name: histogram_of(tensor) for name, tensor in TENSORS.items()}
    assert {name for name, histogram in histograms.items() if histogram is not None} == row.keys() & TENSORS.keys()
    assert len(row.keys() & TENSORS.keys()) == len(TENSORS) - 3
    for name in row.keys() & TENSORS.keys():
        assert histograms[name].edges.tolist() == row[name]["bins"], name
        assert histograms[name].counts.tolist() == row[name]["values"], name


@pytest.mark.parametrize(
    "tensor",
    [normal(999) * 1e-43, torch.tensor([1.0, 1.0 + 2**-23]), 1 + normal(99, dtype=torch.float64) * 1e-12],
    ids=["subnormal", "neighbors", "close"],
)
def test_edges_never_repeat(tensor: torch.Tensor) -> None:
    histogram = histogram_of(tensor)
    assert (np.diff(histogram.edges) > 0).all()
    assert (histogram.edges[0], histogram.edges[-1]) == (float(tensor.min()), float(tensor.max()))
    assert histogram.counts.sum() == tensor.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_histograms_do_not_depend_on_the_default_dtype_and_device(dtype: torch.dtype) -> None:
    names = ("normal", "double", "half", "brain", "sparse")
    expected = [histogram_of(TENSORS[name]) for name in names]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            found = [histogram_of(TENSORS[name]) for name in names]
    finally:
        torch.set_default_dtype(before)
    assert [histogram.edges.tolist() for histogram in found] == [histogram.edges.tolist() for histogram in expected]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_norms_of_half_precision_are_summed_in_single_precision(dtype: torch.dtype) -> None:
    gradient = torch.full((300, 300), 300.0, dtype=dtype)
    parameter = nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient
    row = tensor_row(HostTransfer([copy_gradients({"w": parameter})]).arrays())
    assert row["grad_norm/total"].value == pytest.approx(90_000.0, rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 7, 1001, 100_001])
def test_bins_are_rounded_like_torch_histc(count: int, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, generator=generator, dtype=dtype)
    for values in (drawn, drawn**3, drawn.abs() + 5, drawn * 1e-12, torch.relu(drawn) + 0.1):
        low, high = float(values.min()), float(values.max())
        if low < high:
            expected = torch.histc(values, bins=64, min=low, max=high)
            assert count_bins(values.numpy(), low, high).tolist() == expected.tolist()


def test_a_sample_covers_every_row_and_column() -> None:
    table = torch.arange(512 * 512)
    kept = subsampled(table, 4096)
    assert 3000 < kept.numel() <= 4096
    assert len((kept % 512).unique()) == len((kept // 512).unique()) == 512
    assert subsampled(table, 512 * 512) is table
    assert subsampled(table, None) is table
    assert subsampled(table, 1).tolist() == [0]
    assert subsampled(torch.arange(0), 5).numel() == 0


def test_a_sample_has_the_distribution_of_all_elements() -> None:
    values = normal(300, 1002)
    whole, part = histogram_of(values), histogram_of(values, sample=65_536)
    assert 0.75 * 65_536 < part.counts.sum() <= 65_536
    assert histogram_of(values, sample=values.numel()).counts.tolist() == whole.counts.tolist()
    middles = (part.edges[:-1] + part.edges[1:]) / 2
    assert np.average(middles, weights=part.counts) == pytest.approx(float(values.mean()), abs=0.02)
    assert np.average(middles**2, weights=part.counts) == pytest.approx(float(values.square().mean()), rel=0.02)


def test_implicit_zeros_are_sampled_at_the_same_rate() -> None:
    rows = torch.arange(0, 10_000, 10)
    tensor = torch.sparse_coo_tensor(rows[None], torch.ones(1000), (10_000,), check_invariants=True)
    array = HostTransfer([TensorCopies({"tensor": tensor}, sample=100)]).arrays()["tensor"]
    assert array.implicit_zeros / array.values.size == pytest.approx(9.0, abs=0.01)


def test_copies_do_not_change_with_their_tensors() -> None:
    tensor = torch.ones(3)
    transfer = HostTransfer([TensorCopies({"tensor": tensor})])
    tensor.zero_()
    assert transfer.arrays()["tensor"].values.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_elements_of_every_type_are_read_exactly(dtype: torch.dtype) -> None:
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
    return tensor_row(HostTransfer([copy_gradients(parameters, **options)]).arrays())


def test_a_row_has_histograms_norms_and_a_count_of_nonfinite_elements() -> None:
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


def test_nonfinite_elements_are_counted_and_spread_to_norms() -> None:
    row = row_of(network_with(a__w=torch.tensor([1.0, math.nan, math.inf]), b__w=torch.tensor([math.nan] * 2)))
    assert row["train/grad_nonfinite"].value == 4
    assert row["gradients/a.w"].counts.tolist() == [1]
    assert "gradients/b.w" not in row
    assert math.isnan(row["grad_norm/b"].value)


def test_sparse_gradients_are_summed_first() -> None:
    embedding = nn.Embedding(5, 1, sparse=True)
    embedding(torch.tensor([3, 3, 1])).sum().backward()
    row = row_of(dict(embedding.named_parameters()))
    assert row["gradients/weight"].counts.sum() == 5
    assert row["gradients/weight"].edges[-1] == 2.0
    assert row["grad_norm/total"].value == pytest.approx(math.sqrt(5))
    assert row["train/grad_nonfinite"].value == 0


def test_norms_are_those_of_all_elements_for_any_sample() -> None:
    gradient = normal(100, 100)
    row = row_of(network_with(q__weight=gradient), sample=10)
    assert row["grad_norm/total"].value == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert row["gradients/q.weight"].counts.sum() <= 10


def test_without_gradients_the_row_is_empty() -> None:
    assert row_of(network_with(q__weight=None)) == {}
    assert row_of({}) == {}


def test_parameters_have_64_bins_and_the_keys_of_wandb() -> None:
    parameters = {"q.0.weight": nn.Parameter(normal(20, 10)), "q.0.bias": nn.Parameter(torch.zeros(3))}
    row = tensor_row(HostTransfer([copy_parameters(parameters)]).arrays())
    assert list(row) == ["parameters/q.0.weight", "parameters/q.0.bias"]
    assert len(row["parameters/q.0.weight"].counts) == 64
    assert row["parameters/q.0.weight"].counts.sum() == 200


def test_copies_from_several_moments_form_one_row() -> None:
    first = copy_gradients(network_with(actor__w=torch.tensor([3.0])))
    second = copy_gradients(network_with(critic__w=torch.tensor([4.0], dtype=torch.float64)))
    row = tensor_row(HostTransfer([first, second]).arrays())
    assert {"gradients/actor.w", "gradients/critic.w"} < row.keys()
    assert row["grad_norm/total"].value == 5.0


@pytest.mark.parametrize("norms", [{}, {"w": 2.0}])
def test_total_norm_of_zero_and_one_tensors(norms: dict[str, float]) -> None:
    assert module_norms(norms)["total"] == sum(norms.values())


def test_the_number_of_torch_threads_is_unchanged() -> None:
    before = torch.get_num_threads()
    tensor_histogram(HostArray(normal(100_000).numpy()))
    assert torch.get_num_threads() == before


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
def test_gpu_tensors_need_one_transfer_and_no_synchronization() -> None:
    network = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64).double(), nn.Linear(64, 64).bfloat16()]).cuda()
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    parameters = dict(network.named_parameters())
    HostTransfer([copy_gradients(parameters)]).arrays()  # memory is pinned for the first time
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        torch.cuda.set_sync_debug_mode("error")
        try:
            transfer = HostTransfer([copy_gradients(parameters), copy_parameters(parameters)])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    assert sum(event.count for event in profile.key_averages() if "DtoH" in event.key) == 1
    row = tensor_row(transfer.arrays())
    for name, parameter in parameters.items():
        expected = histogram_of(parameter.grad.cpu())
        assert row[f"gradients/{name}"].edges.tolist() == expected.edges.tolist()
        assert row[f"gradients/{name}"].counts.tolist() == expected.counts.tolist()
