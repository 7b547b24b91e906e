"""What histograms of gradients cost, against ``wandb.watch``."""

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
from rlwandb_callbacks.callbacks.gradients.histograms import gradient_copies
from rlwandb_callbacks.callbacks.gradients.tensor_copies import HostCopies
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


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and how many events are timed
    "MLP 64×64": (mlp, 200),
    "Nature-CNN, 1.7 M": (nature_cnn, 25),
    "ResNet-18 size, 11 M": (resnet18_sized, 25),
    "100-layer MLP, 200 tensors": (deep_mlp, 40),
}
LARGE = ("Nature-CNN, 1.7 M", "ResNet-18 size, 11 M")
WARM_UP = 3
STEP = "trainer/global_step"
EVERY = 4  # steps from one logging event to the next


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
        trainer.logger.experiment.watch(pl_module, log="gradients", log_freq=EVERY, idx=0)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % EVERY == EVERY - 1:
            trainer.logger.experiment.log({STEP: batch_idx})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        wandb.unwatch(pl_module)


def added_per_event(network: str, callback: pl.Callback) -> CpuSeconds:
    """CPU time of a step in which histograms are logged, above that of the step before, in which they are not.

    After the former it waits for the threads beside; the steps that follow that wait find cold caches and do not count.
    """
    make, events = NETWORKS[network]
    clock = Clock(every=EVERY)
    train(GivenGradients(make(), EVERY * (events + WARM_UP) + 1), [clock, callback])
    first = EVERY * WARM_UP
    return clock.at(slice(first + EVERY - 1, None, EVERY)) - clock.at(slice(first + EVERY - 2, None, EVERY))


def fused(sample: int | None) -> GradientsCallback:
    """Our callback."""
    gradients = {"log": "gradients", "log_freq": EVERY, "sample": sample}
    return GradientsCallback({"gradients": gradients, "on_error": "raise"})


@cache
def both(network: str, sample: int | None, _: int) -> tuple[CpuSeconds, CpuSeconds]:
    """What ours and ``wandb.watch`` add to a step."""
    return added_per_event(network, fused(sample)), added_per_event(network, Watching())


def compare(pair: int, *, network: str, sample: int | None = None, of: str = "process") -> Pair:
    """CPU seconds added per logging event: ours, ``wandb.watch``.

    Args:
        pair: Its number.
        network: One of ``NETWORKS``.
        sample: Elements per tensor that we count.
        of: ``process``: all threads on both sides; ``thread``: of ours the training thread alone.
    """
    ours, theirs = both(network, sample, pair)
    return getattr(ours, of), theirs.process


def log_events(profiler: cProfile.Profile, *, network: str, sample: int | None = None) -> None:
    """Does all that belongs to 20 logging events in the calling thread."""
    module = GivenGradients(NETWORKS[network][0](), 1)
    for parameter, given in zip(module.network.parameters(), module.given, strict=True):
        parameter.grad = given
    settings = wandb.Settings(silent=True, x_disable_stats=True, x_disable_meta=True)
    with wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=settings) as run:
        tracker = WandbTracker(run, step_metric=STEP)
        for step in range(21):
            if step == 1:
                profiler.enable()
            copies = gradient_copies(dict(module.network.named_parameters()), sample=sample)
            write_row(partial(tracker.write, {STEP: step}), HostCopies([copies]))
        profiler.disable()


WATCH = '`wandb.watch(log="gradients")`, CPU time per event'
PROCESS = (
    "All threads of the training process on both sides, above a step of the same training without histograms; W&B's "
    "own process is not in it. The training thread's lines compare that thread alone with all that `wandb.watch` "
    "does, nearly all of which is in that thread. A single `log` call with six histograms costs W&B some 0.8 ms "
    "itself, which is most of what is left for the smallest network; for the largest, nearly half of ours is the copy "
    "of 45 MB that the training thread makes."
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
