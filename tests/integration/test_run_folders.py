"""Files of a run lie under ``record_path``, whatever the id of the run and whatever is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb
from pytorch_lightning.loggers import WandbLogger

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ


def make_callback(**run: Any) -> WandbRLCallback:
    return WandbRLCallback(
        executor="thread",
        on_error="raise",
        record_path="records/videos",
        evaluation={"env": CorridorEnv, "policy": "q_network", "episodes": 1},
        videos={"select": ["best"]},
        run=run,
    )


def recorded() -> set[str]:
    """Returns the folders of all recorded files, without those that W&B copies."""
    files = [path for suffix in (".mp4", ".png") for path in Path().rglob(f"*{suffix}")]
    return {path.parent.as_posix() for path in files if path.parts[0] != "wandb"}


@pytest.mark.parametrize("run_id", ["..", "a\\..\\..\\b"])
@pytest.mark.parametrize("opened_by", ["callback", "logger"])
def test_a_run_id_leads_nowhere_else(fit: Any, monkeypatch: pytest.MonkeyPatch, run_id: str, opened_by: str) -> None:
    wandb.teardown()  # settings are read once
    monkeypatch.setenv("WANDB_RUN_ID", run_id)
    options = {"logger": WandbLogger()} if opened_by == "logger" else {}
    fit(TinyValidatedQ(), make_callback(), **options)
    wandb.finish()
    monkeypatch.delenv("WANDB_RUN_ID")
    wandb.teardown()
    assert recorded() == {f"records/videos/{'__' if run_id == '..' else 'a_.._.._b'}"}


def test_a_link_in_the_place_of_the_runs_folder_is_not_followed(fit: Any) -> None:
    Path("records/videos").mkdir(parents=True)
    Path("elsewhere").mkdir()
    Path("records/videos/abc").symlink_to(Path("elsewhere").absolute(), target_is_directory=True)
    fit(TinyValidatedQ(), make_callback(id="abc"))
    assert recorded() == {"records/videos/abc-2"}
    assert list(Path("elsewhere").iterdir()) == []


def test_a_file_in_the_place_of_run_dir_is_an_error_that_names_it(fit: Any) -> None:
    Path("file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.dir is 'file', which cannot be made"):
        fit(TinyValidatedQ(), make_callback(dir="file"))
