"""Models and policies that predict actions from arrays, as those of Stable-Baselines3 do."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch.distributions import AffineTransform, Distribution, Normal, TanhTransform, TransformedDistribution

from rlwandb_callbacks.core.episode import PolicyStep
from rlwandb_callbacks.policies.adapters.devices import evaluating
from rlwandb_callbacks.policies.output_reader import OutputReader


class StableBaselinesPolicy:
    """Takes the actions that ``predict`` gives, and scores from the networks behind it.

    Scores are q-values (DQN, QR-DQN), the distribution of an actor-critic policy (A2C, PPO, TRPO) with its V(s), or
    that of a squashed Gaussian actor (SAC), or that of a recurrent actor (RecurrentPPO), whose critic has a memory that
    ``predict`` does not carry and so no V(s) here. A model whose environment is a ``VecNormalize`` has its observations
    normalized by that one's statistics, which stay as they are. One whose ``predict`` takes ``action_masks``
    (MaskablePPO) is given those of the environments, and its distribution has them too.

    Args:
        policy: A model, its policy, or the method ``predict`` of either.
        reader: Reads the answers. Its ``deterministic`` is handed to ``predict``.
    """

    def __init__(self, policy: Any, reader: OutputReader) -> None:
        self._model = _predictor(policy)
        self._policy = getattr(self._model, "policy", self._model)
        self._reader = reader
        self._state: Any = None
        self.takes_masks = _takes(self._model.predict, "action_masks")

    @staticmethod
    def fits(policy: Any) -> bool:
        """Tells whether something predicts as Stable-Baselines3's models do."""
        predictor = _predictor(policy)
        if not all(hasattr(predictor, name) for name in ("predict", "observation_space", "action_space")):
            return False
        return _takes(predictor.predict, "deterministic")

    @property
    def has_memory(self) -> bool:
        """Whether the last prediction came with a state."""
        return self._state is not None

    def act(self, observations: Any, begins: NDArray[np.bool_], masks: NDArray[np.bool_] | None = None) -> PolicyStep:
        """Acts in B states; see :class:`rlwandb_callbacks.policies.adapters.Adapter`."""
        count = begins.size
        normaliser = getattr(self._model, "get_vec_normalize_env", lambda: None)()
        if normaliser is not None:
            observations = normaliser.normalize_obs(observations)
        with evaluating(self._policy):
            carried = self._state
            told = {} if carried is None else {"state": carried, "episode_start": begins}
            told |= {} if masks is None else {"action_masks": masks}
            actions, self._state = self._model.predict(observations, deterministic=self._reader.deterministic, **told)
            if self._state is None:
                scores = self._scores(observations, masks)
            else:
                scores = self._recurrent_scores(observations, carried, begins)
        return self._reader.read({"action": actions, **scores}, count)

    def _scores(self, observations: Any, masks: NDArray[np.bool_] | None) -> dict[str, Any]:
        policy = self._policy
        if not hasattr(policy, "obs_to_tensor"):
            return {}
        tensors, _ = policy.obs_to_tensor(observations)
        if hasattr(policy, "q_net"):
            return {"q_values": policy.q_net(tensors)}
        if hasattr(policy, "quantile_net"):
            return {"q_values": policy.quantile_net(tensors).mean(dim=1)}
        if hasattr(policy, "get_distribution"):
            is_masked = masks is not None and _takes(policy.get_distribution, "action_masks")
            masked = {"action_masks": masks} if is_masked else {}
            found = _inside(policy.get_distribution(tensors, **masked))
            return {"distribution": self._in_action_units(found), "value": policy.predict_values(tensors)}
        actor: Any = getattr(policy, "actor", None)
        if not hasattr(actor, "get_action_dist_params"):
            return {}
        mean, log_std, extra = actor.get_action_dist_params(tensors)
        found = actor.action_dist.proba_distribution(mean, log_std, **extra).distribution
        return {"distribution": self._in_action_units(found)}

    def _recurrent_scores(self, observations: Any, carried: Any, begins: NDArray[np.bool_]) -> dict[str, Any]:
        """Of a policy as sb3-contrib's recurrent ones, in the state that the last prediction began with."""
        policy = self._policy
        ask = getattr(policy, "get_distribution", None)
        if ask is None or not _takes(ask, "lstm_states"):
            return {}
        tensors, _ = policy.obs_to_tensor(observations)
        before = map(np.zeros_like, self._state) if carried is None else carried
        states = tuple(torch.as_tensor(part, dtype=torch.float32, device=policy.device) for part in before)
        starts = torch.as_tensor(begins, dtype=torch.float32, device=policy.device)
        return {"distribution": self._in_action_units(_inside(ask(tensors, states, starts)[0]))}

    def _in_action_units(self, distribution: Any) -> Any:
        """Squashes and scales a Gaussian as ``predict`` does with what is drawn from it."""
        space = self._policy.action_space
        is_squashed = isinstance(distribution, Normal) and getattr(self._policy, "squash_output", False)
        if not is_squashed or not isinstance(space, spaces.Box):
            return distribution
        low, high = (
            torch.as_tensor(bound.reshape(1, -1), device=distribution.mean.device, dtype=distribution.mean.dtype)
            for bound in (space.low, space.high)
        )
        return _squashed(distribution, low, high)


def _inside(wrapper: Any) -> Any:
    """PyTorch's distribution in one of Stable-Baselines3's; a list of them for several choices.

    The masked ones of sb3-contrib call that list ``distributions``.
    """
    return wrapper.distribution if hasattr(wrapper, "distribution") else wrapper.distributions


def _squashed(distribution: Distribution, low: torch.Tensor, high: torch.Tensor) -> TransformedDistribution:
    return TransformedDistribution(distribution, [TanhTransform(), AffineTransform((low + high) / 2, (high - low) / 2)])


def _takes(method: Any, parameter: str) -> bool:
    try:
        return parameter in inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False


def _predictor(policy: Any) -> Any:
    """The object that a bound method ``predict`` belongs to; anything else as it is."""
    return policy.__self__ if getattr(policy, "__name__", "") == "predict" and hasattr(policy, "__self__") else policy
