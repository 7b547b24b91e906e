#!/usr/bin/env bash
# pytorch-lightning 2.6.6: two WeightAveraging callbacks exchange the trained weights for an average at each validation.
#
# Expected: validation of an average leaves the weights that are trained as they were, whether one callback keeps an
# average or two do.
# Seen: both callbacks swap their average in, and swap back in the same order instead of the reverse one, so that
# training goes on from the average of the first one, and the second "average" is the trained weights. 10 batches, loss =
# weight, SGD(lr=0.01), weight 1 at the start, one validation after batch 5; weight before batch 6 (index 5):
#   no callback, or EMAWeightAveraging(decay=0.9)                  0.95
#   EMAWeightAveraging(decay=0.9) and WeightAveraging()            0.981, the average of the former
# No warning.
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
from pytorch_lightning.callbacks import EMAWeightAveraging, WeightAveraging
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.trained = []

    def on_train_batch_start(self, batch, batch_idx):
        self.trained.append(self.weight.item())

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def data(batches):
    return DataLoader(TensorDataset(torch.zeros(batches, 1)))


quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
for count in (0, 1, 2):
    module = Module()
    averages = [EMAWeightAveraging(decay=0.9), WeightAveraging()][:count]
    trainer = pl.Trainer(**quiet, max_epochs=1, val_check_interval=5, num_sanity_val_steps=0, callbacks=averages)
    trainer.fit(module, data(10), data(1))
    print(count, round(module.trained[5], 4))
PY
"$folder/venv/bin/python" measure.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
0 0.95
1 0.95
2 0.981
SEEN
echo "as described"
