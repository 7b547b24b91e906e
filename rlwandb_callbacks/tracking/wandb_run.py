"""Finds the W&B run to write to, or opens one and sees that it is finished."""

from __future__ import annotations

import inspect
import os
import socket
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from rlwandb_callbacks.config import RunConfig

CONNECT_TIMEOUT_SECONDS = 5.0
MAX_TEXT = 300
SECRET_PARTS = ("api_key", "apikey", "token", "password", "passwd", "secret", "credential", "private_key")

_holders: Counter[str] = Counter()


@dataclass(frozen=True)
class HeldRun:
    """A run that is written to.

    Args:
        run: The W&B run.
        is_ours: It was opened here, and is finished when its last holder lets go.
    """

    run: Any
    is_ours: bool

    def release(self, exit_code: int = 0) -> None:
        """Lets go of the run; the last holder of a run that was opened here finishes it."""
        if not self.is_ours:
            return
        _holders[self.run.id] -= 1
        if _holders[self.run.id] <= 0:
            del _holders[self.run.id]
            self.run.finish(exit_code=exit_code)


def hold(run: Any) -> HeldRun:
    """Holds a run that is already open; several callbacks may share one that was opened here."""
    is_ours = run.id in _holders
    if is_ours:
        _holders[run.id] += 1
    return HeldRun(run, is_ours)


def open_run(cfg: RunConfig, *, again: str | None = None) -> HeldRun:
    """Holds the run that is open in this process, or opens one.

    Without an account, or without a network, the new run is offline, and one line says so: nothing ever waits at a
    prompt.

    Args:
        cfg: What the new run is called.
        again: Id of an earlier run of the same callback, to go on with.
    """
    if wandb.run is not None:
        return hold(wandb.run)
    mode, reason = choose_mode(cfg)
    try:
        run = _init(cfg, mode, again)
    except wandb.Error as error:
        if mode != "online" or cfg.mode is not None or cfg.resume is not None:
            raise
        mode, reason = "offline", f"W&B answered: {error}"
        run = _init(cfg, mode, again)
    if reason:
        _say_offline(reason, run)
    _holders[run.id] += 1
    if not is_disabled(run):
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return HeldRun(run, is_ours=True)


def _init(cfg: RunConfig, mode: str | None, again: str | None) -> Any:
    return wandb.init(
        project=cfg.project,
        name=cfg.name,
        entity=cfg.entity,
        group=cfg.group,
        tags=cfg.tags or None,
        notes=cfg.notes,
        config=without_secrets(cfg.config),
        id=cfg.id or again,
        resume=cfg.resume or ("allow" if again else None),  # type: ignore[arg-type]  # RunConfig allows exactly these
        mode=mode,  # type: ignore[arg-type]  # RunConfig allows exactly wandb's literals
    )


def choose_mode(cfg: RunConfig) -> tuple[str | None, str]:
    """Chooses how a new run is opened.

    Returns:
        The mode for ``wandb.init`` (None: as ``WANDB_MODE`` says), and why it is offline where that was decided here.
    """
    if cfg.mode is not None or os.environ.get("WANDB_MODE"):
        return cfg.mode, ""
    url = str(wandb.setup().settings.base_url)
    if not is_reachable(url):
        return "offline", f"{url} cannot be reached"
    if not has_account():
        return "offline", "no W&B account is set up on this machine (WANDB_API_KEY, ~/.netrc or `wandb login`)"
    return "online", ""


def has_account() -> bool:
    """Tells whether W&B has credentials that work, without asking for them; W&B's server must be reachable."""
    try:
        if "prompt" in inspect.signature(wandb.login).parameters:
            return bool(wandb.login(prompt=False))
        return bool(wandb.api.api_key)
    except wandb.Error:
        return False


def is_reachable(url: str) -> bool:
    """Tells whether a connection to a server can be opened; behind a proxy it is taken for granted."""
    parts = urlsplit(url)
    if parts.scheme in urllib.request.getproxies():
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def _say_offline(reason: str, run: Any) -> None:
    folder = Path(run.dir).parent
    wandb.termlog(f"rlwandb: {reason}; logging offline. To upload later: wandb login && wandb sync {folder}")


def is_disabled(run: Any) -> bool:
    """Tells whether a run throws away what is logged (``WANDB_MODE=disabled``)."""
    return bool(getattr(run, "disabled", False))


def is_run(candidate: Any) -> bool:
    """Tells a real run from the stand-ins that Lightning and W&B hand out."""
    return isinstance(candidate, wandb.Run) and not is_disabled(candidate)


def without_secrets(value: Any) -> Any:
    """Makes a value fit for a run's config: plain containers, functions by name, secrets left out.

    Example:
        >>> without_secrets({"lr": 0.1, "wandb_api_key": "k", "nested": {"password": "p", "seed": 1}})
        {'lr': 0.1, 'nested': {'seed': 1}}
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): without_secrets(item) for key, item in value.items() if not _is_secret(str(key))}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return (getattr(value, "__qualname__", None) or str(value))[:MAX_TEXT]


def _is_secret(key: str) -> bool:
    return any(part in key.lower() for part in SECRET_PARTS)
