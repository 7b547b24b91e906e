"""Restores the state of a training run after an evaluation."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

SMALL_POLICY_ELEMENTS = 1_000_000


@contextlib.contextmanager
def preserved_state(module: nn.Module, *, seed: int) -> Iterator[None]:
    """Runs a block in evaluation mode, without gradients, with all random states seeded, and restores the training.

    The state consists of the random states of Python, NumPy and torch (CPU and the module's devices), the training flag
    of each submodule, and the number of threads of torch. Networks of up to a million parameters on the CPU run on one
    thread inside the block: on busy cores, threads that wait for each other cost more than they save.
    """
    python_state, threads = random.getstate(), torch.get_num_threads()
    numpy_state = np.random.get_state()  # noqa: NPY002  # the global state must be restored
    modes = {submodule: submodule.training for submodule in module.modules()}
    try:
        with _seeded_torch(module, seed), torch.no_grad():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002  # environments may draw from it
            module.eval()
            if _is_small_and_on_cpu(module):
                torch.set_num_threads(1)
            yield
    finally:
        torch.set_num_threads(threads)
        for submodule, training in modes.items():
            submodule.training = training
        np.random.set_state(numpy_state)  # noqa: NPY002  # see above
        random.setstate(python_state)


@contextlib.contextmanager
def _seeded_torch(module: nn.Module, seed: int) -> Iterator[None]:
    """Seeds the CPU and the devices of the module; ``torch.manual_seed`` would seed other devices too."""
    devices = {parameter.device for parameter in module.parameters()}
    cuda = sorted(device.index for device in devices if device.type == "cuda")
    mps_state = torch.mps.get_rng_state() if any(device.type == "mps" for device in devices) else None
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        if mps_state is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def _is_small_and_on_cpu(module: nn.Module) -> bool:
    parameters = [p for p in module.parameters() if not isinstance(p, nn.parameter.UninitializedParameter)]
    on_cpu = all(p.device.type == "cpu" for p in parameters)
    return on_cpu and sum(p.numel() for p in parameters) <= SMALL_POLICY_ELEMENTS
