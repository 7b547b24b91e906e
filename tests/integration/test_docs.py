"""The pages name tests, findings and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other_libraries.md").read_text()
COLUMNS = ["what happens", "seen in", "source", "what this package does", "test"]


def rows() -> list[list[str]]:
    """Returns the cells of all rows of the tables, without the heads."""
    lines = [line.strip().strip("|") for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [row for row in cells if row != COLUMNS and len(row) == len(COLUMNS)]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_each_row_has_a_version_a_source_and_a_test_that_exists(row: list[str]) -> None:
    _, version, source, _, test = row
    assert re.search(r"\d", version)
    assert "https://" in source or "findings/" in source or "above" in source
    assert "::" in test or "by hand" in test or "pyproject.toml" in test
    for path, name in re.findall(r"`([\w/]+\.py)::(\w+)`", test):
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path}::{name}"


def test_each_row_on_reliability_names_a_test_that_exists() -> None:
    lines = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    held = [found for row in rows for found in re.findall(r"`([\w/]+\.py)::(\w+)` \|$", row)]
    assert len(held) > 20
    for path, name in held:
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path}::{name}"


def test_every_finding_is_named_where_its_users_look() -> None:
    pages = " ".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for finding in (ROOT / "findings").glob("*.sh"):
        assert finding.name in pages


def test_links_within_the_project_exist() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
