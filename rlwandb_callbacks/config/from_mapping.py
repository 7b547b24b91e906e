"""Creates a config from what a user passes: a config, a mapping with its keys, keywords."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.config.named_evaluations import describe_similar, is_section, names_in, set_in, settings_by_name
from rlwandb_callbacks.config.root import WandbRLConfig
from rlwandb_callbacks.config.validation import Section, field_types
from rlwandb_callbacks.config.wandb_config import is_wandb_config, settings_in
from rlwandb_callbacks.core.plain_values import entries, is_mapping, is_of_omegaconf, items, unresolved_in
from rlwandb_callbacks.errors import ConfigError, nearest

T = TypeVar("T", bound=Section)

FREE_ENTRIES = "run.config"  # are only logged


def as_config(cfg: WandbRLConfig | Mapping[str, Any] | None = None, **keywords: Any) -> WandbRLConfig:
    """Creates a validated config.

    Args:
        cfg: A config; a mapping with its keys (dict, EasyDict, OmegaConf, a namespace); ``wandb.config``, of which
            other hyper-parameters are ignored; or None for the defaults.
        keywords: Keys of :class:`WandbRLConfig` that override ``cfg``; ``env`` and ``policy`` are short for
            ``evaluation.env`` and ``evaluation.policy``, with several evaluations for those that set none.
            ``evaluations`` adds evaluations by name, for which the settings in ``evaluation`` hold as well.

    Raises:
        ConfigError: If a key is unknown or a value wrong. The message names the key, the value and what is allowed.
    """
    shorthand = {name: value for name in ("env", "policy") if (value := keywords.pop(name, None)) is not None}
    named = _plain(keywords.pop("evaluations", None))
    values = _plain(_values(cfg, WandbRLConfig, "cfg")) | _plain(keywords)
    if named is not None:
        values["evaluation"] = _with_named(values.get("evaluation"), named)
    if shorthand:
        values["evaluation"] = _values(values.get("evaluation"), EvaluationConfig, "evaluation") | shorthand
    config = _build(WandbRLConfig, values, "")
    _check_shorthand(config, shorthand)
    if config.video_logger and all(evaluation.env is None for evaluation in config.evaluations.values()):
        raise ConfigError(
            "video_logger is True, which needs an environment to play in, and evaluation.env is None. Set "
            "evaluation.env (a Gymnasium id such as 'CartPole-v1', or a function that makes an environment) and "
            "evaluation.policy, or leave video_logger out."
        )
    return config


def _with_named(evaluation: Any, named: Any) -> dict[str, Any]:
    """Adds evaluations by name to the settings that hold for all of them."""
    if not isinstance(named, Mapping) or not all(map(is_section, named.values())):
        raise ConfigError(
            f"evaluations is {named!r}; it must be a mapping of evaluations by name, such as "
            "{'near': {'env': …}, 'far': {'env': …}}. Settings that hold for all of them belong to 'evaluation'."
        )
    shared = {} if evaluation is None else evaluation
    return {**(set_in(shared) if is_section(shared) else _values(shared, EvaluationConfig, "evaluation")), **named}


def _check_shorthand(config: WandbRLConfig, shorthand: Mapping[str, Any]) -> None:
    """Raises an error if several evaluations set what the shorthand sets too."""
    evaluations = config.evaluations
    for key, value in shorthand.items() if isinstance(config.evaluation, dict) else ():
        if all(getattr(evaluation, key) is not value for evaluation in evaluations.values()):
            raise ConfigError(
                f"{key} is {value!r}, and each of the evaluations {', '.join(map(repr, evaluations))} sets {key} too. "
                f"Leave one of them out: {key}= holds for evaluations that set none."
            )


def build_evaluation(raw: Any) -> EvaluationConfig | dict[str, EvaluationConfig]:
    """Creates the settings of one evaluation, or of several by name, from a mapping."""
    values = {str(key): value for key, value in _values(_plain(raw), EvaluationConfig, "evaluation").items()}
    if not names_in(values):
        return _build(EvaluationConfig, values, "evaluation")
    settings = settings_by_name(values)
    return {name: _build_named(name, settings[name], values[name]) for name in settings}


def _build_named(name: str, settings: Mapping[str, Any], section: Any) -> EvaluationConfig:
    path = "evaluation."
    try:
        return _build(EvaluationConfig, settings, f"{path}{name}")
    except ConfigError as error:
        message = str(error)
        is_field = message.startswith(path) and not message.startswith(f"{path}name ")
        message = message.replace(path, f"{path}{name}.", 1) if is_field else message
        raise ConfigError(f"{message}{describe_similar(name, section)}") from None


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
        _check_resolved(key, raw, path)
        if _is_section(types[key]) and not is_dataclass(raw):
            subpath = f"{path}.{key}" if path else key
            values[key] = _build(types[key], _values(raw, types[key], subpath), subpath)
        else:
            values[key] = list(raw) if isinstance(raw, tuple) and _allows_list(types[key]) else raw
    return cls(**values)


def _check_resolved(key: str, raw: Any, path: str) -> None:
    """Raises an error if a setting, or an entry of it, could not be resolved; those of a section are checked later."""
    is_section = isinstance(raw, Mapping) and not path
    name = f"{path}.{key}" if path else key
    unresolved = None if is_section or name == FREE_ENTRIES else unresolved_in(raw)
    if unresolved is not None:
        raise ConfigError(
            f"{name} is {raw!r}, and {str(unresolved)!r} cannot be resolved ({unresolved.reason}). Give it a value, or "
            "leave it out for the default."
        )


def _section_advice(key: str, cls: type[Section]) -> str:
    sections = {name: hint for name, hint in field_types(cls).items() if _is_section(hint)}
    sections |= {"evaluation": EvaluationConfig} if cls is WandbRLConfig else {}
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
    if is_wandb_config(section):
        types = field_types(cls)
        return settings_in(
            section, types, [key for key, hint in types.items() if _is_section(hint) or key == "evaluation"]
        )
    if is_mapping(section):
        return dict(entries(section))
    raise ConfigError(
        f"{name} is {section!r} of type {type(section).__name__}; it must be a mapping of its keys, {cls.__name__} or "
        "null."
    )


def _plain(value: Any) -> Any:
    """Converts the containers of EasyDict and OmegaConf to plain ones; plain ones keep their keys and types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in entries(value)}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if is_of_omegaconf(value):
        return [_plain(item) for item in items(value)]
    return value
