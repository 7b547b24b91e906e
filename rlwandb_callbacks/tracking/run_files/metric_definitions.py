"""Definitions of axes and summaries (``run.define_metric``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_AGGREGATIONS = ("min", "max", "mean", "best", "last", "first", "copy", "none")


@dataclass(frozen=True)
class MetricDefinition:
    """Arguments of ``run.define_metric`` for a key or pattern.

    Args:
        step_metric: Key of the x axis; empty for none.
        step_sync: Whether W&B adds the axis to rows without it.
        hidden: Whether W&B shows no chart of the key by default.
        summary: Aggregations in the summary, such as ``min`` or ``max``; empty for the last value.
    """

    step_metric: str
    step_sync: bool
    hidden: bool = False
    summary: tuple[str, ...] = ()


def add_definition(definitions: dict[str, MetricDefinition], metric: Any) -> None:
    """Adds a ``MetricRecord``, which completes an earlier definition of the key, unless it says that it replaces it."""
    key = metric.name or metric.glob_name
    if not key:  # an axis without a key of its own
        return
    before = definitions.get(key)
    if before is None or getattr(metric, "_control").overwrite:  # noqa: B009  # the name of the field
        before = MetricDefinition("", step_sync=False)
    definitions[key] = MetricDefinition(
        step_metric=metric.step_metric or before.step_metric,
        step_sync=metric.options.step_sync or before.step_sync,
        hidden=metric.options.hidden or before.hidden,
        summary=tuple(name for name in _AGGREGATIONS if getattr(metric.summary, name, False) or name in before.summary),
    )
