"""The account of this machine at a W&B server: settings, API key, and what is wrong with them."""

from __future__ import annotations

import inspect
import netrc
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.tracking.variables import KEY_VARIABLE, describe_refusal, find_refused_variables, strip_key

JSON_WEB_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


@dataclass(frozen=True)
class Obstacle:
    """Why a run cannot be online.

    Attributes:
        reason: What was seen, as a clause without a period.
        remedy: What to do, as a sentence.
        is_of_connection: Whether there was no answer at all.
    """

    reason: str
    remedy: str
    is_of_connection: bool = False


@dataclass(frozen=True)
class Key:
    """An API key.

    Attributes:
        value: The key, which no message may contain.
        source: Variable or file that it is from, for messages.
    """

    value: str = field(repr=False)
    source: str


def find_account_obstacle() -> Obstacle | None:
    """Returns why this machine has no key that could be valid; does not ask the server."""
    key = find_key(read_settings())
    return key if isinstance(key, Obstacle) else None


def read_settings() -> Any:
    """Returns W&B's settings of this process; blanks around the key in ``WANDB_API_KEY`` are removed first.

    Raises:
        ConfigError: If W&B does not accept an environment variable or a settings file.
    """
    strip_key()
    try:
        return wandb.setup().settings
    except (wandb.Error, ValueError) as error:  # pydantic's errors are ValueErrors
        raise ConfigError(describe_settings_error(error)) from None  # whose text has the value, which may be secret


def describe_settings_error(error: Exception) -> str:
    """Names the environment variables that W&B refuses; where there are none, gives its own words."""
    refused = " ".join(map(str, find_refused_variables()))
    return refused or f"W&B does not accept a setting: {describe_refusal(error)}"


def find_key(settings: Any) -> Key | Obstacle | None:
    """Returns the API key and where it is, or what is wrong with it; None if an identity token takes its place."""
    if getattr(settings, "identity_token_file", None):
        return None
    host = urlsplit(str(settings.base_url)).netloc.rpartition("@")[2]
    key = str(getattr(settings, "api_key", None) or "")
    source = KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else "W&B's settings"
    if not key and "prompt" in inspect.signature(wandb.login).parameters:
        key, source = _key_in_netrc(host)
    elif not key:  # older versions look into .netrc by other rules
        key, source = str(wandb.api.api_key or ""), "the .netrc file"
    if not key:
        return Obstacle(
            f"no W&B account is set up on this machine ({KEY_VARIABLE}, or `machine {host}` in ~/.netrc)",
            "Run `wandb login`, or set WANDB_API_KEY; set WANDB_MODE=offline to log offline without this line.",
        )
    problem = _problem_of_key(key)
    if problem:
        return Obstacle(f"the API key in {source} {problem}", f"Copy the whole key again: {how_to_renew(source)}.")
    return Key(key, source)


def _key_in_netrc(host: str) -> tuple[str, str]:
    given = os.environ.get("NETRC")
    paths = [Path(given).expanduser()] if given else [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    for path in paths:
        try:
            found = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        if found and found[2]:
            return found[2], str(path)
    return "", ""


def _problem_of_key(key: str) -> str:
    """Describes why a key has the wrong form, by W&B's rules: 40 characters, after a prefix on servers of one's own."""
    if JSON_WEB_TOKEN.fullmatch(key):
        return ""
    secret = key.partition("-")[2] if "-" in key else key
    if not re.fullmatch(r"[\w-]+", secret):
        return "has characters that no key has"
    return f"has {len(secret)} characters, and a key has 40 or more" if len(secret) < 40 else ""


def how_to_renew(source: str) -> str:
    """Returns how to set another key, as a clause."""
    return f"set {KEY_VARIABLE}" if source == KEY_VARIABLE else "run `wandb login --relogin`"
