# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The page about training loops is run, and the three loops get the same numbers."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "training_loops.md").read_text(encoding="utf-8")
LOOPS = {"a loop of your own": "plain.csv", "Ignite and MONAI": "ignite.csv", "Lightning": "lightning.csv"}


def block(heading: str) -> str:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def shared(
    demo_folder: Path, detector_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder that the page speaks of, and what its first block defines."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("training", "heldout"):
        (folder / name).symlink_to(demo_folder / name)
    (folder / "detector.pt").symlink_to(detector_file)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(block("What all three share"), "docs/training_loops.md", "exec"), names)
    return folder, names


def table(path: Path) -> list[Mapping[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return [{k: v for k, v in row.items() if k not in ("epoch", "seconds")} for row in csv.DictReader(stream)]


@pytest.mark.parametrize("loop", [name for name in LOOPS if name != "a loop of your own"])
def test_the_loops_of_the_page_get_the_same_numbers(
    loop: str, shared: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if loop == "Lightning":
        pytest.importorskip("pytorch_lightning")
    folder, names = shared
    monkeypatch.chdir(folder)
    if not Path("plain.csv").exists():
        exec(compile(block("A loop of your own"), "docs/training_loops.md", "exec"), names)
        assert re.findall(r"^step (\d+): \d+ of 12 samples", capsys.readouterr().out, re.MULTILINE) == ["6", "12"]
        assert [row["step"] for row in names["monitor"].history] == [6, 12]
    exec(compile(block(loop), "docs/training_loops.md", "exec"), names)
    wanted, found = table(folder / "plain.csv"), table(folder / LOOPS[loop])
    assert len(wanted) == 2 and found == wanted
    assert -1 <= float(capsys.readouterr().out.split()[-1].strip("tensor()")) <= 1
