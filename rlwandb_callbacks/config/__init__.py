"""The settings of all callbacks: frozen dataclasses that are checked once, when they are made.

The flat keys of :class:`WandbRLConfig` keep the meaning that they have in DI-engine's logger; a section per callback
holds the tuning of its part. Any mapping with the same keys serves as well: see :func:`as_config`.

Example:
    >>> as_config({"action_logger": "q value", "evaluation": {"episodes": 4}}).evaluation.episodes
    4
    >>> as_config({"evaluation": {"epsiodes": 4}})
    Traceback (most recent call last):
        ...
    rlwandb_callbacks.errors.ConfigError: Unknown key 'epsiodes' (value 4) in evaluation. Did you mean 'episodes'? ...
"""

from rlwandb_callbacks.config.alerts import AlertsConfig
from rlwandb_callbacks.config.dataset import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.from_mapping import as_config
from rlwandb_callbacks.config.gradients import GradientsConfig
from rlwandb_callbacks.config.metrics import MetricsConfig
from rlwandb_callbacks.config.plasticity import PlasticityConfig
from rlwandb_callbacks.config.root import ACTION_LOGGERS, DATASET_FORMATS, WandbRLConfig
from rlwandb_callbacks.config.run import STEP_METRICS, RunConfig
from rlwandb_callbacks.config.validation import check_types
from rlwandb_callbacks.config.videos import VideosConfig

__all__ = [
    "ACTION_LOGGERS",
    "DATASET_FORMATS",
    "STEP_METRICS",
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
    "as_config",
    "check_types",
]
