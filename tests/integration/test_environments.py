"""Evaluation with all kinds of environments."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlwandb_callbacks import EvaluationCallback, WandbRLCallback
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, PointEnv, TinyValidatedQ, read_offline_run

CLIPS = {"video/best", "video/best_sheet", "video/worst", "video/worst_sheet"}


def run_evaluation(
    fit: Any, policy: Any, module: Any = None, *, videos: dict[str, Any] | None = None, **evaluation: Any
) -> dict[str, Any]:
    """Trains one batch and returns the row of the evaluation; errors are raised."""
    tracker = MemoryTracker()
    settings = {"policy": policy, "episodes": 2, "max_steps": 6, **evaluation}
    cfg = {"on_error": "raise", "action_logger": True, "evaluation": settings, "videos": videos or {}}
    fit(module or TinyValidatedQ(batches=1), EvaluationCallback(cfg, tracker=tracker), num_sanity_val_steps=0)
    (row,) = tracker.by_update()
    return row


class ReachEnv(gym.Env[Any, Any]):
    """Goal-conditioned environment: the seed sets the goal; the observation is a dict of three boxes."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        place = spaces.Box(-9.0, 9.0, (2,), np.float64)
        self.observation_space = spaces.Dict(
            {"observation": spaces.Box(0, 1, (1,), np.float32), "achieved_goal": place, "desired_goal": place}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at, self.goal = np.zeros(2), np.round(self.np_random.uniform(-3, 3, 2))
        return self._seen(), {}

    def _seen(self) -> dict[str, Any]:
        return {"observation": np.ones(1, np.float32), "achieved_goal": self.at.copy(), "desired_goal": self.goal}

    def step(self, action: Any) -> Any:
        self.at += action
        is_there = bool(np.allclose(self.at, self.goal))
        return self._seen(), 0.0 if is_there else -1.0, is_there, False, {"is_success": is_there}

    def render(self) -> Any:
        return np.indices((33, 47, 3)).sum(0).astype(np.uint8)


class ShiftedEnv(CorridorEnv):
    """Environment with the actions 5 and 6."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Discrete(2, start=5)

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return super().step(action - 5)


class UnboundedEnv(PointEnv):
    """Environment with an unbounded action."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def flat_policy(observations: torch.Tensor) -> torch.Tensor:
    assert (observations.dtype, observations.shape[1:]) == (torch.float32, (4,))
    return torch.stack([-observations[:, 2], observations[:, 2]], dim=1)


def image_policy(observations: torch.Tensor) -> torch.Tensor:
    assert (observations.dtype, observations.shape[1:]) == (torch.uint8, (96, 96, 3))
    return torch.stack([observations.float().mean(dim=(1, 2, 3)) / 255, *torch.ones(2, len(observations)) * 0.1], dim=1)


def discrete_policy(observations: torch.Tensor) -> torch.Tensor:
    assert (observations.dtype, observations.shape[1:]) == (torch.int64, ())
    return torch.nn.functional.one_hot(observations % 4, 4).float()


def tuple_policy(observations: tuple[torch.Tensor, ...]) -> torch.Tensor:
    total, dealer, ace = observations
    assert {part.shape for part in observations} == {total.shape}
    return torch.stack([(total >= 17).float(), (total < 17).float()], dim=1) + dealer[:, None] * 0 + ace[:, None] * 0


def goal_policy(observations: dict[str, torch.Tensor]) -> torch.Tensor:
    assert all(batch.dtype == torch.float32 for batch in observations.values())
    assert observations["observation"].shape[1:] == (1,)
    return torch.clamp(observations["desired_goal"] - observations["achieved_goal"], -1, 1)


def gaussian_policy(observations: torch.Tensor) -> torch.distributions.Normal:
    return torch.distributions.Normal(-observations[:, -1:], 0.3)


@pytest.mark.parametrize(
    ("env", "kwargs", "policy"),
    [
        ("CartPole-v1", {}, flat_policy),
        ("CarRacing-v3", {"lap_complete_percent": 0.9}, image_policy),
        ("FrozenLake-v1", {"is_slippery": True}, discrete_policy),
        ("Blackjack-v1", {}, tuple_policy),
        (ReachEnv, {}, goal_policy),
        (ShiftedEnv, {}, lambda observations: torch.tensor([[0.0, 1.0]]).expand(len(observations), 2)),
        ("Pendulum-v1", {"g": 9.81}, gaussian_policy),
        (UnboundedEnv, {}, gaussian_policy),
    ],
    ids=["Box", "image", "Discrete", "Tuple", "Dict", "Discrete with start", "bounded", "unbounded"],
)
def test_all_spaces_are_played_logged_and_recorded(fit: Any, env: Any, kwargs: dict[str, Any], policy: Any) -> None:
    row = run_evaluation(fit, policy, env=env, env_kwargs=kwargs)
    assert row.keys() >= CLIPS
    assert np.isfinite(row["eval/return_mean"])
    assert row["eval/length_mean"] >= 1


def test_goal_in_a_dict_observation_is_reached(fit: Any) -> None:
    row = run_evaluation(fit, goal_policy, env=ReachEnv, episodes=5)
    assert row["eval/success_rate"] == 1.0


def test_actions_of_a_discrete_space_with_start_are_counted_from_zero(fit: Any) -> None:
    row = run_evaluation(
        fit, lambda observations: torch.tensor([[0.0, 1.0]]).expand(len(observations), 2), env=ShiftedEnv
    )
    assert (row["eval/return_mean"], row["policy/action_histogram"].counts.tolist()) == (2.5, [0, 5])


class Owner(TinyValidatedQ):
    """Module with environments and a method that makes one."""

    def __init__(self, env_id: str = "CartPole-v1", pole: float = 0.5) -> None:
        super().__init__(batches=1)
        self.save_hyperparameters()
        self.env = gym.make("CartPole-v1", max_episode_steps=3)
        self.env.reset(seed=9)

    def make_env(self, render_mode: str | None = None) -> gym.Env[Any, Any]:
        env = gym.make(self.hparams["env_id"], render_mode=render_mode, max_episode_steps=5)
        env.unwrapped.length = self.hparams["pole"]
        return env


@pytest.mark.parametrize(("path", "length"), [("self.hparams.env_id", 6.0), ("self.make_env", 5.0), ("self.env", 3.0)])
def test_environment_from_an_attribute_of_the_module(fit: Any, path: str, length: float) -> None:
    module = Owner()
    state, generator = module.env.unwrapped.state.copy(), str(module.env.unwrapped.np_random.bit_generator.state)
    row = run_evaluation(fit, flat_policy, module, env=path)
    assert row.keys() >= CLIPS
    assert row["eval/length_mean"] == length
    assert np.array_equal(module.env.unwrapped.state, state)
    assert str(module.env.unwrapped.np_random.bit_generator.state) == generator


def test_missing_attribute_raises_before_training(fit: Any) -> None:
    with pytest.raises(ValueError, match=r"Owner has no 'env_idd'.*Did you mean|TinyValidatedQ has no 'env_idd'"):
        run_evaluation(fit, flat_policy, Owner(), env="self.env_idd")


class Walker(TinyValidatedQ):
    """Module with a normalized training vector, as for PPO on continuous control."""

    def __init__(self) -> None:
        super().__init__(batches=1)
        self.envs = vector_wrappers.NormalizeReward(
            vector_wrappers.NormalizeObservation(gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync"))
        )
        self.envs.reset(seed=0)
        for _ in range(50):
            self.envs.step(self.envs.action_space.sample())
        self.observations: list[torch.Tensor] = []

    def policy(self, observations: torch.Tensor) -> torch.distributions.Normal:
        self.observations.append(observations)
        return torch.distributions.Normal(-observations[:, :1] * 0, 0.3)


def make_normalized_env(render_mode: str | None = None) -> gym.Env[Any, Any]:
    inner = gym.make("Pendulum-v1", render_mode=render_mode)
    return gym.wrappers.NormalizeReward(gym.wrappers.NormalizeObservation(inner))


@pytest.mark.parametrize("env", [make_normalized_env, "Pendulum-v1"])
def test_observations_are_normalized_as_in_training_and_returns_are_not(fit: Any, env: Any) -> None:
    module = Walker()
    rms = module.envs.env.obs_rms
    mean, variance, count = rms.mean.copy(), rms.var.copy(), rms.count
    expectation = pytest.warns(UserWarning, match=r"self\.envs normalizes observations and evaluation\.env does not")
    if env == "Pendulum-v1":
        with expectation:
            row = run_evaluation(fit, "policy", module, env=env)
    else:
        row = run_evaluation(fit, "policy", module, env=env)
    plain = gym.make("Pendulum-v1")
    raw = np.stack([plain.reset(seed=seed)[0] for seed in (0, 1)])
    first = next(batch for batch in module.observations if len(batch) == 2)
    assert first.numpy() == pytest.approx((raw - mean) / np.sqrt(variance + 1e-8), abs=1e-4)
    assert (rms.count, rms.mean.tolist()) == (count, mean.tolist())
    plain.reset(seed=0)
    total = sum(float(plain.step(np.zeros(1, np.float32))[1]) for _ in range(6))
    returns = [line[2] for line in row["eval/episodes"].rows]
    assert returns[0] == pytest.approx(total, rel=1e-5)
    assert row.keys() >= CLIPS


def test_normalized_vector_env_of_the_module_is_played_and_replayed_with_frozen_statistics(fit: Any) -> None:
    module = Walker()
    rms = module.envs.env.obs_rms
    before = (rms.count, rms.mean.tolist(), module.envs.unwrapped.envs[0].unwrapped.state.tolist())
    row = run_evaluation(fit, "policy", module, env="self.envs", episodes=3)
    assert row.keys() >= CLIPS
    assert (rms.count, rms.mean.tolist(), module.envs.unwrapped.envs[0].unwrapped.state.tolist()) == before
    plain = gym.make("Pendulum-v1")
    plain.reset(seed=2)
    total = sum(float(plain.step(np.zeros(1, np.float32))[1]) for _ in range(6))
    assert [line[1:3] for line in row["eval/episodes"].rows][2] == (2, pytest.approx(total, rel=1e-5))


class StableBaselinesWalker(Walker):
    """Module whose training vector is one of Stable-Baselines3, with a policy that depends on the observations."""

    def __init__(self) -> None:
        super().__init__()
        self.envs = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2), clip_obs=1.5)
        self.envs.reset()
        for _ in range(50):
            self.envs.step(np.ones((2, 1), np.float32))

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        return 2 * observations[:, 1:2]


def test_normalization_of_stable_baselines_is_that_of_training(fit: Any) -> None:
    module = StableBaselinesWalker()
    with pytest.warns(UserWarning, match=r"self\.envs normalizes observations and evaluation\.env does not"):
        row = run_evaluation(fit, "policy", module, env="Pendulum-v1")
    env = gym.make("Pendulum-v1")
    observation, expected = env.reset(seed=0)[0], 0.0
    for _ in range(6):
        action = np.clip(2 * module.envs.normalize_obs(observation)[1:2], -2, 2)
        observation, reward, *_ = env.step(action)
        expected += float(reward)
    assert row["eval/episodes"].rows[0][2] == pytest.approx(expected, rel=1e-5)
    assert row.keys() >= CLIPS


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_running_statistics_in_subprocesses_warn(fit: Any) -> None:
    def make() -> Any:
        return gym.vector.AsyncVectorEnv([make_normalized_env] * 2)

    tracker = MemoryTracker()
    cfg = {"video_logger": False, "evaluation": {"env": make, "policy": gaussian_policy, "episodes": 2, "max_steps": 3}}
    with pytest.warns(UserWarning, match="normalize observations and rewards with running statistics"):
        fit(Walker(), EvaluationCallback(cfg, tracker=tracker), num_sanity_val_steps=0)
    assert [row["eval/length_mean"] for row in tracker.by_update()] == [3.0]


def test_missing_training_statistics_warn_once(fit: Any) -> None:
    warning = "no attribute of TinyValidatedQ is a training environment"
    with pytest.warns(UserWarning, match=warning) as caught:
        row = run_evaluation(fit, gaussian_policy, env=make_normalized_env)
    assert sum(warning in str(each.message) for each in caught) == 1
    assert np.isfinite(row["eval/return_mean"])


def test_use_training_statistics_false_leaves_observations_unchanged(fit: Any) -> None:
    module = Walker()
    run_evaluation(fit, "policy", module, env="Pendulum-v1", use_training_statistics=False)
    raw = np.stack([gym.make("Pendulum-v1").reset(seed=seed)[0] for seed in (0, 1)])
    assert np.allclose(next(batch for batch in module.observations if len(batch) == 2), raw)


@pytest.mark.parametrize(
    ("select", "names"),
    [
        (["failures", "longest"], ["failure_1", "failure_2", "longest"]),
        ("successes", ["success_1"]),
        (lambda episodes: [2], ["chosen_1"]),
        ("tests_of_choice:first_and_last", ["first", "last"]),
    ],
)
def test_videos_show_the_selected_episodes(
    fit: Any, select: Any, names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests_of_choice.py").write_text(
        "def first_and_last(episodes):\n    return {'first': 0, 'last': -1 % 3}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    row = run_evaluation(fit, go_right, env=CorridorEnv, episodes=3, max_steps=2, videos={"select": select})
    assert [key for key in row if key.startswith("video/") and not key.endswith("_sheet")] == [
        f"video/{name}" for name in names
    ]


def go_right(observations: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(observations), dtype=torch.int64)


def test_numbers_in_info_are_logged(fit: Any) -> None:
    row = run_evaluation(
        fit, lambda observations: torch.zeros(len(observations), 6), env="HalfCheetah-v5", env_kwargs={}, max_steps=2
    )
    assert {key for key in row if key.startswith("eval/info_")} >= {
        "eval/info_x_position_mean",
        "eval/info_x_position_last",
        "eval/info_reward_forward_mean",
        "eval/info_reward_ctrl_sum",
    }
    parts = row["eval/info_reward_forward_sum"] + row["eval/info_reward_ctrl_sum"]
    assert parts == pytest.approx(row["eval/return_mean"])


@pytest.mark.parametrize(("keys", "expected"), [([], set()), (["lives"], {"lives_mean", "lives_last"})])
def test_only_configured_info_keys_are_logged(fit: Any, keys: list[str], expected: set[str]) -> None:
    class EnvWithInfo(CorridorEnv):
        def step(self, action: Any) -> Any:
            *others, info = super().step(action)
            return *others, {**info, "lives": 3, "time": 0.5}

    row = run_evaluation(fit, go_right, env=EnvWithInfo, info_keys=keys)
    assert {key.removeprefix("eval/info_") for key in row if key.startswith("eval/info_")} == expected


class OddEnv(PointEnv):
    """Environment without time limit that renders lists of frames with odd sizes."""

    def step(self, action: Any) -> Any:
        observation, reward, *_ = super().step(action)
        return observation, reward, False, False, {}

    def render(self) -> Any:
        frame = np.full((31, 45, 3), 200, np.uint8)
        frame[:, : 5 * self._steps] = (255, 0, 0)
        return [np.zeros((7, 7, 3), np.uint8), frame] if self.render_mode else None


def test_environment_without_time_limit_and_with_odd_frame_sizes_has_videos(fit: Any, decode: Any) -> None:
    row = run_evaluation(fit, gaussian_policy, env=OddEnv)
    assert "cut at 6 steps" in row["video/best"].caption
    meta, frames = decode(row["video/best"].path)
    assert len(frames) == 7
    assert (meta["size"][0] % 2, meta["size"][1] % 2, meta["pix_fmt"]) == (0, 0, "yuv420p")
    red = [int(((frame[50].astype(int) - (255, 0, 0)) ** 2).sum(axis=-1).__lt__(3000).sum()) for frame in frames]
    assert red == sorted(red)
    assert red[-1] > red[0] + 100


class NoFrameEnv(PointEnv):
    """Environment whose render() returns None."""

    def render(self) -> None:
        return None


def test_environment_without_frames_warns_once_and_statistics_are_logged(fit: Any) -> None:
    callback = WandbRLCallback({"evaluation": {"env": NoFrameEnv, "policy": gaussian_policy, "episodes": 2}})
    with pytest.warns(UserWarning, match=r"Making videos failed.*its render\(\) returned None"):
        fit(TinyValidatedQ(batches=4), callback, val_check_interval=2, num_sanity_val_steps=0)
    run = read_offline_run(callback.run_folder)
    assert len(run.column("eval/return_mean")) == 2
    assert run.media("video/best") == []


class HumanEnv(PointEnv):
    """Environment that draws on a screen only."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012  # as in Gymnasium

    def render(self) -> None:
        return None


def test_missing_render_mode_is_said_when_fit_starts_and_no_video_is_tried(fit: Any) -> None:
    class Module(TinyValidatedQ):
        def on_train_start(self) -> None:
            self.warnings_before = [str(each.message) for each in caught]

    module = Module(batches=2)
    with pytest.warns(UserWarning, match="HumanEnv has the render modes 'human' and not 'rgb_array'") as caught:
        row = run_evaluation(fit, gaussian_policy, module, env=HumanEnv)
    assert sum("rgb_array" in text for text in module.warnings_before) == 1
    assert sum("rgb_array" in str(each.message) for each in caught) == 1
    assert [key for key in row if key.startswith("video/")] == []


@pytest.mark.parametrize("mode", list(gym.vector.AutoresetMode))
def test_vector_environment_is_played_in_training(fit: Any, mode: gym.vector.AutoresetMode) -> None:
    def make(render_mode: str | None = None) -> Any:
        return gym.vector.SyncVectorEnv([lambda: CorridorEnv(render_mode)] * 2, autoreset_mode=mode)

    row = run_evaluation(fit, go_right, env=make, episodes=5)
    assert (row["eval/return_mean"], row["eval/length_mean"], row["eval/success_rate"]) == (4.0, 4.0, 1.0)
    assert "return 6.00 · length 6 · terminated · seed 4" in row["video/best"].caption


class LooseEnv(CorridorEnv):
    """Environment with observations of variable size."""

    def __init__(self, space: spaces.Space[Any], render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space: Any = space

    def _observation(self) -> Any:
        self.observation_space.seed(self._position)
        return self.observation_space.sample()


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "is_single_observation"),
    [
        (spaces.Sequence(BOX), lambda one: isinstance(one, tuple)),
        (spaces.Sequence(BOX, stack=True), lambda one: isinstance(one, torch.Tensor) and one.shape[1:] == (2,)),
        (spaces.Graph(BOX, None), lambda one: isinstance(one.nodes, torch.Tensor)),
        (spaces.Text(4), lambda one: isinstance(one, str)),
    ],
    ids=["sequence", "stacked", "graph", "text"],
)
@pytest.mark.parametrize("count", [1, 4])
def test_observations_of_variable_size_are_passed_one_per_environment(
    fit: Any, space: Any, is_single_observation: Any, count: int
) -> None:
    def policy(observations: tuple[Any, ...]) -> torch.Tensor:
        assert all(map(is_single_observation, observations))
        return torch.tensor([[0.0, 1.0]]).expand(len(observations), 2)

    for whole, any_policy in (
        (space, policy),
        (spaces.Dict(part=space), lambda observations: policy(observations["part"])),
    ):
        row = run_evaluation(fit, any_policy, env=partial(LooseEnv, whole), episodes=count)
        assert row["eval/length_mean"] == np.mean([2 + seed % 5 for seed in range(count)])
