"""Arguments with which vectors of games are made for training: clipped rewards, and episodes that are single lives.

``gymnasium.make_vec("ALE/…")`` clips rewards by default (``reward_clipping=True``): its returns are not the scores of
the game.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from rlwandb_callbacks.environments.names import env_name
from rlwandb_callbacks.environments.wrappers import wrapper_chain

BATCH_SIZE = "batch_size"  # of a step, which returns the environments that are ready first
CLIPPED, LIVES = "rewards are only -1, 0 or 1", "an episode ends when a life is lost"
EFFECTS = {"reward_clipping": CLIPPED, "reward_clip": CLIPPED, "life_loss_info": LIVES, "episodic_life": LIVES}
"""Arguments of the vectors of ale-py and EnvPool, and what they do if they are true."""

NO_SCORES = (
    "evaluation.env {env} was made with {arguments}, so the returns of the evaluation are not the scores of whole "
    "games: {effects}. Make it with {remedy}."
)
UNKNOWN_ARGUMENTS = (
    "evaluation.env {env} does not say with which arguments it was made. Its class sets {arguments} by default, and "
    "then the returns of the evaluation are not the scores of whole games: {effects}. Make it by gymnasium.make_vec, "
    "with {remedy}."
)


def training_arguments(env: Any) -> tuple[str, ...]:
    """Returns the arguments of ``EFFECTS`` that are true of a vector, as far as its spec says with which it was made.

    Example:
        >>> import gymnasium
        >>> training_arguments(gymnasium.make_vec("ALE/Qbert-v5", 2, episodic_life=True))
        ('reward_clipping', 'episodic_life')
    """
    *_, base = wrapper_chain(env)
    spec = getattr(base, "spec", None) if isinstance(base, VectorEnv) else None
    return () if spec is None else _true_of({**_defaults(type(base)), **_given(spec)})


def describe_training_arguments(env: Any) -> str | None:
    """Returns a warning if the returns of a vector are no scores because of the arguments with which it was made."""
    *_, base = wrapper_chain(env)
    is_known = getattr(base, "spec", None) is not None
    found = training_arguments(env)
    if not is_known and isinstance(base, VectorEnv):
        found = _true_of(_defaults(type(base)))
    if not found:
        return None
    return (NO_SCORES if is_known else UNKNOWN_ARGUMENTS).format(
        env=env_name(env),
        arguments=_listed(found, True),
        effects=", and ".join(dict.fromkeys(EFFECTS[name] for name in found)),
        remedy=_listed(found, False),
    )


def arguments_for_scores(env: Any, given: Collection[str] = ()) -> dict[str, Any]:
    """Returns the arguments that a vector must be made again with, so that its returns are scores.

    Each step must also return all environments. There are no arguments if none must change, or if the spec of the
    vector does not say how it is made.

    Args:
        env: A single environment or a vector.
        given: Arguments that are kept, as the user has set them for the evaluation.
    """
    *_, base = wrapper_chain(env)
    if not isinstance(base, VectorEnv) or not isinstance(base.spec, EnvSpec):
        return {}
    whole = {BATCH_SIZE: base.num_envs} if base.spec.kwargs.get(BATCH_SIZE) else {}
    return {**whole, **{name: False for name in training_arguments(env) if name not in given}}


def _defaults(cls: type) -> Mapping[str, Any]:
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of a class, not of an instance
    return {name: parameters[name].default for name in EFFECTS if name in parameters}


def _given(spec: Any) -> Mapping[str, Any]:
    """Returns the arguments in a spec of Gymnasium or EnvPool."""
    found = spec.kwargs if isinstance(spec, EnvSpec) else getattr(spec, "config", {})
    found = found._asdict() if hasattr(found, "_asdict") else found
    return found if isinstance(found, Mapping) else {}


def _true_of(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in EFFECTS if arguments.get(name) is True or arguments.get(name) == 1)


def _listed(names: Collection[str], value: bool) -> str:
    return ", ".join(f"{name}={value}" for name in names)
