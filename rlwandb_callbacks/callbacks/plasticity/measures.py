"""Whether a network can still learn: dormant neurons, the rank of its features, the size of its weights and updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def dormant_share(mean_activations: Sequence[Floats], *, threshold: float = 0.025) -> float | None:
    """Fraction of τ-dormant neurons.

    By Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning". With ``h_i(x)`` the activation
    of neuron ``i`` of a layer of ``H`` neurons, its score is ``s_i = E_x|h_i(x)| / (1/H Σ_k E_x|h_k(x)|)``; it is
    τ-dormant if ``s_i ≤ τ``. A layer that is silent as a whole is dormant as a whole.

    Args:
        mean_activations: For each hidden layer ``E_x|h_i(x)|``, shape ``[H]``, ≥ 0. A channel of a convolution is one
            neuron.
        threshold: τ ≥ 0.

    Returns:
        Dormant neurons of all layers by neurons of all layers, in [0, 1]; NaN where activations are not finite; None
        without any neuron.

    Example:
        >>> dormant_share([np.array([1.0, 1.0, 0.01, 0.0]), np.array([0.0, 0.0])])
        0.6666666666666666
    """
    count = sum(layer.size for layer in mean_activations)
    if not count:
        return None
    if not all(np.isfinite(layer).all() for layer in mean_activations):
        return float("nan")
    return sum(int(np.sum(layer <= threshold * layer.mean())) for layer in mean_activations) / count


def effective_rank(features: Floats, *, delta: float = 0.01) -> int | None:
    """Effective rank of features.

    By Kumar et al. 2021, "Implicit Under-Parameterization Inhibits Data-Efficient Deep Reinforcement Learning". With
    ``σ_1 ≥ σ_2 ≥ …`` the singular values of the feature matrix ``Φ``, it is
    ``srank_δ(Φ) = min{k : Σ_{i≤k} σ_i / Σ_i σ_i ≥ 1 − δ}``.

    Args:
        features: Φ, shape ``[B, D]``: what the last layer is given for ``B`` states.
        delta: δ in (0, 1).

    Returns:
        From 0, for features that are all zero, to ``min(B, D)``; None without features, or where they are not finite.

    Example:
        >>> effective_rank(np.diag([100.0, 50.0, 0.1]))
        2
    """
    if not features.size or not np.isfinite(features).all():
        return None
    wide = np.asarray(features.T if features.shape[0] > features.shape[1] else features, dtype=np.float64)
    # The eigenvalues of the smaller Gram matrix are the squares: 20 times faster than a decomposition of thin features.
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(wide @ wide.T), 0.0, None))[::-1]
    total = singular.sum()
    if total == 0:
        return 0
    return int(np.argmax(np.cumsum(singular) >= (1 - delta) * total)) + 1


def total_norm(norms: Floats) -> float:
    """L2 norm of all parameters together, ``‖w‖ = sqrt(Σ_p ‖w_p‖²)``.

    Growing weights go along with lost plasticity (Lyle et al. 2023, "Understanding Plasticity in Neural Networks").

    Args:
        norms: L2 norm of each parameter, shape ``[P]``.

    Example:
        >>> total_norm(np.array([3.0, 4.0]))
        5.0
    """
    return float(np.sqrt(np.sum(np.square(np.asarray(norms, dtype=np.float64)))))


def update_to_weight(update_norms: Floats, weight_norms: Floats) -> float | None:
    """How far a step moves the weights, by their size: ``‖w_after − w_before‖ / ‖w_before‖``.

    About 1e-3 is usual for networks that learn well (Karpathy 2015, CS231n, "Ratio of weights:updates").

    Args:
        update_norms: ``‖w_after − w_before‖`` of each parameter, shape ``[P]``.
        weight_norms: ``‖w_before‖`` of each parameter, shape ``[P]``.

    Returns:
        ≥ 0; None where all weights are zero.

    Example:
        >>> update_to_weight(np.array([0.0, 0.005]), np.array([3.0, 4.0]))
        0.001
    """
    weight = total_norm(weight_norms)
    return total_norm(update_norms) / weight if weight else None
