"""The offline demo: its data, its controller, and its use of TorchRL's losses."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlwandb_callbacks.demos.cql import CQL
from rlwandb_callbacks.demos.pendulum_data import episode_returns, make_dataset, read_dataset, swing_up, write_dataset
from rlwandb_callbacks.policies.output_reader import OutputReader


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return make_dataset(episodes=6, seed=0)


def test_the_data_set_has_the_arrays_of_d4rl(rows: dict[str, np.ndarray]) -> None:
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


def test_next_observations_match_the_following_row(rows: dict[str, np.ndarray]) -> None:
    follows = np.flatnonzero(~rows["timeouts"])
    assert np.array_equal(rows["next_observations"][follows], rows["observations"][follows + 1])
    starts = rows["observations"][::200]
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_the_file_depends_on_the_seed_only(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.npz", "same.npz", "other.npz")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        write_dataset(file, episodes=2, seed=seed)
    first, same, other = (file.read_bytes() for file in files)
    assert first == same != other
    assert sorted(tmp_path.glob("*")) == sorted(files), "no temporary file is left"


def test_a_written_data_set_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "data.npz"
    write_dataset(file, episodes=1, seed=5)
    read, expected = read_dataset(file), make_dataset(1, 5)
    assert read.keys() == expected.keys()
    assert all(np.array_equal(read[name], expected[name]) for name in expected)


def test_returns_of_the_data_are_between_random_and_controller() -> None:
    env = gym.make("Pendulum-v1")
    rng = np.random.default_rng(0)

    def mean_return(policy: str) -> float:
        total = 0.0
        for seed in range(8):
            observation, _ = env.reset(seed=seed)
            for _ in range(200):
                torque = swing_up(observation) if policy == "controller" else rng.uniform(-2, 2)
                observation, reward, *_ = env.step(np.array([torque], np.float32))
                total += float(reward)
        return total / 8

    controller, random_policy = mean_return("controller"), mean_return("random")
    assert controller > -250 > -900 > random_policy
    returns = episode_returns(make_dataset(episodes=20, seed=0))
    assert random_policy < returns.mean() < controller
    assert returns.max() - returns.min() > 500


def make_module(**settings: object) -> CQL:
    module = CQL("data.npz", data_episodes=2, hidden_size=16, batch_size=32, **settings)
    module.prepare_data()
    module.setup("fit")
    return module


def test_the_logged_target_is_the_one_of_the_loss() -> None:
    module = make_module(reward_scale=1.0)
    transitions = module._sample()
    torch.manual_seed(7)
    loss, _ = module.losses.q_loss(transitions)
    torch.manual_seed(7)
    target = module._target(transitions)
    expected = sum((transitions[name][:, 0].detach() - target).square() for name in ("pred_q1", "pred_q2")).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers; the state dict of older tensordict releases holds copies and other values."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def test_the_loss_trains_all_networks_but_the_targets_which_are_updated_softly() -> None:
    module = make_module()
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
        module = make_module(reward_scale=scale)
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


def test_the_policy_returns_torques_and_their_q_values() -> None:
    module = make_module()
    observations = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 4.0], [-1.0, 0.0, -8.0]])
    step = OutputReader(gym.make("Pendulum-v1").action_space, True, "unknown", True).read(
        module.policy(observations), 3
    )
    assert step.actions.shape == step.scores.mean.shape == step.scores.std.shape == (3, 1)
    assert (step.scores.std > 0).all()
    assert np.abs(step.actions).max() <= 2.0
    repeated = module.policy(observations)
    assert np.array_equal(repeated["action"].numpy(), step.actions), "the policy does not sample"
    networks = module.losses.qvalue_network_params.unbind(0)
    inputs = torch.cat([observations, torch.from_numpy(step.actions) / 2.0], 1)
    values = []
    for parameters in networks:
        with parameters.to_module(module.losses.qvalue_network), torch.no_grad():
            values.append(module.losses.qvalue_network.module(inputs)[:, 0])
    assert step.chosen_q == pytest.approx(torch.minimum(*values).numpy() / 0.1, rel=1e-5)


def test_a_data_set_of_the_wrong_size_is_an_error_with_the_remedy() -> None:
    make_module()
    module = CQL("data.npz", data_episodes=3)
    module.prepare_data()
    with pytest.raises(ValueError, match=r"holds 400 transitions.* must hold 600\. Delete the file"):
        module.setup("fit")


def test_an_existing_data_set_is_not_written_again() -> None:
    make_module()
    before = Path("data.npz").stat().st_mtime_ns
    make_module()
    assert Path("data.npz").stat().st_mtime_ns == before
