"""Finds the policy that evaluation plays with, and asks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.errors import PolicyError, nearest
from rlwandb_callbacks.import_path import import_object
from rlwandb_callbacks.policy_answer import Reader

DEFAULT_NAMES = ("policy_step", "policy", "actor", "q_network", "q_net")
_Q_NAME = re.compile(r"(^|[._])(q|dqn|critic)", re.IGNORECASE)
_POLICY_NAME = re.compile(r"(^|[._])(policy|actor|pi|logits)", re.IGNORECASE)


def resolve_policy(module: nn.Module, policy: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """Finds what ``evaluation.policy`` stands for.

    Args:
        module: The LightningModule.
        policy: Dotted attribute, import path, callable, or None for the first of ``DEFAULT_NAMES`` that there is.

    Raises:
        PolicyError: If nothing callable is found; the message lists what the module has.
    """
    if policy is None:
        names = [name for name in DEFAULT_NAMES if callable(getattr(module, name, None))]
        if not names:
            raise PolicyError(
                f"evaluation.policy is not set, and {type(module).__name__} has none of {', '.join(DEFAULT_NAMES)}. "
                f"{_inventory(module)}"
            )
        return resolve_policy(module, names[0])
    if not isinstance(policy, str):
        return policy
    found = _attribute(module, policy)
    if found is None and (":" in policy or "." in policy):
        found = _imported(policy)
    if found is None:
        raise PolicyError(
            f"evaluation.policy '{policy}' is neither an attribute of {type(module).__name__} nor an import path."
            f"{nearest(policy, _candidates(module))} {_inventory(module)}"
        )
    if not callable(found):
        raise PolicyError(
            f"evaluation.policy '{policy}' is {found!r} of type {type(found).__name__}, which cannot be called with "
            f"observations. {_inventory(module)}"
        )
    return found  # type: ignore[no-any-return]  # getattr and import give Any


def tensor_meaning(policy: str | Callable[..., Any] | None, module: nn.Module, action_logger: bool | str) -> str:
    """Tells what a bare tensor ``[B, A]`` of this policy holds: ``q_values``, ``logits`` or ``unknown``.

    ``action_logger`` decides where it names one of the two; else the policy's name gives it away or not.
    """
    if policy is None:
        policy = next((name for name in DEFAULT_NAMES if callable(getattr(module, name, None))), "")
    name = policy if isinstance(policy, str) else getattr(policy, "__name__", type(policy).__name__)
    if action_logger == "q_value":
        return "q_values"
    own_name, attribute_path = re.split(r"[.:]", name)[-1], name.rpartition(":")[2]
    told = _meaning_told_by(own_name) or _meaning_told_by(attribute_path)
    return told or ("logits" if action_logger == "action_probability" else "unknown")


def _meaning_told_by(name: str) -> str:
    if _POLICY_NAME.search(name):
        return "logits"
    return "q_values" if _Q_NAME.search(name) else ""


@dataclass(frozen=True)
class Player:
    """Asks a policy in batches, on the module's device and in its floating-point type.

    Args:
        policy: Called with a batch of observations: a tensor, or a dict or tuple of tensors.
        module: Tells device and floating-point type.
        reader: Reads the answers.
    """

    policy: Callable[..., Any]
    module: nn.Module
    reader: Reader

    def __call__(self, observations: Any) -> PolicyStep:
        """Acts in a batch of B observations, as ``gymnasium.vector`` batches them.

        Raises:
            PolicyError: If the answer cannot be read.
        """
        return self.reader.read(self.policy(self._to_tensors(observations)), _batch_size(observations))

    def _to_tensors(self, observations: Any) -> Any:
        if isinstance(observations, dict):
            return {key: self._to_tensors(value) for key, value in observations.items()}
        if isinstance(observations, tuple):
            return tuple(self._to_tensors(value) for value in observations)
        array = np.asarray(observations)
        if array.dtype.kind not in "biuf":
            return observations
        first = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))
        return torch.as_tensor(array, device=first.device, dtype=first.dtype if array.dtype.kind == "f" else None)


def _batch_size(observations: Any) -> int:
    if isinstance(observations, dict):
        return _batch_size(next(iter(observations.values())))
    if isinstance(observations, tuple) and not isinstance(observations[0], str):  # gymnasium batches text as a tuple
        return _batch_size(observations[0])
    return len(observations)


def _attribute(module: nn.Module, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
        if found is None:
            return None
    return found


def _imported(path: str) -> Any:
    try:
        return import_object(path)
    except (ImportError, AttributeError, ValueError):
        return None


def _candidates(module: nn.Module) -> list[str]:
    own = (
        name for cls in type(module).__mro__ for name in vars(cls) if _is_users(cls) and callable(getattr(cls, name))
    )
    held = (name for name, value in vars(module).items() if callable(value))
    children = (name for name, _ in module.named_children())
    return sorted({name for name in (*children, *own, *held) if not name.startswith("_")})


def _is_users(cls: type) -> bool:
    return not cls.__module__.startswith(("torch", "pytorch_lightning", "lightning", "builtins", "abc"))


def _inventory(module: nn.Module) -> str:
    networks = [name for name, _ in module.named_children()]
    methods = [name for name in _candidates(module) if name not in networks]
    return (
        f"{type(module).__name__} has the networks {', '.join(networks) or '(none)'} and the methods "
        f"{', '.join(methods) or '(none)'}."
    )
