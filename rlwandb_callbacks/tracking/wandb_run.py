"""Owns the W&B run: finds or opens it, and finishes it if it was opened here."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
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
)
from rlwandb_callbacks.tracking.init_arguments import init_arguments
from rlwandb_callbacks.tracking.offline_parts import describe_overwritten
from rlwandb_callbacks.tracking.server_check import find_obstacle
from rlwandb_callbacks.tracking.sync_commands import describe_live_sync, describe_sync, is_marked_as_sent, run_folder
from rlwandb_callbacks.tracking.variables import (
    DISABLED_VARIABLE,
    RefusedVariable,
    describe_ignored_switch,
    is_disabled_by_variable,
    without_refused_variables,
)
from rlwandb_callbacks.tracking.wait_limit import WaitLimit
from rlwandb_callbacks.tracking.wandb_process import end_process, silence_log_errors, stop_telemetry

START_SECONDS = 10.0
AXES = ("trainer/global_step", "time/env_steps", "time/updates")

_num_users: Counter[str] = Counter()  # of each run that was opened here, by its id
_offline_by_force: set[str] = set()  # ids of runs that were opened offline because something kept them from the server


def use_run(run: Any) -> Any:
    """Returns a run that is already open; several callbacks may share one that was opened here."""
    if run.id in _num_users:
        _num_users[run.id] += 1
    silence_log_errors()
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
    how_to_sync = _how_to_sync(run)  # before a command that follows the run marks it as sent
    try:
        with unfailing_output():
            is_sent = finish_run(run, exit_code, limit or WaitLimit(math.inf))
    except KeyboardInterrupt:
        on_interrupt(describe_interrupted(run))
        raise
    if not is_sent:
        return describe_unsent(run)
    if how_to_sync is not None:
        with unfailing_output():
            wandb.termlog(f"rlwandb: {how_to_sync}")
    return describe_given_up(run)


def _how_to_sync(run: Any) -> str | None:
    """Returns how to upload an offline run, unless the command that W&B itself prints is right."""
    is_forced = run.id in _offline_by_force
    _offline_by_force.discard(run.id)
    if is_disabled(run) or not run.offline:
        return None
    return describe_sync(run) if is_forced or is_marked_as_sent(run_folder(run)) else None


def open_run(cfg: RunConfig, *, again: str | None = None) -> Any:
    """Returns the run that is open in this process, or opens one, or continues the run with the id ``again``.

    If W&B's server cannot be used, or W&B does not accept an environment variable, the new run is offline under the
    same id, and one line says why. No call waits at a prompt, and unless the mode is ``online`` the start waits about
    ``START_SECONDS`` for the server at most.

    Raises:
        ConfigError: If the run must be online (``run.mode`` or ``WANDB_MODE``) or be resumed (``run.resume: must``) and
            cannot, or if W&B does not accept a setting of ``run`` or of its own files.
    """
    with unfailing_output(), without_refused_variables() as refused:
        if wandb.run is not None and not _is_torn_down(wandb.run):
            return use_run(wandb.run)
        run = _open(cfg, again, refused)
    silence_log_errors()
    _num_users[run.id] += 1
    if not is_disabled(run):
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        _continue_axes(run)
    return run


def _continue_axes(run: Any) -> None:
    """Puts the latest axes of a resumed run into its next row; W&B fills in 0 until they are logged again."""
    with contextlib.suppress(Exception):  # a row without an axis is better than no run
        if run.resumed:
            latest = {axis: run.summary.get(axis) for axis in AXES}
            run.log({axis: value for axis, value in latest.items() if isinstance(value, int | float)}, commit=False)


def warnings_of(run: Any) -> dict[str, str]:
    """Returns what speaks against the settings of a run that was opened or joined, by its kind."""
    found = {"overwritten run": describe_overwritten(run), "ignored switch": describe_ignored_switch(run)}
    return {kind: message for kind, message in found.items() if message is not None}


def is_own_run(run: Any) -> bool:
    """Returns whether a run was opened here."""
    return run.id in _num_users


def _is_torn_down(run: Any) -> bool:
    """Returns whether ``wandb.teardown()`` has ended a run that is still ``wandb.run``: nothing can be logged to it."""
    is_of_other_process = getattr(run, "_init_pid", None) != os.getpid()  # a forked process may log to its parent's run
    return is_run(run) and not is_of_other_process and wandb.setup().most_recent_active_run is None


def _open(cfg: RunConfig, again: str | None, refused: Sequence[RefusedVariable]) -> Any:
    started = time.monotonic()
    mode, obstacle = choose_mode(cfg, refused)
    if obstacle is None:
        try:
            return wandb.init(**init_arguments(cfg, mode, again, max_seconds=_init_seconds(cfg, mode, started)))
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
    run = wandb.init(**init_arguments(cfg, "offline", again))
    _offline_by_force.add(run.id)
    remedy = f"{obstacle.remedy} " if obstacle.remedy else ""
    wandb.termlog(f"rlwandb: {obstacle.reason}; logging offline. {remedy}{describe_live_sync(run)}")
    return run


def choose_mode(cfg: RunConfig, refused: Sequence[RefusedVariable] = ()) -> tuple[str | None, Obstacle | None]:
    """Returns the mode for ``wandb.init``, None for W&B's own choice, and what keeps an online run from the server.

    The server is asked only if the mode is not set.

    Args:
        cfg: Settings of the run.
        refused: Variables that W&B does not accept, and that it does not see while the run is opened.
    """
    settings = read_settings()
    if cfg.mode is None and is_disabled_by_variable():
        wandb.termlog(
            f"rlwandb: {DISABLED_VARIABLE} is set: nothing is logged. W&B's name for it is WANDB_MODE=disabled."
        )
        return "disabled", None
    if refused:
        return _choose_mode_without(refused, cfg)
    if cfg.mode == "online" or (cfg.mode is None and os.environ.get("WANDB_MODE") == "online"):
        return "online", find_account_obstacle()
    if cfg.mode is not None or os.environ.get("WANDB_MODE"):
        return cfg.mode, None
    if settings.mode != "online":  # `wandb offline` was called in this folder
        return None, None
    return "online", find_obstacle()


def _choose_mode_without(refused: Sequence[RefusedVariable], cfg: RunConfig) -> tuple[str, Obstacle | None]:
    """Returns the mode where W&B refuses variables: offline, as it is unknown what they should have done."""
    text = " ".join(map(str, refused))
    meant = {variable.value.strip().lower() for variable in refused if variable.name == "WANDB_MODE"}
    mode = cfg.mode or os.environ.get("WANDB_MODE") or ("disabled" if "disabled" in meant else "online")
    if mode == "online":
        return mode, Obstacle(text.removesuffix("."), "Correct or unset it.")
    wandb.termlog(f"rlwandb: {text} It is ignored; the mode of the run is {mode!r}.")
    return mode, None


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
