# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Three cohorts of phantoms with a known share of planted copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.data.phantoms import PHANTOMS, VOLUMES
from monai_memo.data.planting import plant_mixture
from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json, write_text

MARKER, KIND = ".monai_memo_phantoms.json", "phantoms of monai_memo"


def _require_ours(folder: Path, made: dict[str, Any]) -> None:
    """Phantoms would replace images of the same name, and the rest would be taken for phantoms."""
    try:
        if json.loads((folder / MARKER).read_text(encoding="utf-8")) == made:
            return  # the same call went before, or was killed
    except (OSError, ValueError):
        pass
    for name in ("training", "heldout", "synthetic", "truth.csv"):
        place = folder / name
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            raise ConfigurationError(
                f"{place} is there already, and not from these very phantoms. It is left as it is: name another folder "
                "for the phantoms, or move it away."
            )


def write_demo_cohorts(
    folder: str | Path,
    modality: str = "chest",
    n_train: int = 300,
    n_heldout: int = 200,
    n_synthetic: int = 150,
    copy_share: float = 0.3,
    seed: int = 0,
    size: int | None = None,
) -> Path:
    """Write the folders ``training``, ``heldout`` and ``synthetic`` and the table ``truth.csv``.

    All patients differ. Of the synthetic images, ``copy_share`` are planted copies of training images, each of another
    one; the others are phantoms of further patients.

    Args:
        modality: ``"chest"``, ``"ultrasound"``, ``"pet"`` or ``"dermoscopy"`` (in colour; all 2D, PNG), ``"knee"``,
            ``"coronary"`` or ``"pet_volume"`` (3D, NIfTI).
        size: pixels or voxels per axis; 64 in 2D, 32 in 3D by default.

    Returns:
        The folder. ``truth.csv`` has the columns ``synthetic``, ``copied_from`` (empty for novel images) and ``kind``.

    Raises:
        ConfigurationError: unknown modality, more copies than training images, or other images lie there already.
    """
    if modality not in PHANTOMS:
        raise ConfigurationError(f"modality must be one of {', '.join(PHANTOMS)}, got {modality!r}")
    n_copies = round(copy_share * n_synthetic)
    if not 0 <= copy_share <= 1 or n_copies > n_train:
        raise ConfigurationError(
            f"{n_copies} copies need a share between 0 and 1 and as many training images, got {n_train}"
        )
    folder = Path(folder)
    made = {"kind": KIND, "arguments": [modality, n_train, n_heldout, n_synthetic, copy_share, seed, size]}
    _require_ours(folder, made)
    write_json(folder / MARKER, made)
    dims = 3 if modality in VOLUMES else 2
    shape = (size or (64 if dims == 2 else 32),) * dims
    ending = "png" if dims == 2 else "nii.gz"
    first = 1_000_000 * seed

    def phantom(number: int) -> np.ndarray:
        return PHANTOMS[modality](first + number, shape)

    training = [phantom(i) for i in range(n_train)]
    for i, image in enumerate(training):
        save_image(folder / "training" / f"patient_{i:05d}.{ending}", image)
    for i in range(n_heldout):
        save_image(folder / "heldout" / f"patient_{n_train + i:05d}.{ending}", phantom(n_train + i))
    rng = np.random.default_rng([seed, 5])
    originals = rng.permutation(n_train)[:n_copies]
    kinds: list[str] = []
    images = [phantom(n_train + n_heldout + i) for i in range(n_synthetic - n_copies)]
    if n_copies:
        copies, kinds = plant_mixture(np.stack([training[i] for i in originals]), seed)
        images = [*copies, *images]
    # Copies must not be recognisable by their place in the folder.
    names = [f"synthetic_{place:05d}.{ending}" for place in rng.permutation(n_synthetic)]
    rows = []
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        save_image(folder / "synthetic" / name, image)
        copied = f"patient_{originals[number]:05d}.{ending}" if number < n_copies else ""
        rows.append(f"{name},{copied},{kinds[number] if number < n_copies else ''}")
    write_text(folder / "truth.csv", "\n".join(["synthetic,copied_from,kind", *sorted(rows)]) + "\n")
    return folder
