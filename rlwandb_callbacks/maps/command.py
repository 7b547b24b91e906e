"""The command ``rlwandb embed``: the map of a data set as a picture, without a training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from rlwandb_callbacks.config import DATASET_FORMATS, EmbeddingConfig
from rlwandb_callbacks.core.files import check_writable
from rlwandb_callbacks.datasets import OfflineDataset, open_dataset
from rlwandb_callbacks.datasets.zero_values import zeros_warning
from rlwandb_callbacks.errors import ConfigError, DatasetError
from rlwandb_callbacks.maps.data_map import DataMap, StageProgress
from rlwandb_callbacks.maps.figures import COLORINGS, figure_named, subtitle
from rlwandb_callbacks.maps.html_page import INSTALL_PLOTLY, has_plotly, interactive_page
from rlwandb_callbacks.maps.jobs import MapMaker
from rlwandb_callbacks.media.figures import pixels_of

PANELS = ("overview", *(f"{layout}_by_{key}" for layout in ("state", "state_action") for key in COLORINGS))
# Written by matplotlib; pictures with other suffixes are written by Pillow.
FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".pdf", ".svg")


def main(arguments: Sequence[str]) -> int:
    """Makes the picture; returns the exit status, which is 2 if the data or a setting are wrong."""
    options = parse(arguments)
    try:
        names = ("method", "engine", "sample_size", "max_seconds", "perplexity", "seed")
        embedding = EmbeddingConfig(**{name: getattr(options, name) for name in names})
        check_outputs(options)
        dataset = open_dataset(options.path, options.format)
        with dataset, progress_bar() as progress:
            describe(dataset)
            if dataset.is_all_zero:
                raise DatasetError(f"{dataset.name}: {zeros_warning(dataset.name)} There is nothing to draw.")
            data_map = MapMaker(dataset=dataset, embedding=embedding, cache_folder=options.cache)(progress)
        write(data_map, options)
    except (ConfigError, ValueError, OSError) as error:
        print(f"rlwandb embed: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="rlwandb embed", description="Draws a data set of offline transitions.")
    defaults = EmbeddingConfig()
    parser.add_argument("path", help="file or folder of offline data: HDF5, npz, pickle, or a Minari id")
    parser.add_argument("--out", type=Path, help="file of the picture (default: <name>.png in this folder)")
    parser.add_argument("--panel", choices=PANELS, default=PANELS[0], help="which picture (default: %(default)s)")
    parser.add_argument("--html", type=Path, help="file of an interactive page, which is written too; needs Plotly")
    parser.add_argument("--format", choices=DATASET_FORMATS, help="layout of the data (default: by content)")
    parser.add_argument("--method", default=defaults.method, help="tsne or pca (default: %(default)s)")
    parser.add_argument("--engine", default=defaults.engine, help="auto, opentsne or sklearn (default: %(default)s)")
    parser.add_argument("--sample-size", type=int, help="transitions to draw (default: by --max-seconds, ≤ 10,000)")
    parser.add_argument("--max-seconds", type=float, default=defaults.max_seconds, help="default: %(default)s")
    parser.add_argument("--perplexity", type=float, default=defaults.perplexity, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    parser.add_argument("--cache", help="folder in which maps are kept for later runs")
    return parser.parse_args(list(arguments))


def check_outputs(options: argparse.Namespace) -> None:
    """Sets the default of ``--out``, and raises an error before any work if an output cannot be written."""
    options.out = options.out or Path(f"{Path(options.path).stem or 'dataset'}.png")
    if options.html == options.out:
        raise ValueError(f"--out and --html are both {str(options.out)!r}; set them to two different files.")
    if options.html is not None and not has_plotly():
        raise ConfigError(f"--html needs Plotly, which is not installed. Install it with: {INSTALL_PLOTLY}")
    for file in filter(None, (options.out, options.html)):
        require_writable(file)
    require_picture_suffix(options.out)
    if options.cache is not None:
        check_writable(options.cache, setting="--cache")


def require_picture_suffix(file: Path) -> None:
    """Raises an error if neither matplotlib nor Pillow can write a picture with the suffix of a file."""
    suffix = file.suffix.lower()
    if suffix in FIGURE_SUFFIXES:
        return
    try:
        Image.new("RGB", (1, 1)).save(BytesIO(), Image.registered_extensions()[suffix])
    except (KeyError, ValueError, OSError) as error:
        allowed = ", ".join(FIGURE_SUFFIXES)
        raise ValueError(
            f"--out is {str(file)!r}; it must end with one of {allowed}, or like another format that Pillow writes, "
            "such as .bmp or .gif."
        ) from error


def require_writable(file: Path) -> None:
    """Makes the folder of a file, and raises an error if the file cannot be written; its content is kept."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder; set the name of a file in it.")
    file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not file.exists()
    with file.open("ab"):
        pass
    if is_new:
        file.unlink()


def describe(dataset: OfflineDataset) -> None:
    """Prints what the data set contains."""
    shape = " × ".join(map(str, dataset.observation_shape)) or "1"
    print(f"Data set:     {dataset.name} ({dataset.layout} layout)")
    print(f"Size:         {dataset.num_transitions:,} transitions in {dataset.num_episodes:,} episodes")
    print(f"Observation:  {shape} numbers")
    for warning in dataset.warnings:
        print(f"Warning:      {warning}")


@contextmanager
def progress_bar() -> Iterator[StageProgress]:
    """Shows the progress of a map: one bar for the states and one for the states with actions."""
    from tqdm import tqdm

    bars: dict[str, Any] = {}
    style = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with ExitStack() as open_bars:

        def show(stage: str, fraction: float) -> None:
            if stage not in bars:
                open_bars.close()
                bars[stage] = open_bars.enter_context(tqdm(total=100, desc=f"Map of {stage}", bar_format=style))
            bars[stage].update(round(100 * fraction) - bars[stage].n)

        yield show


def write(data_map: DataMap, options: argparse.Namespace) -> None:
    """Writes the picture and the page, and prints their paths."""
    figure = figure_named(data_map, options.panel)
    if options.out.suffix.lower() in FIGURE_SUFFIXES:
        figure.savefig(options.out)
    else:
        Image.fromarray(pixels_of(figure)).save(options.out)
    print(f"Shows:        {subtitle(data_map)}")
    print(f"Picture:      {options.out.resolve()}")
    if options.html is not None:
        page = interactive_page(data_map, max_rows=len(data_map))
        options.html.write_text(page.text, encoding="utf-8")
        print(f"Page:         {options.html.resolve()}")
