"""The settings of all callbacks: frozen dataclasses that are checked once, when they are made.

The flat keys of :class:`WandbRLConfig` keep the meaning that they have in DI-engine's logger; a section per callback
holds the tuning of its part. Any mapping with the same keys serves as well: see :func:`as_config`.

Example:
    >>> as_config({"action_logger": "q value", "evaluation": {"episodes": 4}}).evaluation.episodes
    4
    >>> as_config({"evaluation": {"epsiodes": 4}})
    Traceback (most recent call last):
        ...
    rlwandb_callbacks.errors.ConfigError: Unknown key 'epsiodes' (value 4) in evaluation. Did you mean 'episodes'? ...
"""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from rlwandb_callbacks.errors import ConfigError, nearest

ACTION_LOGGERS = ("q_value", "action_probability")
STEP_METRICS = ("trainer/global_step", "time/env_steps", "time/updates")
_SPELLINGS = {"q value": "q_value", "action probability": "action_probability"}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How evaluation episodes are played.

    Args:
        env: Gymnasium id, a function that makes an environment, the import path of one (``package.module:function``),
            or an environment that has a ``spec`` to be made again from.
        env_kwargs: Given to ``gymnasium.make`` or to the function.
        policy: Dotted attribute of the module (``q_network``), import path (``package.module:function``), or callable.
            By default the first of ``policy_step``, ``policy``, ``actor``, ``q_network``, ``q_net`` that the module
            has.
        episodes: Complete episodes per evaluation, ≥ 1.
        num_envs: Environments stepped at a time, ≥ 1; by default as many as episodes, at most 8.
        seed: Episode ``i`` is reset with ``seed + i``, the same ones in every evaluation.
        deterministic: Take the mode of a distribution; otherwise sample from it.
        every_n_steps: Updates (batches after which an optimizer stepped) between two evaluations of a module that has
            no validation loop, ≥ 1. A module with a validation loop is evaluated when that ends.
        gamma: Discount factor in [0, 1]; by default ``gamma`` of the module or its hyper-parameters, else 0.99.
        max_steps: Longest episode, ≥ 1; longer ones are cut, and their captions say so.
    """

    env: str | Callable[..., Any] | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str | Callable[..., Any] | None = None
    episodes: int = 8
    num_envs: int | None = None
    seed: int = 0
    deterministic: bool = True
    every_n_steps: int = 10_000
    gamma: float | None = None
    max_steps: int = 27_000

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("episodes", "num_envs", "every_n_steps", "max_steps"):
            _require(self, name, lambda value: value is None or value >= 1, "a whole number ≥ 1")
        _require(self, "seed", lambda value: value >= 0, "a whole number ≥ 0")
        _require(self, "gamma", lambda value: value is None or 0 <= value <= 1, "a number between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """How training metrics are logged.

    Args:
        every_n_steps: Updates (batches after which an optimizer stepped) between two rows, ≥ 1; by default the
            Trainer's ``log_every_n_steps``.
    """

    every_n_steps: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        _require(self, "every_n_steps", lambda value: value is None or value >= 1, "a whole number ≥ 1")


@dataclass(frozen=True, kw_only=True)
class GradientsConfig:
    """What ``wandb.watch`` is called with.

    Args:
        log: ``gradients``, ``parameters`` or ``all``.
        log_freq: Updates between two histograms of a tensor, ≥ 1.
        log_graph: Also log the networks' structure, once.
    """

    log: str = "all"
    log_freq: int = 100
    log_graph: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        _require_one_of(self, "log", ("gradients", "parameters", "all"))
        _require(self, "log_freq", lambda value: value >= 1, "a whole number ≥ 1")


@dataclass(frozen=True, kw_only=True)
class VideosConfig:
    """How videos are made.

    Args:
        fps: Frames per second, 0.1 to 1000; by default ``render_fps`` of the environment's metadata, else 30.
        crf: H.264 quality, 0 (lossless) to 51; 23 keeps small text legible.
    """

    fps: float | None = None
    crf: int = 23

    def __post_init__(self) -> None:
        check_types(self)
        _require(self, "fps", lambda value: value is None or 0.1 <= value <= 1000, "a number from 0.1 to 1000")
        _require(self, "crf", lambda value: 0 <= value <= 51, "a whole number from 0 to 51")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The W&B run that is opened where neither a WandbLogger nor ``wandb.init`` opened one.

    Args:
        project: W&B project.
        name: Name of the run.
        entity: W&B user or team.
        group: Runs that belong together.
        tags: Labels of the run.
        notes: Longer description.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online where an account and the
            network are there and offline where not.
        id: Identifier, to go on with a run.
        resume: ``allow``, ``must``, ``never`` or ``auto``.
        config: Further entries of the run's config.
        step_metric: X axis of what the callbacks log: ``trainer/global_step``, ``time/env_steps`` or ``time/updates``.
            Every row carries all three that are known, so that W&B can change it later.
    """

    project: str | None = None
    name: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: str | None = None
    id: str | None = None
    resume: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    step_metric: str = "trainer/global_step"

    def __post_init__(self) -> None:
        check_types(self)
        _require_one_of(self, "mode", (None, "online", "offline", "disabled"))
        _require_one_of(self, "resume", (None, "allow", "must", "never", "auto"))
        _require_one_of(self, "step_metric", STEP_METRICS)


@dataclass(frozen=True, kw_only=True)
class WandbRLConfig:
    """Everything that :class:`rlwandb_callbacks.WandbRLCallback` can be told.

    Args:
        plot_logger: Log training metrics: loss, lr, entropy, q-values, …
        gradient_logger: Call ``wandb.watch`` on the networks that train.
        video_logger: Log the best, median and worst evaluation episode as videos; by default where an env is known.
        action_logger: What is drawn beside each frame: ``q_value``, ``action_probability``, ``True`` for whatever the
            policy gives, or ``False`` for nothing.
        return_logger: Log the distribution of evaluation returns.
        record_path: Folder in which videos and pictures are kept.
        metric_list: Names, or aliases, of the metrics to log; by default all that are known.
        vis_dataset: Only false in this version.
        dataset_path: Offline data; not used in this version.
        on_error: ``warn`` goes on training when logging fails, ``raise`` does not.
        evaluation: How episodes are played.
        metrics: How training metrics are logged.
        gradients: What ``wandb.watch`` is called with.
        videos: How videos are made.
        run: The W&B run to open where there is none.
    """

    plot_logger: bool = True
    gradient_logger: bool = False
    video_logger: bool | None = None
    action_logger: bool | str = False
    return_logger: bool = True
    record_path: str = "./rl_videos"
    metric_list: list[str] | None = None
    vis_dataset: bool = False
    dataset_path: str | None = None
    on_error: str = "warn"
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    gradients: GradientsConfig = field(default_factory=GradientsConfig)
    videos: VideosConfig = field(default_factory=VideosConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "record_path", _path_text(self.record_path))
        if isinstance(self.action_logger, str):
            object.__setattr__(self, "action_logger", _SPELLINGS.get(self.action_logger, self.action_logger))
        check_types(self)
        _require_one_of(self, "action_logger", (True, False, *ACTION_LOGGERS, *_SPELLINGS))
        _require_one_of(self, "on_error", ("warn", "raise"))
        if self.vis_dataset:
            raise ConfigError("vis_dataset is True; this version has no pictures of data sets yet. Allowed is False.")


def as_config(cfg: WandbRLConfig | Mapping[str, Any] | None = None, **keywords: Any) -> WandbRLConfig:
    """Makes a checked config of what the user gave.

    Args:
        cfg: A config, or a mapping with its keys (dict, EasyDict, OmegaConf), or None for the defaults.
        keywords: Keys of :class:`WandbRLConfig` that win over ``cfg``; ``env`` and ``policy`` are short for
            ``evaluation.env`` and ``evaluation.policy``.

    Raises:
        ConfigError: For an unknown key or a wrong value; the message names the key, the value and what is allowed.
    """
    if cfg is None:
        given: dict[str, Any] = {}
    elif isinstance(cfg, WandbRLConfig):
        given = {item.name: getattr(cfg, item.name) for item in fields(cfg)}
    elif isinstance(cfg, Mapping):
        given = _plain(cfg)
    else:
        raise ConfigError(
            f"cfg is {cfg!r} of type {type(cfg).__name__}; allowed are a WandbRLConfig, a mapping with its keys, "
            "or None."
        )
    shorthand = {name: keywords.pop(name) for name in ("env", "policy") if name in keywords}
    given |= _plain(keywords)
    shorthand = {name: value for name, value in shorthand.items() if value is not None}
    if shorthand:
        given["evaluation"] = _as_mapping(given.get("evaluation", {}), "evaluation") | shorthand
    config = _build(WandbRLConfig, given, "")
    if config.video_logger and config.evaluation.env is None:
        raise ConfigError(
            "video_logger is True, which needs an environment to play in, and evaluation.env is None. Set "
            "evaluation.env "
            "(a Gymnasium id such as 'CartPole-v1', or a function that makes an environment) and evaluation.policy, or "
            "leave video_logger out."
        )
    return config


def _build(cls: type[T], given: Mapping[str, Any], path: str) -> T:
    hints = _hints(cls)
    values = {}
    for key, raw in given.items():
        if key not in hints:
            place = f" in {path}" if path else ""
            raise ConfigError(
                f"Unknown key '{key}' (value {raw!r}){place}.{nearest(str(key), hints)} Known keys{place}: "
                f"{', '.join(hints)}."
            )
        section = hints[key]
        is_section = isinstance(section, type) and is_dataclass(section)
        if is_section and not is_dataclass(raw):
            values[key] = _build(section, _as_mapping(raw, key), key)
        else:
            values[key] = list(raw) if isinstance(raw, tuple) and list in _origins(section) else raw
    return cls(**values)


def _origins(hint: Any) -> set[Any]:
    return {typing.get_origin(option) or option for option in (*typing.get_args(hint), hint)}


def _as_mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise ConfigError(f"{name} is {value!r}; it is a section and takes a mapping of its keys.")


def _plain(value: Any) -> Any:
    """Turns the containers of EasyDict and OmegaConf into plain ones; plain ones keep their keys and types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, Sequence) and type(value).__module__.startswith("omegaconf"):
        return [_plain(item) for item in value]
    return value


def _path_text(path: Any) -> Any:
    return path.__fspath__() if hasattr(path, "__fspath__") else path


def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def check_types(section: Any) -> None:
    """Checks each field of a dataclass against its annotation.

    Raises:
        ConfigError: Naming the field, its value and what is allowed.
    """
    for name, hint in _hints(type(section)).items():
        value = getattr(section, name)
        if not _fits(value, hint):
            raise ConfigError(f"{_full_name(section, name)} is {value!r}; allowed is {_in_words(hint)}.")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Callable:
        return callable(value) or hasattr(value, "spec")
    if origin in (list, dict):
        item_hint = typing.get_args(hint)[-1]
        items = value.values() if isinstance(value, dict) else value
        return isinstance(value, origin) and all(_fits(item, item_hint) for item in items)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    return isinstance(value, type(None) if hint is None else hint)


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(option) for option in typing.get_args(hint))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "nothing (null)"}
    origins = {list: "a list of text", dict: "a mapping", Callable: "a callable"}
    return names.get(hint) or origins.get(typing.get_origin(hint)) or str(hint)


def _full_name(section: Any, name: str) -> str:
    prefix = type(section).__name__.removesuffix("Config").lower()
    return name if isinstance(section, WandbRLConfig) else f"{prefix}.{name}"


def _require(section: Any, name: str, allowed: Callable[[Any], bool], in_words: str) -> None:
    value = getattr(section, name)
    if not allowed(value):
        raise ConfigError(f"{_full_name(section, name)} is {value!r}; allowed is {in_words}.")


def _require_one_of(section: Any, name: str, allowed: Sequence[Any]) -> None:
    value = getattr(section, name)
    if value not in allowed:
        options = ", ".join("null" if option is None else repr(option) for option in allowed)
        raise ConfigError(
            f"{_full_name(section, name)} is {value!r}; allowed are {options}."
            f"{nearest(str(value), [str(option) for option in allowed])}"
        )
