"""The table, on the terminal and in a file."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lines import Result, in_words

PACKAGES = (
    "rlwandb-callbacks",
    "torch",
    "numpy",
    "pytorch-lightning",
    "wandb",
    "gymnasium",
    "matplotlib",
    "moviepy",
    "pillow",
    "scikit-learn",
    "openTSNE",
    "h5py",
)


def row(result: Result) -> list[str]:
    """The cells of a line: what, against, ours, theirs, ratio with its range, target, verdict."""
    line = result.line
    target = "–" if line.target is None else f"≤ {line.target:g} ×"
    if line.ours_at_most is not None:
        target += f", ≤ {in_words(line.ours_at_most, line.unit)}"
    if result.failure:
        return [line.what, line.against, "–", "–", "–", target, f"failed: {result.failure}"]
    ours, theirs = (in_words(side, line.unit) for side in result.sides)
    ratios = result.ratios
    spread = f"{result.ratio:.3f} ({ratios[0]:.3f} – {ratios[-1]:.3f})"
    return [line.what, line.against, ours, theirs, spread, target, verdict(result)]


ABOUT = (
    "Written by `make bench`. Both sides of a line run in turn; the ratio is the median of those of the pairs, in "
    "brackets the least and the largest. Times are CPU time where the line says so, else wall time."
)
HEADINGS = ["what", "against", "ours", "theirs", "ratio (range)", "to reach", ""]


def verdict(result: Result) -> str:
    """What the last cell says."""
    if result.line.target is None:
        return ""
    return "reached" if result.is_reached else "**missed**"


def as_text(results: Sequence[Result]) -> str:
    """The table in columns."""
    rows = [HEADINGS, *(row(result) for result in results)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in rows)


def as_markdown(results: Sequence[Result], minutes: float) -> str:
    """The table, what it was measured on, notes, and profiles of what was missed."""
    bars = ["| " + " | ".join(cells) + " |" for cells in (HEADINGS, ["---"] * len(HEADINGS), *map(row, results))]
    notes = [f"- **{result.line.what}**: {result.line.note}" for result in results if result.line.note]
    profiles = [f"### {result.line.what}\n\n```text\n{result.profile}\n```" for result in results if result.profile]
    parts = [
        "# What the callbacks cost",
        ABOUT,
        "\n".join(bars),
        "\n".join(notes),
        "## Machine and versions",
        "\n".join(machine(minutes)),
    ]
    if profiles:
        parts += ["## Profiles of what was missed", "CPU time of the calling thread.", *profiles]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine(minutes: float) -> list[str]:
    """What the numbers were measured on."""
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := version_of(name)))
    now = dt.datetime.now(dt.timezone.utc)
    load = f"; load at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        f"- {processor()}, {os.cpu_count()} cores, {memory_gib():.0f} GiB{load}",
        f"- {platform.platform()}, Python {platform.python_version()}",
        f"- {versions}",
        f"- {now:%Y-%m-%d}, {minutes:.0f} minutes",
    ]


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = (
        [text.split(":")[1].strip() for text in info.read_text().splitlines() if text.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
