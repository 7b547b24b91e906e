"""What is logged of the training itself: metrics, gradients, plasticity and alerts."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated

from rlwandb_callbacks.config.validation import Bounds, OneOf, PositiveInt, Section
from rlwandb_callbacks.errors import ConfigError

RETURN_RULE = " It was replaced by return_standard_errors (4.0 by default; null turns the rule off)."


@dataclass(frozen=True, kw_only=True)
class MetricsConfig(Section, key="metrics"):
    """How training metrics are logged.

    Args:
        every_n_steps: Updates (batches after which an optimizer stepped) between two rows, ≥ 1; by default the
            Trainer's ``log_every_n_steps``.
        reduce_over_ranks: Under DDP, log ``train/…`` as means over all ranks (the minimum of ``_min`` and the maximum
            of ``_max``), ``rollout/…`` of the episodes of all ranks, and ``time/env_steps`` as the sum of the steps
            that each rank counts. This synchronizes the ranks whenever a row is due. Otherwise rank zero logs its own
            numbers.
    """

    every_n_steps: PositiveInt | None = None
    reduce_over_ranks: bool = False


@dataclass(frozen=True, kw_only=True)
class GradientsConfig(Section, key="gradients"):
    """Histograms of gradients and parameters.

    Args:
        method: ``fused`` reads all gradients once, right before the update, and counts them in a thread of its own;
            ``watch`` calls ``wandb.watch``, which reads the gradients of each backward pass. Keys and bins are the
            same. Under DDP ``fused`` reads the gradients after they were averaged over the ranks, and ``watch`` those
            of rank zero before.
        sample: Largest number of elements of a tensor that ``fused`` counts, evenly spaced, ≥ 1; null for all. Norms
            are always those of all elements.
        log: ``gradients``, ``parameters`` or ``all``.
        log_freq: Updates between two histograms of a tensor, ≥ 1.
        log_graph: Also log the structure of the networks, once.
    """

    method: Annotated[str, OneOf("fused", "watch")] = "fused"
    sample: PositiveInt | None = None
    log: Annotated[str, OneOf("gradients", "parameters", "all")] = "all"
    log_freq: PositiveInt = 100
    log_graph: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "watch" and self.sample is not None:
            raise ConfigError(
                f"gradients.sample is {self.sample}; it must be null if gradients.method is 'watch', which counts all "
                "elements."
            )


@dataclass(frozen=True, kw_only=True)
class PlasticityConfig(Section, key="plasticity"):
    """What is measured in the networks that train, and how often.

    Args:
        enabled: Measure plasticity.
        every_n_steps: Updates (batches after which an optimizer stepped) between two rows, ≥ 1.
        networks: Dotted attributes of the module (``q_network``, ``agent.critic``); by default every direct child of
            the module that an optimizer trains.
        dormant_threshold: τ ≥ 0; a neuron whose normalized activation is at most τ counts as dormant.
        dead_threshold: Smallest mean slope of a neuron's activation function over the batch, > 0; below it the neuron
            counts as dead.
        effective_rank_delta: δ in (0, 1): fraction of the sum of singular values that the effective rank leaves out.
        batch_size: Largest number of rows of a batch for the effective rank, ≥ 1, and thus its upper limit.
    """

    enabled: bool = False
    every_n_steps: PositiveInt = 1_000
    networks: list[str] | None = None
    dormant_threshold: Annotated[float, Bounds(ge=0, lt=inf)] = 0.025
    dead_threshold: Annotated[float, Bounds(gt=0, lt=inf)] = 0.025
    effective_rank_delta: Annotated[float, Bounds(gt=0, lt=1)] = 0.01
    batch_size: PositiveInt = 512


@dataclass(frozen=True, kw_only=True)
class AlertsConfig(Section, key="alerts", replaced=dict.fromkeys(("return_fall", "return_patience"), RETURN_RULE)):
    """The rules for ``wandb.alert``; each rule alerts at most once per training.

    Args:
        enabled: Send alerts.
        max_q_value: Largest absolute q-value, > 0, in units of return; null turns the rule off.
        min_entropy: Smallest policy entropy in nats, once it was larger; null turns the rule off. If the limit is
            above zero, negative entropies, which only densities have, send no alert; for those set a negative limit.
        not_finite: Alert if a loss or gradient norm is NaN or infinite, a q-value is NaN, or a ``GradScaler`` has
            skipped ten optimizer steps in a row.
        return_standard_errors: Largest fall of the mean return, that of the latest two evaluations together, below the
            best two neighbors so far, > 0, in standard errors of the difference; null turns the rule off. With the
            default, at most about 2 % of agents that do not change send an alert within 50 evaluations of 8 episodes.
        level: ``INFO``, ``WARN`` or ``ERROR``.
    """

    enabled: bool = False
    max_q_value: Annotated[float, Bounds(gt=0)] | None = 1e6
    min_entropy: Annotated[float, Bounds(gt=-inf, lt=inf)] | None = 0.01
    not_finite: bool = True
    return_standard_errors: Annotated[float, Bounds(gt=0, lt=inf)] | None = 4.0
    level: Annotated[str, OneOf("INFO", "WARN", "ERROR")] = "WARN"
