"""Measures of plasticity: dormant neurons, rank of the features, size of the weights and of their updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def dormant_fraction(mean_activations: Sequence[Floats], *, threshold: float = 0.025) -> float | None:
    """Returns the fraction of τ-dormant neurons of all layers together, in [0, 1].

    Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning": with ``h_i(x)`` the activation of
    neuron ``i`` of a layer of ``H`` neurons, its score is ``s_i = E_x|h_i(x)| / (1/H Σ_k E_x|h_k(x)|)``, and it is
    τ-dormant if ``s_i ≤ τ``. The score compares a neuron with its layer: it finds inactive ReLUs, but not saturated
    neurons of other activation functions, and one neuron with a very large activation makes all others dormant. All
    neurons of a layer without any activation are dormant. The result is NaN if an activation is not finite, and None if
    there are no neurons.

    Args:
        mean_activations: ``E_x|h_i(x)|`` of each hidden layer, shape ``[H]``. A channel of a convolution is one neuron.
        threshold: τ ≥ 0.

    Example:
        >>> dormant_fraction([np.array([1.0, 1.0, 0.01, 0.0]), np.array([0.0, 0.0])])
        0.6666666666666666
    """
    count = sum(layer.size for layer in mean_activations)
    if not count:
        return None
    if not all(np.isfinite(layer).all() for layer in mean_activations):
        return float("nan")
    return sum(int(np.sum(layer <= threshold * layer.mean())) for layer in mean_activations) / count


def dead_fraction(mean_slopes: Sequence[Floats], *, threshold: float = 0.025) -> float | None:
    """Returns the fraction of neurons whose activation function is nearly flat for all inputs, in [0, 1].

    A neuron whose mean slope ``E_x|dh_i/dpre_i|`` is below the threshold passes almost no gradient: an inactive ReLU, a
    saturated tanh, a LeakyReLU that is always on its flat side. Unlike :func:`dormant_fraction` this compares no neuron
    with others and depends neither on the scale of activations nor on their offset. The result is NaN if a slope is not
    finite, and None if there are no neurons.

    Args:
        mean_slopes: ``E_x|dh_i/dpre_i|`` of each hidden layer, shape ``[H]``. A channel of a convolution is one neuron.
        threshold: Smallest mean slope of a neuron that works, > 0.

    Example:
        >>> dead_fraction([np.array([0.5, 0.02, 0.0]), np.array([1.0])])
        0.5
    """
    count = sum(layer.size for layer in mean_slopes)
    if not count:
        return None
    if not all(np.isfinite(layer).all() for layer in mean_slopes):
        return float("nan")
    return sum(int(np.sum(layer < threshold)) for layer in mean_slopes) / count


def effective_rank(features: Floats, *, delta: float = 0.01) -> int | None:
    """Returns the effective rank of features, from 0 to ``min(B, D)``; None without features or if one is not finite.

    Kumar et al. 2021, "Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement Learning": with
    ``σ_1 ≥ σ_2 ≥ …`` the singular values of ``Φ``, it is ``srank_δ(Φ) = min{k : Σ_{i≤k} σ_i / Σ_i σ_i ≥ 1 − δ}``, or 0
    if all features are zero. It grows with the number of rows: for 512 healthy ReLU features it is about 63 of 64 and
    450 of 512 rows, for features of 8-dimensional inputs 394 of 512. Only ranks of equally many rows are comparable,
    and no fixed limit separates healthy from collapsed features.

    Args:
        features: Φ, shape ``[B, D]``: input of the last layer for ``B`` states.
        delta: δ in (0, 1).

    Example:
        >>> effective_rank(np.diag([100.0, 50.0, 0.1]))
        2
    """
    if not features.size or not np.isfinite(features).all():
        return None
    wide = np.asarray(features.T if features.shape[0] > features.shape[1] else features, dtype=np.float64)
    # The eigenvalues of the smaller Gram matrix are their squares: 20 times faster than an SVD of thin features.
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(wide @ wide.T), 0.0, None))[::-1]
    total = singular.sum()
    return int(np.argmax(np.cumsum(singular) >= (1 - delta) * total)) + 1 if total else 0


def total_norm(norms: Floats) -> float:
    """Combines the L2 norms of parameters, shape ``[P]``, to that of all together, ``‖w‖ = sqrt(Σ_p ‖w_p‖²)``.

    Growing weights accompany a loss of plasticity (Lyle et al. 2023, "Understanding Plasticity in Neural Networks").

    Example:
        >>> total_norm(np.array([3.0, 4.0]))
        5.0
    """
    return float(np.sqrt(np.sum(np.square(np.asarray(norms, dtype=np.float64)))))


def update_to_weight(update_norms: Floats, weight_norms: Floats) -> float | None:
    """Returns the size of an update relative to that of the weights, ``‖w_after − w_before‖ / ‖w_before‖``.

    Karpathy 2015 (CS231n, "Ratio of weights:updates") suggests about 1e-3. That is no limit for Adam, whose first
    update is ``lr`` in each element: with torch's initialization of a linear layer about ``lr · sqrt(3 · fan_in)``,
    0.028 for lr 1e-3 and 256 inputs, whatever the loss is.

    Args:
        update_norms: L2 norm of the update of each parameter, shape ``[P]``.
        weight_norms: L2 norm of each parameter before the update, shape ``[P]``.

    Returns:
        The ratio, ≥ 0; None if all weights are zero.

    Example:
        >>> update_to_weight(np.array([0.0, 0.005]), np.array([3.0, 4.0]))
        0.001
    """
    weight = total_norm(weight_norms)
    return total_norm(update_norms) / weight if weight else None
