"""Logs a map of the offline data, and the states of the policy on it."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlwandb_callbacks.callbacks.base import RLCallback
from rlwandb_callbacks.callbacks.session_parts import sessions_in
from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.datasets.discover import find_dataset, no_dataset
from rlwandb_callbacks.errors import DatasetError
from rlwandb_callbacks.evaluation.summary import Evaluation
from rlwandb_callbacks.maps.jobs import (
    MapMaker,
    cache_folder,
    dataset_jobs,
    draw_policy_on_map,
    missing_page,
    short_name,
)
from rlwandb_callbacks.maps.policy_on_map import visited_states
from rlwandb_callbacks.tracking.result import Job

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


class DatasetCallback(RLCallback):
    """Logs a map of the data set when training starts, and the states of every evaluation on it.

    Without ``dataset_path`` the data set under ``record_path`` is drawn. As a module may write its data when training
    starts, it is looked for again at the first evaluation if there is none at first.

    Keys are ``dataset/…``: numbers of the data set, pictures, a table and an interactive page; with each evaluation
    ``dataset/policy_on_data``, ``dataset/ood_distance`` and ``dataset/ood_ratio``.

    Example:
        >>> DatasetCallback(dataset_path="pendulum.hdf5", dataset={"embedding": {"seed": 3}}).cfg.dataset.embedding.seed
        3
    """

    def __init__(self, cfg: Any = None, **keywords: Any) -> None:
        super().__init__(cfg, **keywords)
        self._make_map: MapMaker | None = None
        self._is_missing = False

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the data out."""
        return {**super().__getstate__(), "_make_map": None, "_is_missing": False}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the data set, so that an error in it is raised before the first step, and on all ranks."""
        super().on_fit_start(trainer, pl_module)
        error: Exception | None = None
        for session in sessions_in(trainer, self.session):
            session.wants_observations = self.cfg.dataset.policy_on_data
        if trainer.is_global_zero:
            try:
                self._open(trainer, pl_module)
            except Exception as caught:  # noqa: BLE001  # raised below, on all ranks
                error = caught
        self._raise_of_zero(trainer, "when the data set is opened", error)

    def _open(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._use(self._find())
        self._is_missing = self._make_map is None
        if self.cfg.dataset.policy_on_data or self._is_missing:
            for session in sessions_in(trainer, self.session):
                session.evaluation_jobs[type(self).__name__] = partial(self._job_of, trainer, pl_module)

    def _find(self) -> OfflineDataset | None:
        if self.cfg.dataset_path is None:
            return find_dataset(_absolute(self.cfg.record_path), self.cfg.dataset_format)
        return open_dataset(_absolute(self.cfg.dataset_path), self.cfg.dataset_format)

    def _use(self, dataset: OfflineDataset | None) -> None:
        self._make_map = None
        if dataset is not None:
            folder = cache_folder(str(Path(self.cfg.record_path).absolute()))
            self._make_map = MapMaker(dataset=dataset, embedding=self.cfg.dataset.embedding, cache_folder=folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Queues the map."""
        super().on_train_start(trainer, pl_module)
        self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._make_map is not None and self.session.tracker is not None:
            if warning := missing_page(self.cfg.dataset):
                self.session.errors.warn_once(warning, kind="Plotly")
            self._warn_of_data(self._make_map.dataset)
            jobs = dataset_jobs(self._make_map, self.cfg.dataset)
            self.session.submit(trainer, pl_module, "Drawing the data set", jobs, takes_place=False)

    def _warn_of_data(self, dataset: OfflineDataset) -> None:
        """Warns of what was not read; the pictures show these warnings and those of episodes."""
        with contextlib.suppress(DatasetError):  # reported when the pictures are made
            for warning in dataset.reading_warnings:
                self.session.errors.warn_once(f"{short_name(dataset.name)}: {warning}", kind=warning)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks for data that a module without evaluations wrote."""
        super().on_train_end(trainer, pl_module)
        self._look_again(trainer, pl_module)

    def _look_again(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_missing or self.session.tracker is None:
            return
        self._is_missing = False
        with self.session.errors.guard("Looking for offline data"):
            self._use(self._find())
            if self._make_map is None:
                warning = no_dataset(self.cfg.record_path, self.cfg.dataset_format)
                self.session.errors.warn_once(warning, kind="no data set")
        self._draw(trainer, pl_module)

    def _job_of(self, trainer: Trainer, pl_module: LightningModule, evaluation: Evaluation) -> Job | None:
        self._look_again(trainer, pl_module)
        if self._make_map is None or not self.cfg.dataset.policy_on_data:
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
        self._make_map, self._is_missing = None, False


def _absolute(path: str) -> str:
    """Returns an absolute path, as workers elsewhere have another working folder; ids of data sets stay as they are."""
    local = Path(path).expanduser()
    return str(local.absolute()) if local.exists() else path
