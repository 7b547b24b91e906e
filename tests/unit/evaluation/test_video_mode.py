from __future__ import annotations

import pytest

from rlwandb_callbacks.evaluation.video_mode import (
    Diverged,
    Event,
    Mode,
    VideoEvent,
    VideoState,
    mode_warning,
    next_mode,
)

REPLAY, FRESH, RECORD, NUMBERS = Mode.REPLAY, Mode.REPLAY_FRESH, Mode.RECORD, Mode.NUMBERS


@pytest.mark.parametrize(
    ("mode", "event", "expected"),
    [
        (REPLAY, Event.REPLAY_IMPOSSIBLE, RECORD),
        (NUMBERS, Event.REPLAY_IMPOSSIBLE, NUMBERS),
        (REPLAY, Diverged(REPLAY, reuses_envs=True), FRESH),
        (REPLAY, Diverged(REPLAY, reuses_envs=False), RECORD),
        (FRESH, Diverged(FRESH, reuses_envs=True), RECORD),
        (RECORD, Event.RECORDING_FAILED, NUMBERS),
        (REPLAY, Event.CLIPS_FAILED, NUMBERS),
        (REPLAY, Event.CLIPS_MADE, REPLAY),
    ],
)
def test_mode_after_an_event(mode: Mode, event: VideoEvent, expected: Mode) -> None:
    assert next_mode(VideoState(mode), event).mode is expected


def test_a_second_job_that_diverged_in_the_same_mode_changes_nothing() -> None:
    diverged = Diverged(REPLAY, reuses_envs=True)
    once = next_mode(VideoState(REPLAY, is_proven=True), diverged)
    assert next_mode(once, diverged) == once == VideoState(FRESH)


def test_a_failed_recording_pauses_videos_for_one_evaluation_where_there_were_clips() -> None:
    failed = next_mode(VideoState(RECORD, has_made_clips=True), Event.RECORDING_FAILED)
    assert failed.mode is NUMBERS
    assert next_mode(failed, Event.STARTED).mode is RECORD


def test_videos_stop_after_three_evaluations_in_a_row_without_a_clip() -> None:
    state = next_mode(VideoState(REPLAY), Event.CLIPS_MADE)
    for expected in (REPLAY, REPLAY, NUMBERS):
        before, state = state, next_mode(state, Event.CLIPS_FAILED)
        assert state.mode is expected
    assert "3 evaluations in a row gave no video" in str(mode_warning(before, state, ""))
    assert next_mode(state, Event.STARTED).mode is NUMBERS


def test_a_clip_in_between_starts_the_count_again() -> None:
    state = VideoState(REPLAY, has_made_clips=True)
    for event in (Event.CLIPS_FAILED, Event.CLIPS_FAILED, Event.CLIPS_MADE, Event.CLIPS_FAILED, Event.CLIPS_FAILED):
        state = next_mode(state, event)
    assert state.mode is REPLAY


@pytest.mark.parametrize(("lost_videos", "warns"), [(True, True), (False, False)])
def test_fresh_environments_are_announced_only_where_videos_were_lost(lost_videos: bool, warns: bool) -> None:
    warning = mode_warning(VideoState(REPLAY), VideoState(FRESH), "Step 3 differs.", lost_videos=lost_videos)
    assert (warning is not None) is warns
    if warning is not None:
        assert warning.startswith("Step 3 differs. Videos of that evaluation are left out")


@pytest.mark.parametrize("lost_videos", [True, False])
def test_recording_is_announced_with_the_videos_that_were_lost(lost_videos: bool) -> None:
    warning = mode_warning(VideoState(REPLAY), VideoState(RECORD), "Step 3 differs.", lost_videos=lost_videos)
    lost = "Videos that came out differently are left out; episodes" if lost_videos else "Episodes"
    assert warning == f"Step 3 differs. {lost} are recorded while playing from now on."


def test_no_warning_without_a_change() -> None:
    state = VideoState(REPLAY)
    assert mode_warning(state, next_mode(state, Event.CLIPS_MADE), "") is None
