"""Lets the settings be structured configs of OmegaConf and Hydra."""

from __future__ import annotations

import copy

from rlwandb_callbacks.config.validation import Section


def open_to_hydra(cls: type[Section]) -> None:
    """Lets Hydra override settings of a class, whose instances stay frozen.

    OmegaConf makes configs of frozen dataclasses read-only, so that Hydra refuses each override. It reads only this
    parameter of the dataclass; the methods that refuse assignments to instances are not changed.
    """
    parameters = copy.copy(cls.__dict__["__dataclass_params__"])
    parameters.frozen = False
    cls.__dataclass_params__ = parameters  # type: ignore[attr-defined]  # dataclasses do not declare it
