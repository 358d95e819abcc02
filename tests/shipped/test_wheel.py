# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``pip install`` brings: read from the wheel, and tried from an empty folder in a fresh environment (slow)."""

from __future__ import annotations

import re
import subprocess
import zipfile
from email import message_from_bytes
from pathlib import Path

from monai_memo.shipped.content import READY, bundles_in, files_of

ROOT = Path(__file__).parents[2]


def tracked(under: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", under], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()


def test_the_wheel_has_bundles_detectors_and_constraints_and_nothing_that_runs_left(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name.removeprefix("monai_memo/shipped/") for name in names if name.startswith("monai_memo/shipped/")}
    bundles = {
        f"bundles/{bundle.name}/{file.as_posix()}"
        for bundle in bundles_in(ROOT / "bundles")
        for file in files_of(bundle)
    }
    assert len(bundles) > 40 and {name for name in inside if not name.endswith(".py")} == bundles | {
        "constraints.txt",
        "constraints-label.txt",
    }
    for ready in READY.values():
        assert f"bundles/{ready.bundle}/{ready.file}" in inside
    assert {name for name in names if "." not in name.split("/")[0]} == {
        name for name in names if name.startswith("monai_memo/")
    }, "nothing at the top of site-packages but the package"
    assert wheel.stat().st_size < 8e6


def test_every_file_of_a_bundle_in_the_repository_is_shipped() -> None:
    for bundle in bundles_in(ROOT / "bundles"):
        committed = {name.removeprefix(f"bundles/{bundle.name}/") for name in tracked(f"bundles/{bundle.name}")}
        assert {file.as_posix() for file in files_of(bundle)} >= committed


def test_links_of_the_readme_work_on_a_package_index(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    page = str(message_from_bytes(archive.read(name)).get_payload(decode=True), "utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    written = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) == len(written) > 20 and all(link.startswith("https://") for link in links)
    home = re.search(r"^url = (\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)[1]
    for before, after in zip(written, links, strict=True):
        if not before.startswith("https://"):
            assert re.fullmatch(rf"{re.escape(home)}/(blob|raw)/main/{re.escape(before)}", after)
            assert (ROOT / before.split("#")[0]).exists(), f"README.md links to {before}, which is not there"
