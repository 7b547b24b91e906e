"""Plays an evaluation on all ranks of a training: each its share of the episodes, and all of them to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlwandb_callbacks.callbacks.ranks import Ranks, sendable
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.errors import EnvError, RenderError
from rlwandb_callbacks.evaluator import Evaluator
from rlwandb_callbacks.film import Film, RecordedFilm
from rlwandb_callbacks.isolation import undisturbed
from rlwandb_callbacks.recorder import Mode, Recorder


@dataclass(frozen=True)
class Share:
    """What one rank played.

    Args:
        episodes: In the order of their seeds.
        error: What went wrong; then there are no episodes.
    """

    episodes: Sequence[Episode] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class SharedEpisodes:
    """What all ranks played.

    Args:
        episodes: In the order of their seeds; those of a rank that failed are missing.
        films: Frames that were recorded of the chosen ones, by index.
        errors: Of single ranks.
    """

    episodes: Sequence[Episode]
    films: dict[int, Film]
    errors: Sequence[Exception]


class SharedPlay:
    """Plays one evaluation.

    Nothing that may fail on a single rank stands between two exchanges: errors are told to the others like results.

    Args:
        evaluator: Of this rank.
        recorder: Of this rank; that of rank zero decides.
        module: Of this rank.
        seed: Of the random states while playing.
        ranks: Who takes part.
    """

    def __init__(
        self, evaluator: Evaluator, recorder: Recorder, module: torch.nn.Module, seed: int, ranks: Ranks
    ) -> None:
        self._evaluator, self._recorder, self._module = evaluator, recorder, module
        self._seed, self._ranks = seed, ranks
        self._films: list[RecordedFilm | None] = []

    def __call__(self) -> SharedEpisodes:
        """Plays until rank zero is content with how clips can be made.

        Raises:
            Exception: On all ranks alike, if no rank could play, or as the user wants errors raised.
        """
        while True:
            self._recorder.mode = self._ranks.from_zero(self._recorder.mode)
            shares = self._ranks.gather(self._play_mine())
            is_content, error = self._ranks.from_zero(self._verdict(shares) if self._ranks.is_zero else (True, None))
            if error is not None:
                raise error
            if is_content:
                break
        episodes = in_order(shares)
        errors = [share.error for share in shares if share.error is not None]
        if not episodes:
            raise errors[0]
        return SharedEpisodes(episodes, self._chosen_films(episodes, shares), errors)

    def _play_mine(self) -> Share:
        try:
            with undisturbed(self._module, seed=self._seed):
                played = self._evaluator.play(
                    film_bytes=self._recorder.film_bytes, rank=self._ranks.index, ranks=self._ranks.count
                )
        except Exception as error:  # noqa: BLE001  # the other ranks wait for an answer, whatever it is
            return Share(error=sendable(error, self._ranks))
        self._films = [each.film for each in played]
        return Share([each.episode for each in played])

    def _verdict(self, shares: Sequence[Share]) -> tuple[bool, Exception | None]:
        try:
            return self._is_content(shares), None
        except Exception as error:  # noqa: BLE001  # see above
            return True, sendable(error, self._ranks)

    def _is_content(self, shares: Sequence[Share]) -> bool:
        errors = [share.error for share in shares if isinstance(share.error, EnvError | RenderError)]
        if errors and self._recorder.mode is Mode.RECORD:
            self._recorder.learn(errors[0])
            return False
        episodes = in_order(shares)
        if not episodes:
            return True
        with undisturbed(self._module, seed=self._seed):
            return self._recorder.is_content(episodes, self._evaluator.make_env)

    def _chosen_films(self, episodes: Sequence[Episode], shares: Sequence[Share]) -> dict[int, Film]:
        if self._recorder.mode is not Mode.RECORD:
            return {}
        chosen = set(self._ranks.from_zero(self._recorder.chosen(episodes)).values())
        mine: dict[int, Film] = {}
        for index, (rank, place) in enumerate(places(shares)):
            film = self._films[place] if rank == self._ranks.index else None
            if film is not None and index in chosen:
                mine[index] = film
        return {index: film for films in self._ranks.gather(mine) for index, film in films.items()}


def places(shares: Sequence[Share]) -> list[tuple[int, int]]:
    """Rank, and place in that rank's share, of each episode in the order of seeds: they were dealt out one by one.

    Example:
        >>> import numpy as np
        >>> episode = Episode(actions=np.zeros(1), rewards=np.zeros(1), terminated=True)
        >>> places([Share([episode] * 2), Share(error=EnvError("broken")), Share([episode])])
        [(0, 0), (2, 0), (0, 1)]
    """
    longest = max(len(share.episodes) for share in shares)
    return [
        (rank, place) for place in range(longest) for rank, share in enumerate(shares) if place < len(share.episodes)
    ]


def in_order(shares: Sequence[Share]) -> list[Episode]:
    """The episodes of all ranks in the order of their seeds."""
    return [shares[rank].episodes[place] for rank, place in places(shares)]
