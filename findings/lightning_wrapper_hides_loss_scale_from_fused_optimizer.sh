#!/usr/bin/env bash
# pytorch-lightning 2.6.6: GradScaler.step(self.optimizers()) steps a fused optimizer with scaled and infinite gradients.
#
# Expected: under manual optimization, torch's recipe scaler.scale(loss).backward(), scaler.step(optimizer),
# scaler.update() with the optimizer that self.optimizers() returns. torch's documentation of GradScaler.step: the step
# is skipped if gradients are infinite or NaN, else the optimizer steps with unscaled gradients.
# Seen: SGD(lr=0.001), a gradient of 3 and a scale of 8. The weight after one step is -0.003 with fused=False, and
# -0.024 with fused=True: the gradient was not divided by the scale. With a gradient that overflows, the weight stays 0
# with fused=False, and is -inf with fused=True: the step was not skipped. No warning.
# GradScaler sets the attributes grad_scale and found_inf on the object that it gets. self.optimizers() returns
# Lightning's wrapper, whose step() calls that of the inner optimizer, which does not have them.
# self.optimizers(use_pl_optimizer=False) avoids it: -0.003, and 0 after an overflow, in both forms.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import logging
import warnings

import pytorch_lightning as pl
import torch

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Module(pl.LightningModule):
    def __init__(self, fused, wrapped, gradient):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.fused, self.wrapped, self.gradient = fused, wrapped, gradient
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=self.wrapped)
        optimizer.zero_grad()
        self.scaler.scale((self.weight * self.gradient).sum()).backward()
        self.scaler.step(optimizer)
        self.scaler.update()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.001, fused=self.fused)


def weight(fused, wrapped, gradient):
    module = Module(fused, wrapped, gradient)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader(range(1)))
    told = [str(w.message) for w in caught if any(word in str(w.message).lower() for word in ("scale", "fused", "inf"))]
    value = round(module.weight.item(), 6)
    print(f"fused={fused}, use_pl_optimizer={wrapped}, gradient {gradient:g}: weight {value}, warnings {told}")
    assert not told
    return value


HUGE = 3e38  # finite; times the scale of 8 it is beyond float32
assert weight(False, True, 3.0) == -0.003
assert weight(True, True, 3.0) == -0.024
assert weight(False, True, HUGE) == 0.0
assert weight(True, True, HUGE) == float("-inf")
for fused in (False, True):
    assert weight(fused, False, 3.0) == -0.003
    assert weight(fused, False, HUGE) == 0.0
print("As described: pytorch-lightning 2.6.6, torch 2.13.0")
PY
"$folder/venv/bin/python" measure.py 2>"$folder/log" || { cat "$folder/log"; echo "the behavior has changed"; exit 1; }
