"""Finds the policy that evaluation plays with, and asks it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.errors import PolicyError, nearest
from rlwandb_callbacks.policies.adapters import adapter_for, can_be_asked
from rlwandb_callbacks.policies.adapters.devices import batch_size_of
from rlwandb_callbacks.policies.output_reader import OutputReader

DEFAULT_NAMES = ("policy_step", "policy", "actor", "q_network", "q_net")
_Q_NAME = re.compile(r"(^|[._])(q|dqn|critic)", re.IGNORECASE)
_POLICY_NAME = re.compile(r"(^|[._])(policy|actor|pi|logits)", re.IGNORECASE)


def resolve_policy(module: nn.Module, policy: str | Callable[..., Any] | None) -> Callable[..., Any]:
    """Finds what ``evaluation.policy`` stands for.

    Args:
        module: The LightningModule.
        policy: Dotted attribute, import path, callable, model of Stable-Baselines3, or None for the first of
            ``DEFAULT_NAMES`` that there is.

    Raises:
        PolicyError: If nothing callable is found; the message lists what the module has.
    """
    if policy is None:
        name = policy_name(module, None)
        if not name:
            raise PolicyError(
                f"evaluation.policy is not set, and {type(module).__name__} has none of {', '.join(DEFAULT_NAMES)}. "
                f"{_inventory(module)}"
            )
        return resolve_policy(module, name)
    if not isinstance(policy, str):
        if not can_be_asked(policy):
            raise PolicyError(
                f"evaluation.policy is {policy!r} of type {type(policy).__name__}, which can neither be called with "
                "observations nor predicts actions as the models of Stable-Baselines3 do. Give a function, a network "
                "or the name of an attribute."
            )
        return policy
    found = _attribute(module, policy)
    if found is None and (":" in policy or "." in policy):
        found = _imported(policy)
    if found is None:
        raise PolicyError(
            f"evaluation.policy '{policy}' is neither an attribute of {type(module).__name__} nor an import path."
            f"{nearest(policy, _candidates(module))} {_inventory(module)}"
        )
    if not can_be_asked(found):
        raise PolicyError(
            f"evaluation.policy '{policy}' is {found!r} of type {type(found).__name__}, which cannot be called with "
            f"observations. {_inventory(module)}"
        )
    return found  # type: ignore[no-any-return]  # getattr and import give Any


def policy_name(module: nn.Module, policy: str | Callable[..., Any] | None) -> str:
    """What to call a policy: its attribute or import path, or the name of the function or class; empty for none."""
    if policy is None:
        return next((name for name in DEFAULT_NAMES if can_be_asked(getattr(module, name, None))), "")
    return policy if isinstance(policy, str) else str(getattr(policy, "__name__", type(policy).__name__))


def tensor_meaning(policy: str | Callable[..., Any] | None, module: nn.Module, action_logger: bool | str) -> str:
    """Tells what a bare tensor ``[B, A]`` of this policy holds: ``q_values``, ``logits`` or ``unknown``.

    ``action_logger`` decides where it names one of the two; else the policy's name gives it away or not.
    """
    name = policy_name(module, policy)
    if action_logger == "q_value":
        return "q_values"
    own_name, attribute_path = re.split(r"[.:]", name)[-1], name.rpartition(":")[2]
    told = _meaning_told_by(own_name) or _meaning_told_by(attribute_path)
    return told or ("logits" if action_logger == "action_probability" else "unknown")


def _meaning_told_by(name: str) -> str:
    if _POLICY_NAME.search(name):
        return "logits"
    return "q_values" if _Q_NAME.search(name) else ""


class Player:
    """Asks a policy in batches, on its own device and in its floating-point type.

    Args:
        policy: A callable that takes a batch of observations (a tensor, or a dict or tuple of tensors), an actor of
            TorchRL, or a model of Stable-Baselines3.
        module: The LightningModule, which tells device and type where the policy does not.
        reader: Reads the answers.
        observation_space: Of one environment.
    """

    def __init__(self, policy: Any, module: nn.Module, reader: OutputReader, observation_space: Any = None) -> None:
        self._observation_space = observation_space
        self._adapter = adapter_for(policy, module, reader)
        self._begins: NDArray[np.bool_] | None = None
        self._masks: NDArray[np.bool_] | None = None

    @property
    def takes_masks(self) -> bool:
        """Whether the policy wants to be told which actions are allowed."""
        return self._adapter.takes_masks

    def allow(self, masks: NDArray[np.bool_]) -> None:
        """Says which actions are allowed in the next batch, for a policy that takes masks.

        Args:
            masks: Shape ``[B, A]``.
        """
        self._masks = masks

    def begin_episodes(self, rows: NDArray[np.bool_]) -> None:
        """Says in which rows of the next batch an episode begins, for policies with memory.

        Args:
            rows: Shape ``[B]``. In the first batch all rows begin.
        """
        self._begins = rows if self._begins is None else self._begins | rows

    def __call__(self, observations: Any) -> PolicyStep:
        """Acts in a batch of B observations, as ``gymnasium.vector`` batches them.

        Raises:
            PolicyError: If the answer cannot be read.
        """
        count = batch_size_of(observations, self._observation_space)
        begins = self._begins
        if begins is None or begins.size != count:
            begins = np.ones(count, dtype=np.bool_)
        self._begins = np.zeros(count, dtype=np.bool_)
        return self._adapter.act(observations, begins, self._masks)

    def rehearse(self, observations: Any, *, side_by_side: bool) -> None:
        """Asks for one step, and a policy with memory for two, so that what cannot be done shows.

        Args:
            observations: A batch of at least two.
            side_by_side: Episodes will begin while others go on.

        Raises:
            PolicyError: If an answer cannot be read, or the state cannot be carried.
        """
        first = np.arange(batch_size_of(observations, self._observation_space)) == 0
        self(observations)
        if self._adapter.has_memory:
            self.begin_episodes(first & side_by_side)
            self(observations)


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
