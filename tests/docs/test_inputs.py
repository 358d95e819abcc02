# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The table of inputs names tests that exist, for every format that is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monai_memo.data.formats import FORMATS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
SECTIONS = [section for section in re.split(r"^## ", PAGE, flags=re.MULTILINE) if "\nTests: " in section]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split("\n")[0])
def test_every_row_names_a_test_that_exists(section: str) -> None:
    line = next(line for line in section.splitlines() if line.startswith("Tests: "))
    files = [ROOT / name for name in re.findall(r"`([^`]+\.py)`", line)]
    defined = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE)}
    rows = [row for row in section.splitlines() if row.startswith("| ")][2:]
    assert rows
    for row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, f"no test in: {row}"
        assert named <= defined, f"no such test: {sorted(named - defined)}"
    for file in files:  # a file that no row needs is a leftover
        assert any(name in section for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))


def test_every_format_and_ending_stands_in_the_table() -> None:
    section = next(section for section in SECTIONS if section.startswith("Formats"))
    for item in FORMATS:
        for ending in item.endings:
            assert ending in section or ending.removesuffix(".gz") in section, f"{item.name}: {ending}"
