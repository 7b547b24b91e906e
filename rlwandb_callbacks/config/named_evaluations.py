"""Several evaluations in one config: a mapping of their settings by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.errors import ConfigError, nearest

FIELDS = tuple(item.name for item in fields(EvaluationConfig))


def names_in(evaluation: Mapping[str, Any]) -> list[str]:
    """Returns the names of evaluations in a mapping; none if it holds the settings of one evaluation.

    Example:
        >>> names_in({"near": {"env": "Near-v0"}, "far": {"env": "Far-v0"}, "policy": "q_network"})
        ['near', 'far']
        >>> names_in({"env": "Near-v0", "env_kwargs": {"size": 8}})
        []
    """
    return [key for key, value in evaluation.items() if key not in FIELDS and is_section(value)]


def is_section(value: Any) -> bool:
    """Returns whether a value holds the settings of an evaluation."""
    return isinstance(value, Mapping | EvaluationConfig)


def settings_by_name(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the settings of each evaluation of a mapping by its name.

    Settings that stand beside the evaluations hold for those that do not set them.

    Raises:
        ConfigError: If an evaluation is named twice, or if what stands beside the evaluations is no setting.

    Example:
        >>> settings = settings_by_name({"near": {"seed": 1}, "far": {"seed": 2, "episodes": 2}, "episodes": 4})
        >>> settings["near"], settings["far"]
        ({'episodes': 4, 'seed': 1, 'name': 'near'}, {'episodes': 2, 'seed': 2, 'name': 'far'})
    """
    names = names_in(evaluation)
    shared = {key: value for key, value in evaluation.items() if key not in names}
    if shared.get("name") is not None:
        raise ConfigError(
            f"evaluation.name is {shared['name']!r} beside the evaluations {', '.join(map(repr, names))}; it must be "
            "null, as they have their names already."
        )
    for key, value in shared.items():
        if key in FIELDS and key != "env_kwargs" and is_section(value):
            raise ConfigError(
                f"evaluation.{key} is {value!r} beside the evaluations {', '.join(map(repr, names))}; {key!r} is the "
                "name of a setting, which no evaluation can have. Give the evaluation another name."
            )
        if key not in FIELDS:
            raise ConfigError(
                f"Unknown key '{key}' (value {value!r}) in evaluation.{nearest(str(key), FIELDS)} Beside named "
                f"evaluations, known keys are {', '.join(FIELDS)}; an evaluation must be a mapping of them."
            )
    return {
        name: {**shared, **set_in(evaluation[name]), "name": _checked_name(name, evaluation[name])} for name in names
    }


def set_in(section: EvaluationConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a section sets; of a dataclass, what differs from the defaults."""
    if isinstance(section, Mapping):
        return dict(section)
    default = EvaluationConfig()
    return {key: value for key in FIELDS if (value := getattr(section, key)) != getattr(default, key)}


def _checked_name(name: str, section: EvaluationConfig | Mapping[str, Any]) -> str:
    own = section.name if isinstance(section, EvaluationConfig) else section.get("name")
    if own is not None and own != name:
        raise ConfigError(
            f"evaluation.{name}.name is {own!r}; it must be null or {name!r}, the name that the evaluation has in the "
            "mapping."
        )
    return name


def describe_similar(name: str, section: Any) -> str:
    """Suggests a setting if an evaluation has the name of none, but a similar one, and its keys are no settings.

    Example:
        >>> describe_similar("env_kwarg", {"size": 8}), describe_similar("envs", {"env": "Near-v0"})
        (" Did you mean 'env_kwargs'?", '')
    """
    keys = FIELDS if is_dataclass(section) else section
    return "" if any(key in FIELDS for key in keys) else nearest(name, FIELDS)
