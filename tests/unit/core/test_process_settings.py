"""Settings of the process that imported code changes."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch

from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.core.process_settings import preserved_process_settings, preserved_working_folder

CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {  # how to read a setting, and how to change it
    "filters": (lambda: list(warnings.filters), lambda: warnings.filterwarnings("ignore")),
    "reset filters": (lambda: list(warnings.filters), warnings.resetwarnings),
    "other filters": (lambda: id(warnings.filters), lambda: setattr(warnings, "filters", [])),
    "showwarning": (lambda: warnings.showwarning, lambda: setattr(warnings, "showwarning", print)),
    "formatwarning": (lambda: warnings.formatwarning, lambda: setattr(warnings, "formatwarning", str)),
    "disabled logging": (lambda: logging.root.manager.disable, lambda: logging.disable(logging.CRITICAL)),
    "level of logging": (lambda: logging.root.level, lambda: logging.root.setLevel(logging.CRITICAL)),
    "numpy errors": (np.geterr, lambda: np.seterr(all="raise")),
    "numpy printing": (np.get_printoptions, lambda: np.set_printoptions(precision=2)),
    "default dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "default device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "precision": (torch.get_float32_matmul_precision, lambda: torch.set_float32_matmul_precision("medium")),
    "determinism": (torch.are_deterministic_algorithms_enabled, lambda: torch.use_deterministic_algorithms(True)),
    "anomalies": (torch.is_anomaly_enabled, lambda: torch.autograd.set_detect_anomaly(True)),
    "cudnn": (
        lambda: torch.backends.cudnn.benchmark,
        lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    ),
    "backend": (mpl.get_backend, lambda: mpl.use("svg")),
    "SIGTERM": (lambda: signal.getsignal(signal.SIGTERM), lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)),
    "SIGINT": (lambda: signal.getsignal(signal.SIGINT), lambda: signal.signal(signal.SIGINT, lambda *_: None)),
    "style": (lambda: mpl.rcParams["font.size"], lambda: mpl.rcParams.update({"font.size": 99})),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_is_put_back(name: str) -> None:
    get, change = CHANGES[name]
    before = get()
    with preserved_process_settings():
        change()
        assert get() != before
    assert get() == before


def test_settings_are_put_back_after_an_error() -> None:
    @preserved_process_settings()
    def fail() -> None:
        torch.set_default_dtype(torch.float64)
        raise ValueError("boom")

    before = torch.get_default_dtype()
    with pytest.raises(ValueError, match="boom"):
        fail()
    assert torch.get_default_dtype() == before


def test_a_warning_that_is_shown_once_is_not_shown_again() -> None:
    def warn() -> None:
        warnings.warn("here", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warn()
        with preserved_process_settings():
            pass
        warn()
        assert len(caught) == 1


def test_a_warning_that_was_hidden_meanwhile_is_shown_afterwards() -> None:
    def warn() -> None:
        warnings.warn("here", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with preserved_process_settings():
            warnings.simplefilter("ignore")
            warn()
        warn()
        assert len(caught) == 1


def test_other_threads_leave_the_settings_to_the_main_thread() -> None:
    entered, changed = threading.Event(), threading.Event()

    def work() -> None:
        with preserved_process_settings():
            entered.set()
            assert changed.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)  # as Lightning does for the time of a training step
        changed.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_importing_an_object_changes_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "careless_package.py").write_text(
        "import warnings, numpy, torch\n"
        "warnings.filterwarnings('error')\n"
        "numpy.seterr(all='raise')\n"
        "torch.set_default_dtype(torch.float64)\n"
        "make = dict\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = list(warnings.filters), np.geterr(), torch.get_default_dtype()
    assert import_object("careless_package:make") is dict
    assert (list(warnings.filters), np.geterr(), torch.get_default_dtype()) == before


def test_the_working_folder_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with preserved_working_folder():
        (tmp_path / "other").mkdir()
        monkeypatch.chdir("other")
    assert Path.cwd() == tmp_path


def test_a_working_folder_that_was_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "removed").mkdir()
    monkeypatch.chdir(tmp_path / "removed")
    (tmp_path / "removed").rmdir()
    with preserved_working_folder():
        pass
    monkeypatch.chdir(tmp_path)
    (tmp_path / "later").mkdir()
    monkeypatch.chdir("later")
    with preserved_working_folder():
        (tmp_path / "later").rmdir()
        monkeypatch.chdir(tmp_path)
    assert Path.cwd() == tmp_path
