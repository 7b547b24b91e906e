"""Arguments with which a W&B run is opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import wandb

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.errors import ConfigError, sentence
from rlwandb_callbacks.tracking.account import read_settings
from rlwandb_callbacks.tracking.offline_parts import folders_of_run
from rlwandb_callbacks.tracking.run_config import without_secrets

FLUSH_INTERVAL = "x_transaction_log_flush_interval"
FLUSH_VARIABLES = ("WANDB__TRANSACTION_LOG_FLUSH_INTERVAL", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL")
FLUSH_SECONDS = 1.0  # 15 by default; rows that W&B has not written yet are lost when its process is killed


def init_arguments(
    cfg: RunConfig, mode: str | None, again: str | None, max_seconds: float | None = None
) -> dict[str, Any]:
    """Returns the arguments of ``wandb.init``, and makes the folder of the run.

    Args:
        cfg: Settings of the run.
        mode: Mode of the run; None for W&B's own choice.
        again: Id of an earlier run of this process that goes on.
        max_seconds: Time limit of opening the run; None for W&B's own.

    Raises:
        ConfigError: If the folder cannot be made.
    """
    if cfg.dir is not None:
        _make_folder(cfg.dir)
    return {
        "project": cfg.project,
        "name": cfg.name,
        "entity": cfg.entity,
        "group": cfg.group,
        "job_type": cfg.job_type,
        "tags": cfg.tags or None,
        "notes": cfg.notes,
        "dir": cfg.dir,
        "config": without_secrets(cfg.config),
        "id": cfg.id or again,
        "resume": _resume(cfg, mode, again),
        "mode": mode,
        "settings": _settings(max_seconds),
    }


def _resume(cfg: RunConfig, mode: str | None, again: str | None) -> str | None:
    """Returns how to resume a run; by default, all parts of a job that is started again under an id are one run.

    An offline run is begun so from its first part on, as ``wandb sync`` sends each part from the first line on
    otherwise. An online run is begun so from its second part on: what W&B could not send of the first one is sent again
    from the first line on, and not behind the rows that have arrived.
    """
    if cfg.resume or again:
        return cfg.resume or "allow"
    settings = read_settings()
    others = ("resume", "resume_from", "fork_from", "sweep_id")  # W&B takes one of the first three
    run_id = cfg.id or settings.run_id
    if run_id is None or any(getattr(settings, name, None) for name in others):
        return None
    folder = Path(settings.wandb_dir if cfg.dir is None else Path(cfg.dir, "wandb"))
    is_offline = mode == "offline" or (mode is None and settings.mode in ("offline", "dryrun"))
    return "allow" if is_offline or folders_of_run(folder, run_id) else None


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)  # W&B would take another one instead
    except OSError as error:
        raise ConfigError(
            f"run.dir is {folder!r}, which cannot be made: {sentence(error)} Choose another one."
        ) from error


def _settings(max_seconds: float | None) -> wandb.Settings:
    """Returns settings with the time limit of opening a run, and with which little is lost if the process is killed."""
    settings: dict[str, Any] = {} if max_seconds is None else {"init_timeout": max_seconds}
    if FLUSH_INTERVAL in wandb.Settings.model_fields and not any(each in os.environ for each in FLUSH_VARIABLES):
        settings[FLUSH_INTERVAL] = FLUSH_SECONDS
    return wandb.Settings(**settings)
