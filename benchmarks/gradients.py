"""Cost of gradient histograms, compared with ``wandb.watch``."""

from __future__ import annotations

import cProfile
import tempfile
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytorch_lightning as pl
import torch
import wandb
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.lines import Line, Pair
from benchmarks.training import Clock, CpuSeconds, train
from rlwandb_callbacks import GradientsCallback
from rlwandb_callbacks.callbacks.gradients.callback import write_row
from rlwandb_callbacks.callbacks.gradients.histograms import copy_gradients
from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostTransfer
from rlwandb_callbacks.tracking.wandb_tracker import WandbTracker


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


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # factory and number of timed events
    "MLP 64×64": (mlp, 200),
    "Nature-CNN, 1.7 M": (nature_cnn, 25),
    "ResNet-18 size, 11 M": (resnet18_sized, 25),
    "100-layer MLP, 200 tensors": (deep_mlp, 40),
}
LARGE = ("Nature-CNN, 1.7 M", "ResNet-18 size, 11 M")
WARM_UP = 3
STEP = "trainer/global_step"
LOG_EVERY = 4  # steps between two logging events


class FixedGradients(pl.LightningModule):
    """Module with fixed random gradients, whose backward pass costs almost nothing.

    Args:
        network: Network that holds the parameters; it is never called.
        batches: Number of batches.
    """

    def __init__(self, network: nn.Module, batches: int) -> None:
        super().__init__()
        self.network = network
        self.batches = batches
        generator = torch.Generator().manual_seed(0)
        self.gradients = [torch.randn(p.shape, generator=generator) * 1e-3 for p in network.parameters()]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        products = [
            torch.dot(p.view(-1), g.view(-1)) for p, g in zip(self.network.parameters(), self.gradients, strict=True)
        ]
        return torch.stack(products).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=0.0)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(range(self.batches), batch_size=1)  # type: ignore[arg-type]  # torch takes any sequence


class WatchCallback(pl.Callback):
    """Callback that uses ``wandb.watch`` as documented, and logs a row per event, which includes its histograms."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        trainer.logger.experiment.watch(pl_module, log="gradients", log_freq=LOG_EVERY, idx=0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % LOG_EVERY == LOG_EVERY - 1:
            trainer.logger.experiment.log({STEP: batch_idx})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        wandb.unwatch(pl_module)


def added_per_event(network: str, callback: pl.Callback) -> CpuSeconds:
    """Returns the CPU time of steps that log histograms minus that of the steps before, which log none.

    After a logging step it waits until other threads are idle. The step after that wait has cold caches and is ignored.
    """
    make, events = NETWORKS[network]
    clock = Clock(every=LOG_EVERY)
    train(FixedGradients(make(), LOG_EVERY * (events + WARM_UP) + 1), [clock, callback])
    first = LOG_EVERY * WARM_UP
    return clock.at(slice(first + LOG_EVERY - 1, None, LOG_EVERY)) - clock.at(
        slice(first + LOG_EVERY - 2, None, LOG_EVERY)
    )


class ClosingCallback(GradientsCallback):
    """Our callback, which writes each row in its own step rather than at the start of the next one."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.session.close_row()


def fused(sample: int | None) -> GradientsCallback:
    """Makes our callback."""
    gradients = {"log": "gradients", "log_freq": LOG_EVERY, "sample": sample}
    return ClosingCallback({"gradients": gradients, "on_error": "raise"})


@cache
def measure_both(network: str, sample: int | None, _: int) -> tuple[CpuSeconds, CpuSeconds]:
    """Measures what our callback and ``wandb.watch`` add to a step."""
    return added_per_event(network, fused(sample)), added_per_event(network, WatchCallback())


def compare(pair: int, *, network: str, sample: int | None = None, of: str = "process") -> Pair:
    """Compares the CPU seconds that our callback and ``wandb.watch`` add per logging event.

    Args:
        pair: Number of the pair.
        network: Key of ``NETWORKS``.
        sample: Elements per tensor in our histograms; None for all.
        of: ``process`` for all threads on both sides; ``thread`` for only the training thread on our side.
    """
    ours, watch = measure_both(network, sample, pair)
    return getattr(ours, of), watch.process


def log_events(profiler: cProfile.Profile, *, network: str, sample: int | None = None) -> None:
    """Does all work of 20 logging events in the calling thread, under a profiler."""
    module = FixedGradients(NETWORKS[network][0](), 1)
    for parameter, gradient in zip(module.network.parameters(), module.gradients, strict=True):
        parameter.grad = gradient
    settings = wandb.Settings(silent=True, x_disable_stats=True, x_disable_meta=True)
    with wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=settings) as run:
        tracker = WandbTracker(run, step_metric=STEP)
        for step in range(21):
            if step == 1:
                profiler.enable()
            copies = copy_gradients(dict(module.network.named_parameters()), sample=sample)
            write_row(partial(tracker.write, {STEP: step}), HostTransfer([copies]))
        profiler.disable()


WATCH = '`wandb.watch(log="gradients")`, CPU time per event'
PROCESS = (
    "CPU time of all threads of the training process on both sides, on top of a step of the same training without "
    "histograms, and without W&B's own process. The lines of the training thread compare only that thread with all of "
    "`wandb.watch`, which runs almost entirely in it. One `log` call with six histograms costs W&B itself about 0.8 "
    "ms, most of our cost for the smallest network; for the largest, nearly half of our cost is the copy of 45 MB in "
    "the training thread."
)

LINES = [
    *(
        Line(
            f"gradient histograms, exact: {name}",
            WATCH,
            0.3,
            partial(compare, network=name),
            note=note,
            profile=partial(log_events, network=name),
        )
        for name, note in zip(NETWORKS, (PROCESS, "", "", ""), strict=True)
    ),
    *(
        Line(
            f"the same, 65,536 elements per tensor: {name}",
            WATCH,
            0.08,
            partial(compare, network=name, sample=65_536),
            profile=partial(log_events, network=name, sample=65_536),
        )
        for name in LARGE
    ),
    *(
        Line(f"the same, exact, training thread: {name}", WATCH, 0.1, partial(compare, network=name, of="thread"))
        for name in NETWORKS
    ),
]
