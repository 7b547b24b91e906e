#!/usr/bin/env bash
# pytorch-lightning 2.6.6: the progress bar, or a callback that reads trainer.callback_metrics, changes a logged value.
#
# Expected: what a module logs does not depend on whether somebody looks at it.
# Seen: a torchmetrics object is logged with self.log("sum", metric, on_epoch=True) and gets 1 in each of 4 batches;
# the module's own on_train_epoch_end then adds 100 to it, or resets it. Callbacks run before the module's hook. Where
# one of them reads the metrics there, the value of the epoch is computed and kept, and what the module does later is
# lost:
#                                   adds 100   resets
#   enable_progress_bar=False            104        0
#   progress bar (the default)             4        4
#   a callback that only reads             4        4
# The logger's file has the same numbers. No warning. EarlyStopping and ModelCheckpoint run after the module and do not
# matter. Values that the module logs by plain self.log(name, number) in that hook are right in all cases.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 torchmetrics==1.9.0 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import csv
import warnings

import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger

warnings.simplefilter("ignore")


class Module(pl.LightningModule):
    def __init__(self, end):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.metric = torchmetrics.SumMetric()
        self.end = end

    def training_step(self, batch, batch_idx):
        self.metric.update(1.0)
        self.log("sum", self.metric, on_step=False, on_epoch=True)
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self):
        if self.end == "adds 100":
            self.metric.update(100.0)
        else:
            self.metric.reset()
        self.log("plain", 7.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Reader(pl.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.callback_metrics


def logged(end, name, callbacks, bar):
    data = torch.utils.data.DataLoader(torch.randn(40, 2), batch_size=10)
    logger = CSVLogger("logs", name=name, version=end)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=logger, enable_checkpointing=False, enable_progress_bar=bar,
        enable_model_summary=False, log_every_n_steps=1, callbacks=callbacks,
    )
    trainer.fit(Module(end), data)
    with open(f"logs/{name}/{end}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    in_file = [float(row["sum"]) for row in rows if row["sum"]]
    assert trainer.callback_metrics["plain"] == 7.0
    assert in_file[-1] == trainer.callback_metrics["sum"], (in_file, trainer.callback_metrics)
    print(f"\nRESULT module {end}, {name}: logged in epochs 0 and 1: {in_file}", flush=True)
    return in_file


for end, right in (("adds 100", 104.0), ("resets", 0.0)):
    assert logged(end, "no progress bar", [], False) == [right, right]
    assert logged(end, "EarlyStopping", [EarlyStopping("loss", patience=9)], False) == [right, right]
    assert logged(end, "progress bar", [], True) == [4.0, 4.0]
    assert logged(end, "reading callback", [Reader()], False) == [4.0, 4.0]
print("RESULT As described: pytorch-lightning 2.6.6")
PY
"$folder/venv/bin/python" measure.py >"$folder/out" 2>"$folder/log" && failed=0 || failed=1
sed -n 's/^RESULT //p' "$folder/out"
[ "$failed" -eq 0 ] || { tail -n 5 "$folder/log"; echo "the behavior has changed"; exit 1; }
