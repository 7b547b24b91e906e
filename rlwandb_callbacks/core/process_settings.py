"""Puts back settings of the process that imported code changes: warning filters, default dtypes and the like."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

Restore: TypeAlias = Callable[[], None]


@contextlib.contextmanager
def preserved_process_settings() -> Iterator[None]:
    """Runs code of the user's packages, and puts back the settings of the process that it changed.

    Environments and policies are imported, made and played while a training runs, to which the settings belong: filters
    and functions of ``warnings``, levels of ``logging``, floating-point errors and print options of NumPy, the default
    dtype and device, the number of threads, the gradient mode and the precision and determinism of torch, and the
    backend and style of matplotlib. Libraries that are not loaded yet have no settings.

    Other threads than the main one change nothing back, as the main thread may change the same settings meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    saved = (_warnings(), _logging(), _numpy(), _torch(sys.modules.get("torch")), _matplotlib())
    try:
        yield
    finally:
        for restore in saved:
            restore()


def _warnings() -> Restore:
    filters, entries = warnings.filters, list(warnings.filters)
    functions = {name: getattr(warnings, name) for name in ("showwarning", "formatwarning")}

    def restore() -> None:
        if warnings.filters is not filters or list(filters) != entries:
            filters[:] = entries  # type: ignore[index]  # a list, which typeshed declares as a sequence
            warnings.filters = filters
            with warnings.catch_warnings():  # makes Python forget which filter matched which line
                pass
        for name, function in functions.items():
            _set_if_changed(warnings, name, function)

    return restore


def _logging() -> Restore:
    disabled, level = logging.root.manager.disable, logging.root.level

    def restore() -> None:
        if logging.root.manager.disable != disabled:
            logging.disable(disabled)
        if logging.root.level != level:
            logging.root.setLevel(level)

    return restore


def _numpy() -> Restore:
    errors, call, options = np.geterr(), np.geterrcall(), np.get_printoptions()

    def restore() -> None:
        if np.geterr() != errors:
            np.seterr(**errors)
        if np.geterrcall() is not call:
            np.seterrcall(call)
        if np.get_printoptions() != options:
            np.set_printoptions(**options)

    return restore


def _torch(torch: Any) -> Restore:
    """Remembers settings of torch, which is passed in, as this package does not import it."""
    if torch is None:
        return lambda: None
    settings: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
    ]
    before = [get() for get, _ in settings]
    cudnn = torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in ("benchmark", "deterministic", "enabled")}

    def restore() -> None:
        for (get, put), value in zip(settings, before, strict=True):
            if get() != value:
                put(value)
        for name, value in flags.items():
            _set_if_changed(cudnn, name, value)

    return restore


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


def _set_if_changed(holder: Any, name: str, value: Any) -> None:
    if getattr(holder, name) is not value:
        setattr(holder, name, value)
