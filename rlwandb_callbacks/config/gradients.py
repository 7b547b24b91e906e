"""How gradients are shown."""

from __future__ import annotations

from dataclasses import dataclass

from rlwandb_callbacks.config.validation import check_types, require, require_one_of


@dataclass(frozen=True, kw_only=True)
class GradientsConfig:
    """Histograms of gradients and parameters.

    Args:
        method: ``fused``: all gradients are read once, right before the update, and counted in a thread of their own;
            ``watch``: ``wandb.watch``, which reads the gradient of each backward pass. Both give the same keys and
            bins.
        sample: Elements of a tensor that ``fused`` counts at most, evenly spread, ≥ 1; None for all. Norms are those
            of all elements in any case.
        log: ``gradients``, ``parameters`` or ``all``.
        log_freq: Updates between two histograms of a tensor, ≥ 1.
        log_graph: Also log the networks' structure, once.
    """

    method: str = "fused"
    sample: int | None = None
    log: str = "all"
    log_freq: int = 100
    log_graph: bool = False

    key_prefix = "gradients."

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "method", ("fused", "watch"))
        require(self, "sample", lambda value: value is None or value >= 1, "null or a whole number ≥ 1")
        if self.method == "watch":
            require(self, "sample", lambda value: value is None, "null under method 'watch', which counts everything")
        require_one_of(self, "log", ("gradients", "parameters", "all"))
        require(self, "log_freq", lambda value: value >= 1, "a whole number ≥ 1")
