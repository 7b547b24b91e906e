"""The command ``rlwandb embed``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlwandb_callbacks.maps import command

DATA = Path(__file__).parents[1] / "data"


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlwandb_callbacks.cli", "embed", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)


@pytest.mark.parametrize(
    ("file", "summary"),
    [
        ("pendulum_expert_diengine.hdf5", "20,000 transitions in 100 episodes"),
        ("cartpole_expert_minari_layout.hdf5", "49,527 transitions in 100 episodes"),
    ],
)
def test_data_sets_are_written_as_image_and_html(file: str, summary: str) -> None:
    pytest.importorskip("h5py")
    process = run_command(str(DATA / file), "--sample-size=400", "--out=pictures/map.png", "--html=map.html")
    assert process.returncode == 0, process.stderr
    assert summary in process.stdout
    assert "Shows:        400 of " in process.stdout
    assert f"Picture:      {Path('pictures/map.png').resolve()}" in process.stdout
    assert "Map of states: 100%" in process.stderr
    assert "Map of states with actions: 100%" in process.stderr
    with Image.open("pictures/map.png") as picture:
        assert picture.size == (1500, 1200)
        assert len(picture.convert("RGB").getcolors(2**24)) > 500
    assert "Plotly.newPlot" in Path("map.html").read_text()


def write_data() -> str:
    rng = np.random.default_rng(0)
    np.savez(
        "few.npz", observations=rng.normal(size=(30, 2)), actions=rng.integers(0, 2, 30), rewards=rng.normal(size=30)
    )
    return "few.npz"


def test_default_image_name_is_the_data_set_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([write_data(), "--method=pca", "--panel=state_action_by_time"]) == 0
    assert Path("few.png").stat().st_size > 1_000
    assert "30 of 30 transitions" in capsys.readouterr().out


def test_configured_cache_is_used() -> None:
    for _ in range(2):
        assert command.main([write_data(), "--method=pca", "--cache=maps"]) == 0
    assert len(list(Path("maps").iterdir())) == 1


@pytest.mark.parametrize("folder", ["few.npz", "few.npz/maps", "loop"])
def test_unwritable_cache_is_an_error_before_any_work(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("loop").symlink_to("loop")  # cannot be opened, not even by root
    assert command.main([write_data(), "--method=pca", f"--cache={folder}"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"rlwandb embed: --cache is '{folder}', where no file can be written")
    assert "Data set:" not in output.out


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["nowhere.npz"], ["nowhere.npz does not exist"]),
        (["few.npz", "--method=umap"], ["'umap'", "'tsne'", "'pca'"]),
        (["few.npz", "--sample-size=0"], ["sample_size is 0", "≥ 1"]),
        (["few.npz", "--format=d4rl"], ["few.npz"]),
        (["few.npz", "--out=few"], ["'few'", ".png", ".gif"]),
        (["few.npz", "--out=few.xyz"], ["few.xyz", ".png", ".gif"]),
        (["few.npz", "--out=few.xbm"], ["few.xbm", ".png", ".gif"]),  # Pillow supports XBM only without colors
        (["few.npz", "--out=."], ["is a folder"]),
        (["few.npz", "--html=."], ["is a folder"]),
        (["few.npz", "--out=one.png", "--html=one.png"], ["are both 'one.png'"]),
    ],
)
def test_errors_have_one_line(arguments: list[str], fragments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_data()
    assert command.main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("rlwandb embed: ")
    assert output.err.count("\n") == 1
    assert all(word in output.err for word in fragments)
    assert "Data set:" not in output.out  # before any work


@pytest.mark.parametrize("option", ["--out", "--html"])
def test_unwritable_output_is_an_error_before_any_work(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("loop.png").symlink_to("loop.png")  # cannot be opened, not even by root
    assert command.main([write_data(), "--method=pca", f"{option}=loop.png"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("rlwandb embed: ")
    assert "loop.png" in output.err
    assert "Data set:" not in output.out


def test_html_without_plotly_is_an_error_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlwandb_callbacks.maps.html_page.find_spec", lambda name: None)
    assert command.main([write_data(), "--method=pca", "--html=map.html"]) == 2
    output = capsys.readouterr()
    assert 'pip install "rlwandb-callbacks[interactive]"' in output.err
    assert "Data set:" not in output.out
    assert command.main(["few.npz", "--method=pca"]) == 0


@pytest.mark.parametrize(
    ("suffix", "image_format"),
    [(".jpg", "JPEG"), (".webp", "WEBP"), (".tiff", "TIFF"), (".PNG", "PNG"), (".gif", "GIF"), (".BMP", "BMP")],
)
def test_suffix_selects_the_image_format(suffix: str, image_format: str) -> None:
    assert command.main([write_data(), "--method=pca", f"--out=map{suffix}"]) == 0
    with Image.open(f"map{suffix}") as picture:
        assert picture.format == image_format
        assert picture.size == (1500, 1200)
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
def test_vector_graphics_are_supported(suffix: str) -> None:
    assert command.main([write_data(), "--method=pca", f"--out=map{suffix}"]) == 0
    assert {".pdf": b"%PDF", ".svg": b"<svg"}[suffix] in Path(f"map{suffix}").read_bytes()[:2_000]


def test_existing_file_is_kept_if_the_data_are_invalid() -> None:
    Path("map.png").write_bytes(b"precious")
    assert command.main(["nowhere.npz", "--out=map.png", "--html=map.html"]) == 2
    assert Path("map.png").read_bytes() == b"precious"
    assert not Path("map.html").exists()


def test_lightning_and_wandb_are_not_imported() -> None:
    loaded = "any('lightning' in name or name == 'wandb' for name in sys.modules)"
    code = f"import sys, rlwandb_callbacks.maps.command; print({loaded})"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
