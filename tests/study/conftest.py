# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A study of phantoms of 32 pixels per axis, with tiny networks that are trained for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from tests.bundles.test_generators import TINY

ROOT = Path(__file__).parents[2]
LATENT_DIFFUSION = {
    name: TINY[name]
    for name in TINY
    if name.startswith(("latent", "autoencoder", "discriminator", "diffusion", "num_", "sampling"))
    and name != "diffusion_epochs"  # of the study
}
SMALL: dict[str, Any] = {"batch_size": 4, "steps_per_epoch": 2, "latent_size": 4}


@pytest.fixture(scope="session")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 patients to train on, 40 held out."""
    folder = tmp_path_factory.mktemp("study_cohorts")
    for name, first, n in (("training", 0, 30), ("heldout", 1000, 40)):
        for i in range(n):
            save_image(folder / name / f"p{first + i}.png", chest_phantom(first + i, (32, 32)))
    return folder


@pytest.fixture
def grid(cohorts: Path, detector_file: Path) -> dict[str, Any]:
    """A study of one run by a variational autoencoder; tests change what they are about."""
    return {
        "base": {"generator": "vae", "n_patients": 12, "augmentation": "none", "network": "small", "steps": 4},
        "factors": {},
        "seeds": [0],
        "generators": {
            "ldm": {
                "kind": "latent_diffusion",
                "bundle": str(ROOT / "bundles" / "chest_xray_ldm"),
                "profile": "small",
                "settings": LATENT_DIFFUSION,
            },
            "vae": {
                "kind": "variational_autoencoder",
                "settings": {**SMALL, "channels": [4, 8]},
                "networks": {"small": {}, "large": {"channels": [8, 16]}},
            },
            "gan": {"kind": "gan", "settings": {**SMALL, "channels": [8, 4], "discriminator_channels": [4, 8]}},
        },
        "image_size": [32, 32],
        "n_samples": 20,
        "heldout_patients": 30,
        "dataset": str(cohorts / "training"),
        "heldout": str(cohorts / "heldout"),
        "detector": str(detector_file),
    }


def write_grid(grid: dict[str, Any], folder: Path) -> Path:
    """As a file."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(grid, sort_keys=False), encoding="utf-8")
    return path
