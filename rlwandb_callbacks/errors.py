"""Exceptions, and helpers for their messages."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

MOST_MEMBERS = 3  # errors of a group that a message names
ESCAPE_SEQUENCES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


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


class RemoteError(RuntimeError):
    """An error of another process, which has sent its type and message as text: "NoLicense: No license was found".

    Its class is not sent, as it may not exist in this process, or fail when it is made again. The ``__cause__`` has the
    traceback.
    """


class RemoteTraceback(Exception):  # noqa: N818  # a part of another error, which is never raised
    """The text of a traceback in another process."""

    def __str__(self) -> str:
        """Returns the text in quotation marks, as Python prints it below the name of this class."""
        return f'\n"""\n{self.args[0].rstrip()}\n"""'


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


def plain_text(text: str) -> str:
    r"""Returns a text without the escape sequences by which terminals show colors.

    Example:
        >>> plain_text("\x1b[36mray::work()\x1b[39m (pid=7)")
        'ray::work() (pid=7)'
    """
    return ESCAPE_SEQUENCES.sub("", text)


def without_middle(text: str, length: int = 2000) -> str:
    """Returns a text without its middle if it is long: the reason may be at its start and at its end.

    It is cut at blanks, so that no part of a longer word, such as a password, remains.

    Example:
        >>> without_middle("the first word and the last", length=12)
        'the … last'
    """
    if len(text) <= length:
        return text
    start, end = text[: length * 3 // 4 + 1], text[-(length // 4) - 1 :]
    return f"{start.rsplit(maxsplit=1)[0]} … {end.split(maxsplit=1)[-1]}"


def message_of(error: BaseException) -> str:
    """Returns the message of an error, without the middle of a long one, and those of the first errors of a group.

    It is empty if there is none, or if the code of its class fails to make it.

    Example:
        >>> message_of(RuntimeError("no display")), message_of(KeyError())
        ('no display', '')
    """
    try:
        text = plain_text(without_middle(str(error))).strip()
        return "; ".join(filter(None, [text, *map(name_and_message, _members_of(error)[:MOST_MEMBERS])]))
    except Exception:  # noqa: BLE001  # code of foreign classes
        return ""


def _members_of(error: BaseException) -> list[BaseException]:
    """Returns the errors of an ExceptionGroup, which Python 3.10 has from a package; empty for other errors."""
    members = getattr(error, "exceptions", ())
    return [each for each in members if isinstance(each, BaseException)] if isinstance(members, tuple) else []


def name_and_message(error: BaseException) -> str:
    """Returns the type and message of an error; without a message, the line that raised it.

    Example:
        >>> name_and_message(RuntimeError("no display")), name_and_message(KeyError())
        ('RuntimeError: no display', 'KeyError.')
    """
    text = message_of(error)
    if isinstance(error, RemoteError):
        return text
    return f"{type(error).__name__}: {text}" if text else describe_error(error)


def describe_error(error: BaseException) -> str:
    """Returns the type and message of an error as a sentence; without a message, the line that raised it.

    Example:
        >>> describe_error(RuntimeError("no display")), describe_error(KeyError())
        ('RuntimeError: no display.', 'KeyError.')
    """
    kind = type(error).__name__
    if message_of(error):
        return sentence(name_and_message(error))
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
