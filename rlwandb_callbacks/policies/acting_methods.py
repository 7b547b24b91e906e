"""Says how an object of another library can be used as a policy."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import MethodType
from typing import Any

from torch import nn

from rlwandb_callbacks.core.acting_methods import acting_methods
from rlwandb_callbacks.policies.adapters.library_policy import has_no_forward


def acting_advice(policy: Any, error: Exception | None = None) -> str:
    """Names the library and the acting methods of an object that cannot be called, and a line that calls one.

    Also for objects of installed packages, and methods of these, that can be called but not with observations alone.
    Empty for the functions and networks of users, unless they need further arguments, and for objects without such
    methods.

    Args:
        policy: The object.
        error: What it raised when it was called; None if it cannot be called.
    """
    if isinstance(error, TypeError) and (line := _line_with_arguments(policy)):
        return line
    owner = getattr(policy, "__self__", policy)
    methods = acting_methods(owner)
    package = type(owner).__module__.partition(".")[0]
    is_installed = _is_installed(package)
    if not methods or not (is_installed or (owner is policy and has_no_forward(owner))):
        return ""
    origin = f" of {package}" if is_installed else ""
    signatures = {name: _parameters(getattr(owner, name)) for name in methods}
    described = ", ".join(f"{name}({', '.join(map(_described, found))})" for name, found in signatures.items())
    name, parameters = min(signatures.items(), key=lambda item: ("batch" not in item[0], len(_required(item[1]))))
    observations = "list(observations.cpu().numpy())" if name.startswith("batch") else "observations"  # as pfrl's
    others = "".join(f", {each.name}=..." for each in _required(parameters)[1:])
    return (
        f"{type(owner).__name__}{origin} has the methods {described}. Set evaluation.policy to a function that takes a "
        f"batch of observations and calls one of them, e.g. lambda observations: agent.{name}({observations}{others})."
    )


def _line_with_arguments(policy: Any) -> str:
    """Returns a line that passes the arguments which a policy needs besides observations; empty if it needs none."""
    is_network = isinstance(policy, nn.Module)
    required = _required(_parameters(policy.forward if is_network else policy))
    if len(required) < 2:
        return ""
    call = f"agent.{policy.__name__}" if isinstance(policy, MethodType) else "policy"
    others = ", ".join(f"{each.name}=..." for each in required[1:])
    return (
        f"It needs the arguments {', '.join(each.name for each in required)}. Set evaluation.policy to a function of a "
        f"batch of observations that passes the others, e.g. lambda observations: {call}(observations, {others})."
    )


def _is_installed(package: str) -> bool:
    """Returns whether a package is that of another library, not PyTorch or Lightning and not code of the user."""
    path = Path(getattr(sys.modules.get(package), "__file__", None) or "")
    is_library = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return is_library and package not in ("torch", "lightning", "pytorch_lightning")


def _parameters(method: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):
        return []


def _required(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    is_variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each for each in parameters if each.default is each.empty and each.kind not in is_variadic]


def _described(parameter: inspect.Parameter) -> str:
    return str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
