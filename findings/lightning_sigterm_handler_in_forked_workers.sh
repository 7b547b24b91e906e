#!/usr/bin/env bash
# pytorch-lightning 2.6.6: a process that is forked during Trainer.fit cannot be ended by Process.terminate().
#
# Expected: terminate() ends a worker process, as it does before and after the training.
# Seen: forked processes inherit the handler that Lightning has set for SIGTERM, which only notes the signal. The workers
# of gymnasium.vector.AsyncVectorEnv (Linux, Python < 3.14: forked by default) are alive after terminate(), so that
# AsyncVectorEnv.close(terminate=True), which then joins them without a limit, would wait for ever inside a training.
#
# Installs pinned public packages into a temporary folder; fails if the behavior changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 gymnasium==1.4.0 numpy==2.4.6
cd "$folder"
cat >measure.py <<'PY'
import warnings

import gymnasium as gym
import pytorch_lightning as pl
import torch
from gymnasium.vector import AsyncVectorEnv

warnings.simplefilter("ignore")


def alive_after_terminate():
    envs = AsyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2, context="fork")
    envs.reset(seed=0)
    for process in envs.processes:
        process.terminate()
    for process in envs.processes:
        process.join(3)
    alive = [process.is_alive() for process in envs.processes]
    for process in envs.processes:
        process.kill()
    envs.closed = True
    return alive


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return [0]

    def on_train_start(self):
        print("in fit", alive_after_terminate())


print("before", alive_after_terminate())
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
pl.Trainer(**quiet, max_epochs=1, accelerator="cpu").fit(Module())
print("after", alive_after_terminate())
PY
"$folder/venv/bin/python" measure.py 2>/dev/null | tee seen
diff seen - <<'SEEN'
before [False, False]
in fit [True, True]
after [False, False]
SEEN
echo "as described"
