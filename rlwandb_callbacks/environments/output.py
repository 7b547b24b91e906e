"""Output of environments, which an evaluation must not write: videos and logs of the user's wrappers, and windows."""

from __future__ import annotations

import contextlib
import csv
import functools
import inspect
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gymnasium import Env, Wrapper
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorWrapper

from rlwandb_callbacks.core.class_names import has_base_named
from rlwandb_callbacks.environments.wrappers import sub_envs, wrapper_chain

OUTPUT_WRAPPERS = ("RecordVideo", "VideoRecorder", "HumanRendering", "DataCollector")
"""Classes of wrappers that only write or show what they see, in any package; subclasses are recognized too."""

MODULES_OF_WRITING_WRAPPERS = (
    "gymnasium.wrappers.rendering",
    "gymnasium.wrappers.vector.rendering",
    "minari.data_collector.data_collector",
)
"""Modules with wrappers that make their files as soon as they are made themselves."""

MODULES_OF_RESULT_WRITERS = ("stable_baselines3.common.monitor",)
"""Modules with a class ``ResultsWriter``, which empties its file as soon as it is made."""

RESULT_WRITER = "ResultsWriter"
WRITERS = (RESULT_WRITER, "SummaryWriter")
CSV_WRITERS = (csv.DictWriter, type(csv.writer(io.StringIO())))


class DiscardedOutput:
    """Replacement for a file or writer that accepts every call of a method and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._discard

    def _discard(self, *args: Any, **kwargs: Any) -> None: ...


def is_output_wrapper(env: Any) -> bool:
    """Returns whether an environment is a wrapper that only writes files or opens a window."""
    return isinstance(env, Wrapper | VectorWrapper) and has_base_named(type(env), *OUTPUT_WRAPPERS)


def is_writer(value: Any) -> bool:
    """Returns whether a value is a file that is open for writing, or an object that writes rows into one."""
    if isinstance(value, io.IOBase):
        return not value.closed and value.writable()
    return isinstance(value, CSV_WRITERS) or has_base_named(type(value), *WRITERS)


def without_output_wrappers(env: Any) -> Any:
    """Takes the wrappers that only write or show out of an environment, or out of those of a vector."""
    while is_output_wrapper(env):
        env = env.env
    for layer in wrapper_chain(env):
        inner = sub_envs(layer)
        inner[:] = map(without_output_wrappers, inner)
        wrapper: Any = layer if isinstance(layer, Wrapper | VectorWrapper) else None
        while wrapper is not None and is_output_wrapper(wrapper.env):
            wrapper.env = wrapper.env.env
    return env


class WithoutOutput:
    """Function that makes an environment without output, for the subprocess of a vector."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __call__(self) -> Any:
        with discarded_output():
            return without_output_wrappers(self.make())


_lock = threading.Lock()
_threads: list[int] = []  # identifiers of the threads inside the block, one for each block
_originals: list[tuple[Any, str, Any]] = []  # owner, name and value of each attribute that is replaced


@contextlib.contextmanager
def discarded_output() -> Iterator[None]:
    """Makes known wrappers write nothing if this thread makes them inside the block.

    Such wrappers make folders, or empty the files of a training, as soon as they are made. Those of
    ``OUTPUT_WRAPPERS`` pass all calls on to the environment; the ``Monitor`` of Stable-Baselines3 has no file. Wrappers
    that other threads make are not affected.
    """
    thread = threading.get_ident()
    with _lock:
        if not _threads:
            _replace_writers()
        _threads.append(thread)
    try:
        yield
    finally:
        with _lock:
            _threads.remove(thread)
            while _originals and not _threads:
                owner, name, value = _originals.pop()
                setattr(owner, name, value)


def _replace_writers() -> None:
    for module in filter(None, map(sys.modules.get, MODULES_OF_WRITING_WRAPPERS)):
        for cls in filter(inspect.isclass, vars(module).values()):
            if cls.__name__ in OUTPUT_WRAPPERS and "__init__" in vars(cls):
                _replace(cls, "__init__", _passive_init)
    _replace(AsyncVectorEnv, "__init__", _quiet_subprocesses)
    for module in filter(None, map(sys.modules.get, MODULES_OF_RESULT_WRITERS)):
        if hasattr(module, RESULT_WRITER):
            _replace(module, RESULT_WRITER, lambda _: DiscardedOutput)


def _replace(owner: Any, name: str, replacement_of: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    replacement = replacement_of(original)

    @functools.wraps(original, updated=())
    def choose(*args: Any, **kwargs: Any) -> Any:
        return (replacement if threading.get_ident() in _threads else original)(*args, **kwargs)

    _originals.append((owner, name, original))
    setattr(owner, name, choose)


def _quiet_subprocesses(original: Callable[..., None]) -> Callable[..., None]:
    """Returns an ``__init__`` of ``AsyncVectorEnv`` whose subprocesses, however they start, make wrappers quietly."""

    def init(self: Any, env_fns: Sequence[Callable[[], Any]], *args: Any, **kwargs: Any) -> None:
        original(self, [WithoutOutput(make) for make in env_fns], *args, **kwargs)

    return init


def _passive_init(original: Callable[..., None]) -> Callable[..., None]:
    """Returns an ``__init__`` of a wrapper that stores its arguments, and lets the environment answer all calls."""

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = inspect.signature(original).bind(self, *args, **kwargs)
        arguments.apply_defaults()
        given = dict(list(arguments.arguments.items())[1:])
        env: Any = next(value for value in given.values() if isinstance(value, Env | VectorEnv))
        (Wrapper if isinstance(env, Env) else VectorWrapper).__init__(self, env)
        own = {name: value for name, value in given.items() if value is not env}
        vars(self).update(own, _saved_kwargs=own, recorded_frames=[])  # frames are missed when it is deleted
        vars(self).update({name: getattr(env, name) for name in ("reset", "step", "render", "close")})

    return init
