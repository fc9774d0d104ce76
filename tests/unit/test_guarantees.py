"""Each line of docs/guarantees.md names a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`((?:unit|integration|system|contract|simulation)/\S+\.py)::(\w+)`")


def test_every_guarantee_names_a_test_that_exists() -> None:
    named = NAMED.findall((ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 25
    missing = [f"{file}::{name}" for file, name in named if not defines(ROOT / "tests" / file, name)]
    assert missing == []


def test_every_row_names_one() -> None:
    rows = [line for line in (ROOT / "docs" / "guarantees.md").read_text().splitlines() if line.startswith("| ")]
    headings = {"| what holds | test |"}
    assert [row for row in rows if row not in headings and not NAMED.search(row)] == []


def defines(file: Path, name: str) -> bool:
    return file.exists() and re.search(rf"^\s*(?:async )?def {name}\(", file.read_text(), re.MULTILINE) is not None
