#!/usr/bin/env bash
# pytorch-lightning 2.6.6, torchmetrics 1.9.0: the mean over a long epoch of a value that is always 0.1 is not 0.1.
#
# Expected: self.log("x", 0.1, on_step=False, on_epoch=True) gives 0.1, up to the rounding of one float32 number (1e-8).
# Seen: values are added one after the other to one float32 number, whose steps grow with the sum, so that the error
# grows with the number of batches: 0.0999903 after 10,000 batches, and by the same additions 0.0999856 after 100,000,
# 0.1009583 after 1,000,000 (1 % too large) and 0.1087937 after 10,000,000 (9 %). torchmetrics.MeanMetric does the same.
# No warning. Epochs of reinforcement learning often are that long, as one epoch may be the whole training. Values that
# are logged per batch are not affected, nor are modules with torch.set_default_dtype(torch.float64).
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import logging
import warnings

import numpy as np
import pytorch_lightning as pl
import torch
import torchmetrics

warnings.simplefilter("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
BATCHES = 10_000


class Constant(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.log("x", 0.1, on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Batches(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(BATCHES))


trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Constant(), torch.utils.data.DataLoader(Batches(), batch_size=None))
by_lightning = trainer.callback_metrics["x"].item()

metric = torchmetrics.MeanMetric()
for _ in range(BATCHES):
    metric.update(0.1)
by_torchmetrics = metric.compute().item()


def by_float32_additions(count):
    return float(np.cumsum(np.full(count, 0.1, np.float32))[-1]) / count


print(f"Lightning {by_lightning:.7f}, torchmetrics {by_torchmetrics:.7f}, {BATCHES:,} batches")
counts = (10_000, 100_000, 1_000_000, 10_000_000)
print("float32 additions:", {count: round(by_float32_additions(count), 7) for count in counts})
assert abs(by_lightning - by_float32_additions(BATCHES)) < 1e-8, by_lightning
assert abs(by_torchmetrics - by_float32_additions(BATCHES)) < 1e-8, by_torchmetrics
assert abs(by_lightning - 0.1) > 9e-6
assert abs(by_float32_additions(1_000_000) - 0.1009583) < 1e-6
print("As described: pytorch-lightning", pl.__version__, "torchmetrics", torchmetrics.__version__)
PY
"$folder/venv/bin/python" measure.py
