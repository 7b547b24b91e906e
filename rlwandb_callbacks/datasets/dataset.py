"""A data set on disk or in memory: its description, a sample of it, its episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from typing_extensions import Self

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.transitions import EpisodeSummaries, Transitions
from rlwandb_callbacks.datasets.columns import Column, row_bytes, spans
from rlwandb_callbacks.datasets.episode_boundaries import ScannedEpisodes, StepBlock, boundary_warnings, scan_episodes
from rlwandb_callbacks.datasets.fingerprint import digest_of
from rlwandb_callbacks.datasets.infer_actions import ActionReading, read_actions
from rlwandb_callbacks.errors import DatasetError, sentence

MAX_SAMPLE_BYTES = 160 * 2**20


class Opened(Protocol):
    """An open data set of N transitions."""

    @property
    def observations(self) -> Column:
        """``[N, ...]``."""
        ...

    @property
    def actions(self) -> Column:
        """``[N, ...]``, as they are stored."""
        ...

    @property
    def rewards(self) -> Column:
        """``[N]`` or ``[N, 1]``."""
        ...

    @property
    def known_actions(self) -> ActionSpec | None:
        """What the file says of its action space."""
        ...

    @property
    def tells_timeouts(self) -> bool:
        """Whether time limits are marked apart from terminal states."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong, apart from the ends of episodes."""
        ...

    def steps(self) -> Iterator[StepBlock]:
        """All steps in order, in pieces."""
        ...


Opener: TypeAlias = Callable[[], AbstractContextManager[Opened]]


@dataclass(frozen=True, kw_only=True)
class _Description:
    num_transitions: int
    observation_shape: tuple[int, ...]
    warnings: tuple[str, ...]


class OfflineDataset:
    """Transitions of a data set, opened when they are asked for.

    It holds no open file, and pickles: a worker that gets it opens the file anew. In a ``with`` block the file is
    opened once and stays open until the end of the block.

    Args:
        name: What the data set is called in messages and titles.
        layout: Name of the format that it was read as.
        opener: Opens it; pickles where the data set is to be sent to another process.
        file: The file whose bytes are the content, where there is one.

    Raises:
        DatasetError: If it cannot be read, or its columns do not fit together.

    Example:
        >>> from rlwandb_callbacks.datasets import open_dataset
        >>> with open_dataset({"obs": np.eye(4), "action": np.eye(4)[:, :2], "reward": np.ones(4)}) as data:
        ...     data.layout, data.observation_shape, len(data.sample(3, seed=1))
        ('memory', (4,), 3)
    """

    def __init__(self, *, name: str, layout: str, opener: Opener, file: str | None = None) -> None:
        self.name = name
        self.layout = layout
        self._opener = opener
        self._file = file
        self._held: tuple[ExitStack, Opened] | None = None
        self._scanned: ScannedEpisodes | None = None
        self._reading: ActionReading | None = None
        self._digest: str | None = None
        with self._opened() as opened:
            self._description = _Description(
                num_transitions=opened.rewards.shape[0],
                observation_shape=tuple(opened.observations.shape[1:]),
                warnings=tuple(opened.warnings),
            )

    def __repr__(self) -> str:
        return f"<OfflineDataset {self.name!r}: {self.layout}, {self.num_transitions:,} transitions>"

    def __enter__(self) -> Self:
        if self._held is None:
            stack = ExitStack()
            self._held = stack, stack.enter_context(self._opener())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file that a ``with`` block holds open; does nothing where there is none."""
        held, self._held = self._held, None
        if held is not None:
            held[0].close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}

    @contextmanager
    def _opened(self) -> Iterator[Opened]:
        try:
            if self._held is not None:
                yield self._held[1]
                return
            with self._opener() as opened:
                yield opened
        except OSError as error:
            raise DatasetError(
                f"{self.name} cannot be read: {sentence(error)} Is it complete? Copy or make it anew."
            ) from error

    @property
    def num_transitions(self) -> int:
        """How many transitions there are, N."""
        return self._description.num_transitions

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation; dict and tuple observations are one vector."""
        return self._description.observation_shape

    @property
    def num_episodes(self) -> int:
        """How many episodes there are, E; the first look reads rewards and ends of all transitions."""
        with self._opened() as opened:
            return len(self._episodes(opened).starts)

    @property
    def action_spec(self) -> ActionSpec:
        """Names or bounds of the actions; the first look may read all actions, if they are discrete."""
        with self._opened() as opened:
            return self._actions(opened).spec

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks wrong with the data, a sentence each: missing or misplaced ends of episodes, and so on."""
        with self._opened() as opened:
            found = boundary_warnings(self._episodes(opened), tells_timeouts=opened.tells_timeouts)
        return self._description.warnings + found

    def episodes(self) -> EpisodeSummaries:
        """Returns, lengths and ends of all episodes."""
        with self._opened() as opened:
            return self._episodes(opened).summaries

    def sample(self, count: int, seed: int) -> Transitions:
        """Draws transitions uniformly and without replacement.

        Args:
            count: How many, at least 1. There are fewer where the data set is smaller, or where as many observations
                would take more than 160 MiB (some thousand large images): ``len()`` of the answer says.
            seed: The same seed draws the same rows.

        Raises:
            DatasetError: If ``count`` is less than 1, or the data cannot be read.
        """
        if count < 1:
            raise DatasetError(f"count is {count}; allowed is at least 1 transition to sample from {self.name}.")
        with self._opened() as opened:
            fitting = max(1, MAX_SAMPLE_BYTES // row_bytes(opened.observations))
            count = min(count, self.num_transitions, fitting)
            chosen = np.random.default_rng(seed).choice(self.num_transitions, count, replace=False, shuffle=False)
            return self._read(opened, np.sort(chosen.astype(np.int64)))

    def _read(self, opened: Opened, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Transitions:
        found, reading = self._episodes(opened), self._actions(opened)
        episodes = np.searchsorted(found.starts, rows, side="right") - 1
        return Transitions(
            observations=_native(opened.observations.read(rows)),
            actions=reading.read(_native(opened.actions.read(rows))),
            rewards=opened.rewards.read(rows).reshape(-1).astype(np.float64),
            rows=rows,
            episodes=episodes,
            steps=rows - found.starts[episodes],
            lengths=found.summaries.lengths[episodes],
            returns=found.summaries.returns[episodes],
            action_spec=reading.spec,
        )

    def digest(self) -> str:
        """A fingerprint of the content, for names of cached results: 32 hexadecimal digits.

        It covers name and shape of the layout, all rewards and all ends of episodes; and of a file up to 128 MiB every
        byte. Of a larger one it covers its size and 1,024 blocks of 64 KiB, spread evenly over it: a change of a few
        observations or actions of a large file, and of nothing else, may go unnoticed. Name and dates do not count.
        """
        if self._digest is None:
            with self._opened() as opened:
                columns = () if self._file else (opened.observations, opened.actions)
                heading = f"{self.layout} {math.prod(self.observation_shape)} {opened.known_actions}"
                self._digest = digest_of(heading, file=self._file, columns=columns, steps=opened.steps())
        return self._digest

    def _episodes(self, opened: Opened) -> ScannedEpisodes:
        if self._scanned is None:
            self._scanned = scan_episodes(opened.steps())
        return self._scanned

    def _actions(self, opened: Opened) -> ActionReading:
        if self._reading is None:
            actions = opened.actions
            self._reading = read_actions(actions.shape, lambda: spans(actions), opened.known_actions)
        return self._reading


def _native(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
