#!/usr/bin/env bash
# pytorch-lightning 2.6.6: without a validation loop, check_val_every_n_epoch=2 turns the default checkpoints off.
#
# Expected: ModelCheckpoint's documentation says of its default, save_on_train_epoch_end=None: "If there are no
# validation batches of data, checkpointing will occur at the end of the training epoch."
# Seen: a module without validation, 4 epochs of 4 batches. With Trainer(check_val_every_n_epoch=2), or with
# ModelCheckpoint(save_on_train_epoch_end=False), no file is written at all and best_model_path is empty. No warning.
# With save_last=True there is last.ckpt only: a file of the last epoch, made at the end of training. The other number
# about validation, val_check_interval=2, does not matter (epoch=3-step=16.ckpt, as without any argument).
# ModelCheckpoint(save_on_train_epoch_end=True) or ModelCheckpoint(every_n_train_steps=4) avoids it.
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
import os
import tempfile
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def files(checkpoint_arguments, trainer_arguments):
    data = torch.utils.data.DataLoader(torch.randn(40, 2), batch_size=10)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callback = ModelCheckpoint(folder, **checkpoint_arguments)
        trainer = pl.Trainer(
            max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[callback], **trainer_arguments,
        )
        trainer.fit(Module(), data)
        assert trainer.global_step == 16
        told = [str(w.message) for w in caught if "checkpoint" in str(w.message).lower()]
        seen = sorted(os.listdir(folder))
        print(f"ModelCheckpoint({checkpoint_arguments}), Trainer({trainer_arguments}): {seen}, "
              f"best_model_path {os.path.basename(callback.best_model_path)!r}, warnings {told}")
        return seen, os.path.basename(callback.best_model_path), told


one = "epoch=3-step=16.ckpt"
assert files({}, {}) == ([one], one, [])
assert files({}, {"val_check_interval": 2}) == ([one], one, [])
assert files({}, {"check_val_every_n_epoch": 2}) == ([], "", [])
assert files({"every_n_epochs": 1}, {"check_val_every_n_epoch": 2}) == ([], "", [])
assert files({"save_on_train_epoch_end": False}, {}) == ([], "", [])
assert files({"save_last": True}, {"check_val_every_n_epoch": 2}) == (["last.ckpt"], "", [])
assert files({"save_on_train_epoch_end": True}, {"check_val_every_n_epoch": 2}) == ([one], one, [])
assert files({"every_n_train_steps": 4}, {"check_val_every_n_epoch": 2}) == ([one], one, [])
print("As described: pytorch-lightning 2.6.6")
PY
"$folder/venv/bin/python" measure.py 2>"$folder/log" || { cat "$folder/log"; echo "the behavior has changed"; exit 1; }
