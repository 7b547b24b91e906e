"""Attributes that were set in an environment after it was made, so that copies have them too."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from rlwandb_callbacks.environments.closing import closing
from rlwandb_callbacks.environments.mujoco_models import ModelFields, changed_fields, fields_of, is_model, set_fields
from rlwandb_callbacks.environments.output import is_output_wrapper
from rlwandb_callbacks.environments.plain_values import are_equal, is_plain
from rlwandb_callbacks.environments.wrappers import wrapper_chain

CHECKER = "PassiveEnvChecker"  # checks the user's environment once; copies need not be checked again
# Attributes of one object, its seeds, and the arguments with which it was made: a copy must not take them over.
OWN = frozenset({"env", "render_mode", "spec", "isopen", "closed", "_closed", "is_closed", "_np_random_seed"})
OWN |= {"np_random_seed", "_ezpickle_args", "_ezpickle_kwargs"}

Attributes: TypeAlias = Mapping[str, Any]
LayerKey: TypeAlias = tuple[str, int]
"""Name of the class of a wrapper or environment, and how many of this class are outside it."""
Changes: TypeAlias = Mapping[LayerKey, Attributes]
"""Attributes to set, by layer; layers without any are left out."""


@dataclass(frozen=True)
class NewLayer:
    """What is known about the plain attributes of a new wrapper or environment.

    Args:
        constant: Attributes that are equal in all new ones, and that neither ``reset`` nor ``step`` changes, and
            counters of steps or episodes that ``reset`` does not set back.
        variable: Names of all others: those that belong to the one object, such as the identifier of a simulator, a
            port or a temporary folder, and the state of an episode.
    """

    constant: Attributes
    variable: frozenset[str]

    def changes_in(self, layer: Any, *, with_equal: bool) -> dict[str, Any]:
        """Returns copies of the plain attributes in which a layer differs from new ones."""
        found = {
            name: value
            for name, value in _attributes(layer).items()
            if name not in self.variable and is_plain(value) and (with_equal or not _has(self.constant, name, value))
        }
        return {name: _difference(value, self.constant.get(name)) for name, value in copy.deepcopy(found).items()}


@dataclass(frozen=True)
class NewEnvironment:
    """What is known about the plain attributes of new environments, by layer."""

    layers: Mapping[LayerKey, NewLayer]

    @classmethod
    def observe(cls, make: Callable[[], Any]) -> NewEnvironment | None:
        """Makes two environments, and resets and steps one of them; None if they cannot be made.

        Two are open at once, as identifiers that are given back are given to the next one.
        """
        states: list[dict[LayerKey, dict[str, Any]]] = []
        with contextlib.suppress(Exception), closing(make()) as new, closing(make()) as other:
            states += [_state(new), _state(other)]
            new.reset(seed=0)
            states.append(_state(new))
            new.action_space.seed(0)
            new.step(new.action_space.sample())  # may raise, as masks may allow no such action
            states.append(_state(new))
            new.reset(seed=0)
            states.append(_state(new))
        if len(states) < 2:
            return None
        return cls({key: _compare([state.get(key, {}) for state in states]) for key in states[0]})

    def changes_in(self, env: Any, *, with_equal: bool = False) -> Changes:
        """Returns copies of the plain attributes in which an environment differs from new ones.

        Args:
            env: An environment that was made in the same way.
            with_equal: Whether to return attributes that do not differ, too, because it was made by another function.
        """
        layers = layers_of(env)
        found = {
            key: new.changes_in(layers[key], with_equal=with_equal) for key, new in self.layers.items() if key in layers
        }
        return {key: changes for key, changes in found.items() if changes}


def with_changes(env: Any, changes: Changes) -> Any:
    """Sets attributes in an environment, which it returns."""
    layers = layers_of(env) if changes else {}
    for key, attributes in copy.deepcopy(dict(changes)).items():
        own = vars(layers[key]) if key in layers else {}
        for name, value in attributes.items():
            if isinstance(value, ModelFields):
                set_fields(own[name], value)
            else:
                own[name] = value
    return env


def _difference(value: Any, usual: Any) -> Any:
    """Returns what must be set so that a usual value becomes another one: of models only the fields that differ."""
    are_models = isinstance(value, ModelFields) and isinstance(usual, ModelFields)
    return changed_fields(value, usual) if are_models else value


def layers_of(env: Any) -> dict[LayerKey, Any]:
    """Returns the layers that copies of an environment have too."""
    found: dict[LayerKey, Any] = {}
    for layer in wrapper_chain(env):
        name = type(layer).__qualname__
        if name != CHECKER and not is_output_wrapper(layer):
            found[name, sum(other == name for other, _ in found)] = layer
    return found


def _attributes(layer: Any) -> dict[str, Any]:
    found = {name: value for name, value in vars(layer).items() if name not in OWN}
    return {name: fields_of(value) if is_model(value) else value for name, value in found.items()}


def _state(env: Any) -> dict[LayerKey, dict[str, Any]]:
    """Returns copies of the plain attributes of each layer."""
    return {
        key: copy.deepcopy({name: value for name, value in _attributes(layer).items() if is_plain(value)})
        for key, layer in layers_of(env).items()
    }


def _compare(states: Iterable[dict[str, Any]]) -> NewLayer:
    """Compares the attributes of a new layer, of another one, after a reset, after a step and after another reset."""
    first, *others = states
    constant = {
        name: value
        for name, value in first.items()
        if all(_has(state, name, value) for state in others) or _counts(name, [first, *others])
    }
    return NewLayer(constant, frozenset(name for state in (first, *others) for name in state) - constant.keys())


def _counts(name: str, states: list[dict[str, Any]]) -> bool:
    """Returns whether an integer grows with steps or resets, and no reset sets it back."""
    found = [state.get(name) for state in states]
    values = [value for value in found if type(value) is int]
    if len(found) < 5 or len(values) < len(found):
        return False
    new, other, after_reset, after_step, after_second_reset = values
    return new == other <= after_reset <= after_step <= after_second_reset != after_reset


def _has(attributes: Attributes, name: str, value: Any) -> bool:
    return name in attributes and are_equal(attributes[name], value)
