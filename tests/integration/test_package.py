"""What is public, and that the README's examples do what they say."""

from __future__ import annotations

import importlib
import re
import sys
from concurrent.futures import Future
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import rlwandb_callbacks
import rlwandb_callbacks.testing
from rlwandb_callbacks import WandbRLCallback, WandbRLConfig
from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ, read_offline_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("module", [rlwandb_callbacks, rlwandb_callbacks.testing], ids=lambda module: module.__name__)
def test_every_public_name_exists_and_is_documented(module: Any) -> None:
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert name == "__version__" or getattr(module, name).__doc__, name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="WandbRlCallback"):
        importlib.import_module("rlwandb_callbacks").WandbRlCallback  # noqa: B018  # the look-up is the test


def test_types_are_published() -> None:
    assert (Path(rlwandb_callbacks.__file__).parent / "py.typed").is_file()


def test_the_readme_names_every_setting() -> None:
    config = WandbRLConfig()
    sections = {name: value for name, value in vars(config).items() if is_dataclass(value)}
    sections["dataset.embedding"] = config.dataset.embedding
    for name in WandbRLConfig.__dataclass_fields__:
        assert f"`{name}`" in README, name
    for section, values in sections.items():
        for name in values.__dataclass_fields__:
            assert f"`{name}`" in README, f"{section}.{name}"


def test_the_python_example_of_the_readme_runs(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "trainer.fit" in block]
    assert len(code.strip().splitlines()) <= 14
    monkeypatch.setattr("pytorch_lightning.Trainer.fit", lambda *_: None)  # the demo trains; here only the lines count
    exec(compile(code, "README.md", "exec"), {})  # our own text


class LocalRay(ModuleType):
    """Stands in for Ray, which the tests do not install: a task is done at once in this process."""

    def __init__(self) -> None:
        super().__init__("ray")

    def remote(self, **resources: Any) -> Any:
        return lambda work: SimpleNamespace(remote=lambda *given, **named: _Reference(work(*given, **named)))


class _Reference:
    def __init__(self, result: Any) -> None:
        self._result = result

    def future(self) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self._result)
        return future


def test_the_executor_of_the_readme_does_what_it_is_given(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import ray" in block]
    monkeypatch.setitem(sys.modules, "ray", LocalRay())
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)  # our own text
    settings = {"executor": names["RayExecutor"](), "record_path": "videos", "on_error": "raise"}
    callback = WandbRLCallback(settings, env=CorridorEnv, policy="q_network")
    fit(TinyValidatedQ(), callback)
    assert read_offline_run(callback.run_folder).media("video/best")


def test_the_yaml_example_of_the_readme_is_valid() -> None:
    yaml = pytest.importorskip("yaml")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    (cfg,) = [block["trainer"]["callbacks"][0]["init_args"]["cfg"] for block in blocks if "trainer" in block]
    assert as_config(cfg).evaluation.env == "CartPole-v1"
