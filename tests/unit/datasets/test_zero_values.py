"""Data sets in which all is zero are reported, and not drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.maps import command

ZERO = "All observations, actions and rewards are 0"


def zeros() -> dict[str, Any]:
    return {"observations": np.zeros((30, 2)), "actions": np.zeros(30, int), "rewards": np.zeros(30)}


@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
@pytest.mark.parametrize("row", [0, 12, 29])
def test_one_other_number_is_enough(name: str, row: int) -> None:
    arrays = zeros()
    assert open_dataset(arrays).is_all_zero
    assert any(ZERO in warning for warning in open_dataset(arrays).reading_warnings)
    arrays[name][row] = 1
    assert not open_dataset(arrays).is_all_zero
    assert not any(ZERO in warning for warning in open_dataset(arrays).warnings)


def test_the_command_ends_with_an_error_and_without_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "zeros.npz", **zeros())
    assert command.main([str(tmp_path / "zeros.npz"), f"--out={tmp_path / 'map.png'}"]) == 2
    assert ZERO in capsys.readouterr().err
    assert not (tmp_path / "map.png").exists()


def write_tensordict(folder: Path, columns: dict[str, Any]) -> None:
    """Writes memory-mapped tensors as ``TensorDict.memmap`` does."""
    folder.mkdir(parents=True)
    facts: dict[str, Any] = {"shape": [30], "device": "cpu", "_type": "<class 'tensordict._td.TensorDict'>"}
    for name, value in columns.items():
        if isinstance(value, dict):
            write_tensordict(folder / name, value)
            facts[name] = {"type": "TensorDict"}
        else:
            value.tofile(folder / f"{name}.memmap")
            facts[name] = {"device": "cpu", "shape": value.shape, "dtype": f"torch.{value.dtype}", "is_nested": False}
    (folder / "meta.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("is_of_minari", [True, False])
def test_the_folder_of_torchrls_minari_buffer_names_the_cause(is_of_minari: bool, tmp_path: Path) -> None:
    marks = {name: np.zeros((30, 1), bool) for name in ("done", "terminated", "truncated")}
    after = {"observation": np.zeros((30, 4), np.float32), "reward": np.zeros((30, 1)), **marks}
    episode = np.repeat(np.arange(3), 10)
    columns = {"observation": after["observation"], "action": np.zeros(30, int), "episode": episode, "next": after}
    write_tensordict(tmp_path / "x/pendulum-v0", columns)
    if is_of_minari:
        (tmp_path / "x/pendulum-v0/env_metadata.json").write_text("{}")
    (warning,) = (text for text in open_dataset(tmp_path / "x/pendulum-v0").warnings if ZERO in text)
    assert ("MinariExperienceReplay of torchrl (0.14.1)" in warning) == is_of_minari
