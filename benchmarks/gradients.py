"""What histograms of gradients cost, against ``wandb.watch``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.lines import Line, Pair
from benchmarks.training import CpuSeconds, cpu_seconds_per_step
from rlwandb_callbacks import GradientsCallback


def mlp() -> nn.Module:
    """Two hidden layers of 64: 6 tensors, 5 thousand elements."""
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))


def nature_cnn() -> nn.Module:
    """Mnih et al. (2015): 10 tensors, 1.7 million elements."""
    body = [nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 18))


def resnet18_sized() -> nn.Module:
    """The tensors of a ResNet-18 (He et al., 2016): 62 of them, 11.2 million elements."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, bias=False), nn.BatchNorm2d(64)]
    for before, width in ((64, 64), (64, 128), (128, 256), (256, 512)):
        if before != width:
            layers += [nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)]
        for inputs in (before, width, width, width):
            layers += [nn.Conv2d(inputs, width, 3, bias=False), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, nn.Linear(512, 18))


def deep_mlp() -> nn.Module:
    """A hundred layers of 64: 200 tensors, 0.4 million elements."""
    return nn.Sequential(*(nn.Linear(64, 64) for _ in range(100)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and how many events are timed
    "MLP 64×64": (mlp, 300),
    "Nature-CNN, 1.7 M": (nature_cnn, 25),
    "ResNet-18 size, 11 M": (resnet18_sized, 10),
    "100-layer MLP, 200 tensors": (deep_mlp, 40),
}
LARGE = ("Nature-CNN, 1.7 M", "ResNet-18 size, 11 M")
WARM_UP = 3


class GivenGradients(pl.LightningModule):
    """A module whose gradients are random numbers, so that a backward pass costs next to nothing.

    Args:
        network: Any; it is never called.
        batches: How many.
    """

    def __init__(self, network: nn.Module, batches: int) -> None:
        super().__init__()
        self.network = network
        self.batches = batches
        generator = torch.Generator().manual_seed(0)
        self.given = [torch.randn(p.shape, generator=generator) * 1e-3 for p in network.parameters()]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        products = [
            torch.dot(p.view(-1), g.view(-1)) for p, g in zip(self.network.parameters(), self.given, strict=True)
        ]
        return torch.stack(products).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=0.0)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(range(self.batches), batch_size=1)  # type: ignore[arg-type]  # torch takes any sequence


class Watching(pl.Callback):
    """``wandb.watch`` as its documentation has it, and a row per event that takes its histograms up."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.logger.experiment.watch(pl_module, log="gradients", log_freq=1, idx=0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.logger.experiment.log({"trainer/global_step": batch_idx})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        wandb.unwatch(pl_module)


def per_event(network: str, *callbacks: pl.Callback) -> CpuSeconds:
    """CPU time of a step in which histograms are logged."""
    make, events = NETWORKS[network]
    return cpu_seconds_per_step(GivenGradients(make(), WARM_UP + events + 1), *callbacks, warm_up=WARM_UP, period=1)


def fused(sample: int | None) -> GradientsCallback:
    """Our callback, logging at every step."""
    return GradientsCallback({"gradients": {"log": "gradients", "log_freq": 1, "sample": sample}, "on_error": "raise"})


def compare(network: str, *, sample: int | None = None, of: str = "process") -> Pair:
    """CPU seconds added per logging event: ours, ``wandb.watch``.

    Args:
        network: One of ``NETWORKS``.
        sample: Elements per tensor that we count.
        of: ``process``: all threads on both sides; ``thread``: of ours the training thread alone. ``wandb.watch``
            does nearly all in that thread.
    """
    bare = per_event(network)
    ours, theirs = per_event(network, fused(sample)) - bare, per_event(network, Watching()) - bare
    return getattr(ours, of), theirs.process


def run_ours(network: str, *, sample: int | None = None) -> Callable[[], object]:
    """Our side alone, to be profiled."""
    return partial(per_event, network, fused(sample))


WATCH = '`wandb.watch(log="gradients")`, CPU time per event'
PROCESS = (
    "All threads of the training process on both sides, above a step without histograms; W&B's own process is not in "
    "it. The training thread's lines compare that thread alone with all that `wandb.watch` does, nearly all of which "
    "is in that thread."
)

LINES = [
    *(
        Line(
            f"gradient histograms, exact: {name}", WATCH, 0.3, partial(compare, name), note=note, profile=run_ours(name)
        )
        for name, note in zip(NETWORKS, (PROCESS, "", "", ""), strict=True)
    ),
    *(
        Line(f"the same, 65,536 elements per tensor: {name}", WATCH, 0.08, partial(compare, name, sample=65_536))
        for name in LARGE
    ),
    *(
        Line(f"the same, exact, training thread: {name}", WATCH, 0.1, partial(compare, name, of="thread"))
        for name in NETWORKS
    ),
]
