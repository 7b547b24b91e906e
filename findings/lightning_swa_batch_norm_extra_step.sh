#!/usr/bin/env bash
# pytorch-lightning 2.6.6: with batch norm, StochasticWeightAveraging leaves weights that are not the average.
#
# Expected: after fit the module has the average of the weights; the extra epoch, in which the statistics of batch norm
# are computed, changes no weights, as its documentation says ("no need to perform either backward or optimizer.step").
# Seen: at the end of the extra epoch the optimizer steps once more, with the gradient that the last batch before it
# has left. 2 epochs of 10 batches, loss = weight, SGD(lr=0.01), weight 1 at the start:
#                          average    module after fit   trainer.global_step
#   without batch norm        0.95                0.95                    20
#   with batch norm           0.95                0.94                    21
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")


class Module(pl.LightningModule):
    def __init__(self, norm):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.norm = norm

    def training_step(self, batch, batch_idx):
        self.norm(batch[0])
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


data = DataLoader(TensorDataset(torch.rand(40, 1)), batch_size=4)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
for norm in (torch.nn.Identity(), torch.nn.BatchNorm1d(1, affine=False)):
    module, average = Module(norm), StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    trainer = pl.Trainer(**quiet, max_epochs=2, accelerator="cpu", callbacks=[average])
    trainer.fit(module, data)
    (averaged,) = average._average_model.parameters()
    print(type(norm).__name__, round(averaged.item(), 4), round(module.weight.item(), 4), trainer.global_step)
PY
"$folder/venv/bin/python" measure.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
Identity 0.95 0.95 20
BatchNorm1d 0.95 0.94 21
SEEN
echo "as described"
