"""Presets rename, and mix nothing up."""

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
def test_a_preset_renames_keys_that_exist_and_never_lightnings_axis(preset: str) -> None:
    assert PRESETS[preset].keys() <= OURS
    assert Naming(preset).key("trainer/global_step") == "trainer/global_step"


@every_preset
def test_no_two_keys_meet_under_one_name(preset: str) -> None:
    keys = OURS | set(PRESETS[preset].values())  # the latter as metrics of the user's own
    assert len({Naming(preset).key(key) for key in keys}) == len(keys)


@every_preset
def test_no_name_is_the_group_of_others(preset: str) -> None:
    groups = {Naming(preset).key(key).rsplit("/", 1)[0] for key in OURS if "/" in Naming(preset).key(key)}
    assert not groups & set(PRESETS[preset].values())


def test_a_row_keeps_its_values_and_their_order() -> None:
    row = {"train/loss": 1, "train/td_error": 2, "mine/x": 3}
    assert list(Naming("cleanrl").row(row).items()) == [("losses/loss", 1), ("losses/td_error", 2), ("mine/x", 3)]
    assert Naming(None).row(row) == row


def test_a_metric_of_the_users_own_gives_way() -> None:
    row = {"train/n_updates": 1.0, "time/updates": 2.0}
    assert Naming("sb3").row(row) == {"train/n_updates_own": 1.0, "train/n_updates": 2.0}


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    head, _, *lines = [line for line in DOCS.splitlines() if line.startswith("|")]
    presets = re.findall(r"`([\w-]+)`", head)
    assert presets == list(PRESETS)
    documented: dict[str, dict[str, str]] = {preset: {} for preset in presets}
    for line in lines:
        ours, *theirs = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for preset, name in zip(presets, theirs, strict=True):
            documented[preset] |= {ours: name} if name else {}
    assert documented == PRESETS
