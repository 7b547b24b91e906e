from __future__ import annotations

import pytest

from rlwandb_callbacks.callbacks.metric_names import ALIASES, MetricSelection, canonical, interpret, normalize


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("q_value", "q_value"),
        ("q_values", "q_value"),
        ("qf1_values", "q_value"),
        ("losses/qf1_values", "q_value"),
        ("Q1", "q_value"),
        ("target_q_value", "target_q_value"),
        ("target q_value", "target_q_value"),
        ("target_q", "target_q_value"),
        ("TD-Error", "td_error"),
        ("train/loss", "loss"),
        ("train/loss_step", "loss"),
        ("losses/policy_loss", "actor_loss"),
        ("losses/value_loss", "critic_loss"),
        ("charts/learning_rate", "lr"),
        ("loss_value", "critic_loss"),  # TorchRL's DDPGLoss
        ("train/vf_loss", "critic_loss"),  # RLlib
        ("train/policy_gradient_loss", "actor_loss"),  # Stable-Baselines3's PPO
        ("policy_entropy", "entropy"),
        ("losses/entropy", "entropy"),  # CleanRL's entropy
        ("approx_kl", "approx_kl"),
        ("val/loss", None),
        ("Eval/entropy", None),
        ("test/q_value", None),
        ("val_loss", None),
        ("reward_scale", None),
        ("", None),
    ],
)
def test_aliases_of_common_libraries_have_one_name(name: str, expected: str | None) -> None:
    assert canonical(name) == expected


def test_aliases_are_unique_and_each_metric_is_its_own_alias() -> None:
    aliases = [alias for group in ALIASES.values() for alias in group]
    assert len(aliases) == len(set(aliases))
    assert all(canonical(name) == name for name in ALIASES)
    assert all(normalize(alias) == alias for alias in aliases)


def test_without_a_list_all_known_metrics_are_picked() -> None:
    picked = MetricSelection(None).pick(["loss", "target q_value", "my_scalar", "val/loss", "losses/qf1_values"])
    assert picked == {"loss": "loss", "target q_value": "target_q_value", "losses/qf1_values": "q_value"}


def test_a_list_accepts_any_alias_and_unknown_names() -> None:
    selection = MetricSelection(["qf1_values", "My Scalar"])
    names = ["loss", "q_value", "my_scalar", "your_scalar"]
    assert selection.pick(names) == {"q_value": "q_value", "my_scalar": "my_scalar"}
    assert [selection.wants(name) for name in ("q_value", "loss", "my_scalar")] == [True, False, False]


@pytest.mark.parametrize("names", [["q1", "q_values", "q_value"], ["q_value", "q_values", "q1"]])
def test_the_first_alias_is_picked_in_any_order_of_names(names: list[str]) -> None:
    assert MetricSelection(None).pick(names) == {"q_value": "q_value"}


def test_an_empty_list_picks_nothing() -> None:
    assert MetricSelection([]).pick(["loss", "q_value"]) == {}


def test_missing_returns_unknown_names_that_were_not_found() -> None:
    selection = MetricSelection(["loss", "my_scalar", "Other-Scalar"])
    assert selection.missing(["my_scalar"]) == ["Other-Scalar"]
    assert selection.missing(["my_scalar", "other_scalar"]) == []
    assert MetricSelection(None).missing([]) == []


def test_unknown_names_that_end_in_step_are_not_shortened() -> None:
    selection = MetricSelection(["time_per_step", "bonus"])
    assert selection.pick(["rollout/time_per_step", "bonus_step"]) == {
        "rollout/time_per_step": "time_per_step",
        "bonus_step": "bonus",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actor/loss", "actor_loss"),
        ("critic/loss", "critic_loss"),
        ("train/actor/loss", "actor_loss"),
        ("loss/actor", "actor_loss"),
        ("loss/policy", "actor_loss"),
        ("loss/value", "critic_loss"),
        ("losses/value", "critic_loss"),
        ("value/loss", "critic_loss"),
        ("loss/value_loss", "critic_loss"),
        ("Loss / Policy loss", "actor_loss"),
        ("loss/entropy", "entropy_loss"),
        ("losses/entropy", "entropy"),
        ("losses/approx_kl", "approx_kl"),
        ("losses/alpha", "alpha"),
        ("loss/alpha", "alpha_loss"),
        ("alpha/loss", "alpha_loss"),
        ("loss/total", "loss"),
        ("loss/train", "loss"),
        ("SAC/loss", "loss"),
        ("TD3-BC/actor/loss", "actor_loss"),
        ("metrics/train/entropy", "entropy"),
        ("SAC/grad_norm/q", "q_grad_norm"),
        ("grad_norm/critic", "critic_grad_norm"),
        ("actor/grad_norm", "actor_grad_norm"),
        ("optimizer/lr", "lr"),
        ("lr/q", "lr_q"),
        ("lr/actor", "lr_actor"),
        ("critic/td_error", "td_error"),
        ("critic/q_values", "q_value"),
        ("policy/entropy", "entropy"),
        ("exploration/epsilon", "epsilon"),
        ("target/q", "target_q_value"),
        ("q/target", "target_q_value"),
        ("world_model/loss", "world_model_loss"),
        ("loss/world_model", "world_model_loss"),
        ("critic_1/loss", "critic_1_loss"),
        ("agent_0/q_values", "agent_0_q_values"),
        ("value/mean", "value_mean"),
        ("/loss", "loss"),
        ("time/step", None),
        ("loss/val", None),
        ("sac/eval/entropy", None),
    ],
)
def test_a_group_is_understood_or_stays_in_the_name(name: str, expected: str | None) -> None:
    meaning = interpret(name)
    assert (None if meaning is None else meaning.metric) == expected
    assert MetricSelection(None).pick([name]) == ({} if expected is None else {name: expected})


def test_no_two_groups_of_a_known_metric_have_one_name() -> None:
    names = [
        "loss",
        *(f"{group}/loss" for group in ("actor", "critic", "q1", "q2", "alpha", "agent_0", "agent_1", "rnd")),
    ]
    picked = MetricSelection(None).pick(names)
    assert list(picked) == names
    assert len(set(picked.values())) == len(names)


def test_several_algorithms_keep_their_names_and_stages_do_not() -> None:
    selection = MetricSelection(None)
    assert selection.pick(["SAC/loss", "DQN/loss"]) == {"SAC/loss": "sac_loss", "DQN/loss": "dqn_loss"}
    assert selection.pick(["SAC/loss", "loss"]) == {"loss": "loss"}
    assert selection.pick(["train/loss", "rollout/loss"]) == {"train/loss": "loss"}


def test_a_list_selects_a_metric_of_all_parts_or_of_one() -> None:
    names = ["world_model/loss", "actor/loss", "loss/entropy", "entropy"]
    assert MetricSelection(["loss"]).pick(names) == {
        "world_model/loss": "world_model_loss",
        "loss/entropy": "entropy_loss",
    }
    assert MetricSelection(["actor/loss", "loss/entropy"]).pick(names) == {
        "actor/loss": "actor_loss",
        "loss/entropy": "entropy_loss",
    }


def test_unknown_names_of_a_list_keep_their_groups() -> None:
    selection = MetricSelection(["scale", "critic/margin"])
    names = ["actor/scale", "critic/scale", "train/scale", "val/scale", "critic/margin", "actor/margin"]
    assert selection.pick(names) == {
        "actor/scale": "actor_scale",
        "critic/scale": "critic_scale",
        "train/scale": "scale",
        "critic/margin": "critic_margin",
    }
    assert selection.missing(["actor_scale"]) == ["critic/margin"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/entropy_loss", "entropy_loss"),  # minus the entropy: Stable-Baselines3
        ("Loss / Entropy loss", "entropy_loss"),  # minus a coefficient times the entropy: skrl
        ("loss_entropy", "loss_entropy"),  # the same: TorchRL
        ("ent_loss", "ent_loss"),  # the entropy: tianshou
        ("update/ent_loss/mean", "ent_loss_mean"),
        ("Loss/entropy", "entropy_loss"),  # the entropy: rsl-rl
        ("policy/entropy_loss", "entropy_loss"),
        ("entropy/loss", "entropy_loss"),
        ("agent_0/entropy_loss", "agent_0_entropy_loss"),
        ("kl_approx", "kl_approx"),  # may be negative: TorchRL
        ("losses/kl_approx", "kl_approx"),
    ],
)
def test_terms_with_several_conventions_keep_their_own_names(name: str, expected: str) -> None:
    assert MetricSelection(None).pick([name]) == {name: expected}
    assert MetricSelection(["entropy", "approx_kl"]).pick([name]) == {}


def test_terms_of_the_loss_stand_beside_the_metric() -> None:
    names = ["entropy", "loss_entropy", "kl_approx", "approx_kl"]
    assert MetricSelection(None).pick(names) == {name: name for name in names}
