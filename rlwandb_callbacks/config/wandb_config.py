"""Settings in ``wandb.config``, as in a sweep, among the hyper-parameters of a run."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from rlwandb_callbacks.errors import ConfigError

BEFORE_INIT = (
    "cfg is wandb.config of a program that has no run yet, so that it holds nothing. Call wandb.init() first, or pass "
    "the settings themselves."
)
SIMILARITY = 0.85  # of a name that is probably a misspelt setting; others are hyper-parameters


def is_wandb_config(value: Any) -> bool:
    """Returns whether a value is ``wandb.config`` or the config of a run."""
    return type(value).__module__.partition(".")[0] == "wandb" and not isinstance(value, type)


def settings_in(config: Any, known: Collection[str], sections: Collection[str]) -> dict[str, Any]:
    """Returns the settings in ``wandb.config``; all other hyper-parameters of the run are left out.

    A setting of a section may be written with dots, as in the parameters of a sweep: ``evaluation.episodes``.

    Args:
        config: ``wandb.config`` or the config of a run.
        known: Names of the settings.
        sections: Those of them that are sections; a hyper-parameter of the same name that is no mapping (``dataset``,
            ``run``) is left out, with a warning.

    Raises:
        ConfigError: If no run has been opened yet.
    """
    if type(config).__name__ == "PreInitObject":
        raise ConfigError(BEFORE_INIT)
    settings: dict[str, Any] = {}
    for key in map(str, config.keys()):
        first, *inner = key.split(".")
        if first in sections and not inner and not _may_be_section(config[key]):
            warnings.warn(
                f"rlwandb: {key!r} in wandb.config is {config[key]!r}; it is not used as a setting, which would be a "
                "mapping.",
                stacklevel=6,
            )
        elif first in known:
            _put(settings, [first, *inner], config[key])
        elif similar := get_close_matches(first, known, n=1, cutoff=SIMILARITY):
            warnings.warn(
                f"rlwandb: {key!r} in wandb.config is not a setting and is not used. Did you mean {similar[0]!r}?",
                stacklevel=6,
            )
    return settings


def _may_be_section(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _put(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a value in nested mappings; a mapping is added to what the key holds already."""
    *sections, last = path
    for name in sections:
        inner = settings.get(name)
        settings[name] = dict(inner) if isinstance(inner, dict) else {}
        settings = settings[name]
    present = settings.get(last)
    settings[last] = {**value, **present} if isinstance(value, dict) and isinstance(present, dict) else value
