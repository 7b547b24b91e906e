"""Scores from the networks of sbx, which are functions of JAX."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.distributions import Categorical, Normal


def fits(policy: Any) -> bool:
    """Returns whether the policy of a model has networks of sbx."""
    states = (getattr(policy, name, None) for name in ("actor_state", "qf_state"))
    return hasattr(policy, "prepare_obs") and any(hasattr(state, "params") for state in states)


@contextlib.contextmanager
def own_random_key(policy: Any) -> Iterator[None]:
    """Lets a policy draw from a random key that follows the random state of torch, and puts its own key back."""
    jax = sys.modules.get("jax")
    names = [name for name in ("key", "noise_key") if hasattr(policy, name)]
    if jax is None or not names or not fits(policy):
        yield
        return
    before = {name: getattr(policy, name) for name in names}
    if "key" in before:
        policy.key = jax.random.PRNGKey(int(torch.randint(2**31, ())))
    try:
        yield
    finally:
        for name, key in before.items():
            setattr(policy, name, key)


def jax_scores(policy: Any, observations: Any) -> dict[str, Any]:
    """Returns q-values, or the distribution of the action and V(s), as far as the policy has networks for them.

    The distribution is a ``Categorical``, a list with one for each dimension of the action, or a ``Normal``, which is
    that before the squashing if the policy squashes its actions.
    """
    inputs, _ = policy.prepare_obs(observations)
    if not hasattr(policy, "actor_state"):
        return {"q_values": _tensor(_apply(policy, "qf", inputs))}
    distribution = _distribution(_apply(policy, "actor", inputs), policy.action_space.shape)
    scores = {} if distribution is None else {"distribution": distribution}
    if hasattr(policy, "vf_state"):
        scores["value"] = _tensor(_apply(policy, "vf", inputs))
    return scores


def _apply(policy: Any, name: str, inputs: Any) -> Any:
    """Applies a network, by the compiled function if the policy has one."""
    network, state = getattr(policy, name), getattr(policy, f"{name}_state")
    if hasattr(state, "batch_stats"):  # its compiled function does not take ``train``
        return state.apply_fn({"params": state.params, "batch_stats": state.batch_stats}, inputs, train=False)
    return network.apply(state.params, inputs)


def _distribution(found: Any, shape: tuple[int, ...]) -> Any:
    """Returns a distribution of TensorFlow Probability as one of torch; None for a deterministic actor."""
    inner = getattr(found, "distribution", found)
    logits = getattr(inner, "logits", None)
    if logits is not None:
        whole = _tensor(logits)
        return Categorical(logits=whole) if whole.ndim == 2 else [Categorical(logits=part) for part in whole.unbind(1)]
    if not callable(getattr(inner, "stddev", None)):
        return None
    mean = _tensor(inner.mean())
    std = _tensor(inner.stddev()).expand_as(mean)
    return Normal(mean.reshape(len(mean), *shape), std.reshape(len(mean), *shape))


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
