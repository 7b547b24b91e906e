"""Decoded videos of a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
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


class OtherDtype(CorridorEnv):
    """Corridor whose frames have another dtype and scale."""

    def __init__(self, render_mode: str | None = None, *, dtype: str = "float32", white: float = 1.0) -> None:
        super().__init__(render_mode)
        self.dtype, self.white = dtype, white

    def render(self) -> Any:
        picture = super().render()
        return None if picture is None else (picture / 255 * self.white).astype(self.dtype)


@pytest.mark.parametrize(("dtype", "white"), [("float32", 1.0), ("float64", 255.0)])
def test_frames_of_any_dtype_have_the_colors_of_uint8(fit: Any, decode: Any, dtype: str, white: float) -> None:
    frames = []
    for kwargs, folder in (({"dtype": "uint8", "white": 255}, "expected"), ({"dtype": dtype, "white": white}, "found")):
        evaluation = {"env_kwargs": kwargs, "episodes": 3}
        callback = WandbRLCallback(
            env=OtherDtype, policy="q_network", evaluation=evaluation, record_path=folder, on_error="raise"
        )
        fit(TinyValidatedQ(), callback)
        (path,) = Path(folder).rglob("*_best.mp4")
        frames.append(decode(path)[1].astype(int))
    assert np.abs(frames[0] - frames[1]).max() <= 2
    assert frames[0].std() > 20


class DrawsNothing(CorridorEnv):
    """Corridor whose frames are black, as those of environments that found no display."""

    def render(self) -> Any:
        picture = super().render()
        return None if picture is None else picture * 0


def test_videos_of_one_color_are_kept_and_said(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    callback = WandbRLCallback(env=DrawsNothing, policy="q_network", on_error="raise")
    with pytest.warns(UserWarning, match="have one color") as caught:
        fit(TinyValidatedQ(), callback, max_epochs=2)
    (message,) = [str(warning.message) for warning in caught if "have one color" in str(warning.message)]
    for fragment in ("video/best", "RGB (0, 0, 0)", "DrawsNothing", "SDL_VIDEODRIVER is 'dummy'", "'offscreen'"):
        assert fragment in message
    run = read_offline_run("wandb")
    assert len(run.media("video/best")) == 2
    assert all("one flat color" in value["caption"] for value in run.column("video/best"))


def test_histograms_that_are_left_out_are_said(fit: Any) -> None:
    class ManyJoints(CorridorEnv):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__(render_mode)
            self.action_space = spaces.Box(-1, 1, (26,), np.float32)

        def step(self, action: Any) -> Any:
            return super().step(int(action[0] > 0))

    class Adroit(TinyValidatedQ):
        def act(self, observations: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(observations), 26)

    callback = WandbRLCallback(env=ManyJoints, policy="act", video_logger=False, on_error="raise")
    with pytest.warns(UserWarning, match="first 18 of 26 dimensions of the action; 8 are left out"):
        fit(Adroit(), callback)
    keys = {key for row in read_offline_run("wandb").history for key in row if key.startswith("policy/action_hist")}
    assert len(keys) == 18
