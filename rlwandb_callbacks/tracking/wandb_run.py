"""Owns the W&B run: finds or opens it, and finishes it if it was opened here."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wandb

from rlwandb_callbacks.config import RunConfig
from rlwandb_callbacks.core.output import unfailing_output
from rlwandb_callbacks.core.secrets import without_secrets_in
from rlwandb_callbacks.errors import ConfigError, sentence
from rlwandb_callbacks.tracking.account import Obstacle, find_account_obstacle, read_settings
from rlwandb_callbacks.tracking.exit_wait import explain_wait_at_exit
from rlwandb_callbacks.tracking.finishing import (
    describe_given_up,
    describe_interrupted,
    describe_unsent,
    describe_wait,
    finish_run,
    sync_command,
)
from rlwandb_callbacks.tracking.run_config import without_secrets
from rlwandb_callbacks.tracking.server_check import find_obstacle
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_process import end_process, silence_log_errors, stop_telemetry

START_SECONDS = 10.0
FLUSH_INTERVAL = "x_transaction_log_flush_interval"
FLUSH_VARIABLES = ("WANDB__TRANSACTION_LOG_FLUSH_INTERVAL", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL")
FLUSH_SECONDS = 1.0  # 15 by default; rows that W&B has not written yet are lost when its process is killed

_num_users: Counter[str] = Counter()  # of each run that was opened here, by its id


def use_run(run: Any) -> Any:
    """Returns a run that is already open; several callbacks may share one that was opened here."""
    if run.id in _num_users:
        _num_users[run.id] += 1
    return run


def release_run(
    run: Any,
    exit_code: int = 0,
    limit: WaitLimit | None = None,
    *,
    on_interrupt: Callable[[str], object] = lambda _: None,
) -> str | None:
    """Ends the use of a run; the last user of a run that was opened here finishes it.

    Args:
        run: Run that was used.
        exit_code: Its exit code, 0 for success.
        limit: Time for W&B to send what is left; unlimited by default.
        on_interrupt: Called with the message if an interruption, such as Ctrl-C, ends the wait and is raised.

    Returns:
        What to do if W&B has not sent everything, as a message.
    """
    if run.id not in _num_users:
        if is_run(run):
            explain_wait_at_exit(run, describe_wait(run))
        return None
    _num_users[run.id] -= 1
    if _num_users[run.id] > 0:
        return None
    del _num_users[run.id]
    try:
        with unfailing_output():
            is_sent = finish_run(run, exit_code, limit or WaitLimit(math.inf))
    except KeyboardInterrupt:
        on_interrupt(describe_interrupted(run))
        raise
    return describe_given_up(run) if is_sent else describe_unsent(run)


def open_run(cfg: RunConfig, *, again: str | None = None) -> Any:
    """Returns the run that is open in this process, or opens one, or continues the run with the id ``again``.

    If W&B's server cannot be used, the new run is offline under the same id, and one line says why. No call waits at a
    prompt, and unless the mode is ``online`` the start waits about ``START_SECONDS`` for the server at most.

    Raises:
        ConfigError: If the run must be online (``run.mode`` or ``WANDB_MODE``) or be resumed (``run.resume: must``) and
            cannot, or if W&B does not accept a setting.
    """
    if wandb.run is not None:
        return use_run(wandb.run)
    with unfailing_output():
        run = _open(cfg, again)
    silence_log_errors()
    _num_users[run.id] += 1
    if not is_disabled(run):
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


def _open(cfg: RunConfig, again: str | None) -> Any:
    started = time.monotonic()
    mode, obstacle = choose_mode(cfg)
    if obstacle is None:
        try:
            return _init(cfg, mode, again, max_seconds=_init_seconds(cfg, mode, started))
        except wandb.Error as error:
            if mode != "online":
                raise ConfigError(f"The W&B run cannot be opened. {_in_one_line(error)}") from error
            obstacle = _obstacle_of_init(cfg, error)
            _refuse_offline(cfg, obstacle, is_settled=isinstance(error, wandb.errors.UsageError))
            _end_failed_run()
    else:
        _refuse_offline(cfg, obstacle)
    if obstacle.is_of_connection:
        stop_telemetry()
    run = _init(cfg, "offline", again)
    remedy = f"{obstacle.remedy} " if obstacle.remedy else ""
    wandb.termlog(f"rlwandb: {obstacle.reason}; logging offline. {remedy}To upload later: {sync_command(run)}")
    return run


def _init(cfg: RunConfig, mode: str | None, again: str | None, max_seconds: float | None = None) -> Any:
    if cfg.dir is not None:
        _make_folder(cfg.dir)
    return wandb.init(
        project=cfg.project,
        name=cfg.name,
        entity=cfg.entity,
        group=cfg.group,
        job_type=cfg.job_type,
        tags=cfg.tags or None,
        notes=cfg.notes,
        dir=cfg.dir,
        config=without_secrets(cfg.config),
        id=cfg.id or again,
        resume=cfg.resume or ("allow" if again else None),  # type: ignore[arg-type]  # RunConfig allows exactly these
        mode=mode,  # type: ignore[arg-type]  # RunConfig allows exactly wandb's literals
        settings=_settings(max_seconds),
    )


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


def choose_mode(cfg: RunConfig) -> tuple[str | None, Obstacle | None]:
    """Returns the mode for ``wandb.init``, None for W&B's own choice, and what keeps an online run from the server.

    The server is asked only if the mode is not set.
    """
    settings = read_settings()
    if cfg.mode == "online" or (cfg.mode is None and os.environ.get("WANDB_MODE") == "online"):
        return "online", find_account_obstacle()
    if cfg.mode is not None or os.environ.get("WANDB_MODE"):
        return cfg.mode, None
    if settings.mode != "online":  # `wandb offline` was called in this folder
        return None, None
    return "online", find_obstacle()


def _is_explicit(cfg: RunConfig) -> bool:
    return "online" in (cfg.mode, os.environ.get("WANDB_MODE"))


def _init_seconds(cfg: RunConfig, mode: str | None, started: float) -> float | None:
    """Returns the time limit of opening a run; None for W&B's own, or that of ``WANDB_INIT_TIMEOUT``."""
    if mode != "online" or _is_explicit(cfg) or "WANDB_INIT_TIMEOUT" in os.environ:
        return None
    return max(START_SECONDS - (time.monotonic() - started), START_SECONDS / 2)


def _obstacle_of_init(cfg: RunConfig, error: wandb.Error) -> Obstacle:
    """Returns why W&B did not open an online run; a run that must be online has the time to ask the server again."""
    found = find_obstacle() if _is_explicit(cfg) else None
    return found or Obstacle(f"W&B answered: {_in_one_line(error).removesuffix('.')}", "")


def _in_one_line(error: Exception) -> str:
    return sentence(" ".join(without_secrets_in(str(error)).split()))


def _refuse_offline(cfg: RunConfig, obstacle: Obstacle, *, is_settled: bool = False) -> None:
    """Raises an error if the user does not want an offline run; ``is_settled`` if the server itself refused the run."""
    resume = cfg.resume or os.environ.get("WANDB_RESUME")
    if resume == "must" or (resume == "never" and is_settled):
        setting = f"run.resume is {resume!r}"
        advice = "With run.resume='allow' the run is logged in any case, offline under the same id if it must be."
    elif _is_explicit(cfg):
        setting = f"{'run.mode' if cfg.mode else 'WANDB_MODE'} is 'online'"
        advice = "Without this mode the run is logged offline, and can be uploaded later."
    else:
        return
    raise ConfigError(" ".join(filter(None, [f"{setting}, but {obstacle.reason}.", obstacle.remedy, advice])))


def _end_failed_run() -> None:
    """Frees the id of a run that failed to open, which W&B's process holds, unless other runs need the process."""
    if wandb.setup().most_recent_active_run is None:
        end_process()


def is_disabled(run: Any) -> bool:
    """Returns whether a run discards its rows (``WANDB_MODE=disabled``)."""
    return bool(getattr(run, "disabled", False))


def is_run(candidate: Any) -> bool:
    """Returns whether an object is a real run, rather than a placeholder of Lightning or a disabled run."""
    return isinstance(candidate, wandb.Run) and not is_disabled(candidate)
