# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The tutorials run from top to bottom, and what is committed of their outputs is theirs, small and of no machine."""

from __future__ import annotations

import ast
import importlib
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
LARGEST = 600_000  # bytes of a notebook with its pictures
LONGEST = 240  # seconds on 2 cores
SELDOM = ("02", "03", "04", "05", "06")  # run with the slow tests

# What each notebook must have shown at its end: the numbers differ between machines, the words do not.
SHOWN = {
    "01": ("Copies found:", "planted copies", "Not conclusive|No more copies"),
    "02": ("stopped after epoch [0-9]+; kept: the model of epoch [0-9]+",),
    "03": ("limit of detection of monai_memo", "rotation +found up to [0-9.]+", "FDR 5 % +[0-9.]+ listed"),
    "04": ("Detector against the consensus of 2 raters", "in what is given away: 0", "What is still possible"),
    "06": (
        "30 patients, 1000 steps +nearest to a training patient",
        "images were drawn for 40, [0-9]+ of them rejected",
    ),
    "05": (r"between both packages: [0-9.]+e-0[5-9]", "GeneratorError", "Copies found:"),
}


def text_of(notebook: Any) -> str:
    """All that the code cells have shown, pictures aside.

    A busy kernel sends what one ``print`` writes in several pieces: nothing may come between them.
    """
    shown = []
    for output in (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs):
        shown += [output.text] if output.output_type == "stream" else []
        shown += [f"\n{value}\n" for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return "".join(shown)


def pictures_of(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_there_are_six_in_order() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == sorted(SHOWN)
    assert not list((ROOT / "tutorials").glob("*.py")), "code belongs to the library"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_imported_is_there(path: Path) -> None:
    """Quicker than running it: a name that has moved ends a notebook in its first cell."""
    cells = nbformat.read(path, as_version=4).cells
    found = [
        (node.module, name.name)
        for cell in cells if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]  # fmt: skip
    assert any(str(module).startswith("monai_memo") for module, _ in found)
    for module, name in found:
        assert hasattr(importlib.import_module(str(module)), name), f"{module} has no {name}"


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.name[:2] in SELDOM else []) for path in NOTEBOOKS
])  # fmt: skip
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # Time for one cell; machines for tests are slower than people's.
    client = NotebookClient(notebook, timeout=2 * LONGEST, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = text_of(notebook)
    for words in SHOWN[path.name[:2]]:
        assert re.search(words, shown), words
    assert pictures_of(notebook) >= 2
    assert {item.name for item in tmp_path.iterdir()} <= {"tutorial_output"}, "it writes to its own folder only"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "executed once, in order"
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    shown = text_of(notebook)
    for words in SHOWN[path.name[:2]]:
        assert re.search(words, shown), words
    assert not re.search(r"(?<![\w.])/(?:[\w.-]+/)+", shown.replace("://", "")), "outputs name folders of a machine"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_text_is_complete_and_links_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.startswith(f"# {int(path.name[:2])}. ")
    for part in ("You will learn", "## Set-up", "## What not to conclude", "## Your own"):
        assert part in text, part
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        assert (path.parent / link).exists(), link
    assert path.name in (ROOT / "README.md").read_text(encoding="utf-8")
