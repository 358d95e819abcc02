# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
BUILT_FROM += ("constraints-label.txt", "monai_memo", "bundles")
LEFT_BY_RUNS = (
    "models/model.pt",
    "models/training.csv",
    "eval/sample_000000.png",
    "data/p1.png",
    "configs/__pycache__/x",
)


def build(source: Path, out: Path) -> Path:
    """A wheel of a source tree, without a download."""
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the repository in which runs have left things."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    for name in LEFT_BY_RUNS:
        left = source / "bundles" / "chest_xray_ldm" / name
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("of a patient")
    return build(source, tmp_path_factory.mktemp("wheel"))
