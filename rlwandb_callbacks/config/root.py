"""All settings in one object."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

from rlwandb_callbacks.config.dataset import DatasetConfig
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.run import RunConfig
from rlwandb_callbacks.config.training import AlertsConfig, GradientsConfig, MetricsConfig, PlasticityConfig
from rlwandb_callbacks.config.validation import Bounds, OneOf, PositiveInt, Section, widened
from rlwandb_callbacks.config.videos import VideosConfig
from rlwandb_callbacks.core.presets import PRESETS
from rlwandb_callbacks.errors import ConfigError

DATASET_FORMATS = ("d4rl", "minari", "di-engine", "di-engine-pickle", "hdf5", "npz")  # of files and folders
SPELLINGS = {"q value": "q_value", "action probability": "action_probability"}

if TYPE_CHECKING:
    ExecutorChoice: TypeAlias = Annotated[str, OneOf("process", "thread", "inline")] | Executor
    Evaluations: TypeAlias = EvaluationConfig | dict[str, Any]
else:
    ExecutorChoice = widened(Annotated[str, OneOf("process", "thread", "inline")] | Executor)
    Evaluations = widened(EvaluationConfig | dict[str, Any], read_as=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class WandbRLConfig(Section):
    """All settings of :class:`rlwandb_callbacks.WandbRLCallback`.

    Args:
        plot_logger: Log training metrics: loss, lr, entropy, q-values, …
        gradient_logger: Log histograms of the gradients and parameters of the networks that train, and norms of their
            gradients.
        video_logger: Log the best, median and worst evaluation episode as videos; by default if an env is known.
        action_logger: What is drawn beside each frame: ``q_value``, ``action_probability``, ``True`` for whatever the
            policy returns, or ``False`` for nothing.
        return_logger: Log the distribution of evaluation returns.
        record_path: Folder for videos and pictures.
        metric_list: Names, or aliases, of the metrics to log; by default all that are known.
        vis_dataset: Draw the offline data at ``dataset_path``, and the states on them that evaluation episodes visit.
        dataset_path: Offline data: a file, a folder, or the id of an installed Minari data set; by default the only
            data set under ``record_path``. Data in memory are saved first:
            ``rlwandb_callbacks.open_dataset(data).save("data.npz")``.
        dataset_format: Layout of the data: ``d4rl``, ``minari``, ``di-engine``, ``di-engine-pickle``, ``hdf5`` or
            ``npz``; by default recognized from the content.
        executor: Where slow jobs (replaying, drawing, encoding, embedding) run: ``process``, one worker process;
            ``thread``; ``inline``, in the training process, which waits; or a ``concurrent.futures.Executor``, such as
            Dask's, whose workers can write to ``record_path`` under the same name.
        queue_size: Largest number of evaluations whose videos wait or are made at a time, ≥ 1; the map of a data set
            does not count.
        queue_full: ``skip`` leaves out the videos of the newest evaluation and counts them as ``logging/skipped``;
            ``wait`` blocks training until there is room.
        finish_seconds: Longest time in seconds that the end of a training waits, in all, for unfinished jobs and for
            W&B's server, ≥ 0. W&B gets at least 5 s. What it has not sent then can be sent later.
        naming: Key names of another library: ``sb3``, ``cleanrl``, ``torchrl`` or ``di-engine``; by default our own.
            ``ModelCheckpoint`` and ``EarlyStopping`` always monitor our own names.
        on_error: ``warn`` continues training if logging fails, ``raise`` stops it.
        evaluation: How evaluation episodes are played; or a mapping of several evaluations by name, whose keys are
            ``eval/<name>/…``. Settings beside them hold for those that do not set them.
        dataset: How offline data are drawn.
        metrics: How training metrics are logged.
        gradients: How gradients and parameters are logged.
        videos: How videos are made.
        plasticity: How plasticity is measured.
        alerts: When an alert is sent.
        run: The W&B run to open if there is none.
    """

    plot_logger: bool = True
    gradient_logger: bool = False
    video_logger: bool | None = None
    action_logger: bool | Annotated[str, OneOf("q_value", "action_probability", *SPELLINGS)] = False
    return_logger: bool = True
    record_path: str = "./rl_videos"
    metric_list: list[str] | None = None
    vis_dataset: bool = False
    dataset_path: str | None = None
    dataset_format: Annotated[str, OneOf(*DATASET_FORMATS)] | None = None
    executor: ExecutorChoice = "process"
    queue_size: PositiveInt = 4
    queue_full: Annotated[str, OneOf("skip", "wait")] = "skip"
    finish_seconds: Annotated[float, Bounds(ge=0)] = 600.0
    naming: Annotated[str, OneOf(*PRESETS)] | None = None
    on_error: Annotated[str, OneOf("warn", "raise")] = "warn"
    evaluation: Evaluations = field(default_factory=EvaluationConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    gradients: GradientsConfig = field(default_factory=GradientsConfig)
    videos: VideosConfig = field(default_factory=VideosConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        for name in ("record_path", "dataset_path"):
            path = getattr(self, name)
            object.__setattr__(self, name, os.fspath(path) if isinstance(path, os.PathLike) else path)
        if not isinstance(self.dataset_path, str | None):
            raise ConfigError(
                f"dataset_path is a {type(self.dataset_path).__name__}; it must be the path of a file or folder of "
                "offline data. Save data that are in memory first: "
                'rlwandb_callbacks.open_dataset(data).save("data.npz").'
            )
        if not isinstance(self.evaluation, EvaluationConfig):
            from rlwandb_callbacks.config.from_mapping import build_evaluation  # which imports this module

            object.__setattr__(self, "evaluation", build_evaluation(self.evaluation))
        super().__post_init__()
        if isinstance(self.action_logger, str):
            object.__setattr__(self, "action_logger", SPELLINGS.get(self.action_logger, self.action_logger))
        if self.dataset_path is not None and not self.dataset_path.strip():
            raise ConfigError(
                f"dataset_path is {self.dataset_path!r}; it must be the path of a file or folder of offline data, or "
                "null for the data set under record_path."
            )

    @property
    def evaluations(self) -> dict[str | None, EvaluationConfig]:
        """All evaluations by their names; a single one without a name has the key None."""
        named = self.evaluation.values() if isinstance(self.evaluation, dict) else [self.evaluation]
        return {each.name: each for each in named}

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without a user's executor, which cannot be pickled or copied."""
        return {**vars(self), "executor": self.executor if isinstance(self.executor, str) else "process"}


if TYPE_CHECKING:

    class OneEvaluationConfig(WandbRLConfig):
        """Settings of which one evaluation is used."""

        evaluation: EvaluationConfig

else:
    OneEvaluationConfig = WandbRLConfig


def with_one_evaluation(cfg: WandbRLConfig, name: str | None = None) -> OneEvaluationConfig:
    """Returns the settings with only one of their evaluations.

    Args:
        cfg: Settings of one or several evaluations.
        name: Name of one of several evaluations.

    Raises:
        ConfigError: If there are several and ``name`` is none of theirs.
    """
    if isinstance(cfg.evaluation, EvaluationConfig):
        return cast("OneEvaluationConfig", cfg)
    if name not in cfg.evaluation:
        names = ", ".join(map(repr, cfg.evaluation))
        raise ConfigError(
            f"name is {name!r}, and the config has the evaluations {names}; name must be one of them. WandbRLCallback "
            "plays all of them."
        )
    return cast("OneEvaluationConfig", replace(cfg, evaluation=cfg.evaluation[name]))
