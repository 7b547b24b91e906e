"""The jobs of a data set: from its file to its map, and from the map to what is logged."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import uuid
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlwandb_callbacks.config import DatasetConfig, EmbeddingConfig
from rlwandb_callbacks.core.files import folder_in
from rlwandb_callbacks.core.transitions import Transitions
from rlwandb_callbacks.core.values import Image, Scalar, Value
from rlwandb_callbacks.datasets import OfflineDataset
from rlwandb_callbacks.maps.data_map import DataMap, StageProgress, load_map, make_map, save_map
from rlwandb_callbacks.maps.figures import pictures, policy_on_data, subtitle
from rlwandb_callbacks.maps.html_page import INSTALL_PLOTLY, has_plotly, interactive_page
from rlwandb_callbacks.maps.policy_on_map import VisitedStates, place
from rlwandb_callbacks.maps.statistics import dataset_statistics
from rlwandb_callbacks.maps.table import points_table
from rlwandb_callbacks.maps.tsne import ENGINE_NAMES, choose_engine
from rlwandb_callbacks.media.figures import pixels_of
from rlwandb_callbacks.tracking.result import Job

FILE_FORMAT = 3
MAX_ROWS = 10_000
MIN_ROWS = 500
# Seconds for both maps and all pictures on one slow core: a fixed part, and for each thousand rows. openTSNE and
# scikit-learn took 14 and 78 s for two maps of 10,000 × 17 numbers.
COSTS = {"opentsne": (6.0, 2.0), "sklearn": (6.0, 8.0), "pca": (5.0, 0.3)}
# The result of the latest maker in this process, a map or an error: each evaluation asks for it.
_latest: dict[str, DataMap | Exception] = {}


@dataclass(frozen=True, kw_only=True)
class MapMaker:
    """Makes the map of a data set, or reads it from the cache. Picklable.

    Args:
        cache_folder: Folder of the map files; None disables the cache.
        token: Identifies the maker; its result stays in memory until another maker makes a map.
    """

    dataset: OfflineDataset
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    cache_folder: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __call__(self, progress: StageProgress | None = None) -> DataMap:
        """Returns the map.

        Raises:
            DatasetError: If the data cannot be read.
            ValueError: If no row of the sample is finite.
        """
        if self.token not in _latest:
            try:
                result: DataMap | Exception = self._load_or_make(progress)
            except Exception as error:  # noqa: BLE001  # raised below, and by later calls without a second try
                result = error
            _latest.clear()
            _latest[self.token] = result
        result = _latest[self.token]
        if isinstance(result, Exception):
            raise result
        return result

    def _load_or_make(self, progress: StageProgress | None) -> DataMap:
        with self.dataset:
            file = None if self.cache_folder is None else map_file(self.cache_folder, self._settings())
            cached = None if file is None else load_map(file)
            data_map = cached or self._make(progress)
        if file is not None and cached is None:
            save_map(file, data_map)
        return replace(data_map, name=short_name(self.dataset.name))

    @property
    def engine(self) -> str:
        """``opentsne`` or ``sklearn``."""
        return choose_engine(self.embedding.engine)

    @property
    def rows(self) -> int:
        """Number of transitions in the sample."""
        total, size = self.dataset.num_transitions, self.embedding.sample_size
        if size is not None:
            return min(total, size)
        engine = "pca" if self.embedding.method == "pca" else self.engine
        return affordable_rows(total, engine=engine, max_seconds=self.embedding.max_seconds)

    def sample(self) -> Transitions:
        """Draws the transitions of the map, also those that it leaves out because they are not finite."""
        return self.dataset.sample(self.rows, self.embedding.seed)

    def _settings(self) -> dict[str, Any]:
        embedding = asdict(self.embedding) | {"engine": self.engine, "sample_size": self.rows, "max_seconds": None}
        version = importlib.metadata.version(ENGINE_NAMES[self.engine])
        return {**embedding, "data": self.dataset.digest(), "version": version}

    def _make(self, progress: StageProgress | None) -> DataMap:
        data_map = make_map(
            self.sample(),
            total=self.dataset.num_transitions,
            name=self.dataset.name,
            method=self.embedding.method,
            engine=self.engine,
            perplexity=self.embedding.perplexity,
            seed=self.embedding.seed,
            progress=progress,
        )
        return replace(data_map, warnings=self.dataset.warnings)


def affordable_rows(total: int, *, engine: str, max_seconds: float) -> int:
    """Returns how many of ``total`` rows an engine, a key of ``COSTS``, can lay out and draw within ``max_seconds``.

    At most 10,000, which show what 100,000 show, and at least 500.

    Example:
        >>> affordable_rows(10**6, engine="opentsne", max_seconds=60)
        10000
        >>> affordable_rows(10**6, engine="sklearn", max_seconds=60)
        6750
    """
    fixed, per_thousand = COSTS[engine]
    affordable = int(1_000 * (max_seconds - fixed) / per_thousand)
    return min(total, max(MIN_ROWS, min(MAX_ROWS, affordable)))


def map_file(folder: str, settings: dict[str, Any]) -> Path:
    """Returns the cache file of a map; ``settings`` determine it: digest of the data, method, versions."""
    text = json.dumps({**settings, "format": FILE_FORMAT}, sort_keys=True)
    return Path(folder) / f"map_{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def cache_folder(record_path: str) -> str:
    """Returns the folder for maps of data sets, below the folder for files."""
    return str(folder_in(Path(record_path), "cache"))


def short_name(name: str) -> str:
    """Returns the last part of a path; other names, such as Minari ids, are returned unchanged.

    Example:
        >>> short_name("mujoco/hopper/expert-v0")
        'mujoco/hopper/expert-v0'
    """
    return Path(name).name if Path(name).exists() else name


def dataset_jobs(make: MapMaker, cfg: DatasetConfig) -> list[Job]:
    """Makes the jobs that draw a data set: its pictures, table and page, and its numbers."""
    return [partial(draw_dataset, make, cfg), partial(dataset_numbers, make)]


def missing_page(cfg: DatasetConfig) -> str | None:
    """Returns a warning if the interactive page is wanted and Plotly, which makes it, is not installed."""
    if not cfg.table_rows or has_plotly():
        return None
    return (
        "the interactive map dataset/interactive is not logged, as Plotly is not installed. Install it with: "
        f"{INSTALL_PLOTLY}, or set dataset.table_rows to 0 to log neither the page nor the table."
    )


def draw_dataset(make: MapMaker, cfg: DatasetConfig) -> dict[str, Value]:
    """Draws the pictures, the table and, if Plotly is installed, the interactive page of a data set."""
    data_map = make()
    values = pictures(data_map, cfg.pictures)
    if cfg.table_rows:
        values["dataset/points"] = points_table(data_map, max_rows=cfg.table_rows)
        if has_plotly():
            values["dataset/interactive"] = interactive_page(data_map, max_rows=cfg.table_rows)
    return values


def dataset_numbers(make: MapMaker) -> dict[str, Value]:
    """Returns the numbers of a data set; they do not need a map."""
    try:
        transitions = make().transitions
    except Exception:  # noqa: BLE001  # draw_dataset raises the error of the map
        transitions = make.sample()
    return dataset_statistics(make.dataset.episodes(), transitions)


def draw_policy_on_map(make: MapMaker, visited: VisitedStates) -> dict[str, Value]:
    """Draws the states of an evaluation on the map, and measures their distance from the data."""
    data_map = make()
    placed = place(visited, data_map)
    image = Image(pixels_of(policy_on_data(placed, data_map)), subtitle(data_map))
    numbers = {key: Scalar(number) for key, number in placed.numbers().items()}
    return {**numbers, "dataset/policy_on_data": image}
