"""Known training metrics, and the names under which common libraries log them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

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
    "actor_loss": ("actor_loss", "policy_loss", "loss_actor", "pg_loss", "loss_objective", "policy_gradient_loss"),
    "critic_loss": (
        *("critic_loss", "value_loss", "loss_critic", "qf_loss", "loss_qvalue", "v_loss", "loss_value", "vf_loss"),
    ),
    "entropy_loss": ("entropy_loss",),
    "loss_entropy": ("loss_entropy",),
    "ent_loss": ("ent_loss",),
    "approx_kl": ("approx_kl", "kl"),
    "kl_approx": ("kl_approx",),
    "clip_fraction": ("clip_fraction", "clipfrac"),
    "explained_variance": ("explained_variance",),
    "alpha": ("alpha", "ent_coef", "temperature"),
    "epsilon": ("epsilon",),
    "lr": ("lr", "learning_rate"),
    "amp_scale": ("amp_scale", "loss_scale", "grad_scale"),
}
WITH_RANGE = frozenset({"q_value", "target_q_value"})
"""Aliases by metric; names for which libraries have several conventions are metrics of their own.

Terms of the entropy in a loss are minus the entropy, minus a coefficient times the entropy or the entropy itself, by
library. ``kl_approx`` of TorchRL, a mean of differences, may be negative; ``approx_kl`` of others never is.
"""
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
_POSITIONS = {alias: position for aliases in ALIASES.values() for position, alias in enumerate(aliases)}

_STAGES = frozenset({"train", "training", "learn", "learner", "learning", "update", "updates", "rollout", "rollouts"})
_OTHER_STAGES = frozenset({"val", "valid", "validation", "eval", "evaluation", "test"})
_CONTAINERS = frozenset(
    {"agent", "algo", "algorithm", "chart", "charts", "info", "log", "logs", "metric", "metrics", "scalars", "stats"}
)
_ALGORITHMS = frozenset({
    "a2c", "a3c", "acktr", "awac", "awr", "bcq", "c51", "calql", "cql", "crossq", "ddpg", "ddqn", "discrete_sac",
    "double_dqn", "dqn", "drq", "drqv2", "dsac", "edac", "fqf", "grpo", "impala", "ippo", "iql", "iqn", "maddpg",
    "mappo", "maskable_ppo", "mpo", "nfq", "ppg", "ppo", "qmix", "qr_dqn", "qrdqn", "r2d2", "rainbow",
    "recurrent_ppo", "redq", "reinforce", "rlpd", "rpo", "sac", "td3", "td3_bc", "td7", "tqc", "trpo", "vdn", "vpg",
    "xql",
})  # fmt: skip
_NEUTRAL = _STAGES | _CONTAINERS | _ALGORITHMS
_LOSSES = "losses"  # group of CleanRL, which also holds metrics that are not losses
_NETWORKS = frozenset({"q", "q1", "q2", "value"})  # aliases that name a network as well as its output
_ENTROPY_TERMS = frozenset({"entropy_loss", "loss_entropy", "ent_loss"})  # loss/entropy is the loss of a part
_ACTOR = frozenset({"actor", "policy", "pi"})
_CRITIC = frozenset({"critic", "critics", "q", "qf", "q_network", "value", "value_function", "vf"})
_OWNERS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("entropy", "approx_kl", "kl_approx", "clip_fraction", "actor_loss"), _ACTOR),
    **dict.fromkeys(_ENTROPY_TERMS, _ACTOR),
    **dict.fromkeys(("q_value", "q2_value", "target_q_value", "td_error", "value", "explained_variance"), _CRITIC),
    "critic_loss": _CRITIC,
    "alpha": frozenset({"entropy", "temperature"}),
    "epsilon": frozenset({"exploration"}),
    **dict.fromkeys(("lr", "grad_norm"), frozenset({"optim", "optimizer"})),
}
"""Groups by metric that add nothing to it: ``critic/td_error`` is the ``td_error``."""
_OF_PARTS = frozenset({"loss", "grad_norm", "lr"})  # metrics that a module has of each of its parts
_PART_FIRST = frozenset({"loss", "grad_norm"})  # those whose names begin with the part: q_grad_norm, but lr_q


def normalize(name: str) -> str:
    """Reduces a logged name to its last part, in lower case, with underscores and without ``_step``.

    Example:
        >>> [normalize(name) for name in ("losses/qf1_values", "target q_value", "loss_step")]
        ['qf1_values', 'target_q_value', 'loss']
    """
    return _parts(name)[-1].removesuffix("_step")


def is_of_other_stage(name: str) -> bool:
    """Returns whether a group in a name is another stage than training.

    Example:
        >>> is_of_other_stage("val/loss"), is_of_other_stage("loss/val"), is_of_other_stage("train/loss")
        (True, True, False)
    """
    return not _OTHER_STAGES.isdisjoint(_parts(name))


def _parts(name: str) -> list[str]:
    return [part.strip().lower().replace(" ", "_").replace("-", "_") for part in name.strip("/").split("/")]


class MetricName(NamedTuple):
    """What a logged name stands for.

    Args:
        metric: Metric that the value is logged as.
        base: Known metric that it is, or that it is of a part of the agent: ``loss`` for ``world_model_loss``.
        position: Position of the name among the aliases of the metric; smaller is preferred.
    """

    metric: str
    base: str
    position: int = 0


def interpret(name: str) -> MetricName | None:
    """Returns what a name stands for; None if it is unknown or belongs to another stage than training.

    A group matters unless it is a stage of training, the name of an algorithm, or a group that holds everything, such
    as ``metrics``. A known metric in a group that is not understood keeps the group in its name.

    Example:
        >>> [interpret(name).metric for name in ("SAC/loss", "actor/loss", "loss/value", "critic/td_error", "lr/q")]
        ['loss', 'actor_loss', 'critic_loss', 'td_error', 'lr_q']
    """
    if is_of_other_stage(name):
        return None
    *groups, last = _groups_and_last(name)
    if not groups:
        return _alias(last)
    whole, turned = "_".join((*groups, last)), "_".join((*groups[1:], last, groups[0]))
    if whole in _ENTROPY_TERMS:
        return _of_part(groups, last, whole, turned)
    return _alias(whole) or _owned(groups, last) or _alias(turned) or _of_part(groups, last, whole, turned)


def _groups_and_last(name: str) -> list[str]:
    """Splits a name and drops groups that are neutral or repeated by its last part, as in ``loss/value_loss``."""
    *groups, last = _without(_NEUTRAL, name)
    last = last.removesuffix("_step")
    if last in _STAGES and groups:
        last = groups.pop()
    if groups[:1] == [_LOSSES]:
        is_other_metric = last in _CANONICAL and last not in _NETWORKS
        groups = groups[1:] if is_other_metric else ["loss", *groups[1:]]
    words = set(last.split("_"))
    return [*(group for group in groups if not words.issuperset(group.split("_"))), last]


def _alias(name: str) -> MetricName | None:
    metric = _CANONICAL.get(name)
    return None if metric is None else MetricName(metric, metric, _POSITIONS[name])


def _owned(groups: Sequence[str], last: str) -> MetricName | None:
    metric = _CANONICAL.get(last)
    return _alias(last) if metric is not None and _OWNERS.get(metric, frozenset()).issuperset(groups) else None


def _of_part(groups: Sequence[str], last: str, whole: str, turned: str) -> MetricName | None:
    """Interprets a known metric of a part of the agent, which has no name of its own here."""
    of_group, of_last = _CANONICAL.get(groups[0]), _CANONICAL.get(last)
    if of_group in _OF_PARTS and of_last not in _OF_PARTS:
        return MetricName(turned if of_group in _PART_FIRST else whole, of_group)
    base = of_group if of_last is None else of_last
    return None if base is None else MetricName(whole, base)


def canonical(name: str) -> str | None:
    """Returns the known metric that a name stands for; None if it stands for none.

    Example:
        >>> canonical("losses/qf1_values"), canonical("val/loss"), canonical("reward_scale")
        ('q_value', None, None)
    """
    meaning = interpret(name)
    return meaning.metric if meaning is not None and meaning.metric in ALIASES else None


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
        self._custom = {_metric_of_unknown(name): name for name in names if canonical(name) is None}

    def wants(self, metric: str) -> bool:
        """Returns whether a known metric is logged."""
        return metric in self._known

    def pick(self, names: Iterable[str]) -> dict[str, str]:
        """Returns the metrics that are logged by name; of several names for one, only the first in ``ALIASES``.

        Names of several algorithms, as ``SAC/loss`` and ``DQN/loss``, keep the algorithm.
        """
        ranked: dict[str, list[tuple[tuple[int, int], str]]] = defaultdict(list)
        for name in names:
            meaning = self._meaning(name)
            if meaning is not None:
                ranked[meaning.metric].append(((meaning.position, name.count("/")), name))
        picked: dict[str, str] = {}
        for metric, candidates in ranked.items():
            best = min(rank for rank, _ in candidates)
            equal = {name: _with_algorithm(name) for rank, name in candidates if rank == best}
            several = len(equal) > 1 and len(set(equal.values())) == len(equal)
            picked |= equal if several else {next(iter(equal)): metric}
        return picked

    def missing(self, found: Collection[str]) -> list[str]:
        """Returns the unknown names of ``metric_list`` that are not among the metrics that were found."""
        return [
            name
            for metric, name in self._custom.items()
            if not any(each == metric or each.endswith(f"_{metric}") for each in found)
        ]

    def _meaning(self, name: str) -> MetricName | None:
        meaning = interpret(name)
        if meaning is None:
            return self._unknown(name)
        is_wanted = not self._known.isdisjoint((meaning.metric, meaning.base)) or meaning.metric in self._custom
        return meaning if is_wanted else None

    def _unknown(self, name: str) -> MetricName | None:
        """Matches an unknown name as a whole, or else by its last part, in which case it keeps its groups."""
        metric = _metric_of_unknown(name)
        if metric in self._custom:
            return MetricName(metric, metric)
        last = _parts(name)[-1]
        for ending in ("", "_step"):
            shortened = metric.removesuffix(ending)
            is_listed = shortened in self._custom or last.removesuffix(ending) in self._custom
            if is_listed and not is_of_other_stage(name):
                return MetricName(shortened, shortened)
        return None


def _metric_of_unknown(name: str) -> str:
    meaning = interpret(name)
    return "_".join(_without(_NEUTRAL, name)) if meaning is None else meaning.metric


def _with_algorithm(name: str) -> str:
    return "_".join(_without(_STAGES | _CONTAINERS, name)).removesuffix("_step")


def _without(neutral: frozenset[str], name: str) -> list[str]:
    *groups, last = _parts(name)
    return [*(group for group in groups if group and group not in neutral), last]
