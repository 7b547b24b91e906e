"""Models and actor-critics of rsl-rl, and runners that hold one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributions import Normal

from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.adapters.library_policy import has_methods, networks_in, owner_of


class RslRlPolicy:
    """A model that reads groups of observations from a TensorDict.

    Scores are those of its distribution. The state of a recurrent model is put back after each call, as that of the
    training environments is kept in the same place.

    Args:
        model: The actor.
        groups: Names of the groups that it reads.
        deterministic: Whether to play the mean of the model's distribution instead of a sample.
    """

    takes_arrays = False

    def __init__(self, model: Any, groups: list[str], *, deterministic: bool) -> None:
        self._model, self._groups, self._deterministic = model, groups, deterministic
        self.networks = networks_in([model])

    @classmethod
    def of(cls, policy: Any, *, deterministic: bool) -> RslRlPolicy | None:
        """Returns the policy of an object that is a model or a runner, or one of their methods; else None."""
        owner = owner_of(policy, "forward", "act_inference", "get_inference_policy", "get_policy")
        if has_methods(owner, "get_inference_policy"):
            owner = getattr(owner, "alg", owner)
        if not isinstance(owner, nn.Module) and has_methods(owner, "process_env_step"):
            owner = owner.get_policy() if has_methods(owner, "get_policy") else getattr(owner, "policy", owner)
        groups = getattr(owner, "obs_groups", None)
        if not isinstance(owner, nn.Module) or not groups:
            return None
        if isinstance(groups, Mapping) and has_methods(owner, "act", "act_inference"):
            return RslRlActorCritic(owner, list(groups.get("policy", ())), deterministic=deterministic)
        is_model = has_methods(owner, "get_latent", "get_hidden_state", "reset")
        return RslRlPolicy(owner, list(groups), deterministic=deterministic) if is_model else None

    def __call__(self, observations: Any, state: Any = None) -> Mapping[str, Any]:
        """Acts; see :class:`rlwandb_callbacks.policies.adapters.library_policy.LibraryPolicy`."""
        groups = self._by_group(observations)
        before = self._hidden_state()
        self._set_hidden_state(state)
        try:
            return {**self._ask(groups), "state": self._hidden_state()}
        finally:
            self._set_hidden_state(before)

    def _hidden_state(self) -> Any:
        return self._model.get_hidden_state()

    def _set_hidden_state(self, state: Any) -> None:
        self._model.reset(None, state)

    def _ask(self, groups: Any) -> dict[str, Any]:
        outputs: list[torch.Tensor] = []
        hook = self._model.mlp.register_forward_hook(lambda *call: outputs.append(call[-1]))  # input of distribution
        try:
            action = self._model(groups, stochastic_output=not self._deterministic)
        finally:
            hook.remove()
        return {"action": action, **self._moments(outputs)}

    def _moments(self, outputs: list[torch.Tensor]) -> dict[str, Any]:
        """Returns the distribution of the action if it is a Gaussian, else its moments."""
        distribution = getattr(self._model, "distribution", None)
        if distribution is None or not outputs:
            return {}
        distribution.update(outputs[-1])
        normal: Any = Normal(distribution.mean, distribution.std)
        if torch.allclose(normal.entropy().sum(dim=-1), distribution.entropy, atol=1e-4):
            return {"distribution": normal}
        return {"loc": normal.mean, "scale": normal.stddev}

    def _by_group(self, observations: Any) -> Any:
        if not isinstance(observations, Mapping) and len(self._groups) == 1:
            observations = {self._groups[0]: observations}
        if not isinstance(observations, Mapping) or any(name not in observations for name in self._groups):
            names = list(observations) if isinstance(observations, Mapping) else "one array"
            entries = ", ".join(f"{name!r}: ..." for name in self._groups)
            raise PolicyError(
                f"The model {type(self._model).__name__} reads the observation groups {self._groups}, but the "
                f"observations are {names}. Set evaluation.policy to a function that builds the groups: "
                f"lambda observations: actor(TensorDict({{{entries}}}, [len(observations)]))."
            )
        groups = {name: observations[name] for name in self._groups}
        tensordict = sys.modules.get("tensordict")
        return groups if tensordict is None else tensordict.TensorDict(groups, [len(groups[self._groups[0]])])


class RslRlActorCritic(RslRlPolicy):
    """An actor-critic of rsl-rl before version 4, whose ``act`` makes the distribution of which it draws a sample."""

    def _hidden_state(self) -> Any:
        return getattr(self._memory, "hidden_state", None)

    def _set_hidden_state(self, state: Any) -> None:
        if self._memory is not None:
            self._memory.hidden_state = state

    def _ask(self, groups: Any) -> dict[str, Any]:
        sample = self._model.act(groups)
        action = self._model.action_mean if self._deterministic else sample
        return {"action": action, "distribution": self._model.distribution}

    @property
    def _memory(self) -> Any:
        return getattr(self._model, "memory_a", None)
