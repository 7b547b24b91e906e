"""Finds policies whose actions are scaled to the bounds of an environment by an object that they are a part of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gymnasium import Space, spaces
from torch import nn

from rlwandb_callbacks.core.acting_methods import acting_methods
from rlwandb_callbacks.policies.action_extremes import has_other_bounds
from rlwandb_callbacks.policies.adapters.devices import network_of
from rlwandb_callbacks.policies.namespaces import global_names

SKIPPED_SCALING = (
    "It is a part of {owner}, which scales its actions to the bounds of the environment. Evaluation calls the part "
    "alone and plays its actions as they are in {space}. Set evaluation.policy to {owner} itself."
)

SAMPLING_METHODS = ("sample", "evaluate")  # of actors in other implementations of soft actor-critic
UNUSED_SCALE = (
    "Its forward does not use its attribute action_scale, but its method {method} does. Evaluation calls forward and "
    "plays what it returns, without what {method} applies. Set evaluation.policy to the method {method}, or to a "
    "function that returns its action."
)


def skipped_scaling(module: nn.Module, policy: Any, space: Space[Any]) -> str | None:
    """Returns a warning if a policy is a network of an object that scales its actions, and does not do so itself.

    Args:
        module: The LightningModule, whose attributes and networks are searched.
        policy: The policy.
        space: Action space of one environment.
    """
    network = network_of(policy)
    if network is None or network is module:
        return None
    if (
        _is_forward(policy, network)
        and isinstance(space, spaces.Box)
        and (method := _scaling_method(network)) is not None
    ):
        return UNUSED_SCALE.format(method=method)
    if not has_other_bounds(space):
        return None
    owners = (name for name, owner in _named_objects(module) if _scales_actions_of(owner, network))
    owner = next(owners, None)
    return None if owner is None else SKIPPED_SCALING.format(owner=owner, space=space)


def _scaling_method(network: nn.Module) -> str | None:
    """Returns the acting method of a network that uses ``action_scale``, as CleanRL's; None if ``forward`` does too."""
    names_of = {name: _names_in(network, name) for name in ("forward", *acting_methods(network), *SAMPLING_METHODS)}
    if not hasattr(network, "action_scale") or not names_of["forward"].isdisjoint({"action_scale", *names_of}):
        return None
    return next((name for name, names in names_of.items() if "action_scale" in names), None)


def _is_forward(policy: Any, network: nn.Module) -> bool:
    return policy is network or getattr(policy, "__name__", "") in ("forward", "__call__", "_wrapped_call_impl")


def _names_in(network: nn.Module, method: str) -> frozenset[str]:
    code = getattr(getattr(type(network), method, None), "__code__", None)
    return frozenset() if code is None else global_names(code)


def _named_objects(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from ((name, part) for name, part in module.named_modules() if name)
    yield from ((name, value) for name, value in vars(module).items() if not name.startswith("_"))


def _scales_actions_of(owner: Any, network: nn.Module) -> bool:
    """Returns whether an object is a policy of Tianshou or an algorithm of d3rlpy that scales actions of a network."""
    try:
        return _is_scaling_owner(owner, network)
    except Exception:  # noqa: BLE001  # attributes of users' objects may raise anything when they are read
        return False


def _is_scaling_owner(owner: Any, network: nn.Module) -> bool:
    if isinstance(owner, nn.Module):
        scales = callable(getattr(owner, "map_action", None)) and bool(getattr(owner, "action_scaling", False))
        return scales and owner is not network and any(part is network for part in owner.modules())
    parts = getattr(getattr(owner, "impl", None), "modules", None)
    networks = [part for part in getattr(parts, "__dict__", {}).values() if isinstance(part, nn.Module)]
    has_scaler = getattr(owner, "action_scaler", None) is not None
    return has_scaler and any(part is network for each in networks for part in each.modules())
