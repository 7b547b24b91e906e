"""Random states that the code of an environment may change."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def preserved_random_states() -> Iterator[None]:
    """Restores the random states of Python, NumPy and torch on the CPU after the block."""
    with contextlib.ExitStack() as after:
        after.callback(random.setstate, random.getstate())
        after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002  # the global state must be restored
        after.enter_context(torch.random.fork_rng(devices=[]))
        yield
