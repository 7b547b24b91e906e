"""Owns the W&B run: finds or opens it, and finishes it if it was opened here."""

from __future__ import annotations

import inspect
import os
import socket
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import wandb

from rlwandb_callbacks.config import RunConfig, WandbRLConfig
from rlwandb_callbacks.core.plain_values import entries, interpolation, is_mapping, is_of_omegaconf, items

CONNECT_TIMEOUT_SECONDS = 5.0
MAX_TEXT = 300
SECRET_PARTS = ("api_key", "apikey", "token", "password", "passwd", "secret", "credential", "private_key")

_num_users: Counter[str] = Counter()  # of each run that was opened here, by its id


def use_run(run: Any) -> Any:
    """Returns a run that is already open; several callbacks may share one that was opened here."""
    if run.id in _num_users:
        _num_users[run.id] += 1
    return run


def release_run(run: Any, exit_code: int = 0) -> None:
    """Ends the use of a run; the last user of a run that was opened here finishes it."""
    if run.id in _num_users:
        _num_users[run.id] -= 1
        if _num_users[run.id] <= 0:
            del _num_users[run.id]
            run.finish(exit_code=exit_code)


def open_run(cfg: RunConfig, *, again: str | None = None) -> Any:
    """Returns the run that is open in this process, or opens one, or continues the run with the id ``again``.

    Without an account or a network the new run is offline, and one line says so. No call waits at a prompt.
    """
    if wandb.run is not None:
        return use_run(wandb.run)
    mode, reason = choose_mode(cfg)
    try:
        run = _init(cfg, mode, again)
    except wandb.Error as error:
        if mode != "online" or cfg.mode is not None or cfg.resume is not None:
            raise
        mode, reason = "offline", f"W&B answered: {error}"
        run = _init(cfg, mode, again)
    if reason:
        upload = f"wandb login && wandb sync {Path(run.dir).parent}"
        wandb.termlog(f"rlwandb: {reason}; logging offline. To upload later: {upload}")
    _num_users[run.id] += 1
    if not is_disabled(run):
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return run


def _init(cfg: RunConfig, mode: str | None, again: str | None) -> Any:
    if cfg.dir is not None:
        Path(cfg.dir).mkdir(parents=True, exist_ok=True)  # whatever W&B does without it
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
    )


def choose_mode(cfg: RunConfig) -> tuple[str | None, str]:
    """Returns the mode for ``wandb.init``, None for that of ``WANDB_MODE``, and the reason if we chose offline."""
    if cfg.mode is not None or os.environ.get("WANDB_MODE"):
        return cfg.mode, ""
    url = str(wandb.setup().settings.base_url)
    if not is_reachable(url):
        return "offline", f"{url} cannot be reached"
    if not has_account():
        return "offline", "no W&B account is set up on this machine (WANDB_API_KEY, ~/.netrc or `wandb login`)"
    return "online", ""


def has_account() -> bool:
    """Returns whether W&B has credentials that work, without a prompt; its server must be reachable."""
    try:
        if "prompt" in inspect.signature(wandb.login).parameters:
            return bool(wandb.login(prompt=False))
        return bool(wandb.api.api_key)
    except wandb.Error:
        return False


def is_reachable(url: str) -> bool:
    """Returns whether a connection to a server can be opened; True behind a proxy, which is not tried."""
    parts = urlsplit(url)
    if parts.scheme in urllib.request.getproxies():
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False


def is_disabled(run: Any) -> bool:
    """Returns whether a run discards its rows (``WANDB_MODE=disabled``)."""
    return bool(getattr(run, "disabled", False))


def is_run(candidate: Any) -> bool:
    """Returns whether an object is a real run, rather than a placeholder of Lightning or a disabled run."""
    return isinstance(candidate, wandb.Run) and not is_disabled(candidate)


def update_config(
    run: Any, cfg: WandbRLConfig, hyper_parameters: Mapping[str, Any], further_evaluations: Mapping[str, Any]
) -> None:
    """Adds our settings and the module's hyper-parameters to the config of a run, without secrets."""
    settings = {item.name: getattr(cfg, item.name) for item in fields(cfg)}
    settings |= {"further_evaluations": further_evaluations} if further_evaluations else {}
    config = {**without_secrets(dict(hyper_parameters)), "rlwandb": without_secrets(settings)}
    run.config.update(config, allow_val_change=True)


def without_secrets(value: Any) -> Any:
    """Converts a value for a run's config: plain containers, functions by name, no secrets.

    Values of OmegaConf that cannot be resolved, or whose interpolation names a secret, are texts: ``${oc.env:TOKEN}``.

    Example:
        >>> without_secrets({"lr": 0.1, "wandb_api_key": "k", "nested": {"password": "p", "seed": 1}})
        {'lr': 0.1, 'nested': {'seed': 1}}
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if is_mapping(value):
        named = {str(key): _without_secret(value, key, item) for key, item in entries(value)}
        return {key: item for key, item in named.items() if not _is_secret(key)}
    if isinstance(value, list | tuple) or is_of_omegaconf(value):
        return [_without_secret(value, index, item) for index, item in enumerate(items(value))]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return (getattr(value, "__qualname__", None) or str(value))[:MAX_TEXT]


def _without_secret(container: Any, key: Any, item: Any) -> Any:
    """Converts a value in a container; an interpolation that names a secret is not resolved."""
    text = interpolation(container, key)
    return text if text is not None and _is_secret(text) else without_secrets(item)


def _is_secret(key: str) -> bool:
    return any(part in key.lower() for part in SECRET_PARTS)
