"""From a data set to its map and to what is logged of it; the work that a callback hands over."""

from __future__ import annotations

import importlib.metadata
import uuid
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlwandb_callbacks.config import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.core.values import Image, Scalar, Value
from rlwandb_callbacks.datasets import OfflineDataset
from rlwandb_callbacks.maps.cache import cache_file, load_map, save_map
from rlwandb_callbacks.maps.data_map import DataMap, StageProgress, make_map
from rlwandb_callbacks.maps.figures import pictures, policy_on_data, subtitle
from rlwandb_callbacks.maps.html_page import interactive_page, points_table
from rlwandb_callbacks.maps.policy_on_map import Visited, place
from rlwandb_callbacks.maps.sample_size import fitting_rows
from rlwandb_callbacks.maps.statistics import dataset_report
from rlwandb_callbacks.maps.tsne import choose_engine
from rlwandb_callbacks.media.figures import pixels_of
from rlwandb_callbacks.tracking.result import Job

_PACKAGES = {"opentsne": "openTSNE", "sklearn": "scikit-learn"}
# What the latest maker made in this process, or why it could not: each evaluation asks for it.
_latest: dict[str, DataMap | Exception] = {}


@dataclass(frozen=True, kw_only=True)
class MapMaker:
    """Makes the map of a data set, or takes it from the cache. It pickles.

    Args:
        dataset: The data.
        embedding: How they are laid out.
        cache_folder: Where maps are kept; None for nowhere.
        token: Tells makers apart; what one has made is kept in memory until another one makes a map.
    """

    dataset: OfflineDataset
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    cache_folder: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, progress: StageProgress | None = None) -> DataMap:
        """Gives the map.

        Args:
            progress: Called with the name of a stage and the share of it that is done.

        Raises:
            DatasetError: If the data cannot be read.
            ValueError: If no row of the sample is finite.
        """
        if self.token not in _latest:
            try:
                found: DataMap | Exception = self._from_cache_or_data(progress)
            except Exception as error:  # noqa: BLE001  # raised below, and at once when it is asked for again
                found = error
            _latest.clear()
            _latest[self.token] = found
        found = _latest[self.token]
        if isinstance(found, Exception):
            raise found
        return found

    def _from_cache_or_data(self, progress: StageProgress | None) -> DataMap:
        with self.dataset:
            file = None if self.cache_folder is None else cache_file(self.cache_folder, self._settings())
            kept = None if file is None else load_map(file)
            made = kept or self._make(progress)
        if file is not None and kept is None:
            save_map(file, made)
        return replace(made, name=short_name(self.dataset.name))

    @property
    def engine(self) -> str:
        """``opentsne`` or ``sklearn``."""
        return choose_engine(self.embedding.engine)

    @property
    def rows(self) -> int:
        """How many transitions are drawn."""
        total, wanted = self.dataset.num_transitions, self.embedding.sample_size
        if wanted is not None:
            return min(total, wanted)
        method, budget = self.embedding.method, self.embedding.max_seconds
        return fitting_rows(total, method=method, engine=self.engine, max_seconds=budget)

    def sample(self) -> Transitions:
        """Draws the transitions that the map is made of, and those that it leaves out as they are not finite.

        Raises:
            DatasetError: If the data cannot be read.
        """
        return self.dataset.sample(self.rows, self.embedding.seed)

    def _settings(self) -> dict[str, Any]:
        chosen = asdict(self.embedding) | {"engine": self.engine, "sample_size": self.rows, "max_seconds": None}
        version = importlib.metadata.version(_PACKAGES[self.engine])
        return {**chosen, "data": self.dataset.digest(), "version": version}

    def _make(self, progress: StageProgress | None) -> DataMap:
        made = make_map(
            self.sample(),
            total=self.dataset.num_transitions,
            name=self.dataset.name,
            method=self.embedding.method,
            engine=self.engine,
            perplexity=self.embedding.perplexity,
            seed=self.embedding.seed,
            progress=progress,
        )
        return replace(made, warnings=self.dataset.warnings)


def dataset_jobs(make: MapMaker, cfg: DatasetConfig) -> list[Job]:
    """Jobs that make what is logged of a data set: its pictures, table and page, and its numbers.

    Args:
        make: The map.
        cfg: Which pictures, and how many rows in the table.
    """
    return [partial(draw_dataset, make, cfg), partial(dataset_numbers, make)]


def draw_dataset(make: MapMaker, cfg: DatasetConfig) -> dict[str, Value]:
    """Draws the pictures, the table and the interactive page of a data set."""
    data_map = make()
    values = pictures(data_map, cfg.pictures)
    if cfg.table_rows:
        values["dataset/points"] = points_table(data_map, max_rows=cfg.table_rows)
        values["dataset/interactive"] = interactive_page(data_map, max_rows=cfg.table_rows)
    return values


def dataset_numbers(make: MapMaker) -> dict[str, Value]:
    """Numbers of a data set; also where it has no map."""
    try:
        transitions = make().transitions
    except Exception:  # noqa: BLE001  # draw_dataset raises the error of the map
        transitions = make.sample()
    return dataset_report(make.dataset.episodes(), transitions)


def draw_policy_on_map(make: MapMaker, visited: Visited) -> dict[str, Value]:
    """Draws the states of an evaluation on the map, and measures their distance from the data.

    Args:
        make: The map.
        visited: The states.
    """
    data_map = make()
    placed = place(visited, data_map)
    image = Image(pixels_of(policy_on_data(placed, data_map)), subtitle(data_map))
    numbers = {key: Scalar(number) for key, number in placed.numbers().items()}
    return {**numbers, "dataset/policy_on_data": image}


def short_name(name: str) -> str:
    """The last part of a path; other names, such as Minari's ids, as they are.

    Example:
        >>> short_name("mujoco/hopper/expert-v0")
        'mujoco/hopper/expert-v0'
    """
    return Path(name).name if Path(name).exists() else name


def cache_folder(record_path: str) -> str:
    """Where the maps of data sets are kept, below the folder for files."""
    return str(Path(record_path) / "cache")
