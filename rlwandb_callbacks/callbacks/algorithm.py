"""Recognizes the algorithm that a module trains, on which the key names of some libraries depend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from torch import nn

from rlwandb_callbacks.callbacks.metric_names import normalize

WORDS = re.compile(r"A[23]C|[A-Z]+\d*(?![a-z])|[A-Z]?[a-z]+\d*")  # of a class name: DQNLightning, LitTD3, MyA2C
ALGORITHM_OF_WORD = {
    **dict.fromkeys(("ppo", "ippo", "mappo", "rpo", "ppg", "trpo"), "ppo"),
    **dict.fromkeys(("a2c", "a3c", "acktr", "impala", "reinforce", "vpg"), "a2c"),
    **dict.fromkeys(("dqn", "ddqn", "qrdqn", "iqn", "fqf", "rainbow", "nfq"), "dqn"),
    "c51": "c51",
    **dict.fromkeys(("sac", "dsac", "redq", "tqc", "crossq", "cql", "calql", "iql", "awac", "edac", "rlpd"), "sac"),
    **dict.fromkeys(("td3", "td7"), "td3"),
    "ddpg": "ddpg",
}
OF_CLIPPED_UPDATES = frozenset({"approx_kl", "clip_fraction"})
OF_Q_NETWORKS = frozenset({"q_value", "q2_value", "target_q_value"})
NAMES_OF_Q_LOSSES = frozenset({"qf_loss", "qf1_loss", "q_loss", "q1_loss", "loss_qvalue", "td_loss"})
NAMES_OF_VALUE_LOSSES = frozenset({"value_loss", "v_loss", "vf_loss", "pg_loss", "policy_gradient_loss"})
LOSSES = frozenset({"actor_loss", "critic_loss"})


def find_algorithm(module: nn.Module, metrics: Mapping[str, str]) -> str | None:
    """Returns the algorithm of a module: by its class, the groups of its metrics, its metrics and its networks.

    Args:
        module: The module.
        metrics: Known metric by the name under which the module provides it.

    Returns:
        ``ppo``, ``a2c``, ``dqn``, ``c51``, ``sac``, ``td3`` or ``ddpg``: for further algorithms, the one that logs the
        same metrics. None if nothing shows it.
    """
    return _by_words(_class_names(module)) or _by_words(_groups(metrics)) or _by_metrics(module, metrics)


def _by_words(names: Iterable[str]) -> str | None:
    words = [word.lower() for name in names for word in WORDS.findall(name)]
    found = [ALGORITHM_OF_WORD[word] for word in words if word in ALGORITHM_OF_WORD]
    return ("c51" if "c51" in found else found[0]) if found else None


def _class_names(module: nn.Module) -> Iterator[str]:
    """Yields the names of the classes of a module, up to those of Lightning."""
    for cls in type(module).__mro__:
        if cls.__module__.split(".")[0] in ("lightning", "pytorch_lightning", "torch"):
            return
        yield cls.__name__


def _groups(names: Iterable[str]) -> list[str]:
    return [group for name in names for group in name.split("/")[:-1]]


def _by_metrics(module: nn.Module, metrics: Mapping[str, str]) -> str | None:
    known, names = set(metrics.values()), {normalize(name) for name in metrics}
    networks = [name.lower() for name, _ in module.named_modules()]
    has_target = any("target" in name for name in networks)
    has_actor = "actor_loss" in known or any("actor" in name for name in networks)
    if known & OF_CLIPPED_UPDATES:
        return "ppo"
    if known & OF_Q_NETWORKS or names & NAMES_OF_Q_LOSSES or (has_target and known & LOSSES):
        return "sac" if has_actor or "critic_loss" in known else "dqn"
    if "alpha" in known and known >= LOSSES:
        return "sac"
    if names & NAMES_OF_VALUE_LOSSES or known >= LOSSES:
        return "ppo"
    return "dqn" if "td_error" in known and not has_actor else None
