"""Reader of offline runs for users' tests."""

from __future__ import annotations

from rlwandb_callbacks.tracking.run_files.metric_definitions import MetricDefinition
from rlwandb_callbacks.tracking.run_files.offline_run import AlertRecord, OfflineRun, read_offline_run
from rlwandb_callbacks.tracking.run_files.series import Series

__all__ = ["AlertRecord", "MetricDefinition", "OfflineRun", "Series", "read_offline_run"]
