"""Settings of all callbacks: frozen dataclasses that validate their fields.

The flat keys of :class:`WandbRLConfig` have the same meaning as in DI-engine's logger; the settings of each callback
are in a section of their own. A mapping with the same keys is accepted too: see :func:`as_config`.

Example:
    >>> as_config({"action_logger": "q value", "evaluation": {"episodes": 4}}).evaluation.episodes
    4
    >>> as_config({"evaluation": {"epsiodes": 4}})
    Traceback (most recent call last):
        ...
    rlwandb_callbacks.errors.ConfigError: Unknown key 'epsiodes' (value 4) in evaluation. Did you mean 'episodes'? ...
"""

from rlwandb_callbacks.config.dataset import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.from_mapping import as_config
from rlwandb_callbacks.config.root import DATASET_FORMATS, WandbRLConfig
from rlwandb_callbacks.config.run import RunConfig
from rlwandb_callbacks.config.structured import open_to_hydra
from rlwandb_callbacks.config.training import AlertsConfig, GradientsConfig, MetricsConfig, PlasticityConfig
from rlwandb_callbacks.config.videos import VideosConfig

for _section in (
    *(AlertsConfig, DatasetConfig, EmbeddingConfig, EvaluationConfig, GradientsConfig, MetricsConfig),
    *(PlasticityConfig, RunConfig, VideosConfig, WandbRLConfig),
):
    open_to_hydra(_section)

__all__ = [
    "DATASET_FORMATS",
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
]
