"""Restores the state of a training run after an evaluation."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from rlwandb_callbacks.core.import_string import find_object
from rlwandb_callbacks.core.process_settings import preserved_process_settings
from rlwandb_callbacks.evaluation.inference_mode import outside_inference_mode, replace_inference_tensors
from rlwandb_callbacks.policies.probing import seed_all
from rlwandb_callbacks.policies.reachable import Part, reachable
from rlwandb_callbacks.policies.saved_values import MAX_COPIED_BYTES, Snapshot

SMALL_POLICY_ELEMENTS = 1_000_000
TOO_LARGE = (
    "an evaluation changed {name!r} of {owner}, and training goes on with the changed values: with {size} it is too "
    "large to be copied before each evaluation. Let the module change it in training mode only (self.training)."
)


@contextlib.contextmanager
def preserved_state(
    module: nn.Module, *, seed: int, policy: Any = None, warn: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Runs a block in evaluation mode, without gradients, with all random states seeded, and restores the training.

    Inference mode is off inside the block, so that policies may use gradients and the tensors that they keep can be
    trained with.

    The state consists of the random states of Python, NumPy and torch (CPU and the devices of the networks), the
    training flag of each network, its buffers, the attributes of the module, of the policy and of the objects in them,
    the number of threads of torch, and the settings of :func:`preserved_process_settings`. Lists that have only grown
    are kept, as they are logs. Modules of up to a million parameters on the CPU run on one thread inside the
    block: on busy cores, threads that wait for each other cost more than they save.

    Args:
        module: The LightningModule; only its own submodules are set to evaluation mode.
        seed: Seed of the random states, ≥ 0.
        policy: ``evaluation.policy``, which may consist of other objects than the module does.
        warn: Called with a message about state that cannot be restored.
    """
    python_state, threads = random.getstate(), torch.get_num_threads()
    numpy_state = np.random.get_state()  # noqa: NPY002  # the global state must be restored
    parts = list(reachable(module, find_object(policy) if isinstance(policy, str) else policy))
    networks = [part.value for part in parts if isinstance(part.value, nn.Module)]
    modes = {network: network.training for network in networks}
    devices = {parameter.device for network in networks for parameter in network.parameters(recurse=False)}
    with outside_inference_mode():
        state = Snapshot(parts, max_buffer_bytes=MAX_COPIED_BYTES)
        try:
            with preserved_process_settings(), _preserved_generators(devices):
                seed_all(seed, devices)
                module.eval()
                replace_inference_tensors(parts)
                if _is_small_and_on_cpu(module):
                    torch.set_num_threads(1)
                yield
        finally:
            torch.set_num_threads(threads)
            state.restore(keeps_logs=True)
            for part in state.changed_for_good():
                warn(_too_large(part))
            for network, training in modes.items():
                network.training = training
            np.random.set_state(numpy_state)  # noqa: NPY002  # see above
            random.setstate(python_state)


def _too_large(part: Part) -> str:
    is_tensor = isinstance(part.value, torch.Tensor)
    size = f"{part.value.nbytes:,} bytes" if is_tensor else f"{len(part.value):,} entries"
    return TOO_LARGE.format(name=part.name, owner=part.path[0], size=size)


@contextlib.contextmanager
def _preserved_generators(devices: Collection[torch.device]) -> Iterator[None]:
    """Restores the random states of torch, on the CPU and on some devices."""
    cuda = sorted(device.index for device in devices if device.type == "cuda")
    mps_state = torch.mps.get_rng_state() if any(device.type == "mps" for device in devices) else None
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def _is_small_and_on_cpu(module: nn.Module) -> bool:
    parameters = [p for p in module.parameters() if not isinstance(p, nn.parameter.UninitializedParameter)]
    on_cpu = all(p.device.type == "cpu" for p in parameters)
    return on_cpu and sum(p.numel() for p in parameters) <= SMALL_POLICY_ELEMENTS
