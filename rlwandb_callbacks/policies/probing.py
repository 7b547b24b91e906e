"""Random states and observations with which a policy is asked in its dry run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from rlwandb_callbacks.policies.adapters.devices import map_structure

NOISE_SCALES = (1.0, 10.0, 100.0)
NOISE_BATCHES_PER_SCALE = 8
NARROW_NOISE_BATCHES = 3


def noise_batches(observations: Any, *, in_range: bool, wide: bool) -> list[Any]:
    """Returns batches with noise in place of floating-point numbers and pictures; none if there are none.

    Args:
        observations: A batch.
        wide: Many batches, with several standard deviations of floating-point numbers in turn; else a few with 1.
        in_range: Keep each part between its smallest and its largest number. An index out of range, to which a policy
            may convert a number, raises an error on the CPU, and ends the process on a GPU.
    """
    rng, replaced = np.random.default_rng(0), set[str]()

    def noise_like(leaf: Any, scale: float) -> Any:
        kind = getattr(leaf, "dtype", np.dtype(np.object_))
        if kind.kind != "f" and kind != np.uint8:
            return leaf
        replaced.add(kind.kind)
        noise = rng.integers(0, 256, leaf.shape) if kind == np.uint8 else rng.normal(scale=scale, size=leaf.shape)
        return (np.clip(noise, leaf.min(), leaf.max()) if in_range else noise).astype(kind)

    scales = NOISE_SCALES * NOISE_BATCHES_PER_SCALE if wide else NOISE_SCALES[:1] * NARROW_NOISE_BATCHES
    batches = [map_structure(partial(noise_like, scale=scales[0]), observations)]
    if not replaced:
        return []
    if "f" not in replaced:  # pictures have one scale
        scales = scales[:NOISE_BATCHES_PER_SCALE]
    return batches + [map_structure(partial(noise_like, scale=scale), observations) for scale in scales[1:]]


def moved_slightly(observations: Any, relative: float) -> Any:
    """Returns a batch whose floating-point numbers are moved away from zero by about a fraction of themselves.

    Their integer parts stay, so that numbers which a policy converts to integers give the same ones.
    """
    rng = np.random.default_rng(0)

    def move(leaf: Any) -> Any:
        if getattr(leaf, "dtype", np.dtype(np.object_)).kind != "f":
            return leaf
        return (leaf * (1 + relative * rng.uniform(0.5, 1.5, leaf.shape))).astype(leaf.dtype)

    return map_structure(move, observations)


def seed_all(seed: int, devices: Iterable[torch.device]) -> None:
    """Seeds Python, NumPy, and torch on the CPU and some devices; ``torch.manual_seed`` would seed other devices too.

    :func:`rlwandb_callbacks.evaluation.preserved_state.preserved_state` restores these random states.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # policies and environments may draw from it
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)


def stream_seed(seed: int, stream: int) -> int:
    """Returns the seed of one of several independent streams of random numbers; that of stream 0 is ``seed`` itself.

    Example:
        >>> stream_seed(7, 0), stream_seed(7, 1), stream_seed(8, 0)
        (7, 369571992, 8)
    """
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0]) if stream else seed


def seed_generators(values: Iterable[Any], seed: int) -> None:
    """Seeds those values that are generators of Python, NumPy or torch, each differently."""
    for value in values:
        match value:
            case torch.Generator():
                value.manual_seed(seed)
            case random.Random() | np.random.RandomState():
                value.seed(seed % 2**32)
            case np.random.Generator():
                value.bit_generator.state = type(value.bit_generator)(seed).state
            case np.random.BitGenerator():
                value.state = type(value)(seed).state
            case _:
                continue
        seed = stream_seed(seed, 1)
