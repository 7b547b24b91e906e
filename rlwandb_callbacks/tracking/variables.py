"""Environment variables of W&B: those that it refuses, and ``WANDB_DISABLED``, which it ignores.

W&B reads all of them when it is used first. One with a wrong value makes that, and so ``wandb.init``, raise an error of
pydantic, whatever arguments the call has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import wandb

from rlwandb_callbacks.core.secrets import without_secrets_in
from rlwandb_callbacks.errors import sentence

KEY_VARIABLE = "WANDB_API_KEY"
DISABLED_VARIABLE = "WANDB_DISABLED"
TRUE_VALUES = ("1", "true", "yes", "on", "y", "t")


@dataclass(frozen=True)
class RefusedVariable:
    """An environment variable with a value that W&B does not accept.

    Attributes:
        name: Its name.
        value: Its value, which no message may contain if it is a key.
        reason: What is allowed, as a sentence.
    """

    name: str
    value: str
    reason: str

    def __str__(self) -> str:
        """Returns name, value and what is allowed, as a sentence."""
        what = "has a value that" if self.name == KEY_VARIABLE else f"is {without_secrets_in(self.value)!r}, which"
        return f"{self.name} {what} W&B does not accept: {self.reason}"


@contextlib.contextmanager
def without_refused_variables() -> Iterator[Sequence[RefusedVariable]]:
    """Hides the variables that W&B refuses from it, in the block; returns them.

    W&B keeps the settings that it reads in the block, so it can be used after the block too.
    """
    strip_key()
    refused = [] if _are_settings_read() else find_refused_variables()
    for variable in refused:
        os.environ.pop(variable.name, None)
    try:
        yield refused
    finally:
        os.environ.update({variable.name: variable.value for variable in refused})


def strip_key() -> None:
    """Removes blanks around the key in ``WANDB_API_KEY``."""
    key = os.environ.get(KEY_VARIABLE)
    if key is not None and key != key.strip():
        os.environ[KEY_VARIABLE] = key.strip()
        wandb.termwarn(f"rlwandb: {KEY_VARIABLE} begins or ends with blanks, which were removed.")


def _are_settings_read() -> bool:
    try:
        wandb.setup()
    except (wandb.Error, ValueError):  # pydantic's errors are ValueErrors
        return False
    return True


def find_refused_variables() -> list[RefusedVariable]:
    """Returns the environment variables of this process that W&B refuses."""
    names = sorted(name for name in os.environ if name.startswith("WANDB_"))
    reasons = {name: _reason_of_refusal(name, os.environ[name]) for name in names}
    return [RefusedVariable(name, os.environ[name], reason) for name, reason in reasons.items() if reason]


def _reason_of_refusal(name: str, value: str) -> str:
    """Returns what W&B says about the value of a variable; empty if it accepts it."""
    update = getattr(wandb.Settings(), "update_from_env_vars", None)
    if update is None:  # it is not documented
        return ""
    try:
        update({name: value})
    except (wandb.Error, ValueError) as error:
        return describe_refusal(error)
    return ""


def describe_refusal(error: Exception) -> str:
    """Returns what is allowed for a setting, in W&B's words, as a sentence without the value."""
    details = getattr(error, "errors", None)
    if not callable(details):
        return sentence(without_secrets_in(str(error)))
    first: Any = details()[0]
    return sentence(first["msg"].removeprefix("Value error, ").replace("Input should", "It should"))


def describe_ignored_switch(run: Any) -> str | None:
    """Describes that ``WANDB_DISABLED`` is set and a run that is not ours is uploaded all the same."""
    if run.offline or not is_disabled_by_variable():
        return None
    return (
        f"{DISABLED_VARIABLE} is {os.environ[DISABLED_VARIABLE]!r}, which W&B ignores: run {run.id} is uploaded to "
        f"{without_secrets_in(str(run.settings.base_url))}. Set WANDB_MODE=disabled instead."
    )


def is_disabled_by_variable() -> bool:
    """Returns whether ``WANDB_DISABLED`` is set; W&B knew it once, and ignores it without a word now."""
    return os.environ.get(DISABLED_VARIABLE, "").strip().lower() in TRUE_VALUES
