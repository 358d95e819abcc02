# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Markers stand wherever a patient's name can stand, and are looked for in everything that is given away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.audit.test_redaction import MARK, everything, place, run
from tests.release.conftest import second

__all__ = ["place"]  # a fixture


def test_no_marker_is_in_a_release_and_the_key_beside_it_has_them(place: Path) -> None:
    audit, ended = run(place, "--allow_overlap", redacted=False)
    assert ended.returncode == 3, ended.stderr[-2000:]
    second(place / "second.pt")
    out = place / f"{MARK}gifts" / "release"
    given = {"audit": audit, "out": out, "second_detector": place / "second.pt", "planted": 20, "device": "cpu"}
    command = [sys.executable, "-m", "monai_memo", "release", *(f"--{name}={value}" for name, value in given.items())]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [*command, "--noprogress"], cwd=place / f"{MARK}here", env=environment, capture_output=True, timeout=300
    )
    assert ended.returncode == 3, ended.stderr[-3000:]  # the broken synthetic files cannot be released
    assert b"cannot be released" in ended.stdout
    looked_at = 0
    for name, content in everything(out):
        assert MARK.lower().encode() not in content.lower(), name
        assert str(place.parent).encode() not in content, name
        looked_at += 1
    names = {path.name for path in out.iterdir()}
    assert looked_at > 10 and names == {
        "images", "figures", "release.json", "RELEASE.md", "RELEASE.html", "card.md", "card.html", "report.html",
        "second_look.json", ".monai_memo.json",
    }  # fmt: skip
    assert MARK in (out.with_name("release.private") / "key.csv").read_text()
    assert f"{MARK}verbatim.png" in (out.with_name("release.private") / "removed.csv").read_text()
    assert not (out.with_name("release.private") / ".monai_memo_work").exists()
