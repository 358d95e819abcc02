# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``pip install`` brings: read from the wheel, and tried from an empty folder in a fresh environment (slow)."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

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


def run(words: list[str], place: Path, bin: Path) -> str:
    """A command as somebody types it who has the package and no repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode in (0, 3), f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_from_pip_to_an_audit_of_a_bundles_samples_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Fresh environment, no repository: demo, then a bundle from its training to the audit that sampling prints."""
    seconds: dict[str, float] = {}
    place, bin = tmp_path / "empty", tmp_path / "env" / "bin"
    place.mkdir()

    def timed(name: str, *words: str) -> str:
        started = time.monotonic()
        told = run(list(words), place, bin)
        seconds[name] = round(time.monotonic() - started)
        return told

    constraints = ROOT / "constraints.txt"
    torch = re.search(r"^torch==\S+$", constraints.read_text(), re.MULTILINE)
    assert torch is not None
    timed("environment", sys.executable, "-m", "venv", str(tmp_path / "env"))
    timed("install torch", str(bin / "pip"), "install", "-q", torch[0])
    timed("install the wheel", str(bin / "pip"), "install", "-q", "-c", str(constraints), str(wheel))
    assert "chest_xray_ldm" in timed("list", "monai-memo", "bundles", "list")
    timed("demo", "monai-memo", "demo", "--out", "demo", "--n_synthetic", "60", "--noprogress")
    assert (place / "demo" / "audit" / "report.html").is_file()
    timed("copy", "monai-memo", "bundles", "copy", "chest_xray_ldm", ".")
    assert "failed" not in timed("check", "monai-memo", "bundles", "check", "./chest_xray_ldm")
    configs = place / "chest_xray_ldm" / "configs"
    images = place / "demo" / "images" / "training"
    short = ["--autoencoder_epochs", "1", "--diffusion_epochs", "1", "--autoencoder_steps_per_epoch", "20"]
    short += ["--diffusion_steps_per_epoch", "20", "--progress", "False"]
    bundle = ["python", "-m", "monai.bundle", "run", "--bundle_root", "chest_xray_ldm", "--config_file"]
    for name in ("train_autoencoder", "train_diffusion", "inference"):
        files = f"['{configs / f'{name}.json'}','{configs / 'small.json'}']"
        out = ["--output_dir", "samples", "--n_samples", "40"] if name == "inference" else ["--output_dir", "OUT"]
        told = timed(name, *bundle, files, "--dataset_dir", str(images), "--model_dir", "OUT", *out, *short)
    command = shlex.split(told.strip().splitlines()[-1])
    assert command[:2] == ["monai-memo", "audit"]
    timed("audit", *command, "--detector", "chest_xray", "--limit_copies", "0", "--planted", "20", "--noprogress")
    record = json.loads((place / "samples_audit" / "audit.json").read_text())
    assert record["cohorts"]["synthetic"]["n_images"] == 40
    disk = sum(path.stat().st_size for path in (tmp_path / "env").rglob("*") if path.is_file()) / 1e9
    print(f"seconds {seconds}, environment {disk:.1f} GB")
