"""Makes the innermost environment of an existing one again, with the attributes that were set in it later."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.environments.changed_attributes import Changes, NewEnvironment, with_changes
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.output import WithoutOutput
from rlwandb_callbacks.environments.vector_changes import (
    MakeChanged,
    changes_in_sub_envs,
    has_sub_env_functions,
    observe_sub_envs,
    set_in_sub_envs,
)

EZPICKLE = "_ezpickle_args"  # attribute of environments whose copies have no attribute that was set later
GAMES = "AtariVectorEnv"  # vector of ale-py, which has no attributes to set and is costly to make
FUNCTION = (
    "set evaluation.env to a function that makes the environment as it is to be evaluated, such as a method of the "
    "module ('self.make_env'), which is called at each evaluation."
)
UNSEEN = (
    "evaluation.env is {env}. Evaluations play new environments like it, without the attributes that training sets in "
    "it: {reason}. If training changes it, " + FUNCTION
)
NOT_MADE = "no new ones could be made to compare it with"
NOT_READ = "its environments are in subprocesses, which could not be asked for them"


@dataclass(frozen=True)
class Origin:
    """The environment that is made again.

    Args:
        base: The innermost environment.
        new: What is known about new ones like it, or like each of its sub-environments; empty if it was not asked for.
        changes: Attributes in which it, or each of its sub-environments, differs from new ones.
        warning: What is not made again.
    """

    base: Any
    new: Sequence[NewEnvironment | None] = ()
    changes: Sequence[Changes] = ()
    warning: str | None = None

    @classmethod
    def of(cls, base: Any, spec: EnvSpec | None, earlier: Origin | None = None) -> Origin:
        """Compares an innermost environment, as it is now, with new ones.

        Args:
            base: The innermost environment.
            spec: Spec from which it can be made again.
            earlier: What is known since an earlier call, maybe about another environment.
        """
        new = earlier.new if earlier is not None and earlier.base is base else _observe(base, spec)
        if not new:
            return cls(base)
        if all(each is None for each in new):
            return cls(base, new, warning=UNSEEN.format(env=env_name(base), reason=NOT_MADE))
        is_vector = has_sub_env_functions(base)
        changes = changes_in_sub_envs(base, new) if is_vector else [new[0].changes_in(base)]  # type: ignore[union-attr]  # not all are None
        if changes is None:
            return cls(base, new, warning=UNSEEN.format(env=env_name(base), reason=NOT_READ))
        return cls(base, new, changes)


def can_be_made_again(base: Any, spec: EnvSpec | None) -> bool:
    """Returns whether an innermost environment can be made again, and need not be copied."""
    return spec is not None or has_sub_env_functions(base)


def maker_of(base: Any, spec: EnvSpec | None, changes: Sequence[Changes]) -> Callable[[str | None], Any]:
    """Returns a function that makes an innermost environment again in a render mode, with some attributes."""
    if not isinstance(base, VectorEnv):
        return partial(_make_single, _without_wrappers(spec), changes[0] if changes else {})
    if spec is not None:
        return partial(_make_vector, spec, changes)
    names = ("copy", "observation_mode", "autoreset_mode")
    options = {name: getattr(base, name) for name in names if hasattr(base, name)}
    functions: list[Callable[[], Any]] = [WithoutOutput(make) for make in base.env_fns]  # type: ignore[attr-defined]  # see `can_be_made_again`
    if any(changes):
        functions = [MakeChanged(make, each) for make, each in zip(functions, changes, strict=True)]
    return partial(_make_vector_of, type(base), functions, options)


def _observe(base: Any, spec: EnvSpec | None) -> Sequence[NewEnvironment | None]:
    if has_sub_env_functions(base):
        return observe_sub_envs(base)
    if spec is None and EZPICKLE in getattr(base, "__dict__", {}):
        return [NewEnvironment.observe(partial(_from_arguments, base))]
    if spec is None or has_base_named(type(base), GAMES):
        return ()
    is_vector = isinstance(base, VectorEnv)
    make = partial(_make_vector, spec, ()) if is_vector else partial(_make_single, _without_wrappers(spec), {})
    return [NewEnvironment.observe(partial(make, None))]


def _from_arguments(base: Any) -> Any:
    """Copies an ``EzPickle`` of Gymnasium, which makes another one with the same arguments."""
    made = copy.deepcopy(base)
    made.render_mode = None
    return made


def _without_wrappers(spec: Any) -> EnvSpec:
    result: EnvSpec = dataclasses.replace(spec, additional_wrappers=())
    return result


def _make_single(spec: EnvSpec, changes: Changes, render_mode: str | None) -> Any:
    return with_changes(gym.make(spec, disable_env_checker=True, render_mode=render_mode).unwrapped, changes)


def _make_vector(spec: EnvSpec, changes: Sequence[Changes], render_mode: str | None) -> Any:
    mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}  # not all vectors take it
    vector = gym.make_vec(spec, **mode)
    if changes and has_sub_env_functions(vector.unwrapped):
        set_in_sub_envs(vector, changes)
    elif changes:
        with_changes(vector.unwrapped, changes[0])
    return vector


def _make_vector_of(
    kind: Callable[..., Any], functions: list[Callable[[], Any]], options: dict[str, Any], _render_mode: str | None
) -> Any:
    return kind(functions, **options)
