"""``wandb.watch`` without its traps.

W&B watches a module that lists the trained parameters under their names in the LightningModule. Nothing is written to
the user's modules, so that they can be pickled, copied and watched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
import wandb
from torch import nn

Unscale: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function of a parameter and a gradient that reaches it in a backward pass."""


class TrainedParameters(nn.Module):
    """Module that is watched in place of the user's networks: parameters by name, and sub-modules for the graph."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._trained = dict(parameters)
        self._networks = dict(networks)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the trained parameters; ignores the arguments of the base class."""
        yield from self._trained.items()  # type: ignore[misc]  # W&B takes any tensor

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields the networks."""
        yield from self._networks.items()


def unscaled(parameter: torch.Tensor, unscale: Unscale) -> torch.Tensor:
    """Returns a tensor in place of a parameter, whose hooks get the gradients of the parameter without loss scale.

    Hooks on a parameter run within the backward pass, before a ``GradScaler`` divides its gradient.
    """
    watched = parameter.detach().requires_grad_()

    def register_hook(hook: Callable[[torch.Tensor], None]) -> Any:
        return parameter.register_hook(lambda gradient: hook(unscale(parameter, gradient)))  # type: ignore[no-untyped-call]  # torch's own

    watched.register_hook = register_hook  # type: ignore[method-assign]  # of this object only
    return watched


class Watch:
    """Gradient histograms of trained parameters, and the graph of the networks that own them.

    Args:
        run: Run to log to; it must be the global run of the process, to which ``wandb.watch`` logs.
        parameters: Trained parameters by their dotted name in the LightningModule.
        networks: Sub-modules of the LightningModule that own them, by name.
        gradients: Log gradient histograms.
        log_freq: Backward passes between two histograms of a parameter, ≥ 1.
        log_graph: Log the structure of the networks.
        unscale: Divides a gradient of a parameter by the scale of the loss; None where losses have none.

    Raises:
        ValueError: If these parameters are watched already.
        RuntimeError: If ``run`` is not the global run of the process.
    """

    def __init__(
        self,
        run: Any,
        parameters: Mapping[str, torch.Tensor],
        networks: Mapping[str, nn.Module],
        *,
        gradients: bool,
        log_freq: int,
        log_graph: bool,
        unscale: Unscale | None = None,
    ) -> None:
        global_run: Any = wandb.run
        if global_run is not run:
            raise RuntimeError(
                "wandb.watch can log only to the global run of the process (wandb.run), and this run is another one; "
                "one opened with reinit='create_new' never is the global one. Open it by a plain wandb.init, or set "
                "gradients.method='fused' and gradients.log_graph=False."
            )
        self._run = run
        watched = parameters if unscale is None else {n: unscaled(each, unscale) for n, each in parameters.items()}
        self._gradients = TrainedParameters(watched, {})
        self._graph = TrainedParameters({}, networks)
        if log_graph:
            run.watch(self._graph, log=None, idx=0, log_graph=True)
        if gradients:
            run.watch(self._gradients, log="gradients", log_freq=log_freq, idx=0)

    def finish_graph(self) -> None:
        """Removes the hooks of the graph, which keep modules from being pickled, once the networks have run."""
        self._unwatch(self._graph)

    def close(self) -> None:
        """Removes all hooks; later calls do nothing."""
        self.finish_graph()
        self._unwatch(self._gradients)

    def _unwatch(self, watched: TrainedParameters) -> None:
        if not hasattr(watched, "_wandb_hook_names"):
            return
        self._run.unwatch(watched)
        for network in (watched, *(network for _, network in watched.named_children())):
            for module in network.modules():
                vars(module).pop("_wandb_watch_called", None)
