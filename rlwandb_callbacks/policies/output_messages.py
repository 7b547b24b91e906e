"""Texts of the error messages about outputs that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium import Space, spaces
from torch.distributions import Distribution

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.distribution_classes import describe
from rlwandb_callbacks.policies.output_discrete import CategoricalSpace
from rlwandb_callbacks.policies.output_tensors import is_array


def valid_integers(space: Space[Any]) -> str:
    """Names the integers in a finite space and how they differ from the positions of scores."""
    categorical = CategoricalSpace.from_space(space)
    assert categorical is not None, "first_invalid_action returns finite spaces only"
    pairs = zip(categorical.starts, categorical.sizes, strict=True)
    ranges = dict.fromkeys(f"{start} to {start + size - 1}" for start, size in pairs)
    text = f"Integers are actions of the environment, here from {', from '.join(ranges)}"
    if not any(categorical.starts):
        return f"{text}."
    return (
        f"{text}, while positions of q-values or logits count from 0. Return the q-values or logits instead of their "
        "argmax, or add the start of the space to the argmax."
    )


def allowed_outputs(space: Space[Any]) -> str:
    """Names the outputs that can be read for an action space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return (
            "Allowed is {'action': actions}, with a batch of actions for each part of the space, or a list of one "
            "action for each observation."
        )
    shape, lists = f"[B, {', '.join(map(str, space.shape or ()))}] of actions", ""
    if isinstance(space, spaces.Discrete):
        integers = f"integers from {space.start} to {space.start + space.n - 1}"
        shape = f"[B, {space.n}] of q-values or logits or [B] of actions ({integers})"
    elif (categorical := CategoricalSpace.from_space(space)) is not None:
        logits = categorical.shape if categorical.is_binary else (sum(categorical.sizes),)
        shape += f" (integers) or [B, {', '.join(map(str, logits))}] of logits"
        lists = "a list of one tensor or Distribution for each dimension, "
    return (
        f"Allowed are a tensor {shape}, a torch Distribution, {lists}a mapping with q_values, logits, probs, loc and "
        "scale, or action, a tuple that begins with one of these, and a rlwandb_callbacks.PolicyStep."
    )


def describe_output(output: Any) -> str:
    """Describes an output for a message: type, shape, dtype, keys."""
    if is_array(output):
        return f"a {type(output).__name__} of shape {list(output.shape)} and dtype {output.dtype}"
    if isinstance(output, Mapping):
        arrays = {str(key): value for key, value in output.items() if is_array(value)}
        shapes = "".join(f", {key} of shape {list(value.shape)}" for key, value in arrays.items())
        return f"a {type(output).__name__} with the keys {sorted(map(str, output.keys()))}{shapes}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of ({', '.join(describe_output(entry) for entry in output)})"
    if isinstance(output, Distribution):
        return f"the distribution {describe(output)}"
    if isinstance(output, PolicyStep):
        return f"a PolicyStep with {len(output.actions)} actions"
    return f"{output!r} of type {type(output).__name__}"
