"""Whether networks can still learn."""

from __future__ import annotations

from dataclasses import dataclass

from rlwandb_callbacks.config.validation import check_types, require


@dataclass(frozen=True, kw_only=True)
class PlasticityConfig:
    """What is measured of the networks that train, and how often.

    Args:
        enabled: Measure at all.
        every_n_steps: Updates (batches after which an optimizer stepped) between two rows, ≥ 1.
        networks: Dotted attributes of the module (``q_network``, ``agent.critic``); by default every direct child of
            the module that an optimizer trains.
        dormant_threshold: τ ≥ 0, at or below which a neuron's normalized activation counts as dormant.
        effective_rank_delta: δ in (0, 1): the share of the singular values' sum that may be left out.
        batch_size: Most rows of a batch that the effective rank is taken of, ≥ 1; it cannot exceed them.
    """

    enabled: bool = False
    every_n_steps: int = 1_000
    networks: list[str] | None = None
    dormant_threshold: float = 0.025
    effective_rank_delta: float = 0.01
    batch_size: int = 512

    key_prefix = "plasticity."

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("every_n_steps", "batch_size"):
            require(self, name, lambda value: value >= 1, "a whole number ≥ 1")
        require(self, "dormant_threshold", lambda value: 0 <= value < float("inf"), "a number ≥ 0")
        require(self, "effective_rank_delta", lambda value: 0 < value < 1, "a number between 0 and 1, both excluded")
