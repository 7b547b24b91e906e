"""Makes a config of what the user gave: a config, any mapping with its keys, keywords."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from rlwandb_callbacks.config.root import WandbRLConfig
from rlwandb_callbacks.config.validation import field_types
from rlwandb_callbacks.errors import ConfigError, nearest

T = TypeVar("T")


def as_config(cfg: WandbRLConfig | Mapping[str, Any] | None = None, **keywords: Any) -> WandbRLConfig:
    """Makes a checked config of what the user gave.

    Args:
        cfg: A config, or a mapping with its keys (dict, EasyDict, OmegaConf), or None for the defaults.
        keywords: Keys of :class:`WandbRLConfig` that win over ``cfg``; ``env`` and ``policy`` are short for
            ``evaluation.env`` and ``evaluation.policy``.

    Raises:
        ConfigError: For an unknown key or a wrong value; the message names the key, the value and what is allowed.
    """
    if cfg is None:
        given: dict[str, Any] = {}
    elif isinstance(cfg, WandbRLConfig):
        given = {item.name: getattr(cfg, item.name) for item in fields(cfg)}
    elif isinstance(cfg, Mapping):
        given = _plain(cfg)
    else:
        raise ConfigError(
            f"cfg is {cfg!r} of type {type(cfg).__name__}; allowed are a WandbRLConfig, a mapping with its keys, "
            "or None."
        )
    shorthand = {name: keywords.pop(name) for name in ("env", "policy") if name in keywords}
    given |= _plain(keywords)
    shorthand = {name: value for name, value in shorthand.items() if value is not None}
    if shorthand:
        given["evaluation"] = _as_mapping(given.get("evaluation", {}), "evaluation") | shorthand
    config = _build(WandbRLConfig, given, "")
    if config.video_logger and config.evaluation.env is None:
        raise ConfigError(
            "video_logger is True, which needs an environment to play in, and evaluation.env is None. Set "
            "evaluation.env "
            "(a Gymnasium id such as 'CartPole-v1', or a function that makes an environment) and evaluation.policy, or "
            "leave video_logger out."
        )
    return config


def _build(cls: type[T], given: Mapping[str, Any], path: str) -> T:
    hints = field_types(cls)
    values = {}
    for key, raw in given.items():
        if key not in hints:
            place = f" in {path}" if path else ""
            advice = _home_of(str(key), cls) or nearest(str(key), hints)
            raise ConfigError(
                f"Unknown key '{key}' (value {raw!r}){place}.{advice} Known keys{place}: {', '.join(hints)}."
            )
        section = hints[key]
        is_section = isinstance(section, type) and is_dataclass(section)
        if is_section and not is_dataclass(raw):
            values[key] = _build(section, _as_mapping(raw, key), f"{path}.{key}" if path else key)
        else:
            values[key] = list(raw) if isinstance(raw, tuple) and list in _origins(section) else raw
    return cls(**values)


def _home_of(key: str, cls: Any) -> str:
    """Says which sections have a key that was looked for outside of them; empty where none has."""
    sections = {name: hint for name, hint in field_types(cls).items() if isinstance(hint, type) and is_dataclass(hint)}
    homes = [name for name, section in sections.items() if key in field_types(section)]
    return f" It belongs into {' or '.join(repr(home) for home in homes)}." if homes else ""


def _origins(hint: Any) -> set[Any]:
    return {typing.get_origin(option) or option for option in (*typing.get_args(hint), hint)}


def _as_mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigError(f"{name} is {value!r}; it is a section and takes a mapping of its keys.")


def _plain(value: Any) -> Any:
    """Turns the containers of EasyDict and OmegaConf into plain ones; plain ones keep their keys and types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, Sequence) and type(value).__module__.startswith("omegaconf"):
        return [_plain(item) for item in value]
    return value
