"""Decides how the episodes of the next evaluation become videos: replayed, recorded while playing, or not at all."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TypeAlias

MAX_EVALUATIONS_WITHOUT_CLIP = 3
RECORDED = "episodes are recorded while playing from now on."


class Mode(str, enum.Enum):
    """How clips are made."""

    NUMBERS = "numbers"  # not made; the environment cannot be rendered, or no clips are wanted
    REPLAY = "replay"  # by replaying the chosen episodes
    REPLAY_FRESH = "replay fresh"  # also, each is played in a fresh environment, as resets do not restore all state
    RECORD = "record"  # from frames that are taken while playing

    @property
    def replays(self) -> bool:
        """Whether episodes are replayed."""
        return self in (Mode.REPLAY, Mode.REPLAY_FRESH)


@dataclass(frozen=True)
class VideoState:
    """The mode of the next evaluation, and what earlier evaluations have shown about the environment."""

    mode: Mode
    is_proven: bool = False  # a replay has given the recorded episodes
    has_made_clips: bool = False  # in this training
    evaluations_without_clip: int = 0  # since the last clip
    paused: Mode | None = None  # mode to return to when the next evaluation starts


class Event(enum.Enum):
    """What happened to an evaluation."""

    STARTED = enum.auto()
    REPLAY_IMPOSSIBLE = enum.auto()  # its environment has no single environments or seeds
    REPLAY_PROVEN = enum.auto()  # replayed episodes came out as they were played
    RECORDING_FAILED = enum.auto()  # its environments cannot be made or reset with pictures
    CLIPS_MADE = enum.auto()  # at least one
    CLIPS_FAILED = enum.auto()  # none, as the environment failed


@dataclass(frozen=True)
class Diverged:
    """Event: a replayed episode came out differently."""

    played_in: Mode
    reuses_envs: bool  # environments played several episodes one after the other, and need not


VideoEvent: TypeAlias = Event | Diverged


def next_mode(state: VideoState, event: VideoEvent) -> VideoState:
    """Returns the state after an event.

    Example:
        >>> after = next_mode(VideoState(Mode.REPLAY), Diverged(Mode.REPLAY, reuses_envs=True))
        >>> after.mode, next_mode(after, Diverged(Mode.REPLAY_FRESH, reuses_envs=True)).mode
        (<Mode.REPLAY_FRESH: 'replay fresh'>, <Mode.RECORD: 'record'>)
    """
    match event:
        case Event.STARTED:
            return state if state.paused is None else replace(state, mode=state.paused, paused=None)
        case Event.REPLAY_IMPOSSIBLE:
            return replace(state, mode=Mode.RECORD) if state.mode.replays else state
        case Event.REPLAY_PROVEN:
            return replace(state, is_proven=True)
        case Event.RECORDING_FAILED:
            return _after_failure(replace(state, mode=Mode.NUMBERS, paused=state.mode))
        case Event.CLIPS_MADE:
            return replace(state, has_made_clips=True, evaluations_without_clip=0)
        case Event.CLIPS_FAILED:
            return _after_failure(state)
        case Diverged(played_in=played_in) if played_in is not state.mode or not played_in.replays:
            return state  # an earlier evaluation has changed the mode already
        case Diverged(reuses_envs=True) if state.mode is Mode.REPLAY:
            return replace(state, mode=Mode.REPLAY_FRESH, is_proven=False)
        case Diverged():
            return replace(state, mode=Mode.RECORD)


def _after_failure(state: VideoState) -> VideoState:
    """Stops videos at once if there never was a clip, else after some evaluations in a row without one."""
    count = state.evaluations_without_clip + 1
    failed = replace(state, evaluations_without_clip=count)
    allowed = MAX_EVALUATIONS_WITHOUT_CLIP if state.has_made_clips else 1
    return failed if count < allowed else replace(failed, mode=Mode.NUMBERS, paused=None)


def mode_warning(before: VideoState, after: VideoState, reason: str, *, lost_videos: bool = False) -> str | None:
    """Returns the warning that a change of the mode calls for, with the message of the error that is its reason.

    Example:
        >>> mode_warning(VideoState(Mode.REPLAY), VideoState(Mode.RECORD), "Step 3 differs.")
        'Step 3 differs. Episodes are recorded while playing from now on.'
    """
    if before.mode.replays and after.mode is Mode.RECORD and lost_videos:
        return f"{reason} Videos that came out differently are left out; {RECORDED}"
    if before.mode.replays and after.mode is Mode.RECORD:
        return f"{reason} {RECORDED.capitalize()}"
    if after.mode is Mode.REPLAY_FRESH is not before.mode and lost_videos:
        return (
            f"{reason} Videos of that evaluation are left out; from now on each episode is played in an environment of "
            "its own."
        )
    has_given_up = (after.mode, after.paused) == (Mode.NUMBERS, None) != (before.mode, before.paused)
    if has_given_up and after.has_made_clips:
        return (
            f"{MAX_EVALUATIONS_WITHOUT_CLIP} evaluations in a row gave no video, so no more videos are made in this "
            "training; numbers are still logged."
        )
    return None
