# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL after each step: nothing looks finished that is not, and the same command ends as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from monai_memo.errors import OutputError
from monai_memo.files import sha256_of
from monai_memo.release.release import Release
from monai_memo.release.statement import Released
from tests.release.killed import COMMAND, POINTS, Named, given

SLOW = (
    "a batch was looked up", "all were drawn", "some images were written", "the first second look",
    "the last second look", "the key was written", "the key was put in place",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(clinic: Path) -> Released:
    return Release(Named(), **given(clinic, clinic / "whole")).run()


def images(done: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in (done / "images").iterdir()}


@pytest.mark.parametrize("point", [pytest.param(p, marks=[pytest.mark.slow] * (p in SLOW)) for p in POINTS])
def test_a_release_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    clinic: Path, whole: Released, tmp_path: Path, point: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, private = tmp_path / "out", tmp_path / "out.private"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", COMMAND, point, str(clinic), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -9, ended.stderr[-2000:]
    finished = point == "all was put in place"
    assert (out / "release.json").exists() == finished, "what is half in place does not look finished"
    assert (private / "key.csv").exists() or not any(out.glob("images/*")), "no release without its key"
    if finished:
        with pytest.raises(OutputError, match="holds the finished release already"):
            Release(Named(), **given(clinic, out)).run()
    else:
        capsys.readouterr()
        Release(Named(), **given(clinic, out)).run()
        drawn_before = {line for line in ended.stdout.splitlines() if line.startswith("drew")}
        drawn_again = set(capsys.readouterr().out.splitlines()) & drawn_before
        assert not drawn_again, "whole batches are not drawn again"
    assert images(out) == images(whole.out), "nothing is lost, and nothing is released twice"
    assert (private / "key.csv").read_bytes() == (whole.private / "key.csv").read_bytes()
    assert (private / "removed.csv").read_bytes() == (whole.private / "removed.csv").read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.out.iterdir()}
    assert {path.name for path in private.iterdir()} == {path.name for path in whole.private.iterdir()}
    for name in (path.relative_to(out).as_posix() for path in out.rglob("*.png")):
        assert name in whole.record["files"]


def test_a_folder_that_was_changed_since_is_not_taken_for_the_finished_release(clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = Release(Named(), **given(clinic, out)).run()
    (done.private / ".monai_memo_work").mkdir()
    (out / "images" / "0001.png").write_bytes(b"another")
    with pytest.raises(OutputError, match="holds something already"):
        Release(Named(), **given(clinic, out)).run()
