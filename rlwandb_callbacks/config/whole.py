"""All settings as one."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlwandb_callbacks.config.checks import check_types, path_text, require_one_of
from rlwandb_callbacks.config.dataset import DatasetConfig
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.gradients import GradientsConfig
from rlwandb_callbacks.config.metrics import MetricsConfig
from rlwandb_callbacks.config.run import RunConfig
from rlwandb_callbacks.config.videos import VideosConfig
from rlwandb_callbacks.errors import ConfigError

ACTION_LOGGERS = ("q_value", "action_probability")
DATASET_FORMATS = ("d4rl", "minari", "di-engine", "di-engine-pickle", "hdf5", "npz", "memory", "torch")
_SPELLINGS = {"q value": "q_value", "action probability": "action_probability"}


@dataclass(frozen=True, kw_only=True)
class WandbRLConfig:
    """Everything that :class:`rlwandb_callbacks.WandbRLCallback` can be told.

    Args:
        plot_logger: Log training metrics: loss, lr, entropy, q-values, …
        gradient_logger: Call ``wandb.watch`` on the networks that train.
        video_logger: Log the best, median and worst evaluation episode as videos; by default where an env is known.
        action_logger: What is drawn beside each frame: ``q_value``, ``action_probability``, ``True`` for whatever the
            policy gives, or ``False`` for nothing.
        return_logger: Log the distribution of evaluation returns.
        record_path: Folder in which videos and pictures are kept.
        metric_list: Names, or aliases, of the metrics to log; by default all that are known.
        vis_dataset: Draw the offline data at ``dataset_path``, and where evaluation episodes walk on them.
        dataset_path: Offline data: a file, a folder, or what :func:`rlwandb_callbacks.open_dataset` takes as text.
        dataset_format: Layout of the data, one of ``DATASET_FORMATS``; by default recognised by content.
        on_error: ``warn`` goes on training when logging fails, ``raise`` does not.
        evaluation: How episodes are played.
        dataset: How offline data are shown.
        metrics: How training metrics are logged.
        gradients: What ``wandb.watch`` is called with.
        videos: How videos are made.
        run: The W&B run to open where there is none.
    """

    plot_logger: bool = True
    gradient_logger: bool = False
    video_logger: bool | None = None
    action_logger: bool | str = False
    return_logger: bool = True
    record_path: str = "./rl_videos"
    metric_list: list[str] | None = None
    vis_dataset: bool = False
    dataset_path: str | None = None
    dataset_format: str | None = None
    on_error: str = "warn"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    gradients: GradientsConfig = field(default_factory=GradientsConfig)
    videos: VideosConfig = field(default_factory=VideosConfig)
    run: RunConfig = field(default_factory=RunConfig)

    key_prefix = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "record_path", path_text(self.record_path))
        object.__setattr__(self, "dataset_path", path_text(self.dataset_path))
        if isinstance(self.action_logger, str):
            object.__setattr__(self, "action_logger", _SPELLINGS.get(self.action_logger, self.action_logger))
        check_types(self)
        require_one_of(self, "action_logger", (True, False, *ACTION_LOGGERS, *_SPELLINGS))
        require_one_of(self, "dataset_format", (None, *DATASET_FORMATS))
        require_one_of(self, "on_error", ("warn", "raise"))
        if self.vis_dataset and not self.dataset_path:
            raise ConfigError(
                f"vis_dataset is True, which needs offline data, and dataset_path is {self.dataset_path!r}. Set "
                "dataset_path (a file or folder of offline data), or leave vis_dataset out."
            )
