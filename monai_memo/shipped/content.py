# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What is shipped besides Python: which files, and under which names. ``setup.py`` reads this as well as the library.

Patterns and not whole folders: trainings and samplings leave weights, tables of patients and images in a bundle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OF_A_BUNDLE = ("LICENSE", ".gitignore", "large_files.yml", "configs/*", "docs/*", "models/README.md")
CONSTRAINTS = ("constraints.txt", "constraints-label.txt")
METADATA = "configs/metadata.json"


@dataclass(frozen=True)
class ReadyDetector:
    """A detector that comes with the library.

    Attributes:
        bundle, file: where it lies, relative to the folder of the bundles and to the bundle.
        images: what it is for.
        also: further names.
    """

    bundle: str
    file: str
    images: str
    also: tuple[str, ...] = ()


READY = {
    "chest_xray": ReadyDetector(
        "memorization_detection", "models/chest_xray_64.pt", "chest X-rays (2D, 64 pixels)", ("chest_xray_64",)
    ),
    "hippocampus_mri": ReadyDetector(
        "memorization_detection",
        "models/hippocampus_mri_32.pt",
        "crops of brain MRI around the hippocampus (3D, 32 voxels)",
        ("hippocampus", "hippocampus_mri_32"),
    ),
}


def bundles_in(folder: Path) -> list[Path]:
    """The bundles in a folder, in order of their names."""
    return sorted(path.parents[1] for path in folder.glob(f"*/{METADATA}"))


def files_of(bundle: Path) -> Iterator[Path]:
    """The files of a bundle that are handed on, relative to it."""
    patterns = [*OF_A_BUNDLE, *(ready.file for ready in READY.values() if ready.bundle == bundle.name)]
    for pattern in patterns:
        yield from (path.relative_to(bundle) for path in sorted(bundle.glob(pattern)) if path.is_file())
