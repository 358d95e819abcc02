# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Finished audits of phantoms, to be reviewed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from monai_memo.audit.audit import Audit
from monai_memo.audit.result import Estimate, Match
from monai_memo.label.prepare import FINAL
from monai_memo.label.ratings import append_entry, new_entry
from monai_memo.label.study import Study, draw_study


def run_audit(images: Path, out: Path, size: int, epochs: int) -> Path:
    cohorts = {"train": images / "training", "heldout": images / "heldout", "synthetic": images / "synthetic"}
    Audit(
        **{name: str(path) for name, path in cohorts.items()},
        out=str(out), size=size, epochs=epochs, n_bootstrap=100, planted=10, limit_copies=0, gallery=2, progress=False,
    ).run()  # fmt: skip
    return out


@pytest.fixture(scope="session")
def finished_audit(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(demo_folder, tmp_path_factory.mktemp("audit2d") / "audit", 32, 3)


@pytest.fixture(scope="session")
def finished_audit_3d(demo_folder_3d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(demo_folder_3d, tmp_path_factory.mktemp("audit3d") / "audit", 16, 1)


@pytest.fixture
def audit(finished_audit: Path, tmp_path: Path) -> Path:
    """30 synthetic images, 12 of them planted copies; a copy that a test may write to."""
    return Path(shutil.copytree(finished_audit, tmp_path / "audit"))


@pytest.fixture
def audit_3d(finished_audit_3d: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_audit_3d, tmp_path / "audit3d"))


@pytest.fixture
def truth(demo_folder: Path) -> dict[str, str]:
    """Training image that each synthetic image copies; empty for novel ones."""
    with open(demo_folder / "truth.csv", newline="", encoding="utf-8") as stream:
        return {row["synthetic"]: row["copied_from"] for row in csv.DictReader(stream)}


@pytest.fixture
def study() -> Study:
    """60 of 200 pairs, 40 of them called copies, and 5 further ones."""
    similarity = np.sort(np.random.default_rng(5).uniform(0.2, 0.99, 200))[::-1]
    matches = [
        Match(f"s{i}.png", f"t{i % 50}.png", "", round(float(value), 6), 0.8, i < 40)
        for i, value in enumerate(similarity)
    ]
    return draw_study(matches, Estimate(0.8, 0.78, 0.82), "identity", 2, n=60, n_uncertain=5, seed=1)


def rate_all(audit: Path, ratings: Mapping[str, str], rater: str, **further: object) -> None:
    """Store one rating for each pair."""
    for pair_id, rating in ratings.items():
        append_entry(
            audit / "review" / FINAL / f"{pair_id}.json", new_entry({"rating": rating, "rater": rater, **further})
        )
