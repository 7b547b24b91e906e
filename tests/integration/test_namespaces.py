"""Both Lightning packages, their command lines, and the modules that an import loads; each in a new process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlwandb_callbacks.testing import read_offline_run

SCRIPT = """
import warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
{first}
{second}
from torch.utils.data import DataLoader
from rlwandb_callbacks.testing import CorridorEnv

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.q_network = torch.nn.Linear(2, 2)
    def training_step(self, batch, batch_idx):
        return {{"loss": self.q_network(batch).square().mean()}}
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), batch_size=2)
    def val_dataloader(self):
        return DataLoader(torch.ones(1, 2))
    def validation_step(self, batch, batch_idx):
        pass

if __name__ == "__main__":
    callback = WandbRLCallback(
        dict(record_path="./video_qbert_dqn", gradient_logger=True, plot_logger=True,
             action_logger="action probability"),
        env=CorridorEnv, policy="q_network", metrics={{"every_n_steps": 1}}, on_error="raise",
    )
    checkpoint = pl.callbacks.ModelCheckpoint("best", monitor="eval/return_mean", mode="max")
    average = pl.callbacks.WeightAveraging()
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[callback, checkpoint, average],
                         enable_progress_bar=False, enable_model_summary=False, {options})
    trainer.fit(Module())
    print("isinstance", isinstance(callback, pl.Callback), "best", checkpoint.best_model_score)
"""
IMPORT_CALLBACK = "from rlwandb_callbacks import WandbRLCallback"


def run(script: str, *arguments: str) -> str:
    Path("script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py", *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("lightning", ["import pytorch_lightning as pl", "import lightning.pytorch as pl"])
@pytest.mark.parametrize("imported_first", [True, False])
def test_both_lightning_packages_work_in_either_import_order(lightning: str, imported_first: bool) -> None:
    order = (IMPORT_CALLBACK, lightning) if imported_first else (lightning, IMPORT_CALLBACK)
    printed = run(SCRIPT.format(first=order[0], second=order[1], options=""))
    assert "isinstance True best tensor(" in printed
    run_file = read_offline_run("wandb")
    assert len(run_file.column("train/loss")) == 4
    assert run_file.column("eval/averaged_weights") == [1.0]
    assert len(run_file.media("video/best")) == 1
    assert list(Path("video_qbert_dqn").rglob("*.mp4"))


def test_ddp_has_one_run_and_publishes_metrics_on_every_rank() -> None:
    options = "devices=2, strategy='ddp_spawn'"
    run(SCRIPT.format(first="import pytorch_lightning as pl", second=IMPORT_CALLBACK, options=options))
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1
    run_file = read_offline_run("wandb")
    assert len(run_file.column("train/loss")) == 2
    assert len(run_file.column("eval/return_mean")) == 1
    assert run_file.column("eval/averaged_weights") == [1.0]


CLI = """
import warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from {namespace}.cli import LightningCLI
from {namespace} import LightningModule
from torch.utils.data import DataLoader

class Module(LightningModule):
    def __init__(self, size: int = 2):
        super().__init__()
        self.q_network = torch.nn.Linear(size, 2)
    def training_step(self, batch, batch_idx):
        return {{"loss": self.q_network(batch).square().mean()}}
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def train_dataloader(self):
        return DataLoader(torch.ones(8, 2), batch_size=2)

if __name__ == "__main__":
    LightningCLI(Module)
"""
YAML = """
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: rlwandb_callbacks.WandbRLCallback
      init_args:
        cfg:
          action_logger: q value
          on_error: raise
          metrics: {every_n_steps: 2}
          evaluation: {env: CartPole-v1, policy: q_network, episodes: 2}
model:
  size: 4
"""


@pytest.mark.parametrize("namespace", ["pytorch_lightning", "lightning.pytorch"])
def test_both_command_lines_accept_the_callback(namespace: str) -> None:
    Path("train.yaml").write_text(
        YAML.replace("CartPole-v1", "rlwandb_callbacks.testing:CorridorEnv").replace("size: 4", "size: 2")
    )
    run(
        CLI.format(namespace=namespace),
        "fit",
        "--config",
        "train.yaml",
        "--trainer.callbacks.cfg.evaluation.episodes=3",
    )
    run_file = read_offline_run("wandb")
    assert run_file.column("eval/episodes_count") == [3]
    assert len(run_file.column("train/loss")) == 2


def test_importing_the_package_loads_no_large_package() -> None:
    printed = run(
        "import sys, rlwandb_callbacks\n"
        "print([name for name in ('torch', 'pytorch_lightning', 'wandb', 'gymnasium', 'numpy') if name in sys.modules])"
    )
    assert printed.strip() == "[]"


def test_only_one_lightning_package_is_imported() -> None:
    printed = run(
        "import sys, pytorch_lightning\nfrom rlwandb_callbacks import WandbRLCallback\n"
        "print('lightning.pytorch' in sys.modules, 'moviepy' in sys.modules)"
    )
    assert printed.strip() == "False False"


def test_each_look_up_adopts_a_lightning_package_that_was_imported_in_between() -> None:
    printed = run(
        "import pytorch_lightning, rlwandb_callbacks\nearlier = rlwandb_callbacks.WandbRLCallback\n"
        "import lightning.pytorch as pl\n"
        "print(issubclass(earlier, pl.Callback), issubclass(rlwandb_callbacks.WandbRLCallback, pl.Callback))"
    )
    assert printed.strip() == "False True"
