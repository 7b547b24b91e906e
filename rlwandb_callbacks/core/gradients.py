"""Histograms of parameters under the names that W&B gives to watched networks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.histograms import MAX_BINS, histogram
from rlwandb_callbacks.core.values import Value


def parameter_histograms(parameters: Mapping[str, NDArray[np.generic]]) -> dict[str, Value]:
    """Makes one 64-bin histogram per parameter, as ``wandb.watch`` does.

    Args:
        parameters: Arrays of any shape by dotted parameter name.

    Returns:
        ``parameters/<name>`` for each parameter that has a finite element.

    Example:
        >>> list(parameter_histograms({"q.0.bias": np.zeros(3)}))
        ['parameters/q.0.bias']
    """
    counted = {name: histogram(values, bins=MAX_BINS) for name, values in parameters.items()}
    return {f"parameters/{name}": value for name, value in counted.items() if value is not None}
