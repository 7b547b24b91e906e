"""Makes environments like an existing one, which is not modified."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.environments.changed_attributes import CHECKER, Changes, with_changes
from rlwandb_callbacks.environments.made_again import Origin, can_be_made_again, maker_of
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.output import (
    OUTPUT_WRAPPERS,
    DiscardedOutput,
    is_output_wrapper,
    is_writer,
)
from rlwandb_callbacks.environments.wrappers import wrapper_chain
from rlwandb_callbacks.errors import EnvError, describe_error

COPY_METHODS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
NEEDS_RESET = "needs_reset"  # attribute of the Monitor of Stable-Baselines3
RECORD = "_saved_kwargs"
RECORDER = "RecordConstructorArgs"


@dataclass(frozen=True)
class EnvCopier:
    """Makes an environment again: its innermost environment, and copies of the wrappers around it.

    Args:
        name: Name of the environment in messages.
        make_base: Makes the innermost environment in a render mode.
        wrappers: Copy of the wrappers, around a placeholder of the innermost environment.
        spec: Spec of the innermost environment, if it is made from one.
        origin: The environment; None in another process.
    """

    name: str
    make_base: Callable[[str | None], Any]
    wrappers: Any
    spec: EnvSpec | None = None
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __call__(self, render_mode: str | None = None) -> Any:
        """Makes a copy."""
        return _copy_wrappers(self.wrappers, self.make_base(render_mode))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the attributes of wrappers that pass all names on, which cannot be unpickled; see `copy_state`."""
        *wrappers, place = wrapper_chain(self.wrappers)
        if not any(_passes_names_on(type(wrapper)) for wrapper in wrappers):
            return EnvCopier, (self.name, self.make_base, self.wrappers, self.spec)
        parts = [(type(each), {key: v for key, v in vars(each).items() if key != "env"}) for each in wrappers]
        return _unpickled, (self.name, self.make_base, parts, place, self.spec)


def _unpickled(
    name: str, make_base: Callable[..., Any], parts: list[tuple[type, dict[str, Any]]], place: Any, spec: EnvSpec | None
) -> EnvCopier:
    wrappers = place
    for cls, attributes in reversed(parts):
        wrappers = _with_attributes(object.__new__(cls), {**attributes, "env": wrappers})
    return EnvCopier(name, make_base, wrappers, spec)


def _with_attributes(thing: Any, attributes: dict[str, Any]) -> Any:
    thing.__dict__.update(attributes)
    return thing


class _Place:
    """Stands for the innermost environment inside copies of its wrappers."""


def env_copier(env: Any, arguments: Mapping[str, Any] | None = None, earlier: EnvCopier | None = None) -> EnvCopier:
    """Returns a function that copies a single, vector or parallel environment.

    The environment is neither stepped, reset nor closed. Wrappers are copied with their attributes, except those that
    only write files or open windows. The innermost environment is made again from its spec if it has one, and gets the
    plain attributes that were set in it later; so do the sub-environments of a vector.

    Args:
        env: The environment.
        arguments: Arguments that replace those of the spec of a vector.
        earlier: What an earlier call has returned for this environment, or for another one.

    Raises:
        EnvError: If the environment can neither be made again nor be copied.
    """
    *_, base = wrapper_chain(env)
    spec, name = _spec_of(base), env_name(env)
    if spec is not None:
        spec.kwargs |= arguments or {}
    try:
        before = None if earlier is None else earlier.origin
        origin = Origin(base) if arguments else Origin.of(base, spec, before)
        return EnvCopier(name, _base_maker(base, spec, origin), _copy_wrappers(env, _Place()), spec, origin)
    except Exception as error:
        raise EnvError(
            f"evaluation.env is the environment {name}, which can neither be made again from its spec nor be copied: "
            f"{describe_error(error)} Set evaluation.env to a function that makes it."
        ) from error


def without_output(spec: EnvSpec) -> EnvSpec:
    """Copies a spec without the wrappers that open windows or write files."""
    spec = copy.deepcopy(spec)
    spec.kwargs.pop("render_mode", None)
    spec.additional_wrappers = tuple(each for each in spec.additional_wrappers if not _writes(each.entry_point))
    return spec


def _writes(entry_point: str) -> bool:
    """Returns whether the class of a wrapper only writes files or opens windows."""
    try:
        wrapper: Any = load_env_creator(entry_point)
        return has_base_named(wrapper, *OUTPUT_WRAPPERS)
    except Exception:  # noqa: BLE001  # a class that cannot be imported is reported when the environment is made
        return entry_point.rpartition(":")[2] in OUTPUT_WRAPPERS


def _spec_of(base: Any) -> EnvSpec | None:
    """Returns a spec from which an innermost environment can be made, also in another process."""
    spec = base.spec if isinstance(base, gym.Env | VectorEnv) else None
    if spec is None or (isinstance(base, VectorEnv) and "vectorization_mode" not in spec.kwargs):
        return None
    return importable(without_output(spec))


def importable(spec: EnvSpec) -> EnvSpec:
    """Returns a spec whose class can be pickled, as ``__main__`` is another module in other processes."""
    if isinstance(spec.entry_point, str) and spec.entry_point.startswith("__main__:"):
        spec = copy.deepcopy(spec)
        spec.entry_point = import_object(str(spec.entry_point))
    return spec


def _base_maker(base: Any, spec: EnvSpec | None, origin: Origin) -> Callable[[str | None], Any]:
    """Returns a function that makes an innermost environment as it is now."""
    if can_be_made_again(base, spec):
        return maker_of(base, spec, origin.changes)
    changes = origin.changes[0] if origin.changes else {}
    return partial(
        _deepcopy, _deepcopy(base, {}, None), changes
    )  # the user's environment may change, its copy does not


def _deepcopy(base: Any, changes: Changes, render_mode: str | None) -> Any:
    copied = copy_state(base, {})
    if hasattr(copied, "render_mode"):
        copied.render_mode = render_mode
    return with_changes(copied, changes)


def _copy_wrappers(env: Any, new_base: Any) -> Any:
    """Copies the wrappers of an environment around another innermost environment."""
    *wrappers, base = wrapper_chain(env)
    copied = new_base
    # References of a wrapper to the environments inside it become references to their copies.
    memo = {id(base): copied}
    for wrapper in reversed(wrappers):
        if not is_output_wrapper(wrapper) and type(wrapper).__name__ != CHECKER:
            copied = _copy_wrapper(wrapper, copied, memo)
        memo[id(wrapper)] = copied
    return copied


def _copy_wrapper(wrapper: Any, inside: Any, memo: dict[int, Any]) -> Any:
    """Copies a wrapper, or makes it again from its arguments if it cannot be copied and its class records them."""
    if isinstance(wrapper, _Arguments):
        return wrapper.cls(inside, **copy.deepcopy(wrapper.arguments))
    try:
        copied = copy_state(wrapper, memo)
        if NEEDS_RESET in vars(copied):  # in an episode of the original, which may not be cut
            copied.needs_reset = True
        return copied
    except Exception:
        if not _records_arguments(wrapper):
            raise
        arguments = {name: value for name, value in getattr(wrapper, RECORD).items() if name != "env"}
        return _Arguments(inside, type(wrapper), copy.deepcopy(arguments))


class _Arguments(gym.Wrapper[Any, Any, Any, Any]):
    """Stands for a wrapper that is made again from its arguments."""

    def __init__(self, env: Any, cls: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.env, self.cls, self.arguments = env, cls, arguments


def _records_arguments(wrapper: Any) -> bool:
    """Returns whether the ``__init__`` of a wrapper's class records its arguments, and not only one that it calls."""
    init = next(vars(cls)["__init__"] for cls in type(wrapper).__mro__ if "__init__" in vars(cls))
    return hasattr(wrapper, RECORD) and RECORDER in getattr(getattr(init, "__code__", None), "co_names", ())


def copy_state(thing: Any, memo: dict[int, Any]) -> Any:
    """Copies an object deeply, without the files that it writes into.

    ``copy.deepcopy`` asks a copy without attributes for its methods. A wrapper whose ``__getattr__`` passes all names
    on to its environment does not answer, so its attributes are copied one by one.
    """
    attributes = getattr(thing, "__dict__", {})
    memo |= {id(value): DiscardedOutput() for value in attributes.values() if is_writer(value)}
    if not _passes_names_on(type(thing)):
        return copy.deepcopy(thing, memo)
    copied = object.__new__(type(thing))
    memo[id(thing)] = copied
    return _with_attributes(copied, {name: copy.deepcopy(value, memo) for name, value in attributes.items()})


def _passes_names_on(cls: type) -> bool:
    """Returns whether a class answers for names that it lacks, and does not say how it is copied."""
    defined = {name for base in cls.__mro__[:-1] for name in vars(base)}
    return "__getattr__" in defined and defined.isdisjoint(COPY_METHODS)
