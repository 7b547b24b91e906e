"""Plays an evaluation on all ranks of a training: each its share of the episodes, and all of them to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from rlwandb_callbacks.callbacks.ranks import Ranks, sendable
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.environments.normalization import Statistics
from rlwandb_callbacks.errors import EnvError, RenderError
from rlwandb_callbacks.evaluation.evaluator import Evaluator
from rlwandb_callbacks.evaluation.preserved_state import undisturbed
from rlwandb_callbacks.evaluation.video_mode import Mode, Recorder
from rlwandb_callbacks.media.frames import FrameSource


@dataclass(frozen=True)
class RankResult:
    """What one rank played.

    Args:
        episodes: In the order of their seeds.
        error: What went wrong; then there are no episodes.
    """

    episodes: Sequence[Episode] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """What all ranks played.

    Args:
        episodes: In the order of their seeds; those of a rank that failed are missing.
        chosen: Indices of those to show, by rank.
        films: Frames that were recorded of the chosen ones, by index.
        errors: Of single ranks.
    """

    episodes: Sequence[Episode]
    chosen: Mapping[str, int]
    films: Mapping[int, FrameSource]
    errors: Sequence[Exception]


@dataclass(frozen=True)
class Decision:
    """What rank zero thinks of what was played.

    Args:
        is_final: It need not be played again.
        chosen: Indices of the episodes to show, by rank.
        errors: What went wrong in looking at it.
    """

    is_final: bool
    chosen: Mapping[str, int] = field(default_factory=dict)
    errors: Sequence[Exception] = ()


class DistributedEvaluation:
    """Plays one evaluation.

    Nothing that may fail on a single rank stands between two exchanges: errors are told to the others like results.

    Args:
        evaluator: Of this rank.
        recorder: Of this rank; that of rank zero decides.
        module: Of this rank.
        seed: Of the random states while playing.
        ranks: Who takes part.
        keeps_observations: The episodes bring along what was observed.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        recorder: Recorder,
        module: torch.nn.Module,
        seed: int,
        ranks: Ranks,
        *,
        keeps_observations: bool = False,
    ) -> None:
        self._evaluator, self._recorder, self._module = evaluator, recorder, module
        self._seed, self._ranks, self._keeps_observations = seed, ranks, keeps_observations
        self._films: list[FrameSource | None] = []

    def __call__(self) -> EvaluationResult:
        """Plays until rank zero is content with how clips can be made.

        Raises:
            Exception: On all ranks alike, if no rank could play.
        """
        self._recorder.begin()
        while True:
            self._recorder.consider(can_replay=self._evaluator.can_replay, reuses_envs=self._evaluator.reuses_envs)
            self._recorder.mode, statistics = self._ranks.from_zero((self._recorder.mode, self._statistics()))
            shares = self._ranks.gather(self._play_mine(statistics))
            verdict = self._ranks.from_zero(self._verdict(shares) if self._ranks.is_zero else Decision(is_final=True))
            if verdict.is_final:
                break
        episodes = in_order(shares)
        errors = [share.error for share in shares if share.error is not None]
        if not episodes:
            raise errors[0]
        films = self._films_of(set(verdict.chosen.values()), shares)
        return EvaluationResult(episodes, verdict.chosen, films, [*errors, *verdict.errors])

    def _statistics(self) -> Statistics | None:
        """Of rank zero, as all episodes are to be played, and played again, by the same."""
        if not self._ranks.is_zero:
            return None
        try:
            return self._evaluator.statistics()
        except Exception:
            if self._ranks.count == 1:
                raise
            return None  # the other ranks wait for an answer

    def _play_mine(self, statistics: Statistics | None) -> RankResult:
        recorder, ranks = self._recorder, self._ranks
        try:
            with undisturbed(self._module, seed=self._seed):
                played = self._evaluator.play(
                    statistics,
                    film_bytes=recorder.film_bytes,
                    fresh_envs=recorder.mode is Mode.REPLAY_FRESH,
                    keeps_observations=self._keeps_observations,
                    rank=ranks.index,
                    ranks=ranks.count,
                )
        except Exception as error:  # noqa: BLE001  # the other ranks wait for an answer, whatever it is
            return RankResult(error=sendable(error, ranks))
        self._films = [each.film for each in played]
        return RankResult([each.episode for each in played])

    def _verdict(self, shares: Sequence[RankResult]) -> Decision:
        """Looks at what was played, on rank zero; whatever fails is told to all ranks."""
        try:
            return self._judged(shares)
        except Exception as error:  # noqa: BLE001  # see above
            return Decision(is_final=True, errors=[sendable(error, self._ranks)])

    def _judged(self, shares: Sequence[RankResult]) -> Decision:
        recorder, evaluator = self._recorder, self._evaluator
        errors = [share.error for share in shares if isinstance(share.error, EnvError | RenderError)]
        if errors and recorder.mode is Mode.RECORD:
            recorder.interrupt(errors[0])
            return Decision(is_final=False)
        if not recorder.consider(can_replay=evaluator.can_replay, reuses_envs=evaluator.reuses_envs):
            return Decision(is_final=False)
        episodes = in_order(shares)
        chosen = recorder.choose(episodes) if episodes else {}
        if not chosen:
            return Decision(is_final=True)
        with undisturbed(self._module, seed=self._seed):
            return Decision(recorder.can_replay(episodes, chosen, evaluator.make_env), chosen)

    def _films_of(self, chosen: set[int], shares: Sequence[RankResult]) -> dict[int, FrameSource]:
        if self._recorder.mode is not Mode.RECORD:
            return {}
        mine: dict[int, FrameSource] = {}
        for index, (rank, place) in enumerate(places(shares)):
            film = self._films[place] if rank == self._ranks.index else None
            if film is not None and index in chosen:
                mine[index] = film
        return {index: film for films in self._ranks.gather(mine) for index, film in films.items()}


def places(shares: Sequence[RankResult]) -> list[tuple[int, int]]:
    """Rank, and place in that rank's share, of each episode in the order of seeds: they were dealt out one by one.

    Example:
        >>> import numpy as np
        >>> episode = Episode(actions=np.zeros(1), rewards=np.zeros(1), terminated=True)
        >>> places([RankResult([episode] * 2), RankResult(error=EnvError("broken")), RankResult([episode])])
        [(0, 0), (2, 0), (0, 1)]
    """
    longest = max(len(share.episodes) for share in shares)
    return [
        (rank, place) for place in range(longest) for rank, share in enumerate(shares) if place < len(share.episodes)
    ]


def in_order(shares: Sequence[RankResult]) -> list[Episode]:
    """The episodes of all ranks in the order of their seeds."""
    return [shares[rank].episodes[place] for rank, place in places(shares)]
