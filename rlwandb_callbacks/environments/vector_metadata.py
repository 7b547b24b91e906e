"""Metadata that all vectors share unless their class has its own.

ale-py writes the autoreset mode of each new vector into them, so that they say what the last one does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gymnasium.vector import AutoresetMode, VectorEnv

from rlwandb_callbacks.environments.wrappers import has_own, wrapper_chain

AUTORESET_MODE = "autoreset_mode"


def autoreset_mode(envs: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Returns when a vector resets an environment that has ended; if it does not say, at the next step.

    Its attribute comes before its metadata, and metadata that all vectors share do not count.
    """
    own = (getattr(layer, AUTORESET_MODE) for layer in wrapper_chain(envs) if has_own(layer, AUTORESET_MODE))
    metadata = {} if envs.metadata is VectorEnv.metadata else envs.metadata or {}
    try:
        return AutoresetMode(next(own, metadata.get(AUTORESET_MODE)))
    except ValueError:
        return AutoresetMode.NEXT_STEP


@contextlib.contextmanager
def preserved_vector_metadata() -> Iterator[None]:
    """Puts back the metadata that all vectors share, into which ale-py writes the autoreset mode of each new vector."""
    before = dict(VectorEnv.metadata)
    try:
        yield
    finally:
        if VectorEnv.metadata != before:
            VectorEnv.metadata.clear()
            VectorEnv.metadata.update(before)


def with_own_metadata(env: Any) -> Any:
    """Gives a vector that has the metadata of all vectors a copy of them, as they are now."""
    *_, base = wrapper_chain(env)
    if isinstance(base, VectorEnv) and base.metadata is VectorEnv.metadata:
        base.metadata = dict(base.metadata)
    return env
