"""Distributions as pictures, drawn without pyplot and so without global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlwandb_callbacks.core.histograms import histogram
from rlwandb_callbacks.core.values import Pixels

DPI = 100
MAX_POINTS = 5_000
LARGEST_DRAWN = 1e100  # beyond it, matplotlib's own arithmetic overflows


def return_distribution(returns: Sequence[float], *, title: str) -> Pixels:
    """Draws how the episode returns of one evaluation are spread: bars, every single episode, mean and median.

    Args:
        returns: One undiscounted return per episode, at least one.
        title: Above the picture.

    Returns:
        Shape ``[450, 800, 3]``.
    """
    samples = np.asarray(returns, dtype=np.float64)
    figure = Figure(figsize=(8, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    counted = histogram(samples)
    finite = samples[np.isfinite(samples)]
    if counted is not None:
        is_constant = len(counted.counts) == 1
        edges = finite[0] + np.array([-0.5, 0.5]) * max(1.0, 0.01 * abs(finite[0])) if is_constant else counted.edges
        axes.stairs(counted.counts, edges, fill=True, color="#568ee2", alpha=0.75)
        axes.set_ylim(0, 1.1 * counted.counts.max())
        axes.margins(x=1.0 if is_constant else 0.05)
    axes.plot(finite, np.zeros_like(finite), "|", color="black", markersize=12, clip_on=False, label="episode")
    if finite.size:
        axes.axvline(float(finite.mean()), color="#d1495b", label=f"mean {finite.mean():,.4g}")
        axes.axvline(float(np.median(finite)), color="#2e4057", ls="--", label=f"median {np.median(finite):,.4g}")
    axes.set(title=title, xlabel="episode return (undiscounted)", ylabel="episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return pixels_of(figure)


def prediction_against_return(
    predictions: NDArray[np.float64], returns: NDArray[np.float64], *, quantity: str, title: str
) -> Pixels:
    """Draws what a critic predicted against what came: above the line it hoped for too much, below for too little.

    Both axes have the same unit and range, so that the distance from the line is the error.

    Args:
        predictions: Shape ``[N]``, N ≥ 1, finite.
        returns: Shape ``[N]``, discounted, finite.
        quantity: Name of what was predicted, such as ``Q(s, a)``.
        title: Above the picture.

    Returns:
        Shape ``[600, 700, 3]``.
    """
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shown = np.unique(np.linspace(0, len(predictions) - 1, MAX_POINTS).astype(np.int64))
    predictions, returns = (np.clip(samples, -LARGEST_DRAWN, LARGEST_DRAWN) for samples in (predictions, returns))
    low, high = _padded_range(np.concatenate([predictions, returns]))
    opacity = float(np.clip(300 / len(shown), 0.12, 0.8))
    axes.plot(returns[shown], predictions[shown], "o", ms=4, mew=0, color="#568ee2", alpha=opacity)
    axes.plot([], [], "o", ms=4, color="#568ee2", label="step")  # in the legend, not faint
    axes.plot([low, high], [low, high], color="#2e4057", ls="--", lw=1.2, label="prediction = return")
    axes.plot(returns.mean(), predictions.mean(), "X", ms=11, mec="white", color="#d1495b", label="mean")
    for place, alignment, text in ((0.03, "left", "too high"), (0.97, "right", "too low")):
        axes.text(place, 1 - place, text, transform=axes.transAxes, ha=alignment, va="center", color="#6b7280")
    axes.set(title=title, xlabel="discounted return that came", ylabel=f"prediction {quantity}")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return pixels_of(figure)


def _padded_range(samples: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(samples.min()), float(samples.max())
    margin = max(0.05 * (high - low), 0.01 * abs(high), 1e-3)
    return low - margin, high + margin


def pixels_of(figure: Figure) -> Pixels:
    """Renders a figure to RGB of shape ``[H, W, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
