"""Puts back settings of the process that imported code changes: warning filters, default dtypes and the like."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Restore: TypeAlias = Callable[[], None]
Setting: TypeAlias = tuple[Callable[[], Any], Callable[[Any], Any]]  # functions that read it and set it
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


@contextlib.contextmanager
def preserved_process_settings() -> Iterator[None]:
    """Runs code of the user's packages, and puts back the settings of the process that it changed.

    Environments and policies are imported, made and played while a training runs, to which the settings belong: filters
    and functions of ``warnings``, levels of ``logging``, floating-point errors and print options of NumPy, the default
    dtype and device, the number of threads, the gradient mode and the precision and determinism of torch, the backend
    and style of matplotlib, and handlers of the signals that end a program or tell it to save. Libraries that are not
    loaded yet have no settings.

    Other threads than the main one change nothing back, as the main thread may change the same settings meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    settings = [*_settings(), *_torch_settings(sys.modules.get("torch")), *_signal_handlers()]
    saved = (_filters(), _each(settings), _matplotlib())
    try:
        yield
    finally:
        for restore in saved:
            restore()


@contextlib.contextmanager
def preserved_working_folder() -> Iterator[None]:
    """Goes back to the working folder after the block; in other threads than the main one it is not changed back.

    An environment may need the folder that it has gone to until it is closed, so this is for blocks that close it.
    """
    folder = None
    if threading.current_thread() is threading.main_thread():
        with contextlib.suppress(OSError):  # it may have been removed
            folder = Path.cwd()
    try:
        yield
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)


def _filters() -> Restore:
    filters, entries = warnings.filters, list(warnings.filters)

    def restore() -> None:
        if warnings.filters is not filters or list(filters) != entries:
            filters[:] = entries  # type: ignore[index]  # a list, which typeshed declares as a sequence
            warnings.filters = filters
            with warnings.catch_warnings():  # makes Python forget which filter matched which line
                pass

    return restore


def _each(settings: Sequence[Setting]) -> Restore:
    before = [get() for get, _ in settings]

    def restore() -> None:
        for (get, put), value in zip(settings, before, strict=True):
            if get() != value:
                put(value)

    return restore


def _settings() -> list[Setting]:
    return [
        *_attributes(warnings, "showwarning", "formatwarning"),
        (lambda: logging.root.manager.disable, logging.disable),
        (lambda: logging.root.level, logging.root.setLevel),
        (np.geterr, lambda errors: np.seterr(**errors)),
        (np.geterrcall, np.seterrcall),
        (np.get_printoptions, lambda options: np.set_printoptions(**options)),
    ]


def _torch_settings(torch: Any) -> list[Setting]:
    """Returns settings of torch, which is passed in, as this package does not import it."""
    if torch is None:
        return []
    return [
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
        *_attributes(torch.backends.cudnn, "benchmark", "deterministic", "enabled"),
    ]


def _signal_handlers() -> list[Setting]:
    """Returns handlers that are set from Python; others cannot be set again."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    return [
        (partial(signal.getsignal, number), partial(signal.signal, number))
        for number in numbers
        if signal.getsignal(number) is not None
    ]


def _attributes(owner: Any, *names: str) -> list[Setting]:
    return [(partial(getattr, owner, name), partial(setattr, owner, name)) for name in names]


def _matplotlib() -> Restore:
    matplotlib: Any = sys.modules.get("matplotlib")
    if not hasattr(matplotlib, "rcParams"):
        return lambda: None
    before = _plain_items(matplotlib.rcParams)

    def restore() -> None:
        now = _plain_items(matplotlib.rcParams)
        if now.get("backend") != before["backend"] and isinstance(before["backend"], str):
            matplotlib.use(before["backend"])
        changed = {key: value for key, value in before.items() if key != "backend" and now.get(key) is not value}
        dict.update(matplotlib.rcParams, changed)

    return restore


def _plain_items(parameters: dict[str, Any]) -> dict[str, Any]:
    """Copies matplotlib's parameters without its methods, which choose a backend and change the filters of warnings."""
    return dict(dict.items(parameters))
