"""The public API, and the examples of the README."""

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
import rlwandb_callbacks.demos
import rlwandb_callbacks.testing
from rlwandb_callbacks import WandbRLCallback, WandbRLConfig
from rlwandb_callbacks.config import as_config
from rlwandb_callbacks.core.import_string import import_object
from rlwandb_callbacks.testing import CorridorEnv, TinyValidatedQ, read_offline_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PUBLIC = {
    "rlwandb_callbacks": [
        "AlertCallback",
        "AlertsConfig",
        "CallbackGroup",
        "ConfigError",
        "DatasetCallback",
        "DatasetConfig",
        "DatasetError",
        "EmbeddingConfig",
        "EnvError",
        "Episode",
        "EvaluationCallback",
        "EvaluationConfig",
        "Gaussian",
        "GradientsCallback",
        "GradientsConfig",
        "Grouped",
        "MetricsCallback",
        "MetricsConfig",
        "OfflineDataset",
        "PlasticityCallback",
        "PlasticityConfig",
        "PolicyError",
        "PolicyStep",
        "Probabilities",
        "QValues",
        "RolloutsCallback",
        "RunConfig",
        "VideosConfig",
        "WandbRLCallback",
        "WandbRLConfig",
        "__version__",
        "build_callbacks",
        "open_dataset",
    ],
    "rlwandb_callbacks.demos": ["CQL", "DQN", "PPO", "SAC", "make_qbert"],
    "rlwandb_callbacks.testing": [
        "AlertRecord",
        "CorridorEnv",
        "MemoryTracker",
        "MetricDefinition",
        "OfflineRun",
        "PointEnv",
        "Series",
        "TinyActorCritic",
        "TinyQ",
        "TinyValidatedQ",
        "read_offline_run",
    ],
}
USER_FILES = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "configs").glob("*.yaml"),
    *(ROOT / "notebooks").glob("*.ipynb"),
]


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_exactly_these_and_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == dir(module) == PUBLIC[package]
    for name in PUBLIC[package]:
        assert name == "__version__" or getattr(module, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="WandbRlCallback"):
        importlib.import_module("rlwandb_callbacks").WandbRlCallback  # noqa: B018  # the look-up is the test


@pytest.mark.parametrize("path", USER_FILES, ids=lambda path: path.name)
def test_user_files_import_only_public_names(path: Path) -> None:
    text = path.read_text()
    imports = re.findall(r"from (rlwandb_callbacks[\w.]*) import ([\w, ]+)", text)
    used = {f"{module}.{name.strip()}" for module, names in imports for name in names.split(",")}
    used |= set(re.findall(r"(?<!from )\brlwandb_callbacks(?:[.:][A-Za-z_]\w*)+", text))
    modules = {*PUBLIC, *(f"rlwandb_callbacks.demos.{name}" for name in ("cql", "dqn", "ppo", "sac"))}
    for name in used - modules:
        assert import_object(name) is not None
        module, _, export = name.replace(":", ".").rpartition(".")
        package = "rlwandb_callbacks.demos" if module.startswith("rlwandb_callbacks.demos.") else module
        assert export in PUBLIC.get(package, []), name


def test_types_are_published() -> None:
    assert (Path(rlwandb_callbacks.__file__).parent / "py.typed").is_file()


def test_the_readme_lists_every_setting() -> None:
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
    monkeypatch.setattr(
        "pytorch_lightning.Trainer.fit", lambda *_: None
    )  # the demo trains; this runs all lines but that
    exec(compile(code, "README.md", "exec"), {})  # our own text


class LocalRay(ModuleType):
    """Replaces Ray, which the tests do not install: a task runs at once in this process."""

    def __init__(self) -> None:
        super().__init__("ray")

    def remote(self, **resources: Any) -> Any:
        assert resources["max_retries"] == 0
        return lambda work: SimpleNamespace(remote=lambda *args, **kwargs: _Reference(work(*args, **kwargs)))


class _Reference:
    def __init__(self, result: Any) -> None:
        self._result = result

    def future(self) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self._result)
        return future


def test_the_executor_example_of_the_readme_runs_jobs(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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
