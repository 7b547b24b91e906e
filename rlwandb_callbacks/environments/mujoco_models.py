"""Fields of the model of a MuJoCo simulation, such as masses, friction and gravity, which users change in place."""

from __future__ import annotations

from typing import Any

import numpy as np

MODEL, OPTIONS = "MjModel", "opt"


class ModelFields(dict[str, Any]):
    """Copies of fields of a model, by name; those of its options are named ``opt.gravity``."""


def is_model(value: Any) -> bool:
    """Returns whether a value is a compiled model of MuJoCo, which need not be imported."""
    return type(value).__name__ == MODEL and type(value).__module__.partition(".")[0] == "mujoco"


def fields_of(model: Any) -> ModelFields:
    """Returns copies of the arrays of a model, and of its options."""
    options: Any = getattr(model, OPTIONS)
    names = [name for name in dir(model) if not name.startswith("_")]
    arrays = {name: value.copy() for name in names if isinstance(value := getattr(model, name), np.ndarray)}
    for name in dir(options):
        value = getattr(options, name)
        if not name.startswith("_") and isinstance(value, int | float | np.ndarray):
            arrays[f"{OPTIONS}.{name}"] = np.copy(value)
    return ModelFields(arrays)


def changed_fields(fields: ModelFields, usual: ModelFields) -> ModelFields:
    """Returns the fields that differ from those of another model."""
    return ModelFields(
        {
            name: value
            for name, value in fields.items()
            if name in usual and not np.array_equal(value, usual[name], equal_nan=value.dtype.kind == "f")
        }
    )


def set_fields(model: Any, fields: ModelFields) -> None:
    """Sets fields of a model, which has arrays of the same shapes."""
    for name, value in fields.items():
        owner, key = (model, name) if "." not in name else (getattr(model, OPTIONS), name.partition(".")[2])
        present = getattr(owner, key)
        if isinstance(present, np.ndarray):
            if present.shape == value.shape:
                present[...] = value
        else:
            setattr(owner, key, value.item())
