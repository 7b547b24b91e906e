"""DI-engine: one HDF5 file with flat ``obs, action, reward`` and ``done``, or a pickle of transitions or episodes.

Source: DI-engine's ``offline_data_save_type`` "hdf5" and "naive" (``ding/utils/data/dataset.py``). ``reward`` is
``[N, 1]``; ``done`` does not tell a time limit from a terminal state.
"""

from __future__ import annotations

from rlwandb_callbacks.datasets.formats.flat import Aliases

KEYS: Aliases = {
    "observations": ("obs",),
    "actions": ("action",),
    "rewards": ("reward",),
    "terminals": ("done",),
    "timeouts": ("truncated",),
}
