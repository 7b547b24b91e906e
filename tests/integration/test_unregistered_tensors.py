"""An ensemble that is trained as stacked tensors is logged like the parameters of the module."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.testing import MemoryTracker, TinyQ, read_offline_run

NAMES = {"critic_params.weight", "critic_params.bias", "log_alpha"}


class Ensemble(TinyQ):
    """Three linear critics in stacked tensors, and a bare tensor."""

    def __init__(self) -> None:
        super().__init__(batches=4)
        critics = [nn.Linear(2, 1) for _ in range(3)]
        self.critic_params, self.critic_buffers = stack_module_state(critics)
        self.template = [copy.deepcopy(critics[0]).to("meta")]
        self.log_alpha = torch.zeros((), requires_grad=True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        def value(parameters: Any, buffers: Any) -> Any:
            return functional_call(self.template[0], (parameters, buffers), (batch[0],))

        self.before = {name: tensor.detach().clone() for name, tensor in self.critic_params.items()}
        return {"loss": vmap(value)(self.critic_params, self.critic_buffers).square().sum() + 3 * self.log_alpha}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.critic_params.values(), self.log_alpha], lr=1e-3)


@pytest.mark.filterwarnings("ignore:rlwandb. the optimizers train")
@pytest.mark.parametrize("log", ["fused", "watch", "manual"])
def test_histograms_and_norms_of_stacked_tensors(fit: Any, log: str) -> None:
    module = Ensemble()
    if log == "manual":  # gradients are copied after each backward pass
        module.on_before_optimizer_step = lambda optimizer: None  # type: ignore[method-assign]
        module.on_after_backward = lambda: None  # type: ignore[method-assign]
    gradients = {"log_freq": 2, "method": "watch" if log == "watch" else "fused"}
    plasticity = {"enabled": True, "every_n_steps": 4}
    callback = WandbRLCallback(
        {"gradient_logger": True, "gradients": gradients, "plasticity": plasticity, "on_error": "raise"}
    )
    fit(module, callback)
    assert callback.run_folder is not None
    rows = read_offline_run(callback.run_folder).history
    keys = {key for row in rows for key in row}
    assert {f"gradients/{name}" for name in NAMES} <= keys
    assert {f"parameters/{name}" for name in NAMES} <= keys
    ratio = next(row for row in rows if "plasticity/weight_norm_critic_params" in row)
    after = torch.cat([tensor.detach().flatten() for tensor in module.critic_params.values()])
    before = torch.cat([tensor.flatten() for tensor in module.before.values()])
    assert ratio["plasticity/weight_norm_critic_params"] == pytest.approx(after.norm().item())
    moved = ((after - before).norm() / before.norm()).item()
    assert ratio["plasticity/update_to_weight_critic_params"] == pytest.approx(moved, rel=1e-4)
    if log != "watch":
        assert [row["grad_norm/log_alpha"] for row in rows if "grad_norm/log_alpha" in row] == pytest.approx([3.0, 3.0])


def test_one_warning_says_that_no_checkpoint_holds_them(fit: Any) -> None:
    callback = WandbRLCallback({"gradient_logger": True, "on_error": "raise"}, tracker=MemoryTracker())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(Ensemble(), callback)
    messages = [str(each.message) for each in caught if "no checkpoint holds them" in str(each.message)]
    assert len(messages) == 1
    assert "(critic_params.weight, critic_params.bias, log_alpha)" in messages[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rlwandb")
        fit(TinyQ(), callback)


@pytest.mark.filterwarnings("ignore:rlwandb. the optimizers train")
def test_weights_are_those_of_a_training_without_callback(fit: Any) -> None:
    def weights(*callbacks: Any) -> list[torch.Tensor]:
        torch.manual_seed(1)
        module = Ensemble()
        fit(module, *callbacks)
        return [*module.critic_params.values(), module.log_alpha, torch.get_rng_state()]

    settings = {"gradient_logger": True, "gradients": {"log_freq": 1}, "plasticity": {"enabled": True}}
    ours = WandbRLCallback({**settings, "on_error": "raise"}, tracker=MemoryTracker())
    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(ours), strict=True))
