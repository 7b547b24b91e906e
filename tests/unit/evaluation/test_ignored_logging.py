"""Policies that call ``self.log`` while they are evaluated, by themselves or through helpers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from rlwandb_callbacks.evaluation.preserved_state import preserved_state


class Helper:
    """Agent that logs through functions of a module that it was given."""

    def __init__(self, log: Callable[..., Any]) -> None:
        self.log, self.functions = log, {"bar": functools.partial(log, prog_bar=True)}


class Logging(pl.LightningModule):
    """Module that counts what reaches Lightning's ``log``."""

    def __init__(self) -> None:
        super().__init__()
        self.helper, self.logged = Helper(self.log), []
        log = self.log

        def logs_in_closure() -> None:
            log("closure", 1.0)

        self.logs_in_closure = logs_in_closure

    def log(self, name: str, value: Any, **kwargs: Any) -> None:
        self.logged.append(name)

    def act(self, observations: torch.Tensor) -> torch.Tensor:
        self.log("module", 1.0, on_step=True)
        self.log_dict({"dict": 1.0})
        self.helper.log("helper", 1.0)
        self.helper.functions["bar"]("partial", 1.0)
        self.logs_in_closure()
        return observations


def test_what_a_policy_logs_is_ignored_in_an_evaluation_and_logged_afterwards() -> None:
    module = Logging()
    helper_log = module.helper.log
    with preserved_state(module, seed=0):
        module.act(torch.zeros(1))
    assert module.logged == []
    assert module.helper.log is helper_log
    assert "log" not in vars(module)
    module.act(torch.zeros(1))
    assert module.logged == ["module", "dict", "helper", "partial", "closure"]


def test_methods_for_logging_are_back_after_an_error() -> None:
    module = Logging()
    own = vars(module)["log"] = lambda *args: None
    with pytest.raises(ZeroDivisionError), preserved_state(module, seed=0):
        raise ZeroDivisionError
    assert vars(module)["log"] is own


def test_a_module_inside_another_one_logs_nothing_either() -> None:
    module = torch.nn.Sequential(Logging())
    with preserved_state(module, seed=0):
        module[0].act(torch.zeros(1))
    assert module[0].logged == []
