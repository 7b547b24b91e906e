"""Environment steps of a training, as its module counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlwandb_callbacks.callbacks.latest_logged import LatestLogged, find_named
from rlwandb_callbacks.callbacks.lightning_results import computed_metrics, logged_values

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

ENV_STEP_NAMES = ("env_steps", "env_step", "total_env_steps")


class EnvSteps:
    """Reads the count of environment steps, and continues it after a checkpoint.

    The count is an output of ``training_step``, else the latest value that the module logs, also if Lightning keeps
    only its mean over an epoch, else an attribute of the module. A module that does not save its count starts from zero
    again when a training is resumed. This is seen at the first reading, where the count is below that of the
    checkpoint, which is then added to it from there on.

    Each rank of a training counts its own steps. Those that other ranks have added since the training started, or was
    resumed, may be added to the count of rank zero.

    Attributes:
        own: Latest count of this rank; None if the module has none.
        elsewhere: Steps of other ranks, as far as they are known.
    """

    def __init__(self) -> None:
        self.own: float | None = None
        self.elsewhere: float = 0
        self._at_start: tuple[float, float] = (0, 0)  # `own` and `elsewhere` of the checkpoint
        self._output: Any = None
        self._logged = LatestLogged(ENV_STEP_NAMES)
        self._offset: float = 0
        self._resumed_at: float | None = None  # count of a checkpoint, until the module's count is read

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out live tensors."""
        return {**vars(self), "_output": None, "_logged": LatestLogged(ENV_STEP_NAMES)}

    @property
    def total(self) -> float | None:
        """Steps of all ranks that are known; None if the module has no count."""
        return None if self.own is None else self.own + self.elsewhere

    def state(self) -> dict[str, float | None]:
        """Returns the counts for a checkpoint."""
        return {"env_steps": self.own, "env_steps_elsewhere": self.elsewhere or None}

    def restore(self, own: float | None, elsewhere: float = 0) -> None:
        """Takes the counts of a checkpoint, which are those of rank zero."""
        self.own = self._resumed_at = own
        self.elsewhere = elsewhere
        self._at_start = (own or 0, elsewhere)

    def sum_over_ranks(self, gather: Callable[[float], Sequence[float]]) -> None:
        """Adds what other ranks have counted; ``gather`` returns the values of all ranks for that of this one."""
        own_before, elsewhere_before = self._at_start
        added = (self.own or 0) - own_before
        self.elsewhere = max(self.elsewhere, elsewhere_before + sum(gather(added)) - added)

    def keep(self, outputs: Mapping[str, Any]) -> None:
        """Keeps the count among the outputs of a batch, without reading it from its device."""
        for name in ENV_STEP_NAMES:
            if name in outputs:
                self._output = outputs[name]

    def follow(self, trainer: Trainer) -> None:
        """Keeps the counts that the module logs per epoch only from now on; to be called once a batch."""
        self._logged.follow(trainer)

    def close(self) -> None:
        """Stops following what the module logs."""
        self._logged.close()

    def resume(self, trainer: Trainer, module: LightningModule) -> None:
        """Reads the count if it has not been read since a checkpoint was loaded."""
        if self._resumed_at is not None:
            self.read(trainer, module)

    def read(self, trainer: Trainer, module: LightningModule) -> None:
        """Reads the count now; the latest one stays if the module has none any more."""
        counts = (as_number(candidate) for candidate in self._candidates(trainer, module))
        count = next((count for count in counts if count is not None), None)
        if count is None:
            return
        if self._resumed_at is not None:
            self._offset = self._resumed_at if count < self._resumed_at else 0
            self._resumed_at = None
        self.own = count + self._offset

    def _candidates(self, trainer: Trainer, module: LightningModule) -> Iterator[Any]:
        yield self._output
        yield from find_named(logged_values(trainer), ENV_STEP_NAMES)
        yield from self._logged.values()
        yield from (_attribute(module, name) for name in ENV_STEP_NAMES)
        yield from find_named(computed_metrics(trainer), ENV_STEP_NAMES)


def _attribute(module: Any, name: str) -> Any:
    try:
        return getattr(module, name, None)
    except Exception:  # noqa: BLE001  # a property of the user's, which may need what is not there yet
        return None


def as_number(value: Any) -> float | None:
    """Converts a number, or an array or tensor of one element; returns None for any other value."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.item() if np.prod(value.shape) == 1 else None
    return value if isinstance(value, int | float) else None
