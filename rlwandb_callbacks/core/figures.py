"""Distributions as pictures, drawn without pyplot and so without global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlwandb_callbacks.core.canvas import Pixels
from rlwandb_callbacks.core.histograms import histogram

DPI = 100


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


def pixels_of(figure: Figure) -> Pixels:
    """Renders a figure to RGB of shape ``[H, W, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
