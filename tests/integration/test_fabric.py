"""Callbacks in ``Fabric(callbacks=[…])``, which has no Trainer."""

from __future__ import annotations

import importlib
import pickle
import warnings
from typing import Any

import pytest
import torch
from caught_warnings import package_warnings

from rlwandb_callbacks import MetricsCallback, WandbRLCallback
from rlwandb_callbacks.testing import MemoryTracker


@pytest.mark.parametrize("package", ["lightning_fabric", "lightning.fabric"])
@pytest.mark.parametrize("kind", [WandbRLCallback, MetricsCallback])
@pytest.mark.parametrize("sets_up_together", [True, False])
def test_one_warning_says_that_nothing_is_logged(package: str, kind: Any, sets_up_together: bool) -> None:
    fabric_package = importlib.import_module(package)
    callback = kind(tracker=MemoryTracker())
    network: Any = torch.nn.Linear(2, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fabric = fabric_package.Fabric(accelerator="cpu", devices=1, callbacks=[callback])
        optimizer: Any = torch.optim.SGD(network.parameters(), lr=0.1)
        if sets_up_together:
            network, optimizer = fabric.setup(network, optimizer)
        else:
            network, optimizer = fabric.setup_module(network), fabric.setup_optimizers(optimizer)
        for batch_idx in range(2):
            loss = network(torch.ones(3, 2)).mean()
            fabric.backward(loss)
            optimizer.step()
            fabric.call("on_train_batch_end", loss, batch_idx)
        fabric.call("on_train_epoch_end", results={"loss": 1.0})
    (message,) = package_warnings(caught)
    assert f"{kind.__name__} is among the callbacks of lightning.fabric.Fabric" in message
    pickle.dumps(callback)
