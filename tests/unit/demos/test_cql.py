"""The offline demo: its data, its controller, and how its module reads TorchRL's losses."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlwandb_callbacks.demos.cql import CQL, squashed_moments
from rlwandb_callbacks.demos.pendulum_data import episode_returns, make_dataset, read_dataset, swing_up, write_dataset
from rlwandb_callbacks.policies.output_reader import OutputReader


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return make_dataset(episodes=6, seed=0)


def test_the_data_set_has_the_flat_arrays_of_d4rl(rows: dict[str, np.ndarray]) -> None:
    shapes = {name: (array.shape, array.dtype.name) for name, array in rows.items()}
    assert shapes == {
        "observations": ((1200, 3), "float32"),
        "actions": ((1200, 1), "float32"),
        "rewards": ((1200,), "float32"),
        "next_observations": ((1200, 3), "float32"),
        "terminals": ((1200,), "bool"),
        "timeouts": ((1200,), "bool"),
    }
    assert np.flatnonzero(rows["timeouts"]).tolist() == [199, 399, 599, 799, 999, 1199]
    assert not rows["terminals"].any()
    assert np.abs(rows["actions"]).max() <= 2.0


def test_each_row_leads_to_the_next(rows: dict[str, np.ndarray]) -> None:
    follows = np.flatnonzero(~rows["timeouts"])
    assert np.array_equal(rows["next_observations"][follows], rows["observations"][follows + 1])
    starts = rows["observations"][::200]
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_the_data_set_is_the_same_file_for_the_same_seed_and_another_for_another(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.npz", "same.npz", "other.npz")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        write_dataset(file, episodes=2, seed=seed)
    first, same, other = (file.read_bytes() for file in files)
    assert first == same != other
    assert sorted(tmp_path.glob("*")) == sorted(files), "nothing else is left behind"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "data.npz"
    write_dataset(file, episodes=1, seed=5)
    read, made = read_dataset(file), make_dataset(1, 5)
    assert read.keys() == made.keys()
    assert all(np.array_equal(read[name], made[name]) for name in made)


def test_the_controller_is_far_better_than_chance_and_the_data_is_between() -> None:
    env = gym.make("Pendulum-v1")
    rng = np.random.default_rng(0)

    def mean_return(acts: str) -> float:
        total = 0.0
        for seed in range(8):
            observation, _ = env.reset(seed=seed)
            for _ in range(200):
                torque = swing_up(observation) if acts == "controller" else rng.uniform(-2, 2)
                observation, reward, *_ = env.step(np.array([torque], np.float32))
                total += float(reward)
        return total / 8

    controller, chance = mean_return("controller"), mean_return("chance")
    assert controller > -250 > -900 > chance
    returns = episode_returns(make_dataset(episodes=20, seed=0))
    assert chance < returns.mean() < controller
    assert returns.max() - returns.min() > 500


def ready(**settings: object) -> CQL:
    module = CQL("data.npz", data_episodes=2, hidden_size=16, batch_size=32, **settings)
    module.prepare_data()
    module.setup("fit")
    return module


def test_the_target_is_the_one_of_the_losses() -> None:
    module = ready(reward_scale=1.0)
    rows = module._sample()
    torch.manual_seed(7)
    loss, _ = module.losses.q_loss(rows)
    torch.manual_seed(7)
    target = module._target(rows)
    by_hand = sum((rows[name][:, 0].detach() - target).square() for name in ("pred_q1", "pred_q2")).mean()
    assert float(loss.detach()) == pytest.approx(float(by_hand), rel=1e-5)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers themselves: the state dict of older tensordicts holds copies, and more than tensors."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def test_all_networks_but_the_targets_are_trained_and_the_targets_follow() -> None:
    module = ready()
    before = {name: value.clone() for name, value in weights(module).items()}
    optimizer = module.configure_optimizers()["optimizer"]
    module.training_step(0, 0)["loss"].backward()
    optimizer.step()
    moved = {name.split(".")[1] for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert moved == {"actor_network_params", "qvalue_network_params", "log_alpha"}
    module.on_train_batch_end(None, 0, 0)
    moved = {name.split(".")[1] for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert "target_qvalue_network_params" in moved


def test_metrics_are_in_the_unit_of_the_rewards() -> None:
    def metrics(scale: float) -> dict[str, torch.Tensor]:
        module = ready(reward_scale=scale)
        with torch.no_grad():
            for name, value in weights(module.losses).items():
                if "qvalue_network" in name and value.is_floating_point():
                    value.zero_()  # targets are then the rewards
        torch.manual_seed(0)
        return module.training_step(0, 0)

    small, large = metrics(0.01), metrics(1.0)
    rewards = read_dataset(Path("data.npz"))["rewards"]
    assert torch.allclose(small["target_q_value"], large["target_q_value"], rtol=1e-4)
    assert rewards.min() <= large["target_q_value"].min() < large["target_q_value"].max() <= rewards.max() + 1e-6


def test_moments_of_the_squashed_gaussian_are_those_of_samples() -> None:
    loc, scale = torch.tensor([0.0, 0.7, -2.0]), torch.tensor([0.1, 0.5, 1.0])
    samples = torch.tanh(loc + scale * torch.randn(400_000, 3, generator=torch.Generator().manual_seed(0)))
    mean, std = squashed_moments(loc, scale)
    assert mean.tolist() == pytest.approx(samples.mean(0).tolist(), abs=3e-3)
    assert std.tolist() == pytest.approx(samples.std(0).tolist(), abs=3e-3)


def test_the_policy_answers_in_torques_with_q_of_its_action() -> None:
    module = ready()
    observations = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 4.0], [-1.0, 0.0, -8.0]])
    step = OutputReader(gym.make("Pendulum-v1").action_space, True, "unknown", True).read(
        module.policy(observations), 3
    )
    assert step.actions.shape == step.scores.mean.shape == step.scores.std.shape == (3, 1)
    assert (step.scores.std > 0).all()
    assert np.abs(step.actions).max() <= 2.0
    again = module.policy(observations)
    assert np.array_equal(again["action"].numpy(), step.actions), "nothing is drawn"
    networks = module.losses.qvalue_network_params.unbind(0)
    inputs = torch.cat([observations, torch.from_numpy(step.actions) / 2.0], 1)
    values = []
    for parameters in networks:
        with parameters.to_module(module.losses.qvalue_network), torch.no_grad():
            values.append(module.losses.qvalue_network.module(inputs)[:, 0])
    assert step.chosen_q == pytest.approx(torch.minimum(*values).numpy() / 0.1, rel=1e-5)


def test_a_data_set_of_another_size_is_an_error_with_the_remedy() -> None:
    ready()
    module = CQL("data.npz", data_episodes=3)
    module.prepare_data()
    with pytest.raises(ValueError, match=r"holds 400 transitions.* should be 600\. Delete it"):
        module.setup("fit")


def test_a_data_set_that_is_there_is_not_made_anew() -> None:
    ready()
    before = Path("data.npz").stat().st_mtime_ns
    ready()
    assert Path("data.npz").stat().st_mtime_ns == before
