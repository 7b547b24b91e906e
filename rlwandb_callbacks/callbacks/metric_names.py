"""Which training metrics are known, under which names people log them, and what they are called on our charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
_OTHER_STAGES = frozenset({"val", "valid", "validation", "eval", "evaluation", "test"})


def normalize(name: str) -> str:
    """Reduces a logged name to what it names: no group, lower case, underscores, no ``_step``.

    Example:
        >>> [normalize(name) for name in ("losses/qf1_values", "target q_value", "loss_step")]
        ['qf1_values', 'target_q_value', 'loss']
    """
    return _plain(name).removesuffix("_step")


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower().replace(" ", "_").replace("-", "_")


def canonical(name: str) -> str | None:
    """Our name for a metric, or None where it is not known or belongs to validation.

    Example:
        >>> canonical("losses/qf1_values"), canonical("val/loss"), canonical("reward_scale")
        ('q_value', None, None)
    """
    if name.split("/", 1)[0].lower() in _OTHER_STAGES:
        return None
    return _CANONICAL.get(normalize(name))


class MetricSelection:
    """Which of the values that a module offers are logged, and as what.

    Args:
        metric_list: Names or aliases; a name that is not known stands for itself. None for all that are known.

    Example:
        >>> MetricSelection(["q_values", "time_per_step"]).pick(["loss", "qf1_values", "time_per_step"])
        {'qf1_values': 'q_value', 'time_per_step': 'time_per_step'}
    """

    def __init__(self, metric_list: Sequence[str] | None) -> None:
        known = set(ALIASES) if metric_list is None else {canonical(name) for name in metric_list}
        self._known = {name for name in known if name is not None}
        self._further = {_plain(name): name for name in metric_list or () if canonical(name) is None}

    def wants(self, name: str) -> bool:
        """Tells whether a canonical name is to be logged."""
        return name in self._known

    def pick(self, offered: Iterable[str]) -> dict[str, str]:
        """Chooses among offered names.

        Returns:
            Our name by offered name. Where several offered names mean the same metric the first alias wins.
        """
        best: dict[str, tuple[int, str]] = {}
        for name in offered:
            ours = self._ours(name)
            if ours is None:
                continue
            rank = _rank(ours, normalize(name))
            if ours not in best or rank < best[ours][0]:
                best[ours] = (rank, name)
        return {name: ours for ours, (_, name) in best.items()}

    def missing(self, seen: Iterable[str]) -> list[str]:
        """Names from ``metric_list`` that were asked for by name, are not known, and were never offered."""
        found = set(seen)
        return [name for ours, name in self._further.items() if ours not in found]

    def _ours(self, name: str) -> str | None:
        ours = canonical(name)
        if ours is not None:
            return ours if ours in self._known else None
        return next((short for short in (_plain(name), normalize(name)) if short in self._further), None)


def _rank(ours: str, alias: str) -> int:
    aliases = ALIASES.get(ours, ())
    return aliases.index(alias) if alias in aliases else len(aliases)
