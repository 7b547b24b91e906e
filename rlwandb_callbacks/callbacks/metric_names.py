"""Known training metrics, and the names under which common libraries log them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

ALIASES: dict[str, tuple[str, ...]] = {
    "loss": ("loss", "total_loss", "train_loss"),
    "entropy": ("entropy", "policy_entropy", "entropy_mean"),
    "q_value": ("q_value", "q_values", "qf_values", "qf1_values", "q1", "q"),
    "q2_value": ("q2_value", "q2_values", "qf2_values", "q2"),
    "target_q_value": ("target_q_value", "target_q_values", "target_q", "q_target"),
    "td_error": ("td_error", "td_errors"),
    "value": ("value", "values", "state_value", "state_values"),
    "grad_norm": ("grad_norm", "gradient_norm", "total_grad_norm"),
    "actor_grad_norm": ("actor_grad_norm", "policy_grad_norm"),
    "critic_grad_norm": ("critic_grad_norm", "value_grad_norm"),
    "actor_loss": ("actor_loss", "policy_loss", "loss_actor", "pg_loss", "loss_objective"),
    "critic_loss": ("critic_loss", "value_loss", "loss_critic", "qf_loss", "loss_qvalue", "v_loss"),
    "approx_kl": ("approx_kl", "kl"),
    "clip_fraction": ("clip_fraction", "clipfrac"),
    "explained_variance": ("explained_variance",),
    "alpha": ("alpha", "ent_coef", "temperature"),
    "epsilon": ("epsilon",),
    "lr": ("lr", "learning_rate"),
}
ENV_STEP_NAMES = ("env_steps", "env_step", "total_env_steps")
WITH_RANGE = frozenset({"q_value", "target_q_value"})
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
_POSITIONS = {alias: position for aliases in ALIASES.values() for position, alias in enumerate(aliases)}
_OTHER_STAGES = frozenset({"val", "valid", "validation", "eval", "evaluation", "test"})


def normalize(name: str) -> str:
    """Reduces a logged name to its last part, in lower case, with underscores and without ``_step``.

    Example:
        >>> [normalize(name) for name in ("losses/qf1_values", "target q_value", "loss_step")]
        ['qf1_values', 'target_q_value', 'loss']
    """
    return _last_part(name).removesuffix("_step")


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower().replace(" ", "_").replace("-", "_")


def canonical(name: str) -> str | None:
    """Returns the metric that a name stands for; None if it is unknown or belongs to another stage than training.

    Example:
        >>> canonical("losses/qf1_values"), canonical("val/loss"), canonical("reward_scale")
        ('q_value', None, None)
    """
    if name.split("/", 1)[0].lower() in _OTHER_STAGES:
        return None
    return _CANONICAL.get(normalize(name))


class MetricSelection:
    """The metrics that are logged, and the names that stand for them.

    Args:
        metric_list: Names or aliases; an unknown name is a metric of its own. None for all known metrics.

    Example:
        >>> MetricSelection(["q_values", "time_per_step"]).pick(["loss", "qf1_values", "time_per_step"])
        {'qf1_values': 'q_value', 'time_per_step': 'time_per_step'}
    """

    def __init__(self, metric_list: Sequence[str] | None) -> None:
        names = tuple(ALIASES) if metric_list is None else metric_list
        self._known = {canonical(name) for name in names} - {None}
        self._custom = {_last_part(name): name for name in names if canonical(name) is None}

    def wants(self, metric: str) -> bool:
        """Returns whether a known metric is logged."""
        return metric in self._known

    def pick(self, names: Iterable[str]) -> dict[str, str]:
        """Returns the metrics that are logged by name; of several names for one, only the first in ``ALIASES``."""
        best: dict[str, tuple[int, str]] = {}
        for name in names:
            metric = self._metric(name)
            if metric is None:
                continue
            position = _POSITIONS.get(normalize(name), 0)
            if metric not in best or position < best[metric][0]:
                best[metric] = (position, name)
        return {name: metric for metric, (_, name) in best.items()}

    def missing(self, found: Collection[str]) -> list[str]:
        """Returns the unknown names of ``metric_list`` that are not among the metrics that were found."""
        return [name for metric, name in self._custom.items() if metric not in found]

    def _metric(self, name: str) -> str | None:
        metric = canonical(name)
        if metric is not None:
            return metric if metric in self._known else None
        return next((short for short in (_last_part(name), normalize(name)) if short in self._custom), None)
