"""Score of the game that an environment plays inside wrappers that change rewards or cut games."""

from __future__ import annotations

from typing import Any

from rlwandb_callbacks.core.infos import reward_of
from rlwandb_callbacks.environments.shaping import WAS_REAL_DONE, Shaping, find_shaping
from rlwandb_callbacks.environments.wrappers import has_own, wrapper_chain


class GameScore:
    """Sum of the rewards inside the wrappers of an environment, from a reset to the end of the game.

    The methods ``reset`` and ``step`` of the layer inside these wrappers are replaced on the environment, which must
    belong to the evaluation.

    Args:
        env: Single environment.
        shaping: Its wrappers that change rewards or cut games.

    Attributes:
        is_over: Whether the game has ended.
        is_lost: Whether the game was reset before its end, or its rewards are no numbers.
        shaping: As given.
    """

    def __init__(self, env: Any, shaping: Shaping) -> None:
        self._chain = list(wrapper_chain(env))
        layer = self._chain[shaping.depth]
        self.shaping = shaping
        self.is_over = self.is_lost = False
        self._score = 0.0
        self._is_starting = True
        self._reset, self._step = layer.reset, layer.step
        layer.reset, layer.step = self._reset_layer, self._step_layer

    @classmethod
    def of(cls, env: Any) -> GameScore | None:
        """Follows a single environment; None if it has no such wrappers, or they do not allow it."""
        shaping = find_shaping(env)
        try:
            return None if shaping is None else cls(env, shaping)
        except (AttributeError, TypeError):  # a layer whose methods cannot be replaced
            return None

    @property
    def can_play_on(self) -> bool:
        """Whether the game goes on although the episode has ended, because only a life was lost."""
        return bool(self.shaping.cutters) and not self.is_over and not self.is_lost

    def score_at(self, *, is_cut: bool) -> float | None:
        """Returns the score of the game; None if it is not known.

        Args:
            is_cut: The latest step was cut by a time limit, so that the score so far counts.
        """
        return self._score if not self.is_lost and (self.is_over or is_cut) else None

    def start(self) -> None:
        """Expects the reset that starts a game, and makes sure that it is one, whatever was played before."""
        for layer in self._chain:
            if has_own(layer, WAS_REAL_DONE):
                setattr(layer, WAS_REAL_DONE, True)
        self._is_starting = True

    def started(self) -> None:
        """Notes that the environment has been reset: further resets are not those of a new episode."""
        self._is_starting = False

    def _reset_layer(self, **keywords: Any) -> Any:
        if self._is_starting:
            self._score, self.is_over, self.is_lost = 0.0, False, False
        else:
            self.is_lost = self.is_lost or not self.is_over
        return self._reset(**keywords)

    def _step_layer(self, action: Any) -> Any:
        result = self._step(action)
        if not self.is_over and not self.is_lost:
            try:
                self._score += reward_of(result[1])
                self.is_over = bool(result[2]) or bool(result[3])
            except Exception:  # noqa: BLE001  # rewards of several agents or objectives
                self.is_lost = True
        return result
