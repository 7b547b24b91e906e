"""Plays one evaluation on all ranks of a training: each rank its part of the episodes, rank zero decides on videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from rlwandb_callbacks.callbacks.evaluation.rank_results import (
    Problem,
    RankResult,
    given_seeds,
    in_seed_order,
    is_of_env,
    rank_positions,
)
from rlwandb_callbacks.callbacks.meetings import ARRIVAL_SECONDS
from rlwandb_callbacks.callbacks.ranks import Ranks, on_rank, sendable
from rlwandb_callbacks.config.root import OneEvaluationConfig, WandbRLConfig
from rlwandb_callbacks.core.episode import Episode
from rlwandb_callbacks.core.episode_choice import choose
from rlwandb_callbacks.environments.factory import EnvFactory
from rlwandb_callbacks.environments.statistics import ObservationStatistics
from rlwandb_callbacks.errors import ReplayDivergedError
from rlwandb_callbacks.evaluation.evaluator import PREPARATION_SECONDS, Evaluator
from rlwandb_callbacks.evaluation.replay import check_replay
from rlwandb_callbacks.evaluation.stopping import StoppedError
from rlwandb_callbacks.evaluation.video_mode import Diverged, Event, Mode, VideoState, mode_warning, next_mode
from rlwandb_callbacks.media.frame_sources import FrameSource

CHECKED_REPLAY_STEPS = 1_000
UNLIMITED_SECONDS = 1_800.0  # as long as process groups of Lightning wait
SHARDED = (
    "{strategy} distributes parameters over processes, so that no process can play on its own; no evaluation episodes "
    "are played."
)


@dataclass(frozen=True)
class Decision:
    """Decision of rank zero about the episodes that were played."""

    is_final: bool  # whether they are the result; otherwise they are played again in the mode of `state`
    state: VideoState  # for the next evaluation, or for playing again
    chosen: Mapping[str, int] = field(default_factory=dict)  # index of each episode to show, by label
    problem: Problem | None = None
    warning: str | None = None  # about a change of the mode
    is_interrupted: bool = False  # on any rank


@dataclass(frozen=True)
class EvaluationResult:
    """Episodes of all ranks."""

    episodes: Sequence[Episode]  # in the order of their seeds; those of a rank that failed are missing
    make_env: EnvFactory | None  # of these episodes, for replay; None for episodes of validation_step
    played_in: Mode
    state: VideoState  # for the next evaluation
    chosen: Mapping[str, int] = field(default_factory=dict)  # index of each episode to show, by label
    frames: Mapping[int, FrameSource] = field(default_factory=dict)  # of the chosen episodes, by index
    problems: Sequence[Problem] = ()  # of single ranks and of rank zero
    warnings: Sequence[str] = ()  # about changes of the mode
    is_interrupted: bool = False  # some episodes are missing, as the training is being interrupted


class DistributedEvaluation:
    """Plays one evaluation, again if its mode turns out not to work.

    No step between two exchanges may fail on a single rank: errors are exchanged like results. ``preserved_state``
    returns the context in which the policy and environments are used; it takes the number of a stream of random
    numbers, as episodes of different ranks must not have the same ones. ``is_interrupted`` says that the training is
    being interrupted, so that no further step is played.
    """

    def __init__(
        self,
        cfg: OneEvaluationConfig,
        evaluator: Evaluator,
        preserved_state: Callable[[int], AbstractContextManager[None]],
        ranks: Ranks,
        keeps_observations: bool,
        is_interrupted: Callable[[], bool] | None = None,
    ) -> None:
        self._cfg, self._evaluator, self._preserved_state, self._ranks = cfg, evaluator, preserved_state, ranks
        self._keeps_observations, self._is_interrupted = keeps_observations, is_interrupted

    def play(self, state: VideoState) -> EvaluationResult:
        """Plays until the mode works, from the state after the last evaluation on; that of rank zero counts.

        There are no episodes if no rank could play.
        """
        self._evaluator.follow()
        self._stopping = self._evaluator.stopping(self._is_interrupted)
        state = next_mode(state, Event.STARTED)
        if not self._evaluator.env.can_replay:
            state = next_mode(state, Event.REPLAY_IMPOSSIBLE)
        problems: list[Problem] = []
        warnings: list[str] = []
        while True:
            mode, statistics = self._ranks.broadcast((state.mode, self._statistics()))
            make_env = replace(self._evaluator.make_env, statistics=statistics)
            mine, my_frames = self._play_mine(make_env, mode)
            results = self._ranks.gather(mine)
            if (further := self._further_seeds(results, mode)) is not None:
                more, more_frames = self._play_seeds(further, make_env, mode, stream=self._ranks.count)
                mine, my_frames = mine.with_more(more), [*my_frames, *more_frames]
                results = self._ranks.gather(mine)
            decision = self._ranks.broadcast(self._decide(results, make_env, state))
            state = decision.state
            problems += [decision.problem] if decision.problem else []
            warnings += [decision.warning] if decision.warning else []
            if decision.is_interrupted:
                return EvaluationResult((), make_env, mode, state, is_interrupted=True)
            if decision.is_final:
                break
        episodes = in_seed_order(results)
        problems += self._problems(results)
        frames = self._gather_frames(set(decision.chosen.values()), results, my_frames) if mode is Mode.RECORD else {}
        return EvaluationResult(episodes, make_env, mode, state, decision.chosen, frames, problems, warnings)

    def _statistics(self) -> ObservationStatistics | None:
        """Returns the observation statistics of rank zero, with which all ranks play and replay."""
        if not self._ranks.is_zero:
            return None
        try:
            return self._evaluator.statistics()
        except Exception:
            if self._ranks.count == 1:
                raise
            return None  # the other ranks wait for this exchange

    def _play_mine(self, make_env: EnvFactory, mode: Mode) -> tuple[RankResult, list[FrameSource | None]]:
        evaluation = self._cfg.evaluation
        seeds = range(evaluation.seed, evaluation.seed + evaluation.episodes)[self._ranks.index :: self._ranks.count]
        return self._play_seeds(seeds, make_env, mode)

    def _further_seeds(self, results: Sequence[RankResult], mode: Mode) -> Sequence[int] | None:
        """Returns the seeds that this rank plays for ranks that have failed; None if no rank plays further ones.

        The same policy must have the same number, whatever fails on a rank. A rank that cannot render shows that
        recording does not work, which changes the mode.
        """
        able = [index for index, result in enumerate(results) if result.error is None]
        missing = sorted(seed for result in results for seed in result.missing)
        failed_to_record = mode is Mode.RECORD and any(is_of_env(result) for result in results)
        if not able or not missing or failed_to_record or any(result.is_interrupted for result in results):
            return None
        self._stopping = self._evaluator.stopping(self._is_interrupted)  # the others have waited for the time limit
        index = self._ranks.index
        return missing[able.index(index) :: len(able)] if index in able else ()

    def _problems(self, results: Sequence[RankResult]) -> list[Problem]:
        played = {seed for result in results for seed in result.seeds}
        left_out = {seed for result in results for seed in result.missing if seed not in played}
        found = [result.problem(index, left_out, self._ranks.count) for index, result in enumerate(results)]
        problems = [problem for problem in found if problem is not None]
        return problems if played else problems[:1]

    def _play_seeds(
        self, seeds: Sequence[int], make_env: EnvFactory, mode: Mode, *, stream: int = 0
    ) -> tuple[RankResult, list[FrameSource | None]]:
        evaluation = self._cfg.evaluation
        frames_max_bytes = frame_budget(self._cfg) // evaluation.episodes if mode is Mode.RECORD else None
        errors: list[Exception] = []
        try:
            with self._preserved_state(stream + self._ranks.index):
                played = self._evaluator.play(
                    seeds,
                    make_env,
                    frames_max_bytes=frames_max_bytes,
                    fresh_envs=mode is Mode.REPLAY_FRESH,
                    keeps_observations=self._keeps_observations,
                    on_failure=errors.append,
                    stopping=self._stopping,
                )
        except Exception as error:  # noqa: BLE001  # the other ranks wait for the next exchange
            is_interrupted = self._has_been_interrupted
            return RankResult(error=sendable(error, self._ranks), missing=seeds, is_interrupted=is_interrupted), []
        stopped = [error for error in errors if isinstance(error, StoppedError)]
        first = sendable((stopped or errors)[0], self._ranks) if errors else None
        given, missing = given_seeds(seeds, [each.episode.seed for each in played])
        is_interrupted = len(missing) > 0 and self._has_been_interrupted
        result = RankResult([each.episode for each in played], first, given, missing, is_interrupted)
        return result, [each.frames for each in played]

    @property
    def _has_been_interrupted(self) -> bool:
        return self._is_interrupted is not None and self._is_interrupted()

    def _decide(self, results: Sequence[RankResult], make_env: EnvFactory, state: VideoState) -> Decision:
        """Decides on rank zero; the decision of other ranks is not used."""
        if not self._ranks.is_zero:
            return Decision(is_final=True, state=state)
        if any(result.is_interrupted for result in results):
            return Decision(is_final=True, state=state, is_interrupted=True)
        try:
            return self._decide_on_zero(results, make_env, state)
        except Exception as error:  # noqa: BLE001  # the other ranks wait for the next exchange
            if self._has_been_interrupted:
                return Decision(is_final=True, state=state, is_interrupted=True)
            return Decision(is_final=True, state=state, problem=("The evaluation", sendable(error, self._ranks)))

    def _decide_on_zero(self, results: Sequence[RankResult], make_env: EnvFactory, state: VideoState) -> Decision:
        failed = [
            on_rank(index, result.error) if len(results) > 1 else result.error
            for index, result in enumerate(results)
            if result.error is not None and is_of_env(result)
        ]
        if failed and state.mode is Mode.RECORD:
            after = next_mode(state, Event.RECORDING_FAILED)
            warning = mode_warning(state, after, str(failed[0]))
            return Decision(is_final=False, state=after, problem=("Making videos", failed[0]), warning=warning)
        episodes = in_seed_order(results)
        if state.mode.replays and any(episode.seed is None for episode in episodes):
            return Decision(is_final=False, state=next_mode(state, Event.REPLAY_IMPOSSIBLE))
        if state.mode is Mode.NUMBERS or not episodes:
            return Decision(is_final=True, state=state)
        chosen, problem = choose_episodes(episodes, self._cfg, self._ranks)
        if not chosen or state.mode is Mode.RECORD or state.is_proven:
            return Decision(is_final=True, state=state, chosen=chosen, problem=problem)
        try:
            self._check_replays(episodes, chosen, make_env)
        except ReplayDivergedError as error:
            after = next_mode(state, Diverged(state.mode, reuses_envs=self._evaluator.reuses_envs))
            return Decision(is_final=False, state=after, warning=mode_warning(state, after, str(error)))
        except StoppedError as error:  # a replay with pictures has a time limit of its own
            if self._has_been_interrupted:
                raise
            return Decision(is_final=True, state=state, chosen=chosen, problem=("Checking replays", error))
        return Decision(is_final=True, state=next_mode(state, Event.REPLAY_PROVEN), chosen=chosen)

    def _check_replays(self, episodes: Sequence[Episode], chosen: Mapping[str, int], make_env: EnvFactory) -> None:
        """Replays the chosen episodes without pictures, and the last one, whose environment may have played others."""
        with self._preserved_state(0), self._stopping.interruptible(lambda: "Replaying an episode"):
            for index in sorted({*chosen.values(), len(episodes) - 1}):
                check_replay(make_env, episodes[index], max_steps=CHECKED_REPLAY_STEPS)

    def _gather_frames(
        self, chosen: set[int], results: Sequence[RankResult], my_frames: Sequence[FrameSource | None]
    ) -> dict[int, FrameSource]:
        positions = rank_positions(results)
        mine = {index: my_frames[positions[index][1]] for index in chosen if positions[index][0] == self._ranks.index}
        gathered = (item for by_index in self._ranks.gather(mine) for item in by_index.items())
        return {index: frames for index, frames in gathered if frames is not None}


def frame_budget(cfg: WandbRLConfig) -> int:
    """Returns the bytes that frames of one evaluation may take: half of all, as an earlier one may be under way."""
    return cfg.videos.max_bytes // 2


def choose_episodes(
    episodes: Sequence[Episode], cfg: OneEvaluationConfig, ranks: Ranks
) -> tuple[dict[str, int], Problem | None]:
    """Returns the index of each episode to show, by label; no episode but an error if a user's function fails."""
    videos = cfg.videos
    try:
        return choose(episodes, videos.choices(), seed=cfg.evaluation.seed, at_most=videos.max_per_choice), None
    except Exception as error:  # noqa: BLE001  # a user's function may raise anything
        return {}, ("Choosing episodes for videos", sendable(error, ranks))


def given_result(
    episodes: Sequence[Episode], cfg: OneEvaluationConfig, state: VideoState, ranks: Ranks
) -> EvaluationResult:
    """Returns the result of an evaluation whose episodes ``validation_step`` has returned."""
    makes_videos = state.mode is not Mode.NUMBERS
    chosen, problem = choose_episodes(episodes, cfg, ranks) if makes_videos else ({}, None)
    return EvaluationResult(episodes, None, Mode.RECORD, state, chosen, problems=[problem] if problem else [])


def exchange_seconds(max_seconds: float | None) -> float:
    """Returns how long a rank waits for others that play, in seconds, by ``evaluation.max_seconds``."""
    return (UNLIMITED_SECONDS if max_seconds is None else max(max_seconds, PREPARATION_SECONDS)) + ARRIVAL_SECONDS
