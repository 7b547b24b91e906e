"""Wrong settings, environments and policies are errors before the first training step, with messages that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlwandb_callbacks import ConfigError, EnvError, PolicyError, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, TinyQ, TinyValidatedQ


class NeverTrains(TinyQ):
    """Fails the test if a training step is reached."""

    wrong = 3

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        pytest.fail("The first training step was reached.")

    def answers_text(self, observations: torch.Tensor) -> str:
        return "left"

    def answers_too_many(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(observations), 5)

    def raises(self, observations: torch.Tensor) -> torch.Tensor:
        raise KeyError("hidden_state")

    def answers_distribution(self, observations: torch.Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=torch.zeros(len(observations), 2))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"video_logger": True}, ["video_logger", "evaluation.env"]),
        ({"evaluation": {"episodes": 0}}, ["evaluation.episodes", "0", "≥ 1"]),
        ({"evaluation": {"episodes": 2.5}}, ["evaluation.episodes", "2.5", "an integer"]),
        ({"videos": {"fps": -30}}, ["videos.fps", "-30", "≥ 0.1 and ≤ 1,000"]),
        ({"evaluation": {"epsiodes": 3}}, ["epsiodes", "evaluation", "Did you mean 'episodes'"]),
        ({"gradient_loger": True}, ["gradient_loger", "Did you mean 'gradient_logger'"]),
        ({"action_logger": "qvalue"}, ["action_logger", "qvalue", "q_value", "action probability"]),
        ({"gradients": {"log": "weights"}}, ["gradients.log", "weights", "'all'"]),
        ({"run": {"mode": "ofline"}}, ["run.mode", "ofline", "Did you mean 'offline'"]),
        ({"plot_logger": "yes"}, ["plot_logger", "yes", "true or false"]),
        ({"vis_dataset": True, "dataset_path": " "}, ["dataset_path", "' '", "record_path"]),
        ({"vis_dataset": True, "dataset_path": {"obs": [0]}}, ["dataset_path is a dict", 'save("data.npz")']),
        ({"dataset_format": "memory"}, ["dataset_format", "memory", "'npz'"]),
        ("q_value", ["cfg", "WandbRLConfig"]),
    ],
)
def test_wrong_settings_are_errors_when_the_callback_is_created(config: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        WandbRLCallback(config)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("module_class", [TinyQ, TinyValidatedQ])
@pytest.mark.parametrize(
    ("evaluation", "error", "words"),
    [
        ({"env": "CartPol-v1", "policy": "q_network"}, EnvError, ["CartPol-v1", "Did you mean 'CartPole-v1'"]),
        ({"env": "no_such_package.envs:make", "policy": "q_network"}, EnvError, ["no_such_package"]),
        ({"env": CorridorEnv, "env_kwargs": {"sise": 3}, "policy": "q_network"}, EnvError, ["sise"]),
        ({"env": dict, "policy": "q_network"}, EnvError, ["dict", "gymnasium.Env"]),
        (
            {"env": CorridorEnv, "policy": "q_netwrk"},
            PolicyError,
            ["q_netwrk", "Did you mean 'q_network'", "target_network"],
        ),
        ({"env": CorridorEnv, "policy": "wrong"}, PolicyError, ["wrong", "3", "can neither be called"]),
        ({"env": CorridorEnv, "policy": "answers_text"}, PolicyError, ["'left'", "str", "Allowed are", "[B, 2]"]),
        ({"env": CorridorEnv, "policy": "answers_too_many"}, PolicyError, ["[3, 5]", "float32", "Discrete(2)"]),
        ({"env": CorridorEnv, "policy": "raises"}, PolicyError, ["raises", "KeyError", "hidden_state"]),
        ({"env": "CartPole-v1", "policy": "q_network"}, PolicyError, ["q_network", "mat1 and mat2"]),
    ],
)
def test_wrong_envs_and_policies_are_errors_before_the_first_step(
    fit: Any, module_class: Any, evaluation: Any, error: Any, words: list[str]
) -> None:
    class Module(NeverTrains, module_class):  # type: ignore[misc]  # a class made at run time
        pass

    with pytest.raises(error) as caught:
        fit(Module(), WandbRLCallback({"evaluation": evaluation}))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_action_logger_q_value_needs_a_policy_with_q_values(fit: Any) -> None:
    callback = WandbRLCallback(env=CorridorEnv, policy="answers_distribution", action_logger="q_value")
    with pytest.raises(PolicyError, match="has no q-values"):
        fit(NeverTrains(), callback)


def test_a_module_without_a_known_policy_attribute_is_an_error(fit: Any) -> None:
    class Nameless(NeverTrains):
        def __init__(self) -> None:
            super().__init__()
            self.brain = self.q_network
            del self.q_network

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.brain.parameters(), lr=0.1)

    with pytest.raises(PolicyError, match="brain"):
        fit(Nameless(), WandbRLCallback(env=CorridorEnv))


def test_an_unwritable_record_path_is_an_error(fit: Any) -> None:
    Path("taken").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="record_path is 'taken/videos'"):
        fit(NeverTrains(), WandbRLCallback(env=CorridorEnv, policy="q_network", record_path="taken/videos"))
