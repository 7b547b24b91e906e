"""Configs with several evaluations: by name, with shared settings, from mappings of any kind."""

from __future__ import annotations

from typing import Any

import pytest
from easydict import EasyDict

from rlwandb_callbacks import ConfigError, EvaluationCallback, WandbRLCallback
from rlwandb_callbacks.config import EvaluationConfig, WandbRLConfig, as_config

NEAR, FAR = {"env": "Near-v0"}, {"env": "Far-v0", "episodes": 2}


@pytest.mark.parametrize("kind", [dict, EasyDict, WandbRLConfig])
def test_settings_beside_the_evaluations_hold_for_those_that_do_not_set_them(kind: Any) -> None:
    cfg = kind(evaluation={"near": NEAR, "far": FAR, "episodes": 4, "policy": "q_network"})
    evaluations = as_config(cfg).evaluations
    assert [(name, each.name, each.env) for name, each in evaluations.items()] == [
        ("near", "near", "Near-v0"),
        ("far", "far", "Far-v0"),
    ]
    assert [each.episodes for each in evaluations.values()] == [4, 2]
    assert {each.policy for each in evaluations.values()} == {"q_network"}


def test_evaluations_may_be_dataclasses_and_a_config_is_read_again_as_it_is() -> None:
    cfg = as_config(evaluation={"near": EvaluationConfig(env="Near-v0", policy="actor"), "far": FAR}, policy="critic")
    assert [each.policy for each in cfg.evaluations.values()] == ["actor", "critic"]
    assert as_config(cfg) == cfg


def test_a_single_evaluation_is_no_mapping_of_evaluations() -> None:
    evaluation = as_config(evaluation={"env": "Near-v0", "env_kwargs": {"near": {"size": 8}}}).evaluation
    assert evaluation == EvaluationConfig(env="Near-v0", env_kwargs={"near": {"size": 8}})


@pytest.mark.parametrize(
    ("evaluation", "keywords", "message"),
    [
        ({"near": NEAR, "far": {"episodes": 0}}, {}, r"^evaluation\.far\.episodes is 0; it must be an integer ≥ 1"),
        ({"near": NEAR, "far": {"sed": 1}}, {}, r"'sed' \(value 1\) in evaluation\.far\. Did you mean 'seed'"),
        ({"near": NEAR, "epsiodes": 1}, {}, r"'epsiodes' \(value 1\) in evaluation\. Did you mean 'episodes'"),
        ({"env": "Near-v0", "env_kwarg": {"size": 8}}, {}, r"Did you mean 'env_kwargs'\?$"),
        ({"ALE/Pong-v5": NEAR}, {}, r"is 'ALE/Pong-v5'; it must consist of letters.*, such as 'ALE_Pong-v5'"),
        ({"name": "a b", **NEAR}, {}, r"evaluation\.name is 'a b'.*, such as 'a_b'"),
        (
            {"name": "", **NEAR},
            {},
            r"evaluation\.name is ''; it must consist of letters, digits, '_', '-' and '\.', as",
        ),
        ({"near": {"name": "far"}}, {}, r"evaluation\.near\.name is 'far'; it must be null or 'near'"),
        ({"near": NEAR, "name": "far"}, {}, r"evaluation\.name is 'far' beside the evaluations 'near'"),
        ({"near": NEAR, "far": FAR}, {"env": "A-v0"}, r"env is 'A-v0', and each of the evaluations 'near', 'far' sets"),
        ({"near": {}, "far": {}}, {"video_logger": True}, r"needs an environment to play in"),
    ],
)
def test_wrong_settings_are_errors(evaluation: Any, keywords: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WandbRLCallback({"evaluation": evaluation}, **keywords)


def test_a_single_callback_plays_the_evaluation_that_it_is_told_to() -> None:
    cfg = {"evaluation": {"near": NEAR, "far": FAR}}
    assert EvaluationCallback(cfg, name="far").cfg.evaluation.env == "Far-v0"
    with pytest.raises(ConfigError, match=r"name is None, and the config has the evaluations 'near', 'far'"):
        EvaluationCallback(cfg)


def test_state_keys_are_those_of_older_checkpoints_unless_an_evaluation_is_named() -> None:
    keys = [WandbRLCallback({"evaluation": each}).state_key for each in (NEAR, {"near": NEAR, "far": FAR})]
    assert keys == ["rlwandb_callbacks.WandbRLCallback"] * 2
    named = WandbRLCallback({"evaluation": {"name": "near", **NEAR}})
    assert named.state_key == "rlwandb_callbacks.WandbRLCallback.near"
    assert "rlwandb_callbacks.EvaluationCallback.near" in named.state_dict()


def test_evaluations_are_also_an_argument_and_settings_of_the_section_hold_for_them() -> None:
    shared = EvaluationConfig(policy="critic", seed=4)
    for cfg in ({"evaluation": {"policy": "critic", "seed": 4}}, WandbRLConfig(evaluation=shared)):
        evaluations = WandbRLCallback(cfg, evaluations={"near": {"env": "Near-v0"}, "far": FAR}).cfg.evaluations
        assert (evaluations["near"].policy, evaluations["far"].policy, evaluations["near"].seed) == (
            "critic",
            "critic",
            4,
        )


def test_an_evaluation_cannot_have_the_name_of_a_setting() -> None:
    with pytest.raises(ConfigError, match=r"'episodes' is the name of a setting.* Give the evaluation another name"):
        as_config(evaluation={"near": NEAR, "episodes": FAR})


def test_evaluations_without_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="it must be a mapping of evaluations by name"):
        WandbRLCallback(evaluations=NEAR)
