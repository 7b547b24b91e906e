"""Ids of packages that Gymnasium does not know before they are imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import pytest

from rlwandb_callbacks.environments.factory import env_factory
from rlwandb_callbacks.environments.packages import install_hint
from rlwandb_callbacks.errors import EnvError

# All ids that the packages register: highway-env 1.12.1, mo-gymnasium 1.3.2 (one of each family), and single ones.
IDS = {
    "highway-env": "highway-fast-v0 merge-v1 roundabout-v0 parking-ActionRepeat-v0 intersection-multi-agent-v1 "
    "racetrack-v0 racetrack-large-v0 racetrack-oval-v1 two-way-v0 exit-v0 exit-v1 u-turn-v0 lane-keeping-v0",
    "mo-gymnasium": "mo-hopper-v5 deep-sea-treasure-v0 breakable-bottles-v0 fishwood-v0 four-room-v0 fruit-tree-v0 "
    "minecart-v0 resource-gathering-v0 water-reservoir-v0",
    "miniworld": "MiniWorld-OneRoom-v0",
    "metaworld": "Meta-World/MT1",
    "rware": "rware-tiny-2ag-v2",
    "lbforaging": "Foraging-8x8-2p-1f-v3",
    "flappy-bird-gymnasium": "FlappyBird-v0",
    "gym-trading-env": "TradingEnv",
}


@pytest.mark.parametrize(("package", "env_id"), [(name, each) for name, ids in IDS.items() for each in ids.split()])
def test_missing_package_of_an_id_is_named(package: str, env_id: str) -> None:
    assert install_hint(env_id).endswith(f"which is not installed (pip install {package}).")


def test_all_ids_of_atari_are_known(run_alone: Any) -> None:
    gym.register_envs(ale_py)
    ids = [spec.id for spec in gym.registry.values() if "ale_py" in str(spec.entry_point)]
    assert {"Pong-v4", "BreakoutNoFrameskip-v4", "ALE/Pong-v5"} <= set(ids)
    output = run_alone(
        f"""
        import gymnasium
        from rlwandb_callbacks.environments.packages import PACKAGES
        prefixes = PACKAGES[0].prefixes
        print([each for each in {ids!r} if not each.startswith(prefixes) or each in gymnasium.registry])
        """
    )
    assert output.strip() == "[]"


def test_id_with_the_package_that_registers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_of_a_user.py").write_text(
        "from gymnasium import register\n"
        "register('Mine-v3', 'rlwandb_callbacks.testing:CorridorEnv', max_episode_steps=4)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        env = env_factory("package_of_a_user:Mine-v3", {})(render=True)
        assert (env.spec.id, env.spec.max_episode_steps) == ("Mine-v3", 4)
        env.reset(seed=0)
        assert env.render().ndim == 3
    finally:
        gym.registry.pop("Mine-v3", None)


def test_unknown_id_raises_with_the_form_that_names_its_package() -> None:
    with pytest.raises(EnvError, match=re.escape("with the package that registers it if Gymnasium does not know it")):
        env_factory("OfNobody-v0", {})()
