"""Adapter for policies that predict actions from arrays, as the models of Stable-Baselines3 do."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch.distributions import Normal

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters import jax_networks
from rlwandb_callbacks.policies.adapters.devices import evaluating
from rlwandb_callbacks.policies.adapters.library_policy import scaled_normal
from rlwandb_callbacks.policies.output_reader import OutputReader


class StableBaselinesPolicy:
    """Adapter that takes actions from ``predict`` and scores from the networks of the policy.

    Scores are the q-values of DQN and QR-DQN, the distribution and V(s) of actor-critic policies (A2C, PPO, TRPO), the
    squashed Gaussian of SAC, those of the models of sbx, or the distribution of RecurrentPPO, whose V(s) is omitted
    because ``predict`` does not carry the state of the critic. If the model's environment is a ``VecNormalize``,
    observations are normalized by its statistics, which are not updated. If ``predict`` has the parameter
    ``action_masks`` (MaskablePPO), it and the distribution receive the masks of the environments.

    Args:
        policy: A model, its policy, or the method ``predict`` of either.
        reader: Reader of the outputs; its ``deterministic`` is passed to ``predict``.
    """

    def __init__(self, policy: Any, reader: OutputReader) -> None:
        self._model = _predictor(policy)
        self._policy = getattr(self._model, "policy", self._model)
        self._reader = reader
        self._state: Any = None
        self.takes_masks = _has_parameter(self._model.predict, "action_masks")

    @staticmethod
    def fits(policy: Any) -> bool:
        """Returns whether a policy has the interface of Stable-Baselines3's models."""
        predictor = _predictor(policy)
        is_complete = all(hasattr(predictor, name) for name in ("predict", "observation_space", "action_space"))
        return is_complete and _has_parameter(predictor.predict, "deterministic")

    @property
    def is_recurrent(self) -> bool:
        """Whether the last prediction returned a state."""
        return self._state is not None

    def act(self, observations: Any, starts: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states; see :meth:`rlwandb_callbacks.policies.adapters.callables.CallablePolicy.act`."""
        normalizer = own_normalizer(self._model)
        if normalizer is not None:
            observations = normalizer.normalize_obs(observations)
        carried = self._state
        options = {} if carried is None else {"state": carried, "episode_start": starts}
        if masks is not None:
            options["action_masks"] = masks
        with evaluating(self._policy):
            deterministic = self._reader.deterministic
            with contextlib.nullcontext() if deterministic else jax_networks.own_random_key(self._policy):
                actions, self._state = self._model.predict(observations, deterministic=deterministic, **options)
            if self._state is None:
                scores = self._scores(observations, masks)
            else:
                scores = self._recurrent_scores(observations, carried, starts)
        return self._reader.read({"action": actions, **scores}, starts.size)

    def _scores(self, observations: Any, masks: NDArray[np.bool_] | None) -> dict[str, Any]:
        policy = self._policy
        if not hasattr(policy, "obs_to_tensor"):
            return {}
        if jax_networks.fits(policy):
            scores = jax_networks.jax_scores(policy, observations)
            found = scores.get("distribution")
            return scores if found is None else {**scores, "distribution": self._scaled(found)}
        tensors, _ = policy.obs_to_tensor(observations)
        if hasattr(policy, "q_net"):
            return {"q_values": policy.q_net(tensors)}
        if hasattr(policy, "quantile_net"):
            return {"q_values": policy.quantile_net(tensors).mean(dim=1)}
        if hasattr(policy, "get_distribution"):
            is_masked = masks is not None and _has_parameter(policy.get_distribution, "action_masks")
            options = {"action_masks": masks} if is_masked else {}
            distribution = self._unwrapped(policy.get_distribution(tensors, **options))
            return {"distribution": distribution, "value": policy.predict_values(tensors)}
        actor: Any = getattr(policy, "actor", None)
        if not hasattr(actor, "get_action_dist_params"):
            return {}
        mean, log_std, extra = actor.get_action_dist_params(tensors)
        return {"distribution": self._unwrapped(actor.action_dist.proba_distribution(mean, log_std, **extra))}

    def _recurrent_scores(self, observations: Any, carried: Any, starts: NDArray[np.bool_]) -> dict[str, Any]:
        """Returns the distribution of one of sb3-contrib's recurrent policies in the state before the prediction."""
        policy = self._policy
        get_distribution = getattr(policy, "get_distribution", None)
        if get_distribution is None or not _has_parameter(get_distribution, "lstm_states"):
            return {}
        tensors, _ = policy.obs_to_tensor(observations)
        before = map(np.zeros_like, self._state) if carried is None else carried
        states = tuple(torch.as_tensor(part, dtype=torch.float32, device=policy.device) for part in before)
        episode_starts = torch.as_tensor(starts, dtype=torch.float32, device=policy.device)
        return {"distribution": self._unwrapped(get_distribution(tensors, states, episode_starts)[0])}

    def _unwrapped(self, wrapper: Any) -> Any:
        """Returns the torch distribution, or a list of them, inside one of Stable-Baselines3's distributions.

        A Gaussian that ``predict`` squashes and scales to the bounds of the action space is transformed likewise.
        """
        # The masked distributions of sb3-contrib have the attribute ``distributions``.
        return self._scaled(wrapper.distribution if hasattr(wrapper, "distribution") else wrapper.distributions)

    def _scaled(self, found: Any) -> Any:
        space = self._policy.action_space
        is_squashed = isinstance(found, Normal) and getattr(self._policy, "squash_output", False)
        if not is_squashed or not isinstance(space, spaces.Box):
            return found
        return scaled_normal(found, space.low, space.high, squashes=True)


def own_normalizer(policy: Any) -> Any:
    """Returns the ``VecNormalize`` by which the adapter of a policy normalizes observations.

    None for a policy of another kind, also a network or a function of the user that belongs to a model.
    """
    if not StableBaselinesPolicy.fits(policy):
        return None
    found = getattr(_predictor(policy), "get_vec_normalize_env", lambda: None)()
    return found if getattr(found, "norm_obs", False) else None


def _has_parameter(method: Any, name: str) -> bool:
    try:
        return name in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False


def _predictor(policy: Any) -> Any:
    """Returns the object that a bound method ``predict`` belongs to, and any other policy unchanged."""
    return policy.__self__ if getattr(policy, "__name__", "") == "predict" and hasattr(policy, "__self__") else policy
