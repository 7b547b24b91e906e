"""Decoded videos of a training."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlwandb_callbacks import WandbRLCallback
from rlwandb_callbacks.media.drawing import CHOSEN
from rlwandb_callbacks.testing import CorridorEnv, OfflineRun, TinyValidatedQ, read_offline_run


class RightThenStay(TinyValidatedQ):
    """Module whose q-values select RIGHT in the first half of the corridor and STAY in the second."""

    def policy(self, observations: torch.Tensor) -> torch.Tensor:
        is_in_first_half = observations[:, 0] < 0.5
        return torch.stack([torch.where(is_in_first_half, -2.0, 3.0), torch.where(is_in_first_half, 3.0, -2.0)], dim=1)


@pytest.fixture
def run(fit: Any) -> OfflineRun:
    settings = {"action_logger": "q_value", "on_error": "raise", "evaluation": {"episodes": 5, "max_steps": 9}}
    callback = WandbRLCallback(settings, env=CorridorEnv, policy="policy")
    fit(RightThenStay(), callback)
    return read_offline_run(callback.run_folder)


def is_chosen_color(pixels: np.ndarray) -> np.ndarray:
    return (np.abs(pixels.astype(int) - np.array(CHOSEN)) < 40).all(axis=-1)


@pytest.mark.parametrize("label", ["best", "median", "worst"])
def test_video_is_h264_with_even_size_and_fast_start(run: OfflineRun, label: str, decode: Any) -> None:
    (path,) = run.media(f"video/{label}")
    meta, _ = decode(path)
    assert (meta["codec"], meta["pix_fmt"], meta["fps"]) == ("h264", "yuv420p", 12.0)
    assert (meta["size"][0] % 2, meta["size"][1] % 2) == (0, 0)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_video_has_one_frame_per_state_and_the_last_shows_the_result(run: OfflineRun, decode: Any) -> None:
    table = [[row[2], row[4]] for row in _episodes(run)]
    best = max(table)
    frames = decode(run.media("video/best")[0])[1]
    assert len(frames) == best[1] + 1
    panel_of_last, panel_before = frames[-1][:, 400:], frames[-2][:, 400:]
    assert np.abs(panel_of_last.astype(int) - panel_before).mean() > 2


def _episodes(run: OfflineRun) -> list[Any]:
    return json.loads(run.media("eval/episodes")[0].read_text())["data"]  # type: ignore[no-any-return]  # json gives Any


def test_highlight_follows_the_chosen_action(run: OfflineRun, decode: Any) -> None:
    frames = decode(run.media("video/best")[0])[1]
    picture_width = 61 * 6
    rows = [np.nonzero(is_chosen_color(frame[:, picture_width:]).any(axis=1))[0].mean() for frame in frames[:-1]]
    goes_right, stays = rows[0], rows[-1]
    assert goes_right > stays + 10
    assert all(min(abs(row - goes_right), abs(row - stays)) < 3 for row in rows)


def test_panel_does_not_cover_the_env_frame(run: OfflineRun, decode: Any) -> None:
    frames = decode(run.media("video/best")[0])[1]
    env = CorridorEnv(render_mode="rgb_array")
    env.reset(seed=0)
    expected = env.render().repeat(6, axis=0).repeat(6, axis=1)
    shown = frames[0][: expected.shape[0], : expected.shape[1]]
    assert np.abs(shown.astype(int) - expected).mean() < 3


def test_each_video_has_a_contact_sheet(run: OfflineRun) -> None:
    for label in ("best", "median", "worst"):
        (path,) = run.media(f"video/{label}_sheet")
        sheet = np.asarray(Image.open(path))
        assert sheet.shape[1] >= 1_000
        assert len(np.unique(sheet.reshape(-1, sheet.shape[-1]), axis=0)) > 30


def test_caption_contains_the_step_limit_of_a_cut_episode(run: OfflineRun) -> None:
    captions = [value["caption"] for value in run.column("video/worst") if "caption" in value]
    assert any("cut at 9 steps" in caption for caption in captions)


def test_configured_fps_takes_precedence(fit: Any, decode: Any) -> None:
    callback = WandbRLCallback(env=CorridorEnv, policy="q_network", videos={"fps": 25.0}, on_error="raise")
    fit(TinyValidatedQ(), callback)
    meta, _ = decode(read_offline_run("wandb").media("video/best")[0])
    assert meta["fps"] == 25.0


def test_video_has_no_panel_without_action_logger(fit: Any, decode: Any) -> None:
    callback = WandbRLCallback(env=CorridorEnv, policy="q_network", on_error="raise")
    fit(TinyValidatedQ(), callback)
    assert decode(read_offline_run("wandb").media("video/best")[0])[1].shape[2] == 366
