"""Exceptions, and helpers for their messages."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class ConfigError(ValueError):
    """A setting is wrong; raised before training starts."""


class PolicyError(ConfigError):
    """The policy was not found, or its output cannot be read."""


class EnvError(ConfigError):
    """The evaluation environment cannot be created."""


class DatasetError(ConfigError):
    """The offline data cannot be read, or have a wrong layout."""


class RenderError(RuntimeError):
    """The environment does not render frames."""


class ReplayDivergedError(RuntimeError):
    """Replaying the same actions from the same seed gave other rewards or observations."""


def sentence(text: object) -> str:
    """Returns a text with a period at its end, unless it ends with punctuation.

    Example:
        >>> sentence("no display"), sentence("No display was found.")
        ('no display.', 'No display was found.')
    """
    stripped = str(text).rstrip()
    return stripped if stripped.endswith((".", "!", "?")) else f"{stripped}."


def brief(text: object, length: int = 200) -> str:
    """Returns a text cut to a length: errors of libraries may contain the bytes of a damaged file.

    Example:
        >>> brief("x" * 300, length=4)
        'xxxx…'
    """
    whole = str(text)
    return whole if len(whole) <= length else f"{whole[:length]}…"


def describe_error(error: BaseException) -> str:
    """Returns the type and message of an error as a sentence; without a message, the line that raised it.

    Example:
        >>> describe_error(RuntimeError("no display")), describe_error(KeyError())
        ('RuntimeError: no display.', 'KeyError.')
    """
    kind, text = type(error).__name__, str(error).strip()
    if text:
        return sentence(f"{kind}: {text}")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return sentence(kind)
    return f"{kind} in {Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line}."


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a sentence that suggests the most similar known name; empty if none is similar.

    Example:
        >>> nearest("epsiodes", ["episodes", "seed"])
        " Did you mean 'episodes'?"
    """
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
