"""Keys of ``info`` that are constants of an environment, such as its gravity, and no results of an episode."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from rlwandb_callbacks.core.infos import InfoSummary
from rlwandb_callbacks.core.key_names import valid_name

RESULTS: Final = (0.0, 1.0)  # counts and flags, as of collisions, which may well be equal in all episodes


class ConstantInfos:
    """Finds the constants of one training: keys with one and the same number in all steps of all episodes so far.

    Numbers 0 and 1 are no constants. A key whose number changes once, as that of a curriculum, is none from then on.

    Args:
        keys: ``evaluation.info_keys``, which are never constants; None for all.

    Example:
        >>> always, higher = (
        ...     [{"gravity": InfoSummary(g, g, 30 * g, is_constant=True)}] for g in (9.8, 11.0)
        ... )
        >>> constants = ConstantInfos()
        >>> [constants.update(infos) for infos in (always, always, higher)]
        [frozenset({'gravity'}), frozenset({'gravity'}), frozenset()]
    """

    def __init__(self, keys: Sequence[str] | None = None) -> None:
        self._keeps_all = keys is not None
        self._values: dict[str, float] = {}
        self._seen: set[str] = set()  # keys that were constant in an episode
        self._varying: set[str] = set()

    def update(self, episodes: Sequence[Mapping[str, InfoSummary]], monitored: Collection[str] = ()) -> frozenset[str]:
        """Takes the summaries of the episodes of an evaluation, and returns the constants among their keys.

        Args:
            episodes: Summaries of the keys of each episode.
            monitored: Names of numbers such as ``eval/info_x_last``, whose keys are no constants, because callbacks
                need these numbers at each evaluation.
        """
        if self._keeps_all:
            return frozenset()
        for infos in episodes:
            for key, summary in infos.items():
                value = self._values.setdefault(key, summary.last)
                self._seen |= {key} if summary.is_constant else set()
                if summary.is_constant is False or value != summary.last or value in RESULTS:
                    self._varying.add(key)
        watched = tuple(name.rpartition("_")[0] for name in monitored)
        constants = self._seen - self._varying
        return frozenset(
            key for key in constants if not any(each.endswith(f"/info_{valid_name(key)}") for each in watched)
        )
