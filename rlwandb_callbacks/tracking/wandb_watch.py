"""``wandb.watch`` without its traps.

W&B hooks go to a stand-in that lists the trained parameters under their names in the LightningModule: nothing is
written to the user's modules, so that they pickle, deep-copy and can be watched again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import wandb
from torch import nn


class TrainedParameters(nn.Module):
    """A stand-in for the networks that train.

    Args:
        parameters: Trained parameters by their dotted name in the LightningModule.
        networks: The sub-modules that own them, by name, for the graph.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._trained = dict(parameters)
        self._networks = dict(networks)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the trained parameters; the arguments are there for the base class."""
        yield from self._trained.items()

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Yields the networks."""
        yield from self._networks.items()


class Watch:
    """Gradient histograms, and if asked for the graph, of trained parameters.

    Args:
        run: The run to log to; ``wandb.watch`` writes to the process's global run, so it must be that one.
        parameters: Trained parameters by name.
        networks: The sub-modules that own them, by name.
        gradients: Log gradient histograms.
        log_freq: Backward passes between two histograms of a parameter, ≥ 1.
        log_graph: Log the networks' structure.

    Raises:
        ValueError: If these parameters are watched already.
        RuntimeError: If ``run`` is not the process's global run.
    """

    def __init__(
        self,
        run: Any,
        parameters: Mapping[str, nn.Parameter],
        networks: Mapping[str, nn.Module],
        *,
        gradients: bool,
        log_freq: int,
        log_graph: bool,
    ) -> None:
        global_run: Any = wandb.run
        if global_run is not run:
            raise RuntimeError(
                "wandb.watch logs to the process's global run only, and this run is not it (it was opened with "
                "reinit='create_new'). Open it with a plain wandb.init, or set gradient_logger=False."
            )
        self._run = run
        self._gradients = TrainedParameters(parameters, {})
        self._graph = TrainedParameters({}, networks)
        if log_graph:
            run.watch(self._graph, log=None, idx=0, log_graph=True)
        if gradients:
            run.watch(self._gradients, log="gradients", log_freq=log_freq, idx=0)

    def finish_graph(self) -> None:
        """Removes the hooks that take down the graph: they keep modules from being pickled.

        To be called once the networks have run for the first time, when W&B has the graph; later calls do nothing.
        """
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
