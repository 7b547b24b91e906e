from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.manifold import trustworthiness

from rlwandb_callbacks.maps.features import distinct_rows
from rlwandb_callbacks.maps.tsne import choose_engine, lay_out, pca, spread_duplicates, tsne

ENGINES = ("opentsne", "sklearn")


def layout_of(features: np.ndarray, engine: str = "opentsne", **keywords: Any) -> Any:
    given = {"method": "tsne", "perplexity": 30.0, "seed": 0} | keywords
    return lay_out(features.astype(np.float32), engine=engine, **given)


def two_clusters(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    kinds = np.arange(count) % 2
    return np.random.default_rng(0).normal(size=(count, 4)) + 12 * kinds[:, None] * np.array([1, -1, 1, -1]), kinds


@pytest.mark.parametrize("engine", ENGINES)
def test_two_clusters_stay_separate(engine: str) -> None:
    features, kinds = two_clusters()
    layout = layout_of(features, engine)
    found = KMeans(2, n_init=3, random_state=0).fit(layout.points)
    assert np.mean(found.labels_ == kinds) in (0.0, 1.0)
    within = [np.linalg.norm(np.ptp(layout.points[kinds == kind], axis=0)) for kind in (0, 1)]
    assert np.linalg.norm(np.diff(found.cluster_centers_, axis=0)) > 0.5 * max(within)
    assert layout.method == {"opentsne": "t-SNE (openTSNE, perplexity 30, seed 0)"}.get(
        engine, "t-SNE (scikit-learn, perplexity 30, seed 0)"
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbors_stay_neighbors(engine: str) -> None:
    angles = np.linspace(0, 6, 300)
    features = np.stack([np.cos(angles), np.sin(angles), angles, np.cos(3 * angles)], axis=1)
    assert trustworthiness(features, layout_of(features, engine).points, n_neighbors=5) > 0.97


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layout_that_starts_from_another_correlates_with_it(engine: str, rng: np.random.Generator) -> None:
    features, _ = two_clusters(200)
    first = layout_of(features, engine).points
    second = layout_of(np.column_stack([features, rng.normal(size=200)]), engine, start=first).points
    correlation = [np.corrcoef(first[:, axis], second[:, axis])[0, 1] for axis in (0, 1)]
    assert min(correlation) > 0.7


PRINT_LAYOUTS = """
import hashlib, numpy as np
from rlwandb_callbacks.maps.tsne import lay_out
rows = np.random.default_rng(1).normal(size=(400, 6)).astype(np.float32)
for engine in ("opentsne", "sklearn"):
    points = lay_out(rows, method="tsne", engine=engine, perplexity=30.0, seed=3).points
    print(hashlib.sha256(points.tobytes()).hexdigest())
"""


def test_the_same_rows_and_seed_give_the_same_points_on_one_thread_and_on_two() -> None:
    outputs = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", PRINT_LAYOUTS]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("features", "method", "note"),
    [
        (np.zeros((1, 3)), "single point", "all rows are equal"),
        (np.full((40, 3), 7.0), "single point", "all rows are equal"),
        (np.array([[0.0, 1.0], [2.0, 3.0]]), "PCA", "2 distinct rows are too few for t-SNE"),
        (np.repeat(np.arange(5.0)[:, None], 100, axis=0), "PCA", "5 distinct rows are too few for t-SNE"),
        (np.arange(50.0)[:, None], "t-SNE", ""),
        (np.arange(13.0)[:, None] * [[1.0, 2.0]], "t-SNE", ""),
        (np.repeat(np.random.default_rng(0).normal(size=(60, 3)), 5, axis=0), "t-SNE", ""),
        (np.eye(16)[np.arange(160) % 16], "t-SNE", ""),
        (np.concatenate([np.random.default_rng(0).normal(size=(60, 3)), [[1e30, 0, 0]]]), "t-SNE", ""),
    ],
    ids=["one", "all equal", "two", "five distinct", "one column", "on a line", "repeats", "one-hot", "outlier"],
)
def test_degenerate_rows_get_points_and_a_note(engine: str, features: np.ndarray, method: str, note: str) -> None:
    layout = layout_of(features, engine)
    assert layout.points.shape == (len(features), 2)
    assert np.isfinite(layout.points).all()
    assert layout.method.startswith(method)
    assert layout.notes == ((note,) if note else ())


def test_an_outlier_does_not_shrink_the_rest_of_the_map(rng: np.random.Generator) -> None:
    points = layout_of(np.concatenate([rng.normal(size=(80, 3)), [[1e30, 1e30, 0]]])).points
    assert np.ptp(points[:-1], axis=0).min() > 0.2 * np.ptp(points, axis=0).max()


def test_perplexity_is_limited_for_few_rows_and_reported(rng: np.random.Generator) -> None:
    assert "perplexity 6.33," in layout_of(rng.normal(size=(20, 3))).method


def test_duplicates_lie_around_their_point_and_stay_distinguishable(rng: np.random.Generator) -> None:
    states = rng.normal(size=(40, 3)) * 10
    which = np.arange(400) % 40
    points = layout_of(states[which]).points
    assert len(np.unique(points.round(9), axis=0)) == 400
    centers = np.stack([points[which == i].mean(axis=0) for i in range(40)])
    nearest = np.linalg.norm(points[:, None] - centers[None], axis=2).argmin(axis=1)
    assert np.mean(nearest == which) > 0.95


def test_rows_that_differ_by_rounding_errors_count_as_one() -> None:
    first, inverse = distinct_rows(np.array([[1.0, 0.0], [5.0, 1.0], [1.0 + 1e-7, 0.0]], np.float32))
    assert first.tolist() == [0, 1]
    assert inverse.tolist() == [0, 1, 0]


def test_a_point_without_duplicates_is_not_moved() -> None:
    points = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert spread_duplicates(points, np.array([0, 1])).tolist() == points.tolist()


def test_progress_increases_to_one(rng: np.random.Generator) -> None:
    reported: list[float] = []
    layout_of(rng.normal(size=(50, 3)), progress=reported.append)
    assert len(reported) > 5
    assert all(early < late for early, late in pairwise(reported))
    assert reported[-1] == 1


def test_reporting_progress_does_not_change_the_layout(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(50, 3))
    assert np.array_equal(layout_of(rows).points, layout_of(rows, progress=lambda fraction: None).points)


def test_principal_components_are_ordered_by_variance(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(100, 3)) * [1, 9, 3]
    layout = pca(rows.astype(np.float32))
    assert abs(np.corrcoef(layout[:, 0], rows[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(layout[:, 1], rows[:, 2])[0, 1]) > 0.9


def test_opentsne_is_chosen_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("auto") == "opentsne"
    assert choose_engine("sklearn") == "sklearn"
    monkeypatch.setattr("rlwandb_callbacks.maps.tsne.find_spec", lambda name: None)
    assert choose_engine("auto") == "sklearn"


def test_the_global_random_state_does_not_change(rng: np.random.Generator) -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    for engine in ENGINES:
        tsne(rng.normal(size=(40, 3)).astype(np.float32), engine=engine, perplexity=5, seed=0)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
