"""Restores the state of a training run after an evaluation."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import nn

from rlwandb_callbacks.core.import_string import find_object
from rlwandb_callbacks.core.process_settings import preserved_process_settings, preserved_working_folder
from rlwandb_callbacks.evaluation.ignored_logging import ignored_if_it_logs, ignored_logging
from rlwandb_callbacks.evaluation.inference_mode import inference_tensor_copier, outside_inference_mode
from rlwandb_callbacks.evaluation.replaced_values import replace_values
from rlwandb_callbacks.policies.iterators import replaced_iterator
from rlwandb_callbacks.policies.probing import seed_all, seed_generators, stream_seed
from rlwandb_callbacks.policies.reachable import Part, own_attributes, reachable
from rlwandb_callbacks.policies.saved_values import MAX_COPIED_BYTES, Snapshot
from rlwandb_callbacks.policies.thread_values import values_of_threads
from rlwandb_callbacks.policies.user_code import top_package

SMALL_POLICY_ELEMENTS = 1_000_000
MAX_ARRAY_BYTES = 4 * 2**20
MAX_COUNTER_BYTES = 2**12  # of a parameter that is not trained
MAX_NAMED = 5
CHANGED = (
    "an evaluation changed {names}, and training goes on with the changed values: large data, parameters, gradients, "
    "Python generators and iterators in tuples and arguments are not copied before each evaluation. Let the module "
    "change them in training mode only (self.training)."
)
FAILED = (
    "the state of {names} cannot be copied or restored ({error}), so that changes by evaluations stay. Let the module "
    "change it in training mode only (self.training)."
)


@contextlib.contextmanager
def preserved_state(
    module: nn.Module,
    *,
    seed: int,
    stream: int = 0,
    policy: Any = None,
    warn: Callable[[str], None] = lambda _: None,
    warn_of_errors: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Runs a block in evaluation mode, without gradients, with all random states seeded, and restores the training.

    Inference mode is off inside the block, so that policies may use gradients and the tensors that they keep can be
    trained with.

    The state consists of the random states of Python, NumPy and torch (CPU and the devices of the networks), the
    training flag of each network, its buffers, the attributes of the module, of the policy and of the objects in them,
    the variables of their functions and classes, the working folder, and the settings of
    :func:`preserved_process_settings`. Lists to which only records were added are kept, as they are logs. Values that
    other threads use, files, queues and loggers are left alone. What the module logs by ``self.log`` inside the block
    is ignored.

    Modules of up to a million parameters on the CPU run on one thread inside the block: on busy cores, threads that
    wait for each other cost more than they save.

    Args:
        module: The LightningModule; only its own submodules, and agents that are no networks but have the attribute
            ``training``, are set to evaluation mode.
        seed: Seed of the random states, ≥ 0.
        stream: Which of the independent random numbers of this seed to use, ≥ 0. With another one than 0, generators in
            the module and the policy are seeded too, as those of all ranks of a training may be in the same state.
        policy: ``evaluation.policy``, which may consist of other objects than the module does.
        warn: Called with a message about state that has changed and was not copied.
        warn_of_errors: Called with a message about state whose copying or restoring fails, by default ``warn``.
    """
    with contextlib.ExitStack() as after:  # a step that fails does not keep the others from being taken
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002  # the global state must be restored
        shared = values_of_threads(top_package(type(module).__module__))
        found = reachable(module, find_object(policy) if isinstance(policy, str) else policy, code=True)
        parts = [part for part in found if id(part.value) not in shared]
        networks = [part.value for part in parts if isinstance(part.value, nn.Module)]
        devices = {parameter.device for network in networks for parameter in network.parameters(recurse=False)}
        after.enter_context(outside_inference_mode())
        state = _snapshot(parts)
        after.callback(_warn, state, warn, warn_of_errors or warn)
        after.callback(_restore_gradients, [(each, each.grad) for net in networks for each in net.parameters(False)])
        after.callback(state.restore, keeps_logs=True)
        after.callback(_set_modes, {network: network.training for network in networks})
        after.callback(torch.set_num_threads, torch.get_num_threads())
        after.enter_context(preserved_working_folder())
        after.enter_context(preserved_process_settings())
        after.enter_context(_preserved_generators(devices))
        after.enter_context(ignored_logging(networks))
        seed_all(stream_seed(seed, stream), devices)
        if stream:
            seed_generators([part.value for part in parts], stream_seed(seed, stream))
        module.eval()
        _clear_training_flags(parts)
        replace_values(parts, inference_tensor_copier(), ignored_if_it_logs, replaced_iterator)
        if _is_small_and_on_cpu(module):
            torch.set_num_threads(1)
        yield


def _snapshot(parts: Sequence[Part]) -> Snapshot:
    """Copies the state of some parts, and of small parameters that are not trained."""
    parameters = list(_parameters(parts))
    return Snapshot(
        [*parts, *filter(_is_counter, parameters)],
        max_buffer_bytes=MAX_COPIED_BYTES,
        max_array_bytes=MAX_ARRAY_BYTES,
        variables=True,
        watched=[part for part in parameters if not _is_counter(part)],
    )


def _clear_training_flags(parts: Iterable[Part]) -> None:
    """Sets ``training`` of agents that are no networks to False, as it is in the agents of pfrl."""
    for part in parts:
        attributes = None if isinstance(part.value, nn.Module) else own_attributes(part.value)
        if attributes is None:
            continue
        if attributes.get("training", inspect.getattr_static(type(part.value), "training", None)) is True:
            vars(part.value)["training"] = False


def _restore_gradients(gradients: Iterable[tuple[nn.Parameter, torch.Tensor | None]]) -> None:
    for parameter, gradient in gradients:
        parameter.grad = gradient


def _warn(state: Snapshot, warn: Callable[[str], None], warn_of_errors: Callable[[str], None]) -> None:
    """Names what has changed for good, and what could not be copied or restored."""
    if changed := state.changed_for_good():
        warn(CHANGED.format(names=_names(changed)))
    if state.failures:
        error = state.failures[0][1]
        names = _names([part for part, _ in state.failures])
        warn_of_errors(FAILED.format(names=names, error=f"{type(error).__name__}: {error}"))


def _parameters(parts: Iterable[Part]) -> Iterator[Part]:
    """Yields the parameters of the networks among some parts, and their gradients."""
    for part in parts:
        if isinstance(part.value, nn.Module):
            for name, parameter in part.value.named_parameters(recurse=False):
                yield Part(parameter, (*part.path, name))
                if parameter.grad is not None:
                    yield Part(parameter.grad, (*part.path, name, "grad"))


def _is_counter(part: Part) -> bool:
    """Returns whether a parameter may be a number that a policy changes, such as epsilon, and not a weight."""
    value = part.value
    is_lazy = nn.parameter.is_lazy(value)
    return isinstance(value, nn.Parameter) and not is_lazy and not value.requires_grad and _is_small(value)


def _is_small(parameter: torch.Tensor) -> bool:
    return parameter.nbytes <= MAX_COUNTER_BYTES


def _set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Sets the training flags; networks that do more when their mode changes, such as merging weights, are asked to."""
    for network, training in modes.items():
        if type(network).train is not nn.Module.train and network.training != training:
            network.train(training)
    for network, training in modes.items():
        network.training = training


def _names(parts: Sequence[Part]) -> str:
    named = [f"{part.name!r} of {part.path[0]} ({_size(part.value)})" for part in parts[:MAX_NAMED]]
    more = len(parts) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _size(value: Any) -> str:
    with contextlib.suppress(Exception):  # objects of users and of libraries may raise anything
        if isinstance(value, torch.Tensor | np.ndarray):
            return f"{value.nbytes:,} bytes"
        if isinstance(value, Sized):
            return f"{len(value):,} entries"
    return f"a {type(value).__name__}"


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
