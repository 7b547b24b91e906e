from __future__ import annotations

import re
from argparse import Namespace
from collections import OrderedDict
from dataclasses import FrozenInstanceError, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium as gym
import pytest
from easydict import EasyDict
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ValidationError

from rlwandb_callbacks.config import (
    EvaluationConfig,
    GradientsConfig,
    MetricsConfig,
    RunConfig,
    VideosConfig,
    WandbRLConfig,
    as_config,
)
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.testing import CorridorEnv

GIVEN = {
    "gradient_logger": True,
    "action_logger": "q value",
    "metric_list": ["loss", "q_values"],
    "evaluation": {"env": "CartPole-v1", "env_kwargs": {"sutton_barto_reward": True}, "episodes": 4},
    "videos": {"fps": 12.5},
    "run": {"tags": ["a", "b"], "config": {"note": {"depth": 2}}},
}
EXPECTED = WandbRLConfig(
    gradient_logger=True,
    action_logger="q_value",
    metric_list=["loss", "q_values"],
    evaluation=EvaluationConfig(env="CartPole-v1", env_kwargs={"sutton_barto_reward": True}, episodes=4),
    videos=VideosConfig(fps=12.5),
    run=RunConfig(tags=["a", "b"], config={"note": {"depth": 2}}),
)


@pytest.mark.parametrize(
    "cfg",
    [GIVEN, OrderedDict(GIVEN), MappingProxyType(GIVEN), EasyDict(GIVEN), OmegaConf.create(GIVEN), EXPECTED],
    ids=["dict", "OrderedDict", "read-only mapping", "EasyDict", "OmegaConf", "WandbRLConfig"],
)
def test_mappings_and_configs_are_equivalent(cfg: Any) -> None:
    config = as_config(cfg)
    assert config == EXPECTED
    assert type(config.run.config["note"]) is dict
    assert type(config.metric_list) is list


def test_keywords_alone_are_equivalent() -> None:
    assert as_config(**GIVEN) == as_config({}, **GIVEN) == EXPECTED


def test_no_arguments_give_the_defaults() -> None:
    assert as_config() == as_config(None) == as_config({}) == WandbRLConfig()


def test_keywords_override_a_mapping_and_a_config() -> None:
    assert as_config({"plot_logger": True, "on_error": "raise"}, plot_logger=False) == WandbRLConfig(
        plot_logger=False, on_error="raise"
    )
    assert as_config(EXPECTED, gradient_logger=False).gradient_logger is False
    assert as_config(EXPECTED, gradient_logger=False).evaluation == EXPECTED.evaluation


@pytest.mark.parametrize(
    "cfg",
    [
        {"evaluation": {"env": "Pendulum-v1", "episodes": 3}},
        OmegaConf.create({"evaluation": {"env": "Pendulum-v1", "episodes": 3}}),
        WandbRLConfig(evaluation=EvaluationConfig(env="Pendulum-v1", episodes=3)),
        {"evaluation": EvaluationConfig(env="Pendulum-v1", episodes=3)},
    ],
    ids=["dict", "OmegaConf", "WandbRLConfig", "section"],
)
def test_env_and_policy_set_those_of_evaluation_and_keep_the_rest(cfg: Any) -> None:
    evaluation = as_config(cfg, env="CartPole-v1", policy="q_network").evaluation
    assert (evaluation.env, evaluation.policy, evaluation.episodes) == ("CartPole-v1", "q_network", 3)
    assert as_config(cfg, env=None, policy=None).evaluation == as_config(cfg).evaluation


def test_env_and_policy_need_no_section() -> None:
    assert as_config(env=CorridorEnv, policy=max).evaluation == EvaluationConfig(env=CorridorEnv, policy=max)


def test_the_mapping_is_not_modified() -> None:
    cfg = {"evaluation": {"episodes": 3}}
    as_config(cfg, env="CartPole-v1", plot_logger=False)
    assert cfg == {"evaluation": {"episodes": 3}}


def test_the_flat_di_engine_keys_are_accepted() -> None:
    cfg = {
        "record_path": "./video_qbert_dqn",
        "gradient_logger": True,
        "plot_logger": True,
        "action_logger": "action probability",
    }
    config = as_config(cfg)
    assert (config.record_path, config.action_logger) == ("./video_qbert_dqn", "action_probability")
    assert config.gradient_logger
    assert config.plot_logger


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ("q_value", "q_value"),
        ("q value", "q_value"),
        ("action_probability", "action_probability"),
        ("action probability", "action_probability"),
        (True, True),
        (False, False),
    ],
)
def test_both_spellings_of_action_logger_are_accepted(spelling: Any, meaning: Any) -> None:
    assert as_config(action_logger=spelling).action_logger == meaning
    assert WandbRLConfig(action_logger=spelling).action_logger == meaning


def test_paths_become_text() -> None:
    assert as_config(record_path=Path("videos") / "dqn").record_path == str(Path("videos") / "dqn")
    assert WandbRLConfig(record_path=Path("videos")).record_path == "videos"


def test_env_may_be_an_environment_or_a_function() -> None:
    env = gym.make("CartPole-v1")
    assert as_config(env=env).evaluation.env is env
    assert as_config({"evaluation": {"env": CorridorEnv}}).evaluation.env is CorridorEnv


def test_lists_may_be_written_as_tuples() -> None:
    config = as_config({"metric_list": ("loss", "lr"), "run": {"tags": ("a", "b")}})
    assert (config.metric_list, config.run.tags) == (["loss", "lr"], ["a", "b"])
    assert as_config(metric_list=("loss",)).metric_list == ["loss"]


def test_env_kwargs_keep_their_types() -> None:
    kwargs = {"size": (45, 61), "rewards": {0: -1.0, 1: 1.0}}
    assert as_config({"evaluation": {"env_kwargs": kwargs}}).evaluation.env_kwargs == kwargs
    assert as_config(evaluation={"env_kwargs": kwargs}, env=CorridorEnv).evaluation.env_kwargs == kwargs


@pytest.mark.parametrize(
    ("cfg", "fragments"),
    [
        ({"gradient_loger": True}, ["Unknown key 'gradient_loger' (value True)", "Did you mean 'gradient_logger'?"]),
        ({"evaluation": {"epsiodes": 4}}, ["'epsiodes' (value 4) in evaluation", "'episodes'?", "num_envs"]),
        (
            {"videos": {"frames": 4}},
            [
                "Unknown key 'frames' (value 4) in videos",
                "Known keys in videos: fps, crf, preset, max_bytes, select, max_seconds, max_per",
            ],
        ),
        ({"gradients": {"log_frequency": 4}}, ["in gradients", "Did you mean 'log_freq'?"]),
        ({"env": "CartPole-v1"}, ["Unknown key 'env' (value 'CartPole-v1'). It belongs to 'evaluation'. Known keys"]),
        ({"seed": 1}, ["It belongs to 'evaluation'."]),
        ({"xyz": 1}, ["Unknown key 'xyz' (value 1).", "Known keys: plot_logger,"]),
        ({1: 2}, ["Unknown key '1' (value 2)"]),
        ({"evaluation": {"episodes": 0}}, ["evaluation.episodes is 0", "an integer ≥ 1"]),
        ({"evaluation": {"episodes": -3}}, ["evaluation.episodes is -3"]),
        ({"evaluation": {"episodes": 2.5}}, ["evaluation.episodes is 2.5", "an integer"]),
        ({"evaluation": {"episodes": "8"}}, ["evaluation.episodes is '8'", "an integer"]),
        ({"evaluation": {"episodes": True}}, ["evaluation.episodes is True", "an integer"]),
        ({"evaluation": {"episodes": None}}, ["evaluation.episodes is None", "an integer"]),
        ({"evaluation": {"num_envs": 0}}, ["evaluation.num_envs is 0", "≥ 1"]),
        ({"evaluation": {"seed": -1}}, ["evaluation.seed is -1", "≥ 0"]),
        ({"evaluation": {"seed": 10**30}}, ["evaluation.seed is 1000", "an integer ≥ 0 and ≤ 4,294,967,295"]),
        ({"evaluation": {"seed": 2**32 - 8, "episodes": 9}}, ["evaluation.seed is 4294967288", "9 episodes", "NumPy"]),
        (
            {"run": {"project": "team/dqn"}},
            ["run.project is 'team/dqn'", "run.entity to 'team' and run.project to 'dqn'"],
        ),
        ({"run": {"project": "a#b"}}, ["run.project is 'a#b'", "none of /"]),
        ({"run": {"project": "p" * 129}}, ["run.project is 'ppp", "1 to 128 characters"]),
        ({"run": {"tags": ["ok", "t" * 100]}}, ["run.tags contains 'ttt", "100 characters", "1 to 64"]),
        ({"run": {"tags": [""]}}, ["run.tags contains '' of 0 characters"]),
        ({"run": {"id": ".."}}, ["run.id is '..'", "not only dots"]),
        ({"run": {"id": "../a"}}, ["run.id is '../a'"]),
        ({"run": {"id": "a\\b"}}, ["run.id is 'a"]),
        ({"run": {"id": " a"}}, ["run.id is ' a'", "no blanks"]),
        ({"run": {"id": ""}}, ["run.id is ''"]),
        ({"run": {"id": "i" * 129}}, ["run.id is 'iii", "1 to 128 characters"]),
        ({"evaluation": {"every_n_steps": 0}}, ["evaluation.every_n_steps is 0", "≥ 1"]),
        ({"evaluation": {"max_steps": 0}}, ["evaluation.max_steps is 0", "≥ 1"]),
        ({"evaluation": {"gamma": 1.5}}, ["evaluation.gamma is 1.5", "≥ 0 and ≤ 1"]),
        ({"evaluation": {"gamma": -0.1}}, ["evaluation.gamma is -0.1", "≥ 0 and ≤ 1"]),
        ({"evaluation": {"gamma": float("nan")}}, ["evaluation.gamma is nan"]),
        ({"evaluation": {"deterministic": 1}}, ["evaluation.deterministic is 1", "true or false"]),
        ({"evaluation": {"env": 5}}, ["evaluation.env is 5", "text, a callable or null"]),
        ({"evaluation": {"policy": 5}}, ["evaluation.policy is 5", "text, a callable or null"]),
        ({"evaluation": {"env_kwargs": [1]}}, ["evaluation.env_kwargs is [1]", "a mapping"]),
        ({"evaluation": "CartPole-v1"}, ["evaluation is 'CartPole-v1'", "mapping"]),
        ({"metrics": {"every_n_steps": 0}}, ["metrics.every_n_steps is 0", "≥ 1"]),
        ({"gradients": {"log": "everything"}}, ["gradients.log is 'everything'", "'gradients', 'parameters' or 'all'"]),
        ({"gradients": {"log": "gradient"}}, ["Did you mean 'gradients'?"]),
        ({"gradients": {"method": "watched"}}, ["gradients.method is 'watched'", "Did you mean 'watch'?"]),
        ({"gradients": {"sample": 0}}, ["gradients.sample is 0", "an integer ≥ 1 or null"]),
        ({"gradients": {"log_freq": 0}}, ["gradients.log_freq is 0", "≥ 1"]),
        ({"videos": {"fps": -30}}, ["videos.fps is -30", "≥ 0.1 and ≤ 1,000 or null"]),
        ({"videos": {"fps": 0}}, ["videos.fps is 0", "≥ 0.1 and ≤ 1,000 or null"]),
        ({"videos": {"fps": float("inf")}}, ["videos.fps is inf", "≥ 0.1 and ≤ 1,000 or null"]),
        ({"videos": {"fps": float("nan")}}, ["videos.fps is nan"]),
        ({"videos": {"fps": "30"}}, ["videos.fps is '30'", "a number"]),
        ({"videos": {"crf": 52}}, ["videos.crf is 52", "≥ 0 and ≤ 51"]),
        ({"videos": {"crf": -1}}, ["videos.crf is -1", "≥ 0 and ≤ 51"]),
        (
            {"videos": {"preset": "smalll"}},
            ["videos.preset is 'smalll'", "'small', 'smallest' or 'light'", "Did you mean 'small'?"],
        ),
        ({"videos": {"select": ["fails"]}}, ["videos.select contains 'fails'", "'failures'?", "best, median, worst"]),
        ({"videos": {"select": "math:pi"}}, ["videos.select contains 'math:pi'", "import path of a function"]),
        ({"videos": {"select": ["no.such:function"]}}, ["videos.select contains 'no.such:function'"]),
        ({"videos": {"select": []}}, ["videos.select is []", "at least one name"]),
        ({"videos": {"select": [3]}}, ["videos.select is [3]"]),
        ({"videos": {"max_per_choice": 0}}, ["videos.max_per_choice is 0", "≥ 1"]),
        ({"evaluation": {"info_keys": "lives"}}, ["evaluation.info_keys is 'lives'", "a list of text"]),
        (
            {"run": {"mode": "ofline"}},
            ["run.mode is 'ofline'", "'online', 'offline', 'disabled' or null", "Did you mean 'offline'?"],
        ),
        ({"run": {"resume": "yes"}}, ["run.resume is 'yes'", "'allow'"]),
        ({"run": {"tags": "dqn"}}, ["run.tags is 'dqn'", "a list of text"]),
        ({"run": {"tags": [1]}}, ["run.tags is [1]", "a list of text"]),
        ({"run": {"step_metric": "env_steps"}}, ["run.step_metric is 'env_steps'", "'time/env_steps'"]),
        ({"action_logger": "q_values"}, ["action_logger is 'q_values'", "Did you mean 'q_value'?"]),
        ({"action_logger": "action probabilty"}, ["Did you mean 'action probability'?"]),
        ({"action_logger": 1}, ["action_logger is 1"]),
        ({"plasticity": {"every_n_steps": 0}}, ["plasticity.every_n_steps is 0", "≥ 1"]),
        ({"plasticity": {"batch_size": 0}}, ["plasticity.batch_size is 0", "≥ 1"]),
        ({"plasticity": {"networks": "actor"}}, ["plasticity.networks is 'actor'", "a list of text"]),
        ({"plasticity": {"dormant_threshold": -0.1}}, ["plasticity.dormant_threshold is -0.1", "≥ 0"]),
        ({"plasticity": {"dead_threshold": 0}}, ["plasticity.dead_threshold is 0", "> 0"]),
        ({"plasticity": {"effective_rank_delta": 1.0}}, ["plasticity.effective_rank_delta is 1.0", "> 0 and < 1"]),
        ({"plasticity": True}, ["plasticity is True", "mapping"]),
        ({"alerts": {"max_q_value": 0}}, ["alerts.max_q_value is 0", "> 0"]),
        ({"alerts": {"min_entropy": float("nan")}}, ["alerts.min_entropy is nan", "a number that is finite or null"]),
        ({"alerts": {"return_standard_errors": 0}}, ["alerts.return_standard_errors is 0", "> 0", "or null"]),
        (
            {"alerts": {"return_fall": 0.5}},
            ["'return_fall' (value 0.5) in alerts", "replaced by return_standard_errors"],
        ),
        ({"alerts": {"return_patience": 2}}, ["replaced by return_standard_errors (4.0 by default; null"]),
        ({"alerts": {"level": "warn"}}, ["alerts.level is 'warn'", "'WARN'"]),
        ({"naming": "di_engine"}, ["naming is 'di_engine'", "'sb3', 'cleanrl'", "Did you mean 'di-engine'?"]),
        ({"on_error": "ignore"}, ["on_error is 'ignore'", "'warn' or 'raise'"]),
        ({"plot_logger": "yes"}, ["plot_logger is 'yes'", "true or false"]),
        ({"metric_list": "loss"}, ["metric_list is 'loss'", "a list of text"]),
        ({"metric_list": ["loss", 3]}, ["metric_list is ['loss', 3]"]),
        ({"record_path": 5}, ["record_path is 5", "text"]),
        ({"record_path": None}, ["record_path is None", "text"]),
        ({"dataset_path": ""}, ["dataset_path is ''", "must be the path of a file or folder", "record_path"]),
        ({"dataset_path": [[1.0]]}, ["dataset_path is a list", 'open_dataset(data).save("data.npz")']),
        ({"dataset_format": "torch"}, ["dataset_format is 'torch'", "'npz'"]),
        ({"dataset": {"pictures": ["overvue"]}}, ["dataset.pictures is ['overvue']", "Did you mean 'overview'?"]),
        ({"dataset": {"table_rows": -1}}, ["dataset.table_rows is -1", "≥ 0"]),
        ({"dataset": {"embedding": {"method": "umap"}}}, ["dataset.embedding.method is 'umap'", "'tsne' or 'pca'"]),
        ({"dataset": {"embedding": {"engine": "open-tsne"}}}, ["'open-tsne'", "Did you mean 'opentsne'?"]),
        ({"dataset": {"embedding": {"sample_size": 0}}}, ["dataset.embedding.sample_size is 0", "≥ 1"]),
        ({"dataset": {"embedding": {"max_seconds": 0}}}, ["dataset.embedding.max_seconds is 0", "> 0"]),
        ({"dataset": {"embedding": {"perplexity": 0.5}}}, ["dataset.embedding.perplexity is 0.5", "≥ 1"]),
        ({"dataset": {"embedding": {"seed": -1}}}, ["dataset.embedding.seed is -1"]),
        ({"dataset": {"embedding": {"perplexty": 5}}}, ["in dataset.embedding", "Did you mean 'perplexity'?"]),
        ({"video_logger": True}, ["video_logger is True", "evaluation.env is None", "CartPole-v1"]),
        ("CartPole-v1", ["cfg is 'CartPole-v1' of type str", "mapping"]),
        ([("plot_logger", True)], ["of type list"]),
    ],
    ids=str,
)
def test_messages_name_the_key_the_value_and_what_is_allowed(cfg: Any, fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        as_config(cfg)
    message = str(caught.value)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_names_and_seeds_at_their_limits_are_accepted() -> None:
    run = {"project": "p" * 128, "tags": ["t" * 64], "id": "..a b.é" + "i" * 100}
    cfg = as_config(run=run, evaluation={"seed": 2**32 - 8, "episodes": 8})
    assert (cfg.run.project, cfg.run.id, cfg.evaluation.seed) == (run["project"], run["id"], 2**32 - 8)


def test_wrong_keywords_are_errors() -> None:
    with pytest.raises(ConfigError, match=re.escape("Unknown key 'enviroment'")):
        as_config(enviroment="CartPole-v1")
    with pytest.raises(ConfigError, match=re.escape("evaluation.env is 3")):
        as_config(env=3)


def test_video_logger_is_accepted_with_an_env() -> None:
    assert as_config(video_logger=True, env="CartPole-v1").video_logger is True
    assert as_config(video_logger=False).video_logger is False


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (EvaluationConfig, {"episodes": 0}),
        (MetricsConfig, {"every_n_steps": -1}),
        (GradientsConfig, {"log": None}),
        (VideosConfig, {"fps": -1.0}),
        (RunConfig, {"project": 3}),
        (WandbRLConfig, {"evaluation": MetricsConfig()}),
    ],
)
def test_sections_that_are_created_directly_are_validated(section: Any, wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    with pytest.raises(ConfigError, match=rf"{name} is "):
        section(**wrong)


def test_null_for_a_section_means_its_defaults() -> None:
    assert as_config({"evaluation": None, "run": None}) == WandbRLConfig()


def test_configs_are_frozen_and_take_keywords_only() -> None:
    with pytest.raises(FrozenInstanceError):
        WandbRLConfig().plot_logger = False
    with pytest.raises(TypeError):
        EvaluationConfig("CartPole-v1")


def test_configs_do_not_share_lists_or_dicts() -> None:
    first, second = WandbRLConfig(), WandbRLConfig()
    for section in fields(first):
        for item in getattr(getattr(first, section.name), "__dataclass_fields__", ()):
            value = getattr(getattr(first, section.name), item)
            if isinstance(value, list | dict):
                assert value is not getattr(getattr(second, section.name), item)


def test_an_unknown_dataset_format_is_an_error() -> None:
    assert WandbRLConfig(dataset_format="di-engine").dataset_format == "di-engine"
    with pytest.raises(
        ConfigError, match=r"dataset_format is 'd4lr'; it must be 'd4rl', .* or null\. Did you mean 'd4rl'"
    ):
        WandbRLConfig(dataset_format="d4lr")


def test_a_value_of_omegaconf_that_cannot_be_resolved_is_named() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.episodes is '\?\?\?', and '\?\?\?' cannot be resolved"):
        as_config(OmegaConf.create({"evaluation": {"episodes": "???"}}))
    with pytest.raises(ConfigError, match=r"record_path is '\$\{hydra:runtime.cwd\}'"):
        as_config(OmegaConf.create({"record_path": "${hydra:runtime.cwd}"}))
    with pytest.raises(ConfigError, match=r"evaluation\.env_kwargs is \{'size': '\$\{oc.env:RLWANDB_UNSET\}'\}"):
        as_config({"evaluation": OmegaConf.create({"env_kwargs": {"size": "${oc.env:RLWANDB_UNSET}"}})})
    config = as_config(OmegaConf.create({"n": 3, "cfg": {"evaluation": {"episodes": "${n}"}}}).cfg)
    assert config.evaluation.episodes == 3
    free = OmegaConf.create({"run": {"config": {"seed": "???", "layers": [8, "${size}"]}}})
    assert as_config(free).run.config == {"seed": "???", "layers": [8, "${size}"]}


def test_namespaces_are_accepted() -> None:
    assert as_config(Namespace(plot_logger=False, evaluation=Namespace(episodes=3))) == WandbRLConfig(
        plot_logger=False, evaluation=EvaluationConfig(episodes=3)
    )


def test_the_config_is_a_structured_config_of_omegaconf_and_hydra() -> None:
    @dataclass
    class Program:
        lr: float = 0.1
        rl: WandbRLConfig = field(default_factory=WandbRLConfig)

    cfg: Any = OmegaConf.structured(Program)
    assert as_config(cfg.rl) == OmegaConf.to_object(cfg).rl == WandbRLConfig()
    for key, value in {"evaluation.env": "CartPole-v1", "evaluation.episodes": 3, "videos.select": "failures"}.items():
        OmegaConf.update(cfg, f"rl.{key}", value)  # as Hydra does with its overrides
    cfg.rl.executor = "thread"
    expected = WandbRLConfig(
        executor="thread",
        evaluation=EvaluationConfig(env="CartPole-v1", episodes=3),
        videos=VideosConfig(select="failures"),
    )
    assert as_config(cfg.rl) == OmegaConf.to_object(cfg.rl) == expected
    with pytest.raises(ConfigAttributeError, match="epsiodes"):
        cfg.rl.epsiodes = 3
    with pytest.raises(ValidationError, match="crf"):
        cfg.rl.videos.crf = "sharp"
    named = OmegaConf.create({"evaluation": {"near": {"env": "CartPole-v1"}, "far": {"env": "Acrobot-v1"}}})
    assert list(as_config(named).evaluations) == ["near", "far"]


def test_settings_stay_frozen_and_keep_the_types_of_their_fields() -> None:
    with pytest.raises(FrozenInstanceError):
        WandbRLConfig().naming = "sb3"  # type: ignore[misc]  # on purpose
    with pytest.raises(FrozenInstanceError):
        del WandbRLConfig().evaluation.env  # type: ignore[union-attr]  # on purpose
    with pytest.raises(ConfigError, match=r"evaluation\.env is 3"):
        as_config(env=3)
