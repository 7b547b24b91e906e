"""Variables besides instance attributes in which code keeps state: of functions, of classes, and slots of objects."""

from __future__ import annotations

import dis
import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch

PLAIN_TYPES = frozenset({dict, list, tuple, set, frozenset, deque, np.ndarray, torch.Tensor})  # without code of users
_RESERVED_SLOTS = frozenset({"__dict__", "__weakref__"})


class Variable(NamedTuple):
    """Access to one variable; ``read`` raises an error if it is not set."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    delete: Callable[[], object]


class Namespace(MutableMapping[str, Any]):
    """Those of some variables that are set, by their names.

    Args:
        variable: Returns the variable of a name.
        names: Returns the names of all variables, also of those that are not set.
    """

    def __init__(self, variable: Callable[[str], Variable], names: Callable[[], Iterable[str]]) -> None:
        self._variable, self._names = variable, names

    def __getitem__(self, name: str) -> Any:
        try:
            return self._variable(name).read()
        except (AttributeError, ValueError):  # a slot or a cell that is empty
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        self._variable(name).write(value)

    def __delitem__(self, name: str) -> None:
        self._variable(name).delete()

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def namespaces(owner: Any) -> list[MutableMapping[str, Any]]:
    """Returns the variables of a function or class that its code may assign, slots, or attributes of containers."""
    if type(owner) in PLAIN_TYPES:
        return []
    if isinstance(owner, FunctionType):
        return [*_function_variables(owner), vars(owner)]
    if isinstance(owner, type):
        return [_class_attributes(owner)]
    cls: Any = type(owner)
    names = _slot_names(cls)
    slots: list[MutableMapping[str, Any]] = [Namespace(functools.partial(_slot, owner), lambda: names)] if names else []
    attributes = getattr(owner, "__dict__", None) if isinstance(owner, dict | list | deque | set) else None
    return [*slots, attributes] if isinstance(attributes, dict) and attributes is not owner else slots


@functools.lru_cache(maxsize=4096)
def global_names(code: CodeType, *, assigned: bool = False) -> frozenset[str]:
    """Returns names that a code object, and those inside it, may look up as global ones.

    Args:
        code: Code of a function.
        assigned: Only those that it declares as ``global`` and assigns.
    """
    names = set(code.co_names)
    if assigned:
        names = {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_GLOBAL"}
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(names.union(*(global_names(each, assigned=assigned) for each in inner)))


def _function_variables(function: FunctionType) -> Iterator[Namespace]:
    """Yields the variables of enclosing functions, and the global variables that a function assigns."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if cells:
        yield Namespace(
            lambda name: Variable(
                lambda: cells[name].cell_contents,
                functools.partial(setattr, cells[name], "cell_contents"),
                functools.partial(delattr, cells[name], "cell_contents"),
            ),
            lambda: cells,
        )
    assigned, variables = global_names(function.__code__, assigned=True), function.__globals__
    if assigned:
        yield Namespace(
            lambda name: Variable(
                lambda: variables[name],
                functools.partial(variables.__setitem__, name),
                functools.partial(variables.__delitem__, name),
            ),
            lambda: assigned,
        )


def _class_attributes(cls: type) -> Namespace:
    return Namespace(
        lambda name: Variable(
            lambda: vars(cls)[name], functools.partial(setattr, cls, name), functools.partial(delattr, cls, name)
        ),
        lambda: [name for name, value in vars(cls).items() if not name.startswith("__") and is_data(value)],
    )


def is_data(value: Any) -> bool:
    """Returns whether a value in the body of a class is none of its methods, properties, slots and inner classes."""
    return not (isinstance(value, type) or callable(value) or hasattr(type(value), "__get__"))


@functools.lru_cache(maxsize=1024)
def _slot_names(cls: type) -> tuple[str, ...]:
    names: list[str] = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names += [
            name
            for name in ((slots,) if isinstance(slots, str) else tuple(slots))
            if name not in _RESERVED_SLOTS and not name.startswith("__")
        ]
        names += [name for name in vars(base) if name.startswith(f"_{base.__name__.lstrip('_')}__")]
    return tuple(name for name in names if inspect.ismemberdescriptor(inspect.getattr_static(cls, name, None)))


def _slot(owner: Any, name: str) -> Variable:
    return Variable(
        functools.partial(getattr, owner, name),
        functools.partial(object.__setattr__, owner, name),
        functools.partial(object.__delattr__, owner, name),
    )
