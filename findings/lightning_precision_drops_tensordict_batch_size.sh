#!/usr/bin/env bash
# pytorch-lightning 2.6.6 with tensordict 0.14.3: precision="64-true" and "bf16-true" drop a TensorDict's batch size.
#
# Expected: a batch of 4 rows comes to training_step as a TensorDict of batch size [4], in whatever precision.
# Seen: with "32-true" and "bf16-mixed" it does: len(batch) is 4 and batch[:2] gives 2 rows. With "64-true" and
# "bf16-true" the tensors keep their shapes but batch_size is [], for nested TensorDicts too: len(batch) is 0 and
# batch[:2] raises RuntimeError. No warning; a sum that is divided by len(batch) becomes inf. The same in Fabric, there
# with "bf16-mixed" as well. To change the dtype of the tensors, the TensorDict is taken for a plain mapping and made
# anew from its items. Setting batch.batch_size = [n] at the start of training_step avoids it.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 lightning-utilities==0.15.3 \
    tensordict==0.14.3 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import logging
import warnings

import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from tensordict import TensorDict

warnings.simplefilter("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


def describe(batch):
    try:
        rows = len(batch[:2])
    except RuntimeError:
        rows = "RuntimeError"
    return type(batch).__name__, list(batch.batch_size), list(batch["next"].batch_size), len(batch), rows


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, batch):
        self.seen = describe(batch)
        assert batch["x"].shape == (4, 2)
        return self.layer(batch["x"])


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Network()

    def training_step(self, batch, batch_idx):
        return self.network(batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


data = TensorDict({"x": torch.randn(8, 2), "next": {"x": torch.randn(8, 2)}}, batch_size=[8])


def in_trainer(precision):
    loader = torch.utils.data.DataLoader(data, batch_size=4, collate_fn=lambda rows: rows)
    trainer = pl.Trainer(
        max_steps=1, precision=precision, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, loader)
    return module.network.seen


def in_fabric(precision):
    fabric = Fabric(accelerator="cpu", precision=precision)
    network = Network()
    fabric.setup(network)(data[:4])
    return network.seen


kept = ("TensorDict", [4], [4], 4, 2)
lost = ("TensorDict", [], [], 0, "RuntimeError")
print("type, batch_size, batch_size of the nested one, len(batch), len(batch[:2])")
for name, run, losing in (
    ("Trainer", in_trainer, {"64-true", "bf16-true"}),
    ("Fabric", in_fabric, {"64-true", "bf16-true", "bf16-mixed"}),
):
    for precision in ("32-true", "bf16-mixed", "bf16-true", "64-true"):
        seen = run(precision)
        print(f"{name}(precision={precision!r}): {seen}", flush=True)
        assert seen == (lost if precision in losing else kept), seen
print("As described: pytorch-lightning 2.6.6, tensordict 0.14.3")
PY
"$folder/venv/bin/python" measure.py 2>"$folder/log" ||
    { tail -n 5 "$folder/log"; echo "the behavior has changed"; exit 1; }
