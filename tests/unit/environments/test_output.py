"""Environments whose wrappers write files: those of a training are as they were after an evaluation."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import HumanRendering, RecordVideo, TimeLimit
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.monitor import Monitor

from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.output import discarded_output
from rlwandb_callbacks.environments.wrappers import wrapper_chain

pytestmark = pytest.mark.filterwarnings("ignore:.*Overwriting existing videos:UserWarning")  # of the training


class EveryEpisode(RecordVideo):
    """Video recorder of a user, which does more when it is made."""

    def __init__(self, env: Any, folder: str) -> None:
        super().__init__(env, folder, episode_trigger=lambda _: True)
        Path(self.video_folder, "notes.txt").write_text("first training")


class Rewarding(Monitor):
    """Monitor of a user, which changes the reward."""

    def __init__(self, env: Any, folder: str) -> None:
        super().__init__(env, f"{folder}/mine")

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward + 10.0, *rest


class Journal(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper of a user that writes a table row by row."""

    def __init__(self, env: Any, folder: str) -> None:
        super().__init__(env)
        self.file = Path(folder, "journal.csv").open("w")  # noqa: SIM115  # open as long as the environment
        self.table = csv.writer(self.file)

    def step(self, action: Any) -> Any:
        self.table.writerow(["step", action])
        self.file.flush()
        return self.env.step(action)

    def close(self) -> None:
        self.file.close()
        super().close()


def cartpole() -> Any:
    return gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=3)


def vector_in(folder: str, kind: Any = SyncVectorEnv) -> Any:
    return kind([lambda: RecordVideo(Monitor(cartpole(), folder), folder)] * 2)


WRITERS: dict[str, Callable[[str], Any]] = {
    "RecordVideo": lambda folder: RecordVideo(cartpole(), folder, episode_trigger=lambda _: True),
    "subclass of RecordVideo": lambda folder: TimeLimit(EveryEpisode(cartpole(), folder), 2),
    "Monitor": lambda folder: Monitor(cartpole(), folder),
    "subclass of Monitor": lambda folder: Rewarding(cartpole(), folder),
    "both": lambda folder: Monitor(EveryEpisode(cartpole(), folder), folder, allow_early_resets=False),
    "vector": vector_in,
    "recorder around a vector": lambda folder: vector_wrappers.RecordVideo(
        gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", render_mode="rgb_array"), folder
    ),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def play(env: Any, seed: int, steps: int = 4) -> None:
    for episode in range(2):
        env.reset(seed=seed + episode)
        for _ in range(steps):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if isinstance(env, gym.Env) and (terminated or truncated):
                break
    env.close()


def trained_in(folder: Path, make: Callable[[str], Any]) -> tuple[Any, dict[str, bytes]]:
    """Returns an environment that is still open after an episode, and the files that it has written."""
    env = make(str(folder))
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    env.reset(seed=1)
    return env, contents(folder)


@pytest.mark.parametrize("kind", WRITERS)
def test_function_that_makes_writing_wrappers_does_not_touch_the_files_of_training(kind: str, tmp_path: Path) -> None:
    make = WRITERS[kind]
    trained, before = trained_in(tmp_path, make)
    assert before
    env = env_factory(lambda: make(str(tmp_path)), {}).open()
    play(env, seed=3)
    assert contents(tmp_path) == before
    assert not any(isinstance(layer, RecordVideo) for layer in wrapper_chain(env))
    trained.close()


@pytest.mark.parametrize("kind", WRITERS)
def test_copies_do_not_touch_the_files_of_training(kind: str, tmp_path: Path) -> None:
    trained, before = trained_in(tmp_path, WRITERS[kind])
    factory = env_factory(trained, {})
    play(factory.open(), seed=3)
    assert contents(tmp_path) == before
    if kind == "subclass of Monitor":  # a step of CartPole is worth 1
        copied = factory()
        copied.reset(seed=0)
        assert copied.step(0)[1] == 11.0
    trained.close()


def test_copied_wrapper_of_a_user_does_not_write_into_its_open_file(tmp_path: Path) -> None:
    trained, before = trained_in(tmp_path, lambda folder: Journal(cartpole(), folder))
    play(env_factory(trained, {})(), seed=3)
    assert contents(tmp_path) == before
    assert not trained.file.closed
    trained.step(0)
    trained.close()
    assert len(contents(tmp_path)[str(tmp_path / "journal.csv")]) > len(before[str(tmp_path / "journal.csv")])


def test_id_whose_registered_wrappers_write_files(tmp_path: Path) -> None:
    recorder = RecordVideo.wrapper_spec(video_folder=str(tmp_path / "films"), episode_trigger=lambda _: True)
    limit = TimeLimit.wrapper_spec(max_episode_steps=2)
    spec = gym.spec("CartPole-v1")
    gym.registry["Filmed-v0"] = EnvSpec("Filmed-v0", spec.entry_point, additional_wrappers=(recorder, limit))
    try:
        for env in ("Filmed-v0", gym.spec("Filmed-v0")):
            made = env_factory(env, {})(render=True)
            play(made, seed=0)
            assert made.get_wrapper_attr("_max_episode_steps") == 2
    finally:
        del gym.registry["Filmed-v0"]
    assert not (tmp_path / "films").exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(("is_held", "start_method"), [(False, "fork"), (True, "fork"), (False, "spawn")])
def test_vector_of_subprocesses_does_not_write(is_held: bool, start_method: str, tmp_path: Path) -> None:
    kind = partial(AsyncVectorEnv, context=start_method)
    trained, before = trained_in(tmp_path, vector_in)
    with discarded_output():
        held = vector_in(str(tmp_path), kind)
    play(env_factory(held if is_held else lambda: vector_in(str(tmp_path), kind), {}).open(), seed=3)
    held.close()
    assert contents(tmp_path) == before
    trained.close()


def test_window_of_a_training_is_not_opened_again() -> None:
    env = env_factory(lambda: HumanRendering(cartpole()), {})()
    assert not any(isinstance(layer, HumanRendering) for layer in wrapper_chain(env))


def test_wrappers_that_other_threads_make_write_as_always(tmp_path: Path) -> None:
    with discarded_output():
        Monitor(cartpole(), str(tmp_path / "mine")).close()
        thread = threading.Thread(target=lambda: Monitor(cartpole(), str(tmp_path / "other")).close())
        thread.start()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["other.monitor.csv"]
    Monitor(cartpole(), str(tmp_path / "mine")).close()
    assert (tmp_path / "mine.monitor.csv").stat().st_size > 0
