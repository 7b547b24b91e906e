"""Converts settings and hyper-parameters for the config of a W&B run, without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from rlwandb_callbacks.config import WandbRLConfig
from rlwandb_callbacks.core.plain_values import entries, interpolation, is_mapping, is_of_omegaconf, items
from rlwandb_callbacks.core.secrets import MASK, is_secret, without_secrets_in

MAX_TEXT = 300


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

    Entries whose names name a secret are left out, and passwords and keys inside texts are masked. Values of OmegaConf
    that cannot be resolved, or whose interpolation names a secret, are texts: ``${oc.env:TOKEN}``.

    Example:
        >>> without_secrets({"lr": 0.1, "wandb_api_key": "k", "nested": {"password": "p", "url": "s3://u:p@host"}})
        {'lr': 0.1, 'nested': {'url': 's3://***@host'}}
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if is_mapping(value):
        named = {without_secrets_in(str(key)): _without_secret(value, key, item) for key, item in entries(value)}
        return {key: item for key, item in named.items() if not is_secret(key)}
    if isinstance(value, list | tuple) or is_of_omegaconf(value):
        plain = [_without_secret(value, index, item) for index, item in enumerate(items(value))]
        return [
            MASK if _is_secret_option(before) else item for before, item in zip([None, *plain], plain, strict=False)
        ]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return without_secrets_in(value)
    return without_secrets_in(getattr(value, "__qualname__", None) or str(value))[:MAX_TEXT]


def _is_secret_option(argument: Any) -> bool:
    """Returns whether an argument of a command line is an option whose value follows and is secret."""
    return isinstance(argument, str) and argument.startswith("-") and "=" not in argument and is_secret(argument)


def _without_secret(container: Any, key: Any, item: Any) -> Any:
    """Converts a value in a container; an interpolation that names a secret is not resolved."""
    text = interpolation(container, key)
    return text if text is not None and is_secret(text) else without_secrets(item)
