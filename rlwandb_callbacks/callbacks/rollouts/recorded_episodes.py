"""Training episodes that ``RecordEpisodeStatistics`` wrappers have recorded."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from itertools import islice
from types import ModuleType
from typing import Any

from rlwandb_callbacks.callbacks.rollouts.ended_episodes import EndedEpisodes

OTHER_STAGES = ("eval", "valid", "val_", "test")
QUEUES = ("return_queue", "length_queue")
MAX_WRAPPERS = 64
MAX_LOADERS = 16  # as a list of loaders may also be a list of batches


def env_holders(trainer: Any, module: Any) -> list[Any]:
    """Returns what may hold environments of a training: the module, its datamodule and the training data sets."""
    loaders = getattr(trainer, "train_dataloader", None)
    loaders = islice(_flat(loaders), MAX_LOADERS)
    data = [loader if (dataset := _get(loader, "dataset")) is None else dataset for loader in loaders]
    return [holder for holder in (module, getattr(trainer, "datamodule", None), *data) if holder is not None]


def _flat(loaders: Any) -> Iterator[Any]:
    if isinstance(loaders, dict | list | tuple):
        for each in loaders.values() if isinstance(loaders, dict) else loaders:
            yield from _flat(each)
    else:
        yield loaders


class RecordedEpisodes:
    """Episodes that the ``RecordEpisodeStatistics`` wrappers of a training add from one reading to the next."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # episodes that had ended at the previous reading, by recorder

    def read(self, holders: Iterable[Any]) -> EndedEpisodes:
        """Returns the episodes that ended since the previous reading, as far as the recorders still hold them."""
        ended = EndedEpisodes()
        for recorder in {id(each): each for holder in holders for each in recorders_on(holder)}.values():
            count = int(getattr(recorder, "episode_count", len(recorder.return_queue)))
            added = count - self._counts.get(id(recorder), 0)
            self._counts[id(recorder)] = count
            ended.add(EndedEpisodes(latest(recorder.return_queue, added), latest(recorder.length_queue, added)))
        return ended


def recorders_on(holder: Any) -> list[Any]:
    """Returns the ``RecordEpisodeStatistics`` wrappers in attributes with ``env`` in their name.

    The attributes are those of an object, such as a module or a datamodule, and of the objects that it holds. Those
    whose name also contains ``eval``, ``valid``, ``val_`` or ``test`` are left out.
    """
    own = _attributes(holder)
    inner = [value for name, value in own.items() if "env" not in name and _may_hold_envs(name, value)]
    found = [env for each in (own, *map(_attributes, inner)) for name, env in each.items() if "env" in name]
    return list({id(recorder): recorder for env in found for recorder in recorders_in(env)}.values())


def _attributes(holder: Any) -> dict[str, Any]:
    attributes = _get(holder, "__dict__") or {}
    return {name: value for name, value in attributes.items() if not any(stage in name for stage in OTHER_STAGES)}


def _may_hold_envs(name: str, value: Any) -> bool:
    return name != "trainer" and not name.startswith("_") and not isinstance(value, type | ModuleType)


def recorders_in(env: Any, depth: int = 0) -> Iterator[Any]:
    """Yields the outermost recorder of an environment, or of each environment of a vector in this process."""
    if env is None or depth > MAX_WRAPPERS:
        return
    if all(_get(env, name) is not None for name in QUEUES):
        yield env
    elif isinstance(env, list | tuple):
        for each in env:
            yield from recorders_in(each, depth + 1)
    else:
        inner = (_get(env, name) for name in ("envs", "env"))
        yield from recorders_in(next((each for each in inner if each is not None), None), depth + 1)


def _get(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:
        if name in QUEUES and inspect.getattr_static(value, name, None) is not None:
            raise  # a recorder that fails, and not a proxy that refuses every name
        return None


def latest(queue: Any, count: int) -> list[float]:
    """Returns the last ``count`` entries of a queue, or all if it holds fewer.

    Example:
        >>> latest([1, 2, 3], 2), latest([1], 5), latest([1], 0)
        ([2.0, 3.0], [1.0], [])
    """
    return [float(value) for value in islice(reversed(queue), max(count, 0))][::-1]
