"""Figures of an evaluation, drawn without pyplot and so without global state."""

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
LARGEST_DRAWN = 1e100  # beyond it, the arithmetic of matplotlib overflows


def return_distribution(returns: Sequence[float], *, title: str) -> Pixels:
    """Draws the distribution of the returns of one evaluation, with each episode, mean and median: 800 × 450 pixels.

    Returns that are NaN or infinite are left out; the legend then says that mean and median are those of the others.
    """
    samples = np.asarray(returns, dtype=np.float64)
    figure = Figure(figsize=(8, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    counted = histogram(samples)
    finite = samples[np.isfinite(samples)]
    if counted is not None:
        axes.stairs(counted.counts, counted.edges, fill=True, color="#568ee2", alpha=0.75)
        axes.set_ylim(0, 1.1 * counted.counts.max())
        axes.margins(x=1.0 if len(counted.counts) == 1 else 0.05)
    axes.plot(finite, np.zeros_like(finite), "|", color="black", markersize=12, clip_on=False, label="episode")
    if finite.size:
        of_whom = "" if finite.size == samples.size else " of finite returns"
        mean, median = float(finite.mean()), float(np.median(finite))
        axes.axvline(mean, color="#d1495b", label=f"mean{of_whom} {mean:,.4g}")
        axes.axvline(median, color="#2e4057", ls="--", label=f"median{of_whom} {median:,.4g}")
    axes.set(title=title, xlabel="episode return (undiscounted)", ylabel="episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return pixels_of(figure)


def prediction_against_return(
    predictions: NDArray[np.float64], returns: NDArray[np.float64], *, quantity: str, title: str
) -> Pixels:
    """Draws predictions of a critic against the discounted returns that followed: 700 × 600 pixels.

    Points above the line are overestimates. Both axes have the same unit and range, so the vertical distance from the
    line is the error. Both arrays have shape ``[N]``, N ≥ 1, and are finite; ``quantity`` is such as ``Q(s, a)``.
    """
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shown = np.unique(np.linspace(0, len(predictions) - 1, MAX_POINTS).astype(np.int64))
    predictions, returns = (np.clip(samples, -LARGEST_DRAWN, LARGEST_DRAWN) for samples in (predictions, returns))
    low, high = float(min(predictions.min(), returns.min())), float(max(predictions.max(), returns.max()))
    margin = max(0.05 * (high - low), 0.01 * abs(high), 1e-3)
    low, high = low - margin, high + margin
    opacity = float(np.clip(300 / len(shown), 0.12, 0.8))
    axes.plot(returns[shown], predictions[shown], "o", ms=4, mew=0, color="#568ee2", alpha=opacity)
    axes.plot([], [], "o", ms=4, color="#568ee2", label="step")  # in the legend, not faint
    axes.plot([low, high], [low, high], color="#2e4057", ls="--", lw=1.2, label="prediction = return")
    axes.plot(returns.mean(), predictions.mean(), "X", ms=11, mec="white", color="#d1495b", label="mean")
    for x, alignment, text in ((0.03, "left", "too high"), (0.97, "right", "too low")):
        axes.text(x, 1 - x, text, transform=axes.transAxes, ha=alignment, va="center", color="#6b7280")
    axes.set(title=title, xlabel="discounted return", ylabel=f"prediction {quantity}")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return pixels_of(figure)


def pixels_of(figure: Figure) -> Pixels:
    """Renders a figure to RGB of shape ``[H, W, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
