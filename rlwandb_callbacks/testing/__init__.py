"""What tests of users' own modules need: a reader of offline runs, a tracker in memory, tiny environments and modules.

Example:
    >>> tracker = MemoryTracker()
    >>> tracker.write({"trainer/global_step": 7}, {})
    >>> tracker.rows
    [{'trainer/global_step': 7}]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.testing.envs import CorridorEnv, PointEnv
from rlwandb_callbacks.testing.trackers import MemoryTracker

if TYPE_CHECKING:
    from rlwandb_callbacks.testing.modules import TinyActorCritic, TinyQ, TinyValidatedQ
    from rlwandb_callbacks.testing.offline_run import AlertRecord, MetricDefinition, OfflineRun, read_offline_run

# Loaded when first used: the modules need Lightning, the reader needs wandb.
_HOME_OF = {
    "TinyActorCritic": "modules",
    "TinyQ": "modules",
    "TinyValidatedQ": "modules",
    "AlertRecord": "offline_run",
    "MetricDefinition": "offline_run",
    "OfflineRun": "offline_run",
    "read_offline_run": "offline_run",
}

__all__ = [
    "AlertRecord",
    "CorridorEnv",
    "MemoryTracker",
    "MetricDefinition",
    "OfflineRun",
    "PointEnv",
    "TinyActorCritic",
    "TinyQ",
    "TinyValidatedQ",
    "read_offline_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
