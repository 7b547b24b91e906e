"""Learning rates of optimizers, and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from rlwandb_callbacks.callbacks.metrics.numbers import to_numbers
from rlwandb_callbacks.callbacks.optimizer_steps import OptimizerSteps
from rlwandb_callbacks.callbacks.trained_parameters import names_by_id, parameters_of


class LearningRates:
    """Reads learning rates; their names are computed again only when the parameter groups change."""

    def __init__(self) -> None:
        self._groups: list[tuple[int, int]] = []
        self._names: list[str] = []

    def read(self, optimizers: Sequence[Any], module: nn.Module, steps: OptimizerSteps) -> dict[str, float]:
        """Returns the rate of each parameter group at its latest step, by name, and as ``lr`` that of the first group.

        A group that has not stepped yet has the present rate; one without a rate is left out.
        """
        rates = [rate for optimizer in optimizers for rate in steps.rates(optimizer)]
        if len(rates) < 2:
            return to_numbers(dict(zip(("lr",), rates, strict=False)))
        groups = [(id(optimizer), len(optimizer.param_groups)) for optimizer in optimizers]
        if groups != self._groups:
            self._groups, self._names = groups, learning_rate_names(optimizers, module)
        return to_numbers({"lr": rates[0], **dict(zip(self._names, rates, strict=True))})


def learning_rate_names(optimizers: Sequence[Optimizer], module: nn.Module) -> list[str]:
    """Names the learning rate of each parameter group.

    Returns:
        ``lr``; for several optimizers ``lr_<part>``, after the part of the module that the optimizer trains; for
        several groups in an optimizer followed by ``_pg<i>``.
    """
    names = names_by_id(optimizers, module)
    parts = [_trained_part(optimizer, names) or f"optimizer{i}" for i, optimizer in enumerate(optimizers)]
    labels = []
    for index, (optimizer, part) in enumerate(zip(optimizers, parts, strict=True)):
        label = f"_{part}" if len(optimizers) > 1 else ""
        label += f"_{index}" if parts.count(part) > 1 else ""
        several = len(optimizer.param_groups) > 1
        labels += [f"lr{label}_pg{i}" if several else f"lr{label}" for i in range(len(optimizer.param_groups))]
    return labels


def _trained_part(optimizer: Optimizer, names: Mapping[int, str]) -> str:
    """Returns the common prefix of the names of all parameters of an optimizer, up to the first index."""
    paths = [names.get(id(parameter), "").split(".") for parameter in parameters_of(optimizer)]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1 or parts[0].isdigit():
            break
        common.append(parts[0])
    return "_".join(common)
