"""Atari games for DQN: small grayscale observations for the network, full-color frames for videos."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

GAME_FRAMES_PER_SECOND = 60


def make_atari(
    game: str,
    *,
    render_mode: str | None = None,
    frame_skip: int = 4,
    stacked_frames: int = 4,
    repeat_action_probability: float = 0.25,
) -> gym.Env[Any, Any]:
    """Makes a game with the usual preprocessing (Machado et al. 2018, "Revisiting the Arcade Learning Environment").

    An action lasts `frame_skip` frames of the game. In each of them, the game repeats its previous action instead with
    the given probability (sticky actions). The game itself is made with a frame skip of 1, as the preprocessing skips.
    `render` returns the game's image, [210, 160, 3] for most games, once per step, so `render_fps` counts steps.

    Args:
        game: Gymnasium id, such as `ALE/Qbert-v5`.
        render_mode: `rgb_array` to render images, None otherwise.
        frame_skip: Frames of the game per step, ≥ 1.
        stacked_frames: Latest frames in an observation, ≥ 1.
        repeat_action_probability: Probability that a frame repeats the previous action, 0 to 1.

    Returns:
        An env with uint8 observations [stacked_frames, 84, 84] and the game's minimal set of actions.

    Raises:
        ImportError: If ale-py or OpenCV is not installed; the message says how to install them.

    Example:
        >>> env = make_atari("ALE/Qbert-v5")
        >>> env.observation_space.shape, env.unwrapped.get_action_meanings()
        ((4, 84, 84), ['NOOP', 'FIRE', 'UP', 'RIGHT', 'LEFT', 'DOWN'])
    """
    try:
        import ale_py
        import cv2  # noqa: F401  # the preprocessing needs it; its own error does not name our extra
    except ImportError as error:
        raise ImportError(f'{game} needs ale-py and OpenCV: pip install "rlwandb-callbacks[atari]"') from error
    gym.register_envs(ale_py)
    env = gym.make(game, frameskip=1, repeat_action_probability=repeat_action_probability, render_mode=render_mode)
    env = AtariPreprocessing(env, frame_skip=frame_skip)
    env = FrameStackObservation(env, stacked_frames)
    env.metadata = {**env.metadata, "render_fps": GAME_FRAMES_PER_SECOND / frame_skip}
    return env


def make_qbert(render_mode: str | None = None, **settings: Any) -> gym.Env[Any, Any]:
    """Makes Q*bert; `settings` are arguments of `make_atari`."""
    return make_atari("ALE/Qbert-v5", render_mode=render_mode, **settings)
