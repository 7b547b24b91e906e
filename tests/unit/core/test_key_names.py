"""Presets rename keys without conflicts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlwandb_callbacks.callbacks.metric_names import ALIASES
from rlwandb_callbacks.core.key_names import Naming
from rlwandb_callbacks.core.presets import ALGORITHMS, PRESETS

DOCS = (Path(__file__).parents[3] / "docs" / "naming.md").read_text()
OURS = {
    *(f"train/{name}" for name in ALIASES),
    *(f"train/{name}_{end}" for name in ("q_value", "target_q_value") for end in ("min", "max")),
    *(f"eval/{name}" for name in ("return_mean", "return_std", "return_min", "return_max", "return_distribution")),
    *(f"eval/{name}" for name in ("length_mean", "success_rate", "episodes", "episodes_count")),
    *(f"rollout/{name}" for name in ("return_mean", "length_mean", "success_rate", "episodes")),
    *(f"rollout/{name}_100" for name in ("return_mean", "length_mean", "success_rate")),
    *(f"video/{name}" for name in ("best", "median", "worst", "best_sheet")),
    *("trainer/global_step", "time/env_steps", "time/updates", "logging/errors", "q/mean", "policy/entropy"),
}
every_preset = pytest.mark.parametrize("preset", PRESETS)
every_algorithm = pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])


@every_preset
@every_algorithm
def test_presets_rename_existing_keys_except_the_axis_of_lightning(preset: str, algorithm: str | None) -> None:
    assert Naming(preset, algorithm).table.keys() <= OURS
    assert Naming(preset, algorithm).key("trainer/global_step") == "trainer/global_step"


@every_preset
@every_algorithm
def test_two_keys_never_get_the_same_name(preset: str, algorithm: str | None) -> None:
    naming = Naming(preset, algorithm)
    keys = OURS | naming.names  # metrics of a user may have the new names
    assert len({naming.key(key) for key in keys}) == len(keys)


@every_preset
@every_algorithm
def test_no_name_is_the_prefix_of_others(preset: str, algorithm: str | None) -> None:
    naming = Naming(preset, algorithm)
    groups = {naming.key(key).rsplit("/", 1)[0] for key in OURS if "/" in naming.key(key)}
    assert not groups & naming.names


# Names that scripts and libraries write: CleanRL (April 2026), torchrl 0.14.1, stable-baselines3 2.9.2.
@pytest.mark.parametrize(
    ("preset", "algorithm", "expected"),
    [
        ("sb3", "ppo", {"actor_loss": "train/policy_gradient_loss", "critic_loss": "train/value_loss"}),
        ("sb3", "a2c", {"actor_loss": "train/policy_loss", "critic_loss": "train/value_loss"}),
        ("sb3", "sac", {"actor_loss": "train/actor_loss", "critic_loss": "train/critic_loss"}),
        ("sb3", "dqn", {"loss": "train/loss", "epsilon": "rollout/exploration_rate"}),
        ("cleanrl", "ppo", {"actor_loss": "losses/policy_loss", "critic_loss": "losses/value_loss"}),
        ("cleanrl", "td3", {"actor_loss": "losses/actor_loss", "critic_loss": "losses/qf_loss"}),
        ("cleanrl", "sac", {"q_value": "losses/qf1_values", "q2_value": "losses/qf2_values"}),
        ("cleanrl", "ddpg", {"q_value": "losses/qf1_values", "critic_loss": "losses/qf1_loss"}),
        ("cleanrl", "dqn", {"q_value": "losses/q_values", "loss": "losses/td_loss"}),
        ("cleanrl", "c51", {"q_value": "losses/q_values", "loss": "losses/loss"}),
        ("torchrl", "ppo", {"actor_loss": "train/loss_objective", "critic_loss": "train/loss_critic"}),
        ("torchrl", "sac", {"actor_loss": "train/actor_loss", "critic_loss": "train/q_loss"}),
        ("torchrl", "dqn", {"q_value": "train/q_values", "loss": "train/q_loss"}),
    ],
)
def test_losses_have_the_names_of_the_algorithm(preset: str, algorithm: str, expected: dict[str, str]) -> None:
    assert {name: Naming(preset, algorithm).key(f"train/{name}") for name in expected} == expected


@pytest.mark.parametrize(
    ("preset", "absent"),
    [
        ("sb3", {"time/total_timesteps", "train/n_updates"}),
        ("cleanrl", {"losses/td_error", "losses/q_values_min", "losses/q_values_max", "eval/episodic_length"}),
        ("torchrl", {"train/episode_reward", "train/loss_actor", "train/q_values_min", "train/q_values_max"}),
    ],
)
def test_no_key_gets_a_name_that_the_library_never_writes(preset: str, absent: set[str]) -> None:
    assert not Naming(preset).names & absent


def test_a_key_keeps_its_name_when_the_algorithm_is_known_later() -> None:
    naming = Naming("cleanrl")
    assert naming.key("train/loss") == "losses/loss"
    naming.algorithm = "dqn"
    assert (naming.key("train/loss"), naming.key("train/q_value")) == ("losses/loss", "losses/q_values")


@pytest.mark.parametrize(
    ("preset", "key", "expected"),
    [
        ("sb3", "eval/near/return_mean", "eval/near/mean_reward"),
        ("sb3", "eval_rl/return_mean", "eval_rl/mean_reward"),
        ("sb3", "eval_rl/near/length_mean", "eval_rl/near/mean_ep_length"),
        ("sb3", "eval/near/return_iqm", "eval/near/return_iqm"),
        ("torchrl", "video/near/best", "eval/near/video"),
        ("torchrl", "eval/return_mean", "eval/reward"),
        ("di-engine", "eval/near/return_mean", "near/episode return mean"),
        (None, "eval/near/return_mean", "eval/near/return_mean"),
    ],
)
def test_keys_of_named_evaluations_are_renamed_like_those_of_one(preset: str | None, key: str, expected: str) -> None:
    assert Naming(preset).key(key) == expected


def test_rows_keep_their_values_and_order() -> None:
    row = {"train/loss": 1, "train/td_error": 2, "mine/x": 3}
    assert list(Naming("cleanrl").row(row).items()) == [("losses/loss", 1), ("train/td_error", 2), ("mine/x", 3)]
    assert Naming(None).row(row) == row


def test_a_user_metric_with_a_new_name_gets_a_suffix() -> None:
    row = {"train/learning_rate": 1.0, "train/lr": 2.0}
    assert Naming("sb3").row(row) == {"train/learning_rate_own": 1.0, "train/learning_rate": 2.0}


def test_groups_with_an_axis_of_their_own_have_it_in_their_rows() -> None:
    naming, axes = Naming("torchrl"), {"trainer/global_step": 1, "time/env_steps": 40}
    train = {"trainer/global_step": 1, "train/step": 40}
    assert naming.axes(axes, ["train/loss"]) == train
    assert naming.axes(axes, ["train/loss", "video/best"]) == {**train, "eval/step": 40}
    assert naming.axes({"trainer/global_step": 1}, ["eval/return_mean"]) == {"trainer/global_step": 1}
    assert Naming("sb3").axes(axes, ["eval/return_mean"]) == {"trainer/global_step": 1, "global_step": 40}


def test_the_tables_in_the_docs_match_the_presets() -> None:
    sections = dict(re.findall(r"^## `([\w-]+)`\n(.*?)(?=^## |\Z)", DOCS, flags=re.DOTALL | re.MULTILINE))
    assert list(sections) == list(PRESETS)
    for name, text in sections.items():
        _, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
        documented = set()
        for line in lines:
            key, new, algorithms, theirs, ours = [cell.strip() for cell in line.strip("|").split("|")]
            assert theirs, line
            assert ours, line
            wanted = [None] if algorithms == "all" else re.findall(r"`(\w+)`", algorithms)
            documented |= {(each, key.strip("`"), new.strip("`")) for each in wanted}
        preset = PRESETS[name]
        tables = {None: preset.names, **preset.of_algorithm}
        assert documented == {(each, *pair) for each, table in tables.items() for pair in table.items()}, name
