"""Presets rename keys without conflicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlwandb_callbacks.callbacks.metric_names import ALIASES
from rlwandb_callbacks.core.key_names import PRESETS, Naming

DOCS = (Path(__file__).parents[3] / "docs" / "naming.md").read_text()
OURS = {
    *(f"train/{name}" for name in ALIASES),
    *(f"train/{name}_{end}" for name in ("q_value", "target_q_value") for end in ("min", "max")),
    *(f"eval/{name}" for name in ("return_mean", "return_std", "return_min", "return_max", "return_distribution")),
    *(f"eval/{name}" for name in ("length_mean", "success_rate", "episodes", "episodes_count")),
    *(f"rollout/{name}" for name in ("return_mean", "length_mean", "success_rate", "episodes")),
    *(f"video/{name}" for name in ("best", "median", "worst", "best_sheet")),
    *("trainer/global_step", "time/env_steps", "time/updates", "logging/errors", "q/mean", "policy/entropy"),
}
every_preset = pytest.mark.parametrize("preset", PRESETS)


@every_preset
def test_presets_rename_existing_keys_except_the_axis_of_lightning(preset: str) -> None:
    assert PRESETS[preset].keys() <= OURS
    assert Naming(preset).key("trainer/global_step") == "trainer/global_step"


@every_preset
def test_two_keys_never_get_the_same_name(preset: str) -> None:
    keys = OURS | set(PRESETS[preset].values())  # metrics of a user may have the new names
    assert len({Naming(preset).key(key) for key in keys}) == len(keys)


@every_preset
def test_no_name_is_the_prefix_of_others(preset: str) -> None:
    groups = {Naming(preset).key(key).rsplit("/", 1)[0] for key in OURS if "/" in Naming(preset).key(key)}
    assert not groups & set(PRESETS[preset].values())


def test_rows_keep_their_values_and_order() -> None:
    row = {"train/loss": 1, "train/td_error": 2, "mine/x": 3}
    assert list(Naming("cleanrl").row(row).items()) == [("losses/loss", 1), ("losses/td_error", 2), ("mine/x", 3)]
    assert Naming(None).row(row) == row


def test_a_user_metric_with_a_new_name_gets_a_suffix() -> None:
    row = {"train/n_updates": 1.0, "time/updates": 2.0}
    assert Naming("sb3").row(row) == {"train/n_updates_own": 1.0, "train/n_updates": 2.0}


def test_the_table_in_the_docs_matches_the_presets() -> None:
    head, _, *lines = [line for line in DOCS.splitlines() if line.startswith("|")]
    presets = re.findall(r"`([\w-]+)`", head)
    assert presets == list(PRESETS)
    documented: dict[str, dict[str, str]] = {preset: {} for preset in presets}
    for line in lines:
        key, *names = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for preset, name in zip(presets, names, strict=True):
            documented[preset] |= {key: name} if name else {}
    assert documented == PRESETS
