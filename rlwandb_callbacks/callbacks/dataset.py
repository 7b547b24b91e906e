"""Logs a map of the offline data, and the states of the policy on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.ranks import Ranks
from rlwandb_callbacks.callbacks.session import sessions_in
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.maps.jobs import MapMaker, cache_folder, dataset_jobs, draw_policy_on_map, missing_page
from rlwandb_callbacks.maps.policy_on_map import visited_states
from rlwandb_callbacks.tracking.result import Job

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class DatasetCallback(RLCallback):
    """Logs a map of the data set when training starts, and the states of every evaluation on it.

    Keys are ``dataset/…``: numbers of the data set, pictures, a table and an interactive page; with each evaluation
    ``dataset/policy_on_data``, ``dataset/ood_distance`` and ``dataset/ood_ratio``.

    Example:
        >>> DatasetCallback(dataset_path="pendulum.hdf5", dataset={"embedding": {"seed": 3}}).cfg.dataset.embedding.seed
        3
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._make_map: MapMaker | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the data out."""
        return {**super().__getstate__(), "_make_map": None}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the data set, so that an error in it is raised before the first step, and on all ranks."""
        super().on_fit_start(trainer, pl_module)
        ranks = Ranks(trainer)
        error: Exception | None = None
        for session in sessions_in(trainer, self.session):
            session.wants_observations = self.cfg.dataset.policy_on_data
        if ranks.is_zero:
            try:
                self._open(trainer)
            except Exception as caught:  # noqa: BLE001  # raised below, on all ranks
                error = caught
        ranks.raise_together(error)

    def _open(self, trainer: Trainer) -> None:
        if not self.cfg.dataset_path:
            raise ConfigError(
                f"dataset_path is {self.cfg.dataset_path!r}, and the DatasetCallback needs it. Set it to a file or "
                "folder of offline data."
            )
        dataset = open_dataset(self.cfg.dataset_path, self.cfg.dataset_format)
        folder = cache_folder(self.cfg.record_path)
        self._make_map = MapMaker(dataset=dataset, embedding=self.cfg.dataset.embedding, cache_folder=folder)
        for session in sessions_in(trainer, self.session) if self.cfg.dataset.policy_on_data else []:
            session.evaluation_jobs[type(self).__name__] = self._job_of

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Queues the map."""
        super().on_train_start(trainer, pl_module)
        if self._make_map is not None and self.session.tracker is not None:
            if warning := missing_page(self.cfg.dataset):
                self.session.errors.warn_once(warning, kind="Plotly")
            jobs = dataset_jobs(self._make_map, self.cfg.dataset)
            self.session.submit(trainer, pl_module, "Drawing the data set", jobs, takes_place=False)

    def _job_of(self, evaluation: Evaluation) -> Job | None:
        if self._make_map is None:
            return None
        visited = visited_states(evaluation.episodes)
        if visited is None:
            self.session.errors.warn_once(
                "the states of the evaluation are not drawn on the map of the data set, as their observations are not "
                "finite or differ in shape.",
                kind="no states to place",
            )
            return None
        return partial(draw_policy_on_map, self._make_map, visited)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the reference to the data."""
        self._make_map = None
