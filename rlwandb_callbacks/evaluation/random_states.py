"""Random states that the code of an environment may change."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def preserved_random_states() -> Iterator[None]:
    """Restores the random states of Python, NumPy and torch, on all devices, after the block."""
    with contextlib.ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002  # the global state must be restored
        is_on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # of torch
        if torch.backends.mps.is_available():
            after.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        devices = range(torch.cuda.device_count()) if is_on_cuda else ()
        after.enter_context(torch.random.fork_rng(devices=devices))
        yield
