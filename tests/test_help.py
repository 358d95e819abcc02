# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys

import pytest

from monai_memo.__main__ import COMMANDS
from monai_memo.data.orientation import PICTURES, VOLUMES
from monai_memo.data.orientation_names import PICTURE_NAMES, VOLUME_NAMES
from monai_memo.data.phantoms import PHANTOMS
from monai_memo.settings import MODALITIES

SLOW = (
    "torch", "monai", "numpy", "scipy", "sklearn", "faiss", "ignite", "matplotlib", "nibabel", "pydicom", "PIL", "itk",
    "skimage", "tqdm", "jinja2", "fastapi",
)  # fmt: skip

# Runs command lines in a new process and tells which of our files imported something slow, for which command line.
WATCH = """
import importlib, json, sys, traceback
slow, lines = json.loads(sys.argv[1])
at_fault, now = [], []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in slow:
            files = [frame.filename for frame in traceback.extract_stack() if "monai_memo" in frame.filename]
            at_fault.append([" ".join(now), name, files[-1].rpartition("monai_memo")[2] if files else "?"])
        return None

sys.meta_path.insert(0, Watch())
sys.stdout, out = open("/dev/null", "w"), sys.stdout
for line in lines:
    now[:] = line
    if line[:1] == ["import"]:
        importlib.import_module(line[1])
        continue
    try:
        from monai_memo.__main__ import main
        main(line)
    except SystemExit as end:
        assert end.code == (2 if "--nonsense" in line else 0), line
print(json.dumps([at_fault, sorted(set(slow) & set(sys.modules))]), file=out)
"""


def slow_imports(lines: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    command = [sys.executable, "-c", WATCH, json.dumps([SLOW, lines])]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    at_fault, loaded = json.loads(shown)
    return at_fault, loaded


def test_help_of_every_command_loads_nothing_slow() -> None:
    lines = [[], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS), ["audit", "--nonsense", "1"]]
    at_fault, loaded = slow_imports(lines)
    told = [f"monai-memo {line}: {name} is imported by monai_memo{file}" for line, name, file in at_fault]
    assert not told and not loaded, "\n".join(told)


def test_the_watch_names_the_import_that_is_at_fault() -> None:
    at_fault, loaded = slow_imports([["card", "--help"], ["import", "monai_memo.data.writing"]])
    assert ["import monai_memo.data.writing", "nibabel", "/data/writing.py"] in at_fault and "nibabel" in loaded


@pytest.mark.parametrize(
    ("named", "known"), [(PICTURE_NAMES, PICTURES), (VOLUME_NAMES, VOLUMES), (MODALITIES, PHANTOMS)]
)
def test_names_that_help_knows_are_those_that_there_are(named: tuple[str, ...], known: dict[str, object]) -> None:
    assert named == tuple(known)
