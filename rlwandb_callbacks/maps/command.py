"""The command ``rlwandb embed``: the map of a data set as a picture, without a training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlwandb_callbacks.config import DATASET_FORMATS, EmbeddingConfig
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.maps.data_map import DataMap, StageProgress
from rlwandb_callbacks.maps.figures import COLORS, figure_named, subtitle
from rlwandb_callbacks.maps.html_page import interactive_page
from rlwandb_callbacks.maps.work import MapMaker
from rlwandb_callbacks.media.figures import pixels_of

PANELS = ("overview", *(f"{of}_by_{by}" for of in ("state", "state_action") for by in COLORS))


def main(arguments: Sequence[str]) -> int:
    """Makes the picture.

    Args:
        arguments: Without the command's own name.

    Returns:
        The exit status: 2 where the data or a setting are wrong.
    """
    given = parse(arguments)
    try:
        embedding = EmbeddingConfig(**settings_of(given))
        make_places(given)
        dataset = open_dataset(given.path, given.format)
        with dataset:
            describe(dataset)
            make = MapMaker(dataset=dataset, embedding=embedding, cache_folder=given.cache)
            with progress_bar() as progress:
                data_map = make(progress)
        write(data_map, given)
    except (ConfigError, ValueError, OSError) as error:
        print(f"rlwandb embed: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="rlwandb embed", description="Draws a data set of offline transitions.")
    defaults = EmbeddingConfig()
    parser.add_argument("path", help="file or folder of offline data: HDF5, npz, pickle, or a Minari id")
    parser.add_argument("--out", type=Path, help="where the picture goes (default: <name>.png in this folder)")
    parser.add_argument("--panel", choices=PANELS, default=PANELS[0], help="which picture (default: %(default)s)")
    parser.add_argument("--html", type=Path, help="also write an interactive page there")
    parser.add_argument("--format", choices=DATASET_FORMATS, help="layout of the data (default: by content)")
    parser.add_argument("--method", default=defaults.method, help="tsne or pca (default: %(default)s)")
    parser.add_argument("--engine", default=defaults.engine, help="auto, opentsne or sklearn (default: %(default)s)")
    parser.add_argument("--sample-size", type=int, help="transitions to draw (default: by --max-seconds, ≤ 10,000)")
    parser.add_argument("--max-seconds", type=float, default=defaults.max_seconds, help="default: %(default)s")
    parser.add_argument("--perplexity", type=float, default=defaults.perplexity, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    parser.add_argument("--cache", help="folder in which maps are kept for the next time")
    return parser.parse_args(list(arguments))


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """Those arguments that are fields of an EmbeddingConfig."""
    names = ("method", "engine", "sample_size", "max_seconds", "perplexity", "seed")
    return {name: getattr(given, name) for name in names}


def make_places(given: argparse.Namespace) -> None:
    """Makes the folders of what is written, and tells at once what could not be written after minutes of work.

    Raises:
        ConfigError: If the folder for maps takes no files.
        ValueError: If no picture has such an ending, a folder has the name of the file, or both are to be one file.
        OSError: If a folder cannot be made, or a file not be written.
    """
    from PIL import Image

    given.out = given.out or Path(f"{Path(given.path).stem or 'dataset'}.png")
    if given.html == given.out:
        raise ValueError(f"--out and --html are both {str(given.out)!r}; give the picture and the page a file each.")
    for file in filter(None, (given.out, given.html)):
        if file.is_dir():
            raise ValueError(f"{file} is a folder; give the name of a file in it.")
        file.parent.mkdir(parents=True, exist_ok=True)
        require_writable(file)
    if given.cache is not None:
        check_writable(given.cache, setting="--cache")
    writable = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    if given.out.suffix.lower() not in writable:
        raise ValueError(f"--out is {str(given.out)!r}; allowed is a name that ends as pictures do, such as .png.")


def require_writable(file: Path) -> None:
    """Raises an OSError unless a file can be written; what is in it stays."""
    is_new = not file.exists()
    with file.open("ab"):
        pass
    if is_new:
        file.unlink()


def describe(dataset: OfflineDataset) -> None:
    """Prints what was read."""
    shape = " × ".join(map(str, dataset.observation_shape)) or "1"
    print(f"Data set:  {dataset.name} ({dataset.layout} layout)")
    print(f"Holds:     {dataset.num_transitions:,} transitions in {dataset.num_episodes:,} episodes")
    print(f"Observed:  {shape} numbers a step")
    for warning in dataset.warnings:
        print(f"Warning:   {warning}")


@contextmanager
def progress_bar() -> Iterator[StageProgress]:
    """Shows how far the map is, as one bar for the states and one for the states with actions."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}

    def show(stage: str, share: float) -> None:
        if stage not in bars:
            close(bars.values())
            bars[stage] = tqdm(
                total=100, desc=f"Map of {stage}", bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
            )
        bars[stage].update(round(100 * share) - bars[stage].n)

    try:
        yield show
    finally:
        close(bars.values())


def close(bars: Iterable[Any]) -> None:
    """Leaves bars as they are."""
    for bar in bars:
        bar.close()


def write(data_map: DataMap, given: argparse.Namespace) -> None:
    """Writes the picture and the page, and prints where they are."""
    from PIL import Image

    Image.fromarray(pixels_of(figure_named(data_map, given.panel))).save(given.out)
    print(f"Shows:     {subtitle(data_map)}")
    print(f"Picture:   {given.out.resolve()}")
    if given.html is not None:
        page = interactive_page(data_map, max_rows=len(data_map))
        given.html.write_text(page.text, encoding="utf-8")
        print(f"Page:      {given.html.resolve()}")
