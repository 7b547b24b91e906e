"""Results table, for the terminal and for a file."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.lines import Result, format_value

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
    """Returns the cells of a line, in the order of ``HEADINGS``."""
    line = result.line
    target = "–" if line.target is None else f"≤ {line.target:g} ×"
    if line.ours_at_most is not None:
        target += f", ≤ {format_value(line.ours_at_most, line.unit)}"
    if result.failure:
        return [line.what, line.against, "–", "–", "–", target, f"failed: {result.failure}"]
    ours, reference = (format_value(side, line.unit) for side in result.sides)
    ratios = result.ratios
    spread = f"{result.ratio:.3f} ({ratios[0]:.3f} – {ratios[-1]:.3f})"
    return [line.what, line.against, ours, reference, spread, target, status(result)]


ABOUT = (
    "Written by `make bench`. Both sides of a line run in turn; the ratio is the median over the pairs, with the "
    "smallest and the largest in parentheses. Times are CPU time if the line says so, otherwise wall time."
)
HEADINGS = ["measured", "reference", "ours", "theirs", "ratio (range)", "target", ""]


def status(result: Result) -> str:
    """Returns the text of the last cell."""
    if result.line.target is None:
        return ""
    return "reached" if result.is_reached else "**missed**"


def as_text(results: Sequence[Result]) -> str:
    """Formats the table in aligned columns."""
    rows = [HEADINGS, *(row(result) for result in results)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in rows)


def as_markdown(results: Sequence[Result], minutes: float) -> str:
    """Formats the table with notes, the machine, and profiles of the lines that missed their target."""
    table = ["| " + " | ".join(cells) + " |" for cells in (HEADINGS, ["---"] * len(HEADINGS), *map(row, results))]
    notes = [f"- **{result.line.what}**: {result.line.note}" for result in results if result.line.note]
    profiles = [f"### {result.line.what}\n\n```text\n{result.profile}\n```" for result in results if result.profile]
    parts = [
        "# What the callbacks cost",
        ABOUT,
        "\n".join(table),
        "\n".join(notes),
        "## Machine and versions",
        "\n".join(machine(minutes)),
    ]
    if profiles:
        parts += ["## Profiles of missed targets", "CPU time of the calling thread.", *profiles]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine(minutes: float) -> list[str]:
    """Describes the machine and the versions."""
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
    """Returns the name of the processor, if the system reports it."""
    info = Path("/proc/cpuinfo")
    names = (
        [text.split(":")[1].strip() for text in info.read_text().splitlines() if text.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
