"""Adapter for the policy objects of other libraries, which are recognized by their methods."""

from __future__ import annotations

import contextlib
from typing import Any

from rlwandb_callbacks.policies.adapters.callables import CallablePolicy
from rlwandb_callbacks.policies.adapters.d3rlpy import D3rlpyPolicy
from rlwandb_callbacks.policies.adapters.library_policy import LibraryPolicy
from rlwandb_callbacks.policies.adapters.rsl_rl import RslRlPolicy
from rlwandb_callbacks.policies.adapters.skrl import SkrlPolicy
from rlwandb_callbacks.policies.adapters.tianshou import TianshouPolicy
from rlwandb_callbacks.policies.output_reader import OutputReader

_KINDS = (TianshouPolicy, SkrlPolicy, RslRlPolicy, D3rlpyPolicy)


def library_policy(policy: Any, *, deterministic: bool) -> LibraryPolicy | None:
    """Returns a policy object of Tianshou, skrl, rsl-rl or d3rlpy as a function; None for other objects."""
    for kind in _KINDS:
        found: LibraryPolicy | None = None
        with contextlib.suppress(Exception):  # attributes of users' objects may raise anything when they are read
            found = kind.of(policy, deterministic=deterministic)
        if found is not None:
            return found
    return None


class LibraryAdapter(CallablePolicy):
    """Adapter that calls the policy object of another library, and carries its recurrent state."""

    def __init__(self, policy: LibraryPolicy, reader: OutputReader, observation_space: Any = None) -> None:
        super().__init__(policy, policy.networks, reader, observation_space)
        self._network = policy.networks
        self._takes_arrays = policy.takes_arrays

    def _inputs(self, observations: Any) -> Any:
        return observations if self._takes_arrays else super()._inputs(observations)
