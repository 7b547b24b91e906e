"""Takes down one episode while it is played."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, PolicyScores, PolicyStep, row_of, stack_scores
from rlwandb_callbacks.core.infos import InfoTally
from rlwandb_callbacks.core.values import Pixels
from rlwandb_callbacks.environments.pettingzoo import AGENT_REWARDS
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.evaluation.observation_buffer import ObservationBuffer
from rlwandb_callbacks.media.frames import FrameRecorder, MissingFrames, RecordedFrames

SUCCESS_KEYS = ("is_success", "success")


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode, and its frames when they were recorded while playing."""

    episode: Episode
    film: RecordedFrames | MissingFrames | None = None


@dataclass(frozen=True)
class RecordingOptions:
    """What is taken down, and for how long.

    Args:
        max_steps: Longest episode; longer ones are cut and marked.
        film_bytes: Record each episode, in at most so many bytes.
        info_keys: Keys of ``info`` to keep; None for all numeric ones.
        trace_bytes: Keep observations, thinned to so many bytes; 0 for none.
    """

    max_steps: int
    film_bytes: int | None = None
    info_keys: Sequence[str] | None = None
    trace_bytes: int = 0


class EpisodeRecorder:
    """Takes down one episode after the other, and rests in between.

    Args:
        options: What is taken down, and for how long.
    """

    def __init__(self, options: RecordingOptions) -> None:
        self._options = options
        self.begin(-1, None)

    def begin(self, index: int, seed: int | None) -> None:
        """Starts an episode; with index -1, a rest."""
        self.index, self.seed = index, seed
        self._actions: list[Any] = []
        self._rewards: list[float] = []
        self._scores: list[PolicyScores] = []
        self._values: list[float] = []
        self._digests: list[int] = []
        self._chosen_q: list[float] = []
        self._camera = None if self._options.film_bytes is None else FrameRecorder(self._options.film_bytes)
        self._lost_film: MissingFrames | None = None
        self._trace = ObservationBuffer(self._options.trace_bytes) if self._options.trace_bytes else None
        self._infos = InfoTally(self._options.info_keys)
        self._agent_returns: dict[str, float] = {}
        self._ending: dict[str, Any] = {}

    @property
    def playing(self) -> bool:
        """Whether there is an episode."""
        return self.index >= 0

    @property
    def is_filmed(self) -> bool:
        """Whether there is an episode of which frames are wanted."""
        return self.playing and self._camera is not None

    def lose_film(self, error: RenderError) -> None:
        """Goes on without the frames of this episode, as the environment gave no picture."""
        self._camera, self._lost_film = None, MissingFrames(str(error))

    def note(self, step: PolicyStep, row: int) -> None:
        """Takes what the policy said of one state: a row of a batch."""
        if not self.playing:
            return
        if step.scores is not None:
            self._scores.append(row_of(step.scores, row))
        if step.values is not None:
            self._values.append(float(step.values[row]))
        if step.chosen_q is not None:
            self._chosen_q.append(float(step.chosen_q[row]))

    def see(self, observation: Any, frame: Pixels | None, reward: float = 0.0) -> None:
        """Takes a state, and the reward that came with it."""
        self._digests.append(digest(observation, reward))
        if self._trace is not None:
            self._trace.append(observation)
        if self._camera is not None and frame is not None:
            self._camera.take(frame)

    def advance(
        self, action: Any, reward: float, terminated: bool, truncated: bool, info: Mapping[str, Any]
    ) -> tuple[bool, bool]:
        """Takes a step; the state that it led to is given to :meth:`see`.

        Returns:
            Whether the episode is over by itself, and whether it is cut, by the environment or by ``max_steps``.
        """
        self._actions.append(_kept(action))
        self._rewards.append(reward)
        self._infos.add(info)
        for agent, part in info.get(AGENT_REWARDS, {}).items():
            self._agent_returns[agent] = self._agent_returns.get(agent, 0.0) + float(part)
        is_cut = len(self._rewards) >= self._options.max_steps and not (terminated or truncated)
        if terminated or truncated or is_cut:
            self._ending = {
                "terminated": terminated,
                "truncated": truncated or is_cut,
                "cut_at": self._options.max_steps if is_cut else None,
                "success": _success(info),
            }
        return terminated, truncated or is_cut

    def result(self) -> PlayedEpisode:
        """The episode, once it has ended."""
        observations, stride = (None, 1) if self._trace is None else self._trace.kept(len(self._rewards))
        episode = Episode(
            actions=np.stack(self._actions),
            rewards=np.array(self._rewards, dtype=np.float64),
            seed=self.seed,
            scores=stack_scores(self._scores),
            values=np.array(self._values, dtype=np.float64) if self._values else None,
            chosen_q=np.array(self._chosen_q, dtype=np.float64) if self._chosen_q else None,
            digests=np.array(self._digests, dtype=np.uint32),
            observations=observations,
            observation_stride=stride,
            infos=self._infos.numbers(),
            agent_returns=self._agent_returns,
            **self._ending,
        )
        return PlayedEpisode(episode, self._lost_film if self._camera is None else self._camera.film())


def _kept(action: Any) -> NDArray[Any]:
    """A copy of an action; a dict or tuple as an object, so that actions of all kinds stack to an array."""
    if not isinstance(action, dict | tuple):
        return np.array(action)
    entry = np.empty((), dtype=np.object_)
    entry[()] = copy.deepcopy(action)
    return entry


def digest(observation: Any, reward: float) -> int:
    """Fingerprint of an observation and the reward that came with it: CRC-32 over their bytes, in one fixed order.

    Args:
        observation: Array, number or text, or dicts and tuples of them.
        reward: Of the step that led there; 0 after a reset.
    """
    checksum = zlib.crc32(np.float64(reward).tobytes())
    for leaf in _leaves(observation):
        checksum = zlib.crc32(leaf, checksum)
    return checksum


def _leaves(observation: Any) -> Iterator[bytes]:
    if isinstance(observation, dict):
        for key in sorted(observation, key=str):
            yield from _leaves(observation[key])
    elif isinstance(observation, tuple | list):
        for entry in observation:
            yield from _leaves(entry)
    elif isinstance(observation, str):
        yield observation.encode()
    else:
        yield np.ascontiguousarray(observation).tobytes()


def _success(info: Mapping[str, Any]) -> bool | None:
    found = next((info[key] for key in SUCCESS_KEYS if key in info), None)
    return None if found is None else bool(np.all(found))
