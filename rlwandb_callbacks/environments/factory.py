"""Makes the environment that ``evaluation.env`` names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from rlwandb_callbacks.core.import_string import find_object
from rlwandb_callbacks.core.process_settings import preserved_process_settings
from rlwandb_callbacks.core.secrets import masked, secret_values
from rlwandb_callbacks.environments import packages
from rlwandb_callbacks.environments.closing import close, running_pygame
from rlwandb_callbacks.environments.copies import EnvCopier, env_copier, importable, without_output
from rlwandb_callbacks.environments.headless import set_mujoco_backend, set_pyglet_headless, set_sdl_driver
from rlwandb_callbacks.environments.held_environments import is_environment
from rlwandb_callbacks.environments.interface import check_batch, describe_foreign, shortened
from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.normalization import normalizes, with_raw_rewards, with_statistics
from rlwandb_callbacks.environments.output import discarded_output, without_output_wrappers
from rlwandb_callbacks.environments.pettingzoo import MultiAgentEnv, is_parallel
from rlwandb_callbacks.environments.rendering import explain_failure
from rlwandb_callbacks.environments.statistics import ObservationStatistics
from rlwandb_callbacks.environments.training_arguments import arguments_for_scores
from rlwandb_callbacks.environments.vector_metadata import preserved_vector_metadata, with_own_metadata
from rlwandb_callbacks.environments.wrappers import has_sub_envs
from rlwandb_callbacks.errors import EnvError, describe_error, nearest

Env: TypeAlias = gym.Env[Any, Any]
MODULE_PREFIX = "self."
MAX_CAUSES = 20  # causes may form a circle
VECTORIZATION = "vectorization_mode"  # in the arguments of the spec of a vector that gymnasium.make_vec has made
UNREGISTERED = (
    "the process that renders has not imported the package that registers it. Import that package inside the function "
    "that makes the environment, set evaluation.env to an id with the package ('highway_env:racetrack-v0'), or set "
    "executor='thread'. "
)
ONE_PER_PROCESS = "per process"  # in the error of stable-retro
OCCUPIED = (
    "Another environment of this process is still open, such as that of the training. Make the training environments "
    "in processes of their own, as by gymnasium.vector.AsyncVectorEnv, or close them before fit; or return episodes "
    "from validation_step, {'episodes': [rlwandb_callbacks.Episode(…), …]}."
)


@dataclass(frozen=True)
class EnvFactory:
    """Makes new environments, rendering or not.

    It can be pickled if ``make`` can.

    Args:
        make: A Gymnasium id, a Gymnasium ``EnvSpec``, or a function that makes an environment: a single one, a vector,
            or a parallel one of PettingZoo.
        kwargs: Arguments of ``gymnasium.make`` or of the function.
        statistics: Observation statistics of training, which environments use frozen; None to leave observations.
        index: Which of its environments is made if ``make`` makes a vector.
    """

    make: str | EnvSpec | Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    statistics: ObservationStatistics | None = None
    index: int = 0

    @property
    def name(self) -> str:
        """Name of the environment in messages."""
        return self.make.name if isinstance(self.make, EnvCopier) else env_name(self.make)

    def __call__(self, *, render: bool = False) -> Env:
        """Makes a single environment like :meth:`open`; if ``make`` makes a vector, one of its sub-environments."""
        env = self.open(render=render)
        if not isinstance(env, VectorEnv):
            return env
        single = _sub_env(env, self.index, render=render)
        if self.statistics is None or not normalizes(env) or normalizes(single):
            return single
        return with_statistics(single, self.statistics)  # type: ignore[no-any-return]  # returns what it is given

    def open(self, *, render: bool = False) -> Env | VectorEnv[Any, Any, Any]:
        """Makes what ``make`` makes: a single environment or a vector.

        Args:
            render: Whether to pass ``render_mode="rgb_array"``; functions without this parameter do not receive it.

        Raises:
            EnvError: If it cannot be made.
        """
        env = self._make({"render_mode": "rgb_array"} if render else {})
        if is_parallel(env):
            env = MultiAgentEnv(env)
        if not isinstance(env, gym.Env | VectorEnv):
            raise EnvError(
                f"evaluation.env {self.name} returned an object of type {type(env).__name__}. {describe_foreign(env)}"
            )
        env = with_raw_rewards(_for_scores(env, given=self.kwargs))
        check_batch(env)
        return env if self.statistics is None else with_statistics(env, self.statistics)  # type: ignore[no-any-return]  # returns what it is given

    def _make(self, mode: Mapping[str, str]) -> Any:
        try:
            with discarded_output(), preserved_process_settings(), running_pygame(), preserved_vector_metadata():
                return with_own_metadata(without_output_wrappers(self._make_any(mode)))
        except Exception as error:  # noqa: BLE001  # environments may raise anything
            own = _without_arguments(error)
            secrets = list(secret_values(self.kwargs))
            text = masked(self._describe_failure(own, renders=bool(mode)), secrets)
            # A traceback has the texts of the causes.
            raise EnvError(text) from (None if _shows_any(own, secrets) else own)

    def _make_any(self, mode: Mapping[str, str]) -> Any:
        _set_backends(self.make, renders=bool(mode))
        if isinstance(self.make, str):
            packages.register(self.make)
        if callable(self.make):
            accepted = mode if _has_parameter(self.make, "render_mode") else {}
            return self.make(**{**self.kwargs, **accepted})
        if isinstance(self.make, EnvSpec) and VECTORIZATION in self.make.kwargs:
            return gym.make_vec(self.make, **{**self.kwargs, **mode})
        spec = gym.registry.get(self.make) if isinstance(self.make, str) else self.make
        made = without_output(spec) if spec is not None and spec.additional_wrappers else self.make
        return gym.make(made, disable_env_checker=True, **{**self.kwargs, **mode})

    def _describe_failure(self, error: Exception, *, renders: bool) -> str:
        names = ", ".join(map(repr, self.kwargs))  # values may be long, or secret
        what = f"evaluation.env {self.name}{f' with env_kwargs {names}' if names else ''} cannot be made"
        if renders:  # without rendering it was made before
            hint = UNREGISTERED if isinstance(error, gym.error.UnregisteredEnv) else ""
            return f"{what} with render_mode='rgb_array': {hint}{explain_failure(error)}"
        if ONE_PER_PROCESS in str(error):
            return f"{what}: {describe_error(error)} {OCCUPIED}"
        hint = ""
        if isinstance(self.make, str) and self.make not in gym.registry:
            hint = packages.install_hint(self.make) or nearest(self.make, gym.registry)
        return (
            f"{what}: {describe_error(error)}{hint} Allowed are the id of a registered Gymnasium environment, with the "
            "package that registers it if Gymnasium does not know it ('highway_env:racetrack-v0'), a "
            "function that makes one, the import path of such a function ('package.module:function'), and an attribute "
            "of the module with one of these ('self.make_env')."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles an id as its spec, as it may not be registered in another process.

        Raises:
            TypeError: If the function is a method of a module, whose weights and device would be pickled with it.
        """
        if hasattr(getattr(self.make, "__self__", None), "state_dict"):
            name = getattr(self.make, "__qualname__", self.make)
            raise TypeError(f"{name} is a method of the module, which stays in the training process")
        make: Any = gym.registry.get(self.make, self.make) if isinstance(self.make, str) else self.make
        make = importable(make) if isinstance(make, EnvSpec) else make
        return EnvFactory, (make, self.kwargs, self.statistics, self.index)


def _for_scores(env: Any, given: Collection[str]) -> Any:
    """Makes a vector again with arguments for scores; a warning follows for one that cannot be copied."""
    arguments = arguments_for_scores(env, given)
    if not arguments:
        return env
    with discarded_output(), preserved_process_settings(), running_pygame(), preserved_vector_metadata():
        try:
            again = with_own_metadata(env_copier(env, arguments)(env.render_mode))
        except Exception:  # noqa: BLE001  # environments may raise anything
            return env
    close(env)
    return again


def _sub_env(vector: VectorEnv[Any, Any, Any], index: int, *, render: bool) -> Env:
    """Returns a sub-environment of a vector, made again if it must render, and closes the others."""
    inner: Any = vector.unwrapped
    if not has_sub_envs(vector):
        close(vector)
        raise EnvError(f"evaluation.env is {env_name(vector)}, which has no sub-environments to render one by one.")
    singles = list(getattr(inner, "envs", ()))
    if not singles:
        singles = [inner.env_fns[index]()]
        close(vector)
    single = singles[index if len(singles) > 1 else 0]
    if render and single.render_mode is None:
        single = EnvFactory(env_copier(single))(render=True)
    for unused in (each for each in singles if each is not single):
        close(unused)
    return _VectorObservation(single)


class _VectorObservation(gym.ObservationWrapper[Any, Any, Any]):
    """Wrapper that gives observations the dtype and shape that they have in a batch."""

    def observation(self, observation: Any) -> Any:
        space = self.observation_space
        empty: Any = create_empty_array(space, n=1)
        batch: Any = concatenate(space, [observation], empty)
        return next(iter(iterate(batch_space(space, 1), batch)))


def _set_backends(make: Any, *, renders: bool) -> None:
    """Sets with what an environment renders without a display, before its package is imported."""
    if renders:
        set_sdl_driver()
        set_pyglet_headless()
    if packages.may_use_mujoco(gym.registry.get(make) if isinstance(make, str) else getattr(make, "spec", make)):
        set_mujoco_backend()


def env_factory(
    env: Any, kwargs: Mapping[str, Any], module: Any = None, *, earlier: EnvFactory | None = None
) -> EnvFactory:
    """Returns a factory of the environment that ``evaluation.env`` names.

    Args:
        env: Id, import path, function, an environment, which is made again or copied and never used itself, or
            ``self.<attribute>`` for an attribute of the module with one of these.
        kwargs: ``evaluation.env_kwargs``.
        module: The LightningModule.
        earlier: What an earlier call with the same arguments has returned, so that less needs to be found out again
            about an environment that is copied as it is now.

    Raises:
        EnvError: If the module has no such attribute, or an environment can neither be made again nor copied.
    """
    env = resolve_attribute(module, env)
    if isinstance(env, str):
        _set_backends(env, renders=False)
        packages.register(env)
        function = None if env in gym.registry else find_object(env)
        return EnvFactory(function if callable(function) else env, kwargs)
    if isinstance(env, gym.Env | VectorEnv) or (is_parallel(env) and not isinstance(env, type)):
        if kwargs:
            raise EnvError(
                f"evaluation.env is the environment {env_name(env)}, which has its arguments already, but "
                f"evaluation.env_kwargs has {', '.join(map(repr, kwargs))}. Remove env_kwargs, or set "
                "evaluation.env to a function that takes them."
            )
        copier = None if earlier is None or not isinstance(earlier.make, EnvCopier) else earlier.make
        return EnvFactory(env_copier(env, arguments_for_scores(env), earlier=copier))
    if is_environment(env):
        raise EnvError(f"evaluation.env is an object of type {type(env).__name__}. {describe_foreign(env)}")
    if not callable(env) and not isinstance(env, EnvSpec):
        raise EnvError(
            f"evaluation.env is {shortened(env)} of type {type(env).__name__}; it must be an id, an environment, or "
            "a function that makes one."
        )
    return EnvFactory(env, kwargs)


def may_change(env: Any) -> bool:
    """Returns whether training may change what ``evaluation.env`` names: an attribute, or an environment."""
    return env.startswith(MODULE_PREFIX) if isinstance(env, str) else is_environment(env)


def resolve_attribute(module: Any, env: Any) -> Any:
    """Returns the attribute of the module that a path as ``self.hparams.env_id`` names; any other value unchanged.

    Raises:
        EnvError: If the module has no such attribute, or it is None.
    """
    if not isinstance(env, str) or not env.startswith(MODULE_PREFIX):
        return env
    found: Any = module
    for part in env.removeprefix(MODULE_PREFIX).split("."):
        holder = found
        found = holder.get(part) if isinstance(holder, Mapping) else getattr(holder, part, None)
        if found is None:
            names = list(holder) if isinstance(holder, Mapping) else [*vars(holder), *dir(type(holder))]
            raise EnvError(
                f"evaluation.env is '{env}', but {type(holder).__name__} has no '{part}', or it is None."
                f"{nearest(part, map(str, names))} It must name an attribute with an id, an environment, or a function "
                "that makes one."
            )
    return found


def _without_arguments(error: Exception) -> Exception:
    """Returns the cause of an error of Gymnasium whose text has the values of all arguments; else the error itself."""
    has_arguments = error.__cause__ is not None and "with kwargs (" in str(error)
    return cast(Exception, error.__cause__) if has_arguments else error


def _shows_any(error: BaseException | None, secrets: Collection[str]) -> bool:
    """Returns whether the text of an error or of its causes contains a secret."""
    texts: list[str] = []
    while error is not None and len(texts) < MAX_CAUSES:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return any(masked(text, secrets) != text for text in texts)


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
