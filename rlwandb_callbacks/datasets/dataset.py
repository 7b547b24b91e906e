"""A data set on disk or in memory: its description, a sample of it, its episodes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from rlwandb_callbacks.core.action_spec import ActionSpec
from rlwandb_callbacks.core.files import atomic_write
from rlwandb_callbacks.core.transitions import EpisodeSummaries, Transitions
from rlwandb_callbacks.datasets.columns import Rows, row_bytes, spans
from rlwandb_callbacks.datasets.digest import digest_of
from rlwandb_callbacks.datasets.episode_boundaries import EpisodeBoundaries, boundary_warnings, find_episodes
from rlwandb_callbacks.datasets.infer_actions import ActionDecoder, infer_actions
from rlwandb_callbacks.datasets.reader import DatasetReader, KeptReader, WholeReader
from rlwandb_callbacks.datasets.unwritten_rows import RowChoice
from rlwandb_callbacks.datasets.zero_values import holds_only_zeros, zeros_warning
from rlwandb_callbacks.errors import DatasetError, sentence

MAX_SAMPLE_BYTES = 160 * 2**20


Opener: TypeAlias = Callable[[], AbstractContextManager[WholeReader]]


class OfflineDataset:
    """Transitions of a data set, which is opened only while it is read.

    It can be pickled, and holds no open file then: a worker that receives it opens the file itself. In a ``with`` block
    the file is opened once and stays open until the end of the block.

    Args:
        name: Name of the data set in messages and titles.
        layout: Name of the format that it is read as.
        opener: Opens the data set; can be pickled if the data set is sent to another process.
        file: The file with the content, if there is one.

    Attributes:
        observation_shape: Shape of one observation; dict and tuple observations are one vector.

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
        self._kept_open: tuple[ExitStack, WholeReader] | None = None
        self._choice: RowChoice | None = None
        self._count = 0
        self._is_all_zero = False
        self._boundaries: EpisodeBoundaries | None = None
        self._decoder: ActionDecoder | None = None
        self._digest: str | None = None
        with self._open_whole() as reader:
            self.observation_shape = tuple(reader.observations.shape[1:])
            self._file_warnings, self._marks_timeouts = reader.warnings, reader.marks_timeouts
            self._marks_every_end = reader.marks_every_end

    def __repr__(self) -> str:
        return f"<OfflineDataset {self.name!r}: {self.layout}, {self.num_transitions:,} transitions>"

    def __enter__(self) -> Self:
        if self._kept_open is None:
            stack = ExitStack()
            self._kept_open = stack, stack.enter_context(self._opener())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file that a ``with`` block keeps open, if there is one."""
        kept_open, self._kept_open = self._kept_open, None
        if kept_open is not None:
            kept_open[0].close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept_open": None}

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        """Opens the data set without the rows that hold no transition."""
        with self._open_whole() as reader:
            count = reader.rewards.shape[0]
            if self._choice is None or count != self._count:  # files of running loggers grow
                self._choice, self._count = reader.choose_rows(), count
                self._is_all_zero = holds_only_zeros(reader)
                self._file_warnings = reader.warnings
                self._boundaries = self._decoder = self._digest = None
            yield reader if self._choice.kept is None else KeptReader(reader, self._choice.kept)

    @contextmanager
    def _open_whole(self) -> Iterator[WholeReader]:
        try:
            if self._kept_open is not None:
                yield self._kept_open[1]
                return
            with self._opener() as reader:
                yield reader
        except OSError as error:
            raise DatasetError(
                f"{self.name} cannot be read: {sentence(error)} Is it complete? Copy or create it again."
            ) from error

    @property
    def num_transitions(self) -> int:
        """Number of transitions, N, without rows that were never written; the first access reads small columns."""
        with self._open() as reader:
            return reader.rewards.shape[0]

    @property
    def num_episodes(self) -> int:
        """Number of episodes, E; the first access reads rewards and ends of all transitions."""
        with self._open() as reader:
            return len(self._find_episodes(reader).starts)

    @property
    def action_spec(self) -> ActionSpec:
        """Names or bounds of the actions; the first access may read all actions, if they are discrete."""
        with self._open() as reader:
            return self._action_decoder(reader).spec

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems of the data, a sentence each, such as missing or misplaced ends of episodes."""
        with self._open() as reader:
            found = boundary_warnings(
                self._find_episodes(reader),
                marks_timeouts=self._marks_timeouts,
                marks_every_end=self._marks_every_end,
            )
            return self._reading_warnings() + found

    @property
    def reading_warnings(self) -> tuple[str, ...]:
        """The part of ``warnings`` on what was not read or left out, such as keys and unwritten rows."""
        with self._open():
            return self._reading_warnings()

    def _reading_warnings(self) -> tuple[str, ...]:
        assert self._choice is not None
        zeros = (zeros_warning(self.name),) if self._is_all_zero else ()
        return self._file_warnings + self._choice.warnings + zeros

    @property
    def is_all_zero(self) -> bool:
        """Whether all observations, actions and rewards are 0, so that there is nothing to show."""
        with self._open():
            return self._is_all_zero

    def episodes(self) -> EpisodeSummaries:
        """Returns the returns, lengths and ends of all episodes."""
        with self._open() as reader:
            return self._find_episodes(reader).summaries

    def sample(self, count: int, seed: int) -> Transitions:
        """Draws transitions uniformly and without replacement.

        Args:
            count: Number of transitions, at least 1. There are fewer if the data set is smaller, or if so many
                observations would take more than 160 MiB (some thousand large images): see ``len()`` of the result.
            seed: Seed of the draw; the same seed draws the same rows.

        Raises:
            DatasetError: If ``count`` is less than 1, or the data cannot be read.
        """
        if count < 1:
            raise DatasetError(f"count is {count}; allowed is at least 1 transition to sample from {self.name}.")
        with self._open() as reader:
            total, fitting = reader.rewards.shape[0], max(1, MAX_SAMPLE_BYTES // row_bytes(reader.observations))
            chosen = np.random.default_rng(seed).choice(total, min(count, total, fitting), replace=False, shuffle=False)
            return self._read(reader, np.sort(chosen.astype(np.int64)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all transitions to an ``.npz`` file, which can be opened by its path.

        The file has the arrays ``observations`` and ``actions`` as they are stored (dict observations as one vector),
        ``rewards``, ``terminals``, ``timeouts``, and ``episode_ids``, the number of each row's episode, from 0.

        Args:
            path: The file; an existing one is replaced.

        Raises:
            DatasetError: If the data cannot be read.
            OSError: If the file cannot be written.

        Example:
            Transitions that are in memory, such as a list of named tuples, as a file for ``dataset_path``::

                open_dataset(replay_memory).save("data.npz")
        """
        with self._open() as reader:
            steps, count = list(reader.steps()), reader.rewards.shape[0]
            last = np.concatenate([block.last for block in steps])
            arrays: dict[str, Any] = {
                "observations": reader.observations.span(0, count),
                "actions": reader.actions.span(0, count),
                "rewards": np.concatenate([block.rewards for block in steps]),
                "terminals": np.concatenate([block.terminated for block in steps]) & last,
                "timeouts": np.concatenate([block.truncated for block in steps]) & last,
                "episode_ids": np.cumsum(last) - last,
            }
        with atomic_write(Path(path)) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)

    def _read(self, reader: DatasetReader, rows: Rows) -> Transitions:
        found, decoder = self._find_episodes(reader), self._action_decoder(reader)
        episodes = np.searchsorted(found.starts, rows, side="right") - 1
        return Transitions(
            observations=_native(reader.observations.read(rows)),
            actions=decoder.decode(_native(reader.actions.read(rows))),
            rewards=reader.rewards.read(rows).reshape(-1).astype(np.float64),
            rows=rows,
            episodes=episodes,
            steps=rows - found.starts[episodes],
            lengths=found.summaries.lengths[episodes],
            returns=found.summaries.returns[episodes],
            action_spec=decoder.spec,
        )

    def digest(self) -> str:
        """Returns a fingerprint of the content, for names of cached results: 32 hexadecimal digits.

        It covers name and shape of the layout, all rewards and all ends of episodes; and of a file up to 128 MiB every
        byte. Of a larger one it covers its size and 1,024 blocks of 64 KiB, spread evenly over it: a change of only a
        few observations or actions of a large file may go unnoticed. Its name and dates do not count.
        """
        if self._digest is None:
            with self._open() as reader:
                heading = f"{self.layout} {math.prod(self.observation_shape)} {reader.declared_actions}"
                self._digest = digest_of(reader, self._file, heading)
        return self._digest

    def _find_episodes(self, reader: DatasetReader) -> EpisodeBoundaries:
        if self._boundaries is None:
            self._boundaries = find_episodes(reader.steps())
        return self._boundaries

    def _action_decoder(self, reader: DatasetReader) -> ActionDecoder:
        if self._decoder is None:
            actions = reader.actions
            self._decoder = infer_actions(actions.shape, lambda: spans(actions), reader.declared_actions)
        return self._decoder


def _native(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
