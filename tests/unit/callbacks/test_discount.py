"""Which of the numbers of a module is the discount factor of its agent."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, SequentialLR, StepLR

from rlwandb_callbacks import EvaluationCallback
from rlwandb_callbacks.callbacks.evaluation.discount import find_discount
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyValidatedQ


def module(hparams: Any = None, **attributes: Any) -> nn.Module:
    made: Any = nn.Module()
    made.hparams = {} if hparams is None else hparams
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def schedule(gamma: float, kind: Any = StepLR) -> Any:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return kind(optimizer, **({"step_size": 5} if kind is StepLR else {}), gamma=gamma)


NESTED = {"algo": {"gamma": 0.95}, "scheduler": {"gamma": 0.5}, "optimizer": {"lr_decay": {"gamma": 0.1}}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (module({"discount": 0.9}), 0.9),
        (module({"discount_factor": 0.9, "gamma": 0.1}), 0.9),
        (module({"gamma": 0.1}, discount=0.9), 0.9),
        (module({"cfg": NESTED}), 0.95),
        (module(NESTED), 0.95),
        (module(OmegaConf.create({**NESTED, "missing": "???"})), 0.95),
        (module(cfg=Namespace(algo=SimpleNamespace(discount_factor=0.8), gamma=None)), 0.8),
        (module(args=Namespace(gamma=0.7)), 0.7),
        (module({"scheduler": {"gamma": 0.5}}), None),
        (module({"lr_gamma": 0.5, "gae_lambda": 0.9}), None),
        (module(agent=SimpleNamespace(gamma=0.6)), 0.6),
        (module(agent=SimpleNamespace(cfg={"discount_factor": 0.6})), 0.6),
        (module(norm=SimpleNamespace(gamma=0.6)), None),
        (module(gamma=nn.Parameter(torch.tensor(1.0))), None),
        (module(hp={"optimizer": {"gamma": 0.2}, "algorithm": {"discount_factor": 0.8}}), 0.8),
        (module(hp={"algorithm": {"gamma": 0.8}}), 0.8),
        (module(focal={"gamma": 0.5}, lr_settings={"discount": 0.5}, table=dict.fromkeys(range(3), 0.5)), None),
        (module({"world": {"gamma": 0.3}, "agent": {"gamma": 0.6}}), 0.6),
    ],
)
def test_discount_factor_is_found_where_projects_keep_it(given: nn.Module, expected: float | None) -> None:
    assert find_discount(None, given) == (expected, None)


@pytest.mark.parametrize("decay", [schedule(0.5), schedule(0.5, ExponentialLR)])
def test_factor_of_a_learning_rate_schedule_is_not_taken(decay: Any) -> None:
    assert find_discount(None, module({"gamma": 0.5}, gamma=0.97, decay=decay)) == (0.97, None)
    assert find_discount(None, module({"gamma": 0.5, "algo": {"gamma": 0.97}}, decay=decay)) == (0.97, None)
    gamma, warning = find_discount(None, module({"gamma": 0.5}, decay=decay))
    assert gamma is None
    assert "hparams.gamma = 0.5 is the factor of a learning rate schedule" in str(warning)
    assert "evaluation.gamma" in str(warning)


def test_schedules_inside_a_sequence_are_seen() -> None:
    first = schedule(0.5)
    both = SequentialLR(first.optimizer, [first, ExponentialLR(first.optimizer, gamma=0.9)], milestones=[2])
    assert find_discount(None, module({"gamma": 0.9}, gamma=0.97, both=both)).gamma == 0.97


def test_several_values_of_equal_rank_are_named_and_none_is_taken() -> None:
    gamma, warning = find_discount(None, module({"one": {"gamma": 0.9}, "two": {"gamma": 0.8}}))
    assert gamma is None
    assert "hparams.one.gamma = 0.9 and hparams.two.gamma = 0.8 differ" in str(warning)


class Decays(TinyValidatedQ):
    """Has the options of PyTorch's examples, where ``gamma`` is that of the schedule."""

    def __init__(self) -> None:
        super().__init__(batches=1)
        self.save_hyperparameters({"gamma": 0.7, "discount": 0.5})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.q_network.parameters(), lr=0.01)
        return [optimizer], [StepLR(optimizer, 1, gamma=self.hparams["gamma"])]

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[0.0, 1.0]]).expand(len(observations), 2)


def test_discounted_return_is_that_of_the_agent(fit: Any) -> None:
    tracker = MemoryTracker()
    cfg = {"on_error": "raise", "evaluation": {"env": CorridorEnv, "policy": "policy", "episodes": 1}}
    fit(Decays(), EvaluationCallback(cfg, tracker=tracker))
    assert tracker.column("eval/return_discounted_mean") == [1 + 0.5]  # two steps with reward 1
