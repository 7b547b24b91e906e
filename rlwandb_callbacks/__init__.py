"""Lightning callbacks that show in Weights & Biases what a reinforcement-learning agent is doing.

Names are loaded when they are first used: importing the package imports neither Lightning nor torch nor wandb.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks._version import __version__

if TYPE_CHECKING:
    from rlwandb_callbacks.callbacks.alerts.callback import AlertCallback
    from rlwandb_callbacks.callbacks.dataset import DatasetCallback
    from rlwandb_callbacks.callbacks.evaluation.callback import EvaluationCallback
    from rlwandb_callbacks.callbacks.gradients.callback import GradientsCallback
    from rlwandb_callbacks.callbacks.metrics.callback import MetricsCallback
    from rlwandb_callbacks.callbacks.plasticity.callback import PlasticityCallback
    from rlwandb_callbacks.callbacks.rollouts.callback import RolloutsCallback
    from rlwandb_callbacks.callbacks.wandb_rl import CallbackGroup, WandbRLCallback, build_callbacks
    from rlwandb_callbacks.config import (
        AlertsConfig,
        DatasetConfig,
        EmbeddingConfig,
        EvaluationConfig,
        GradientsConfig,
        MetricsConfig,
        PlasticityConfig,
        RunConfig,
        VideosConfig,
        WandbRLConfig,
    )
    from rlwandb_callbacks.core.episode import Episode, Gaussian, Grouped, PolicyStep, Probabilities, QValues
    from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
    from rlwandb_callbacks.errors import ConfigError, DatasetError, EnvError, PolicyError

_HOMES = {
    "callbacks.alerts.callback": ("AlertCallback",),
    "callbacks.dataset": ("DatasetCallback",),
    "callbacks.evaluation.callback": ("EvaluationCallback",),
    "callbacks.gradients.callback": ("GradientsCallback",),
    "callbacks.metrics.callback": ("MetricsCallback",),
    "callbacks.plasticity.callback": ("PlasticityCallback",),
    "callbacks.rollouts.callback": ("RolloutsCallback",),
    "callbacks.wandb_rl": ("CallbackGroup", "WandbRLCallback", "build_callbacks"),
    "config": (
        "AlertsConfig",
        "DatasetConfig",
        "EmbeddingConfig",
        "EvaluationConfig",
        "GradientsConfig",
        "MetricsConfig",
        "PlasticityConfig",
        "RunConfig",
        "VideosConfig",
        "WandbRLConfig",
    ),
    "core.episode": ("Episode", "Gaussian", "Grouped", "PolicyStep", "Probabilities", "QValues"),
    "datasets": ("OfflineDataset", "open_dataset"),
    "errors": ("ConfigError", "DatasetError", "EnvError", "PolicyError"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlertCallback",
    "AlertsConfig",
    "CallbackGroup",
    "ConfigError",
    "DatasetCallback",
    "DatasetConfig",
    "DatasetError",
    "EmbeddingConfig",
    "EnvError",
    "Episode",
    "EvaluationCallback",
    "EvaluationConfig",
    "Gaussian",
    "GradientsCallback",
    "GradientsConfig",
    "Grouped",
    "MetricsCallback",
    "MetricsConfig",
    "OfflineDataset",
    "PlasticityCallback",
    "PlasticityConfig",
    "PolicyError",
    "PolicyStep",
    "Probabilities",
    "QValues",
    "RolloutsCallback",
    "RunConfig",
    "VideosConfig",
    "WandbRLCallback",
    "WandbRLConfig",
    "__version__",
    "build_callbacks",
    "open_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME_OF[name]
    found = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    if home.startswith("callbacks."):
        # Not kept in the module: each look-up must see which Lightning has been loaded since.
        importlib.import_module(f"{__name__}.callbacks.lightning").adopt_loaded_namespaces()
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
