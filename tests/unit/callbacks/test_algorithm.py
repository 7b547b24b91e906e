"""The algorithm of a module is recognized."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
from torch import nn

from rlwandb_callbacks.callbacks.algorithm import find_algorithm
from rlwandb_callbacks.callbacks.metric_names import MetricSelection
from rlwandb_callbacks.testing import TinyActorCritic, TinyQ


def algorithm_of(module: nn.Module, *names: str) -> str | None:
    return find_algorithm(module, MetricSelection(None).pick(names))


def module_named(name: str, base: type[nn.Module] = pl.LightningModule, **networks: nn.Module) -> nn.Module:
    module = type(name, (base,), {"__module__": "user"})()
    for attribute, network in networks.items():
        setattr(module, attribute, network)
    return module


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PPO", "ppo"),
        ("LitPPOAgent", "ppo"),
        ("DQNLightning", "dqn"),
        ("C51DQN", "c51"),
        ("MyA2C", "a2c"),
        ("DiscreteSACModule", "sac"),
        ("LitTD3BC", "td3"),
        ("DDPG", "ddpg"),
        ("Sac", "sac"),
        ("Transaction", None),
        ("SupportPolicy", None),
        ("Agent", None),
    ],
)
def test_by_the_name_of_the_class(name: str, expected: str | None) -> None:
    assert algorithm_of(module_named(name), "loss") == expected


def test_by_the_name_of_a_base_class_and_of_a_group() -> None:
    assert algorithm_of(module_named("Mine", type(module_named("SAC")))) == "sac"
    assert algorithm_of(module_named("Agent"), "TD3/actor_loss", "TD3/critic_loss") == "td3"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["loss", "q_values", "target_q"], "dqn"),
        (["td_loss", "loss", "td_error"], "dqn"),
        (["qf_loss", "loss"], "sac"),
        (["actor_loss", "critic_loss", "q_values"], "sac"),
        (["critic_loss", "q1"], "sac"),  # the actor is updated less often
        (["actor_loss", "critic_loss", "alpha"], "sac"),
        (["policy_loss", "value_loss", "entropy"], "ppo"),
        (["actor_loss", "critic_loss", "td_error"], "ppo"),
        (["loss", "approx_kl", "ent_coef"], "ppo"),
        (["loss"], None),
        (["loss", "entropy"], None),
    ],
)
def test_by_the_metrics(names: list[str], expected: str | None) -> None:
    assert algorithm_of(module_named("Agent"), *names) == expected


def test_by_target_networks() -> None:
    losses = ["actor_loss", "critic_loss"]
    assert algorithm_of(module_named("Agent", target_critic=nn.Linear(1, 1)), *losses) == "sac"
    assert algorithm_of(module_named("Agent", actor=nn.Linear(1, 1)), "loss", "q_values") == "sac"
    assert algorithm_of(TinyQ(), "loss", "q_values", "td_error") == "dqn"
    assert algorithm_of(TinyActorCritic(), *losses, "entropy") == "ppo"
