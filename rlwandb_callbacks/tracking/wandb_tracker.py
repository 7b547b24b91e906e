"""Writes rows to a W&B run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import wandb
from typing_extensions import assert_never

from rlwandb_callbacks.core.values import Histogram, Html, Image, Scalar, Table, Value, Video
from rlwandb_callbacks.tracking.dropped_rows import DroppedRows


class WandbTracker:
    """Writes each row with one ``run.log``, the axes as values in it.

    Neither ``step=`` nor ``commit=False`` is ever passed: W&B drops rows with a step below its latest one.

    Args:
        run: An open run.
        step_metric: Key of the default x axis of our charts. It is defined for each exact key when that key first
            appears, as W&B resolves overlapping patterns in no fixed order.
        step_of_group: Key of another x axis by group, for the keys of groups that have one.
    """

    def __init__(self, run: Any, *, step_metric: str, step_of_group: Mapping[str, str] | None = None) -> None:
        self.run = run
        self._step_metric, self._step_of_group = step_metric, dict(step_of_group or {})
        self._defined: set[str] = set()
        self._latest_axes: dict[str, float] = {}
        self._dropped_rows = DroppedRows(run)

    def write(self, axes: Mapping[str, float], values: Mapping[str, Value]) -> None:
        """Writes one row; see :class:`rlwandb_callbacks.tracking.tracker.Tracker`."""
        for key in axes.keys() - self._defined:
            self.run.define_metric(key)
        for key in values.keys() - self._defined:
            axis = self._step_of_group.get(key.split("/")[0], self._step_metric)
            self.run.define_metric(key, step_metric=axis if axis in axes else "trainer/global_step")
        self._defined |= axes.keys() | values.keys()
        converted, error = converted_values(values)
        with self._dropped_rows.ours():
            self.run.log({**axes, **converted})
        late = {key: latest for key, latest in dict(self._latest_axes).items() if key in axes and latest > axes[key]}
        if late:  # the row came late; the run's summary keeps the latest axes
            self.run.summary.update(late)
        self._latest_axes |= {**axes, **late}
        if error is not None:
            raise error

    def dropped_row(self) -> str | None:
        """Describes the first row of the user that W&B dropped because of ours; None if there was none."""
        return self._dropped_rows.message

    def keys_of_others(self) -> Collection[str]:
        """Returns the keys of all rows that the user's code has logged to the run since it was opened here."""
        return self._dropped_rows.keys

    def alert(self, title: str, text: str, level: str) -> None:
        """Sends an alert by e-mail or message, by the settings of the W&B account; an offline run stores it."""
        self.run.alert(title=title, text=text, level=level)

    def flush(self) -> None:
        """Ends the search for dropped rows; ``run.log`` passes each row to W&B's process before it returns."""
        self._dropped_rows.close()


def converted_values(values: Mapping[str, Value]) -> tuple[dict[str, Any], Exception | None]:
    """Converts values for ``run.log``; returns those that can be converted, and the first error of others."""
    converted: dict[str, Any] = {}
    errors: list[Exception] = []
    for key, value in values.items():
        try:
            converted[key] = to_wandb(value)
        except Exception as error:  # noqa: BLE001, PERF203  # a file that cannot be written costs no numbers
            errors.append(error)
    return converted, errors[0] if errors else None


def to_wandb(value: Value) -> Any:
    """Converts a value for ``run.log``."""
    match value:
        case Scalar(value=number):
            return float(number)
        case Histogram(counts=counts, edges=edges):
            return wandb.Histogram(np_histogram=(counts.tolist(), np.asarray(edges).tolist()))
        case Image(pixels=pixels, caption=caption):
            return wandb.Image(pixels, caption=caption)
        case Video(path=path, caption=caption):
            return wandb.Video(path, caption=caption, format="mp4")
        case Table(columns=columns, rows=rows):
            return wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        case Html(text=text):
            return wandb.Html(text, inject=False)
        case _:
            assert_never(value)
