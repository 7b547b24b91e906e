"""All settings as one."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.config.alerts import AlertsConfig
from rlwandb_callbacks.config.dataset import DatasetConfig
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.gradients import GradientsConfig
from rlwandb_callbacks.config.metrics import MetricsConfig
from rlwandb_callbacks.config.plasticity import PlasticityConfig
from rlwandb_callbacks.config.run import RunConfig
from rlwandb_callbacks.config.validation import check_types, path_text, require, require_one_of
from rlwandb_callbacks.config.videos import VideosConfig
from rlwandb_callbacks.core.key_names import PRESETS
from rlwandb_callbacks.errors import ConfigError

EXECUTORS = ("process", "thread", "inline")
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
        dataset_format: Layout of the data, one of ``DATASET_FORMATS``; by default recognized by content.
        executor: Where slow work (replaying, drawing, encoding, embedding) is done: ``process``, one worker process;
            ``thread``; ``inline``, in the training process, which waits; or a ``concurrent.futures.Executor``, such as
            Dask's, whose workers see ``record_path`` under the same name.
        queue_size: Reports (an evaluation's videos) that wait or run at a time, ≥ 1; a data set's map takes none.
        queue_full: ``skip`` leaves the newest evaluation's videos out and counts them as ``logging/skipped``; ``wait``
            has training wait.
        finish_seconds: How long the end of a training waits for what is under way, ≥ 0.
        naming: Names that the run's keys get: those of ``sb3``, ``cleanrl``, ``torchrl`` or ``di-engine``; by default
            our own. Monitors go by our own names in any case.
        on_error: ``warn`` goes on training when logging fails, ``raise`` does not.
        evaluation: How episodes are played.
        dataset: How offline data are shown.
        metrics: How training metrics are logged.
        gradients: What ``wandb.watch`` is called with.
        videos: How videos are made.
        plasticity: Whether networks can still learn.
        alerts: When somebody should be told.
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
    executor: str | Executor = "process"
    queue_size: int = 4
    queue_full: str = "skip"
    finish_seconds: float = 600.0
    naming: str | None = None
    on_error: str = "warn"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    gradients: GradientsConfig = field(default_factory=GradientsConfig)
    videos: VideosConfig = field(default_factory=VideosConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    run: RunConfig = field(default_factory=RunConfig)

    key_prefix = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "record_path", path_text(self.record_path))
        object.__setattr__(self, "dataset_path", path_text(self.dataset_path))
        if isinstance(self.action_logger, str):
            object.__setattr__(self, "action_logger", _SPELLINGS.get(self.action_logger, self.action_logger))
        check_types(self)
        require_one_of(self, "action_logger", (True, False, *ACTION_LOGGERS, *_SPELLINGS))
        require_one_of(self, "naming", (None, *PRESETS))
        require_one_of(self, "dataset_format", (None, *DATASET_FORMATS))
        require_one_of(self, "on_error", ("warn", "raise"))
        require_one_of(self, "queue_full", ("skip", "wait"))
        require(self, "queue_size", lambda value: value >= 1, "a whole number ≥ 1")
        require(self, "finish_seconds", lambda value: value >= 0, "a number ≥ 0")
        if isinstance(self.executor, str):
            require_one_of(self, "executor", EXECUTORS)
        if self.vis_dataset and not self.dataset_path:
            raise ConfigError(
                f"vis_dataset is True, which needs offline data, and dataset_path is {self.dataset_path!r}. Set "
                "dataset_path (a file or folder of offline data), or leave vis_dataset out."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leaves a user's executor out: none can be pickled or copied."""
        return {**vars(self), "executor": self.executor if isinstance(self.executor, str) else "process"}
