"""Paths of media in W&B's dicts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def media_paths(value: Any) -> Iterator[str]:
    """Yields the paths that a value of the history names, relative to the folder ``files`` of its run.

    Args:
        value: A media dict, a dict of several images or videos, a mapping with such dicts at any depth, or any other
            value, which has no path.
    """
    if not isinstance(value, dict):
        return
    path, names, videos = (value.get(key) for key in ("path", "filenames", "videos"))
    if isinstance(path, str):
        yield path
    if isinstance(names, list):
        yield from (name for name in names if isinstance(name, str))
    if isinstance(videos, list):
        for video in videos:
            yield from media_paths(video)
    if "_type" not in value:  # a mapping of the user's; parts of a media dict, such as masks, are no media of the key
        for item in value.values():
            yield from media_paths(item)
