"""Errors that are meant to be read by people."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """A setting is wrong, and training has not started yet."""


class PolicyError(ConfigError):
    """The policy was not found, or what it answered cannot be read."""


class EnvError(ConfigError):
    """The evaluation environment cannot be made."""


class DatasetError(ConfigError):
    """The offline data cannot be read, or are not what they should be."""


class RenderError(RuntimeError):
    """The environment gives no pictures."""


class ReplayDivergedError(RuntimeError):
    """Playing the same actions from the same seed gave other rewards or observations."""


def sentence(text: object) -> str:
    """Ends a text that somebody else wrote with a full stop, where it has no end of its own.

    Example:
        >>> sentence("no display"), sentence("No display was found.")
        ('no display.', 'No display was found.')
    """
    told = str(text).rstrip()
    return told if told.endswith((".", "!", "?")) else f"{told}."


def describe_error(error: BaseException) -> str:
    """The kind of an error and what it says, as a sentence.

    Example:
        >>> describe_error(RuntimeError("no display")), describe_error(KeyError())
        ('RuntimeError: no display.', 'KeyError.')
    """
    kind, text = type(error).__name__, str(error).strip()
    return sentence(f"{kind}: {text}" if text else kind)


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggests the known name that looks most like ``name``, as the end of a sentence; empty where none does.

    Example:
        >>> nearest("epsiodes", ["episodes", "seed"])
        " Did you mean 'episodes'?"
    """
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
