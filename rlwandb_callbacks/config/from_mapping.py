"""Creates a config from what a user passes: a config, a mapping with its keys, keywords."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.root import WandbRLConfig
from rlwandb_callbacks.config.validation import Section, field_types
from rlwandb_callbacks.errors import ConfigError, nearest

T = TypeVar("T", bound=Section)


def as_config(cfg: WandbRLConfig | Mapping[str, Any] | None = None, **keywords: Any) -> WandbRLConfig:
    """Creates a validated config.

    Args:
        cfg: A config, or a mapping with its keys (dict, EasyDict, OmegaConf), or None for the defaults.
        keywords: Keys of :class:`WandbRLConfig` that override ``cfg``; ``env`` and ``policy`` are short for
            ``evaluation.env`` and ``evaluation.policy``.

    Raises:
        ConfigError: If a key is unknown or a value wrong. The message names the key, the value and what is allowed.
    """
    shorthand = {name: value for name in ("env", "policy") if (value := keywords.pop(name, None)) is not None}
    values = _plain(_values(cfg, WandbRLConfig, "cfg")) | _plain(keywords)
    if shorthand:
        values["evaluation"] = _values(values.get("evaluation"), EvaluationConfig, "evaluation") | shorthand
    config = _build(WandbRLConfig, values, "")
    if config.video_logger and config.evaluation.env is None:
        raise ConfigError(
            "video_logger is True, which needs an environment to play in, and evaluation.env is None. Set "
            "evaluation.env (a Gymnasium id such as 'CartPole-v1', or a function that makes an environment) and "
            "evaluation.policy, or leave video_logger out."
        )
    return config


def _build(cls: type[T], raw_values: Mapping[str, Any], path: str) -> T:
    types = field_types(cls)
    values = {}
    for key, raw in raw_values.items():
        if key not in types:
            where = f" in {path}" if path else ""
            advice = cls._replaced.get(str(key)) or _section_advice(str(key), cls) or nearest(str(key), types)
            raise ConfigError(
                f"Unknown key '{key}' (value {raw!r}){where}.{advice} Known keys{where}: {', '.join(types)}."
            )
        if _is_section(types[key]) and not is_dataclass(raw):
            subpath = f"{path}.{key}" if path else key
            values[key] = _build(types[key], _values(raw, types[key], subpath), subpath)
        else:
            values[key] = list(raw) if isinstance(raw, tuple) and _allows_list(types[key]) else raw
    return cls(**values)


def _section_advice(key: str, cls: type[Section]) -> str:
    sections = {name: hint for name, hint in field_types(cls).items() if _is_section(hint)}
    owners = [name for name, section in sections.items() if key in field_types(section)]
    return f" It belongs to {' or '.join(map(repr, owners))}." if owners else ""


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _allows_list(hint: Any) -> bool:
    return any(typing.get_origin(option) is list for option in (hint, *typing.get_args(hint)))


def _values(section: Any, cls: type[Section], name: str) -> dict[str, Any]:
    if section is None:
        return {}
    if isinstance(section, cls):
        return {item.name: getattr(section, item.name) for item in fields(section)}
    if isinstance(section, Mapping):
        return dict(section)
    raise ConfigError(
        f"{name} is {section!r} of type {type(section).__name__}; it must be a mapping of its keys, {cls.__name__} or "
        "null."
    )


def _plain(value: Any) -> Any:
    """Converts the containers of EasyDict and OmegaConf to plain ones; plain ones keep their keys and types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, Sequence) and type(value).__module__.startswith("omegaconf"):
        return [_plain(item) for item in value]
    return value
