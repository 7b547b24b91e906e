"""Records one episode while it is played."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlwandb_callbacks.core.episode import Episode, PolicyScores, PolicyStep, row_of, stack_scores
from rlwandb_callbacks.core.infos import InfoAccumulator, reward_of, success_of
from rlwandb_callbacks.core.values import RawFrame
from rlwandb_callbacks.environments.pettingzoo import AGENT_REWARDS
from rlwandb_callbacks.errors import RenderError
from rlwandb_callbacks.evaluation.fingerprint import StateFingerprint, fingerprint, stack_states
from rlwandb_callbacks.evaluation.observation_buffer import ObservationBuffer
from rlwandb_callbacks.media.frame_sources import FrameRecorder, MissingFrames, RecordedFrames

SUCCESS_KEYS = ("is_success", "success")


class EnvStep(NamedTuple):
    """One step of one environment, with the reward as the environment returned it."""

    action: Any
    observation: Any  # that followed; at the end of an episode its last one, not the first of the next
    reward: Any
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]


@dataclass(frozen=True)
class PlayedEpisode:
    """An episode, and its frames if they were recorded while playing."""

    episode: Episode
    frames: RecordedFrames | MissingFrames | None = None


@dataclass(frozen=True)
class RecordingOptions:
    """What is recorded of each episode; frames and observations are thinned to fit into their memory."""

    max_steps: int  # longer episodes are cut and marked
    frames_max_bytes: int | None = None  # None to record none
    info_keys: Sequence[str] | None = None  # None for all numeric ones
    observations_max_bytes: int = 0  # 0 to record none


class EpisodeRecorder:
    """Records one episode, from the observation of its first state on.

    If ``render``, which returns a picture of the current state, raises a ``RenderError``, the frames of the episode are
    dropped and the error is kept in their place.
    """

    def __init__(
        self, options: RecordingOptions, seed: int | None, observation: Any, render: Callable[[], RawFrame]
    ) -> None:
        self._options, self._seed, self._render = options, seed, render
        self._actions: list[Any] = []
        self._rewards: list[float] = []
        self._scores: list[PolicyScores] = []
        self._values: list[float] = []
        self._chosen_q: list[float] = []
        self._states: list[StateFingerprint] = []
        self._frames: FrameRecorder | MissingFrames | None = None
        if options.frames_max_bytes is not None:
            self._frames = FrameRecorder(options.frames_max_bytes)
        self._observations = ObservationBuffer(options.observations_max_bytes)
        self._infos = InfoAccumulator(options.info_keys)
        self._success_any: bool | None = None
        self._agent_returns: dict[str, float] = {}
        self._ending: dict[str, Any] = {}
        self._add_state(observation, 0.0)

    def _add_state(self, observation: Any, reward: float) -> None:
        self._states.append(fingerprint(observation, reward))
        self._observations.append(observation)
        if isinstance(self._frames, FrameRecorder):
            try:
                self._frames.append(self._render())
            except RenderError as error:
                self._frames = MissingFrames(str(error))

    def add_step(self, output: PolicyStep, row: int, step: EnvStep) -> bool:
        """Records a row of the policy's output for a batch of states, and the step that followed.

        Returns whether the episode has ended: by itself, or by ``max_steps``.
        """
        self._add_output(output, row)
        reward = reward_of(step.reward)
        self._actions.append(_copy(step.action))
        self._rewards.append(reward)
        self._infos.add(step.info, reward)
        success = self._add_info(step.info) if step.info else None
        self._add_state(step.observation, reward)
        has_ended = bool(step.terminated) or bool(step.truncated)
        is_cut = not has_ended and len(self._rewards) >= self._options.max_steps
        if has_ended or is_cut:
            self._ending = {
                "terminated": bool(step.terminated),
                "truncated": bool(step.truncated) or is_cut,
                "cut_at": self._options.max_steps if is_cut else None,
                "success": success,
                "success_any": self._success_any,
            }
        return has_ended or is_cut

    def _add_info(self, info: Mapping[str, Any]) -> bool | None:
        """Adds the rewards of the agents, and the success of this step, which is returned."""
        success = success_of(info, SUCCESS_KEYS)
        if success is not None:
            self._success_any = self._success_any or success
        for agent, agent_reward in info.get(AGENT_REWARDS, {}).items():
            self._agent_returns[agent] = self._agent_returns.get(agent, 0.0) + float(agent_reward)
        return success

    def _add_output(self, output: PolicyStep, row: int) -> None:
        if output.scores is not None:
            self._scores.append(row_of(output.scores, row))
        if output.values is not None:
            self._values.append(float(output.values[row]))
        if output.chosen_q is not None:
            self._chosen_q.append(float(output.chosen_q[row]))

    def result(self) -> PlayedEpisode:
        """Returns the episode; to be called once, after its last step."""
        frames = self._frames.result() if isinstance(self._frames, FrameRecorder) else self._frames
        observations, stride = self._observations.kept(len(self._rewards))
        episode = Episode(
            actions=np.stack(self._actions),
            rewards=np.array(self._rewards, dtype=np.float64),
            seed=self._seed,
            scores=stack_scores(self._scores),
            values=np.array(self._values, dtype=np.float64) if self._values else None,
            chosen_q=np.array(self._chosen_q, dtype=np.float64) if self._chosen_q else None,
            digests=np.array([state.digest for state in self._states], dtype=np.uint32),
            states=stack_states(self._states),
            observations=observations,
            observation_stride=stride,
            infos=self._infos.numbers(),
            agent_returns=self._agent_returns,
            **self._ending,
        )
        return PlayedEpisode(episode, frames)


def _copy(action: Any) -> NDArray[Any]:
    """Copies an action into an array; a dict or tuple as one object, so that actions of all kinds can be stacked."""
    if not isinstance(action, dict | tuple):
        return np.array(action)
    entry = np.empty((), dtype=np.object_)
    entry[()] = copy.deepcopy(action)
    return entry
