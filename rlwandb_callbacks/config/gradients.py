"""How gradients are watched."""

from __future__ import annotations

from dataclasses import dataclass

from rlwandb_callbacks.config.checks import check_types, require, require_one_of


@dataclass(frozen=True, kw_only=True)
class GradientsConfig:
    """What ``wandb.watch`` is called with.

    Args:
        log: ``gradients``, ``parameters`` or ``all``.
        log_freq: Updates between two histograms of a tensor, ≥ 1.
        log_graph: Also log the networks' structure, once.
    """

    log: str = "all"
    log_freq: int = 100
    log_graph: bool = False

    key_prefix = "gradients."

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "log", ("gradients", "parameters", "all"))
        require(self, "log_freq", lambda value: value >= 1, "a whole number ≥ 1")
