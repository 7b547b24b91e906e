"""D4RL: one HDF5 file with flat ``observations, actions, rewards, terminals`` and ``timeouts``.

Source: Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020, and its ``offline_env.py``. Early
files have no ``timeouts``, so that their episodes run together; that is reported. ``next_observations``, ``infos/…``
and ``metadata/…`` are left alone.
"""

from __future__ import annotations

from rlwandb_callbacks.datasets.formats.flat import Aliases

KEYS: Aliases = {
    "observations": ("observations",),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "terminals": ("terminals",),
    "timeouts": ("timeouts",),
}
