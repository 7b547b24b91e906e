"""Plain values of mappings as users have them: EasyDict, OmegaConf, namespaces."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from rlwandb_callbacks.errors import describe_error


class Unresolved(str):
    """Text of a value that cannot be read: ``???``, or an interpolation such as ``${hydra:job.name}``.

    Attributes:
        reason: Why it cannot be read.
    """

    __slots__ = ("reason",)

    reason: str

    @classmethod
    def because(cls, text: str, error: Exception) -> Unresolved:
        """Returns a text with the error that prevents reading the value."""
        unresolved = cls(text)
        unresolved.reason = describe_error(error).splitlines()[0]
        return unresolved


def is_of_omegaconf(value: Any) -> bool:
    """Returns whether a value is a container of OmegaConf, which is not imported here."""
    return type(value).__module__.partition(".")[0] == "omegaconf"


def is_mapping(value: Any) -> bool:
    """Returns whether a value has names for its values: a mapping or a namespace."""
    return isinstance(value, Mapping | Namespace | SimpleNamespace)


def entries(mapping: Any) -> Iterator[tuple[Any, Any]]:
    """Yields key and value of a mapping or a namespace; what OmegaConf cannot resolve as :class:`Unresolved`.

    Example:
        >>> dict(entries(SimpleNamespace(lr=0.1)))
        {'lr': 0.1}
    """
    if is_of_omegaconf(mapping):
        yield from ((key, _resolved(mapping, key)) for key in _keys(mapping))
    else:
        yield from (mapping if isinstance(mapping, Mapping) else vars(mapping)).items()


def items(sequence: Sequence[Any]) -> list[Any]:
    """Returns the items of a sequence; what OmegaConf cannot resolve as :class:`Unresolved`."""
    if is_of_omegaconf(sequence):
        return [_resolved(sequence, index) for index in _keys(sequence)]
    return list(sequence)


def unresolved_in(value: Any) -> Unresolved | None:
    """Returns the first value in plain containers that could not be resolved."""
    if isinstance(value, Unresolved):
        return value
    inner: Any = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((found for each in inner if (found := unresolved_in(each)) is not None), None)


def _keys(config: Any) -> list[Any]:
    try:
        return list(range(len(config))) if isinstance(config, Sequence) else list(config.keys())
    except Exception:  # noqa: BLE001  # a container that is itself an interpolation or missing
        return []


def _resolved(config: Any, key: Any) -> Any:
    """Returns one value of a container; also resolvers of users may fail, with any error."""
    try:
        return config[key]
    except Exception as error:  # noqa: BLE001
        return Unresolved.because(_raw_text(config, key), error)


def interpolation(container: Any, key: Any) -> str | None:
    """Returns the text of an interpolation in a container of OmegaConf; None for other values and containers."""
    if not is_of_omegaconf(container) or not sys.modules["omegaconf"].OmegaConf.is_interpolation(container, key):
        return None
    return _raw_text(container, key)


def _raw_text(config: Any, key: Any) -> str:
    return str(sys.modules["omegaconf"].OmegaConf.to_container(config, resolve=False)[key])
