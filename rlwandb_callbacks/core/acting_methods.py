"""Methods by which the agents of other libraries act."""

from __future__ import annotations

from typing import Any

ACTING_METHODS = (
    "act",
    "batch_act",
    "predict",
    "get_action",
    "get_actions",
    "select_action",
    "select_actions",
    "choose_action",
    "compute_action",
    "compute_actions",
    "compute_single_action",
    "forward_inference",
    "act_inference",
    "get_action_and_value",
    "get_action_and_log_prob",
    "get_eval_action",
    "eval_action",
    "sample_action",
    "sample_actions",
    "get_inference_policy",
    "get_policy",
)


def acting_methods(candidate: Any) -> list[str]:
    """Returns the names of the methods by which an object seems to act.

    Example:
        >>> class Agent:
        ...     def get_action(self, observation): ...
        >>> acting_methods(Agent())
        ['get_action']
    """
    return [name for name in ACTING_METHODS if callable(getattr(candidate, name, None))]
