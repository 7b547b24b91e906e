"""Two recorded data sets."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from rlwandb_callbacks.core.action_spec import ContinuousActions, DiscreteActions
from rlwandb_callbacks.datasets import open_dataset
from rlwandb_callbacks.maps.statistics import dataset_statistics


def test_expert_cartpole(data_folder: Path) -> None:
    path = data_folder / "cartpole_expert_minari_layout.hdf5"
    data = open_dataset(path)
    assert (data.layout, data.num_transitions, data.num_episodes) == ("minari", 49_527, 100)
    assert (data.observation_shape, data.action_spec, data.warnings) == ((4,), DiscreteActions(("0", "1")), ())
    sample = data.sample(1000, seed=3)
    with h5py.File(path) as file:
        for place in range(0, 1000, 97):
            group = file[f"episode_{sample.episodes[place]}"]
            step = sample.steps[place]
            np.testing.assert_array_equal(sample.observations[place], group["observations"][step])
            assert sample.actions[place] == group["actions"][step]
            assert sample.lengths[place] == sample.returns[place] == len(group["rewards"])
    report = dataset_statistics(data.episodes(), sample)
    assert report["dataset/return_max"].value == 500
    assert report["dataset/reward_std"].value == 0
    assert report["dataset/truncated_share"].value == 1
    assert report["dataset/action_distribution"].counts.sum() == 1000


def test_expert_pendulum(data_folder: Path) -> None:
    path = data_folder / "pendulum_expert_diengine.hdf5"
    data = open_dataset(path)
    assert (data.layout, data.num_transitions, data.num_episodes) == ("di-engine", 20_000, 100)
    assert isinstance(data.action_spec, ContinuousActions)
    assert len(data.warnings) == 1
    assert "100 episodes are marked as done after exactly 200 steps: probably a time limit" in data.warnings[0]
    sample = data.sample(500, seed=1)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(sample.observations, file["obs"][()][sample.rows])
        np.testing.assert_array_equal(sample.actions, file["action"][()][sample.rows])
        rewards = file["reward"][()].reshape(100, 200).astype(np.float64)
    np.testing.assert_array_equal(sample.rewards, rewards.reshape(-1)[sample.rows])
    np.testing.assert_allclose(data.episodes().returns, rewards.sum(axis=1), rtol=1e-12)
    assert sample.steps.tolist() == (sample.rows % 200).tolist()
