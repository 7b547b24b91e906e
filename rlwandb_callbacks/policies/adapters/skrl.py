"""Models and agents of skrl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import nn
from torch.distributions import Distribution, Normal

from rlwandb_callbacks.policies.adapters.library_policy import has_methods, networks_in, owner_of


class SkrlPolicy:
    """A model that takes a dict with flattened observations, alone or with the preprocessors of its agent.

    Exploration of an agent (random steps, epsilon, noise) is left out. Scores are q-values, or the distribution of the
    model. V(s) is that of the agent's value model.

    Args:
        model: The policy or the q-network.
        agent: The agent that it belongs to, if that was given.
        deterministic: Whether to play the most likely action of the model instead of a sample.
    """

    takes_arrays = False

    def __init__(self, model: Any, agent: Any = None, *, deterministic: bool) -> None:
        self._model, self._agent, self._deterministic = model, agent, deterministic
        self._role = "q_network" if agent is not None and getattr(agent, "policy", None) is None else "policy"
        value = getattr(agent, "value", None)
        self._value_model = value if _is_model(value) and not _state_sizes(value) else None
        self._has_observations = hasattr(model, "state_space")  # before skrl 2, observations were named states
        self.networks = networks_in([model, self._value_model])

    @classmethod
    def of(cls, policy: Any, *, deterministic: bool) -> SkrlPolicy | None:
        """Returns the policy of an object that is a model, an agent, or the method ``act`` of either; else None."""
        owner = owner_of(policy, "act", "forward")
        if _is_model(owner):
            return cls(owner, deterministic=deterministic)
        if isinstance(owner, nn.Module) or not has_methods(owner, "act") or not hasattr(owner, "models"):
            return None
        models = (getattr(owner, name, None) for name in ("policy", "q_network"))
        model = next((each for each in models if _is_model(each)), None)
        return None if model is None else cls(model, owner, deterministic=deterministic)

    def __call__(self, observations: Any, state: Any = None) -> Mapping[str, Any]:
        """Acts; see :class:`rlwandb_callbacks.policies.adapters.library_policy.LibraryPolicy`."""
        flat = _flattened(observations, self._model.observation_space)
        inputs = self._inputs(flat)
        sizes = _state_sizes(self._model)
        if sizes:
            inputs["rnn"] = self._first_state(sizes, flat) if state is None else list(state)
        actions, *_, outputs = self._model.act(inputs, role=self._role)  # log-probabilities are second before skrl 2
        output = self._read(actions, outputs)
        if sizes:
            output["state"] = tuple(outputs.get("rnn", inputs["rnn"]))
        if self._value_model is not None:
            values = self._value_model.act(self._inputs(flat), role="value")[0]
            preprocess = getattr(self._agent, "_value_preprocessor", None)
            output["value"] = values if preprocess is None else preprocess(values, inverse=True)
        return output

    def _inputs(self, flat: torch.Tensor) -> dict[str, Any]:
        name = "observations" if self._has_observations else "states"
        preprocess = getattr(self._agent, f"_{name.removesuffix('s')}_preprocessor", None)
        processed = flat if preprocess is None else preprocess(flat)
        return {name: processed, "states": None} if self._has_observations else {name: processed}

    def _read(self, actions: torch.Tensor, outputs: Mapping[str, Any]) -> dict[str, Any]:
        space, batch_size = self._model.action_space, len(actions)
        is_finite = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        if is_finite and outputs.get("net_output") is not None:
            scores = self._named_scores(outputs["net_output"])
            return scores if self._deterministic else {"action": actions, **scores}
        if isinstance(space, spaces.Discrete):
            return {"q_values": actions} if actions.shape[1:] == (space.n,) else {"action": actions}
        mean = outputs.get("mean_actions")
        played = mean if self._deterministic and mean is not None else actions
        output = {"action": played.reshape(batch_size, *space.shape)}
        distribution = self._distribution()
        if mean is not None and isinstance(distribution, Normal):
            shape = output["action"].shape
            output["distribution"] = Normal(distribution.mean.reshape(shape), distribution.stddev.reshape(shape))
        elif mean is not None and isinstance(distribution, Distribution):
            output["distribution"] = distribution
        return output

    def _named_scores(self, net_output: torch.Tensor) -> dict[str, Any]:
        """Returns the output of a network as logits or as probabilities, whichever its distribution has."""
        probs = getattr(self._distribution(), "probs", None)
        if probs is None:
            return {"logits": net_output}
        first = net_output[:, : probs.shape[-1]]
        is_logits = torch.allclose(first.softmax(dim=-1), probs, atol=1e-5)
        return {"logits" if is_logits else "probs": net_output}

    def _distribution(self) -> Any:
        return self._model.distribution(role=self._role) if has_methods(self._model, "distribution") else None

    def _first_state(self, sizes: list[Any], flat: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(size[0], len(flat), *size[2:], dtype=flat.dtype, device=flat.device) for size in sizes]


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, nn.Module) and has_methods(candidate, "act", "compute", "random_act")


def _state_sizes(model: Any) -> list[Any]:
    """Returns the sizes ``(layers, environments, features)`` of the states of a recurrent model; else nothing."""
    specification = model.get_specification() if has_methods(model, "get_specification") else {}
    return list(specification.get("rnn", {}).get("sizes", ()))


def _flattened(observations: Any, space: Space[Any] | None) -> torch.Tensor:
    """Returns observations as ``[B, features]``, entries of dicts in the order of their keys, as skrl."""
    if isinstance(observations, Mapping):
        parts = space.spaces if isinstance(space, spaces.Dict) else {}
        return torch.cat([_flattened(observations[key], parts.get(key)) for key in sorted(observations)], dim=-1)
    if isinstance(observations, tuple | list):
        spaces_of_parts = space.spaces if isinstance(space, spaces.Tuple) else [None] * len(observations)
        pairs = zip(observations, spaces_of_parts, strict=True)
        return torch.cat([_flattened(part, each) for part, each in pairs], dim=-1)
    flat: torch.Tensor = observations.reshape(len(observations), -1)
    is_finite = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    return flat if is_finite or flat.is_floating_point() else flat.to(torch.get_default_dtype())
