"""Finds the policy that ``evaluation.policy`` names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

from rlwandb_callbacks.core.import_string import find_object
from rlwandb_callbacks.errors import PolicyError, nearest
from rlwandb_callbacks.policies.acting_methods import acting_advice
from rlwandb_callbacks.policies.adapters.libraries import library_policy
from rlwandb_callbacks.policies.adapters.stable_baselines import StableBaselinesPolicy

DEFAULT_NAMES = ("policy_step", "policy", "actor", "q_network", "q_net")
_LIBRARY_PREFIXES = ("torch", "pytorch_lightning", "lightning", "builtins", "abc")
_Q_NAME = re.compile(r"(^|[._])(q|dqn|critic)", re.IGNORECASE)
_POLICY_NAME = re.compile(r"(^|[._])(policy|actor|pi|logits)", re.IGNORECASE)


def is_policy(candidate: Any) -> bool:
    """Returns whether an object can be called, or is a policy object of a library that has an adapter."""
    is_known = StableBaselinesPolicy.fits(candidate) or library_policy(candidate, deterministic=True) is not None
    return is_known or callable(candidate)


def resolve_policy(module: nn.Module, policy: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """Returns the policy that ``evaluation.policy`` names, or raises a PolicyError that lists what the module has.

    A policy is a dotted attribute of the module, an import path, a callable, a policy object of a library that
    has an adapter, or None for the first policy among the attributes ``DEFAULT_NAMES``.
    """
    if policy is None:
        policy = policy_name(module, None)
        if not policy:
            raise PolicyError(
                f"evaluation.policy is not set, and {type(module).__name__} has none of {', '.join(DEFAULT_NAMES)}. "
                f"{_describe_members(module)}"
            )
    found = _find(module, policy) if isinstance(policy, str) else policy
    if found is None:
        raise PolicyError(
            f"evaluation.policy '{policy}' is neither an attribute of {type(module).__name__} nor an import path."
            f"{nearest(str(policy), _public_members(module))} {_describe_members(module)}"
        )
    if not is_policy(found):
        name = f" '{policy}'" if isinstance(policy, str) else ""
        raise PolicyError(
            f"evaluation.policy{name} is {found!r} of type {type(found).__name__}, which can neither be called with "
            "observations nor acts as the objects of Stable-Baselines3, TorchRL, Tianshou, skrl, rsl-rl and d3rlpy do. "
            f"{acting_advice(found) or 'Set it to a function, a network or the name of an attribute.'} "
            f"{_describe_members(module)}"
        )
    return found


def policy_name(module: nn.Module, policy: str | Callable[..., Any] | None) -> str:
    """Returns the attribute or import path of a policy, or the name of its function or class; empty if not found."""
    if policy is None:
        return next((name for name in DEFAULT_NAMES if is_policy(getattr(module, name, None))), "")
    return policy if isinstance(policy, str) else str(getattr(policy, "__name__", type(policy).__name__))


def tensor_meaning(policy: str | Callable[..., Any] | None, module: nn.Module, action_logger: bool | str) -> str:
    """Returns what a bare tensor ``[B, A]`` of a policy contains: ``q_values``, ``logits`` or ``unknown``.

    ``action_logger="q_value"`` decides first, then the name of the policy, then ``"action_probability"``.
    """
    if action_logger == "q_value":
        return "q_values"
    name = policy_name(module, policy)
    last_part, attribute_path = re.split(r"[.:]", name)[-1], name.rpartition(":")[2]
    meaning = _meaning_of_name(last_part) or _meaning_of_name(attribute_path)
    return meaning or ("logits" if action_logger == "action_probability" else "unknown")


def _meaning_of_name(name: str) -> str:
    if _POLICY_NAME.search(name):
        return "logits"
    return "q_values" if _Q_NAME.search(name) else ""


def _find(module: nn.Module, path: str) -> Any:
    found: Any = module
    for part in (path if hasattr(module, "self") else path.removeprefix("self.")).split("."):
        found = getattr(found, part, None)
    return find_object(path) if found is None else found


def _public_members(module: nn.Module) -> list[str]:
    user_classes = (cls for cls in type(module).__mro__ if not cls.__module__.startswith(_LIBRARY_PREFIXES))
    methods = (name for cls in user_classes for name in vars(cls) if callable(getattr(cls, name)))
    callables = (name for name, value in vars(module).items() if callable(value))
    networks = (name for name, _ in module.named_children())
    return sorted({name for name in (*networks, *methods, *callables) if not name.startswith("_")})


def _describe_members(module: nn.Module) -> str:
    networks = [name for name, _ in module.named_children()]
    methods = [name for name in _public_members(module) if name not in networks]
    return (
        f"{type(module).__name__} has the networks {', '.join(networks) or '(none)'} and the methods "
        f"{', '.join(methods) or '(none)'}."
    )
