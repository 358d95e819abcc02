# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cut sub-volumes from whole CT volumes, as Dar et al. did with CT angiographies (arXiv 2402.01054, Methods)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from monai.transforms import GaussianSmooth, Orientation, Spacing

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import AXIS_LABELS
from monai_memo.data.reading import read_image, with_affine
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, ConfigurationError, UnusableImageError
from monai_memo.files import csv_text, write_text
from monai_memo.progress import following

logger = logging.getLogger(__name__)


def cut_subvolumes(
    source: str | Path,
    out: str | Path,
    size: Sequence[int],
    step: Sequence[int] | None = None,
    spacing: Sequence[float] | None = None,
    window: tuple[float, float] = (-200.0, 600.0),
    foreground: float = 0.5,
    patient_pattern: str | None = None,
    progress: bool = True,
) -> Path:
    """Write every sub-volume of a grid that is not mostly background, and ``index.csv``.

    Sub-volumes of one volume belong to one patient, so that a split by patient keeps them together.

    Args:
        source: folder, CSV or datalist of volumes.
        out: folder for ``<volume>_<x>_<y>_<z>.nii.gz`` and ``index.csv`` (``image``, ``patient_id``, ``volume``).
        size: voxels per axis of a sub-volume, (x, y, z) in RAS.
        step: voxels from one to the next; ``size`` by default, so that they do not overlap.
        spacing: mm to resample to first, smoothed before where that makes voxels larger.
        window: intensities (HU) that become 0 and 1.
        foreground: least share of voxels above the lower end of the window.
        patient_pattern: regular expression that finds the patient in a relative path.

    Returns:
        The index.

    Raises:
        ConfigurationError: a size or window out of range.
        CohortError: no sub-volume is left.
    """
    low, high = window
    if len(size) != 3 or min(size) < 8 or high <= low or not 0 <= foreground <= 1:
        raise ConfigurationError(
            "size must be three numbers of at least 8, window must rise and foreground lie between 0 and 1, got "
            f"{list(size)}, {list(window)} and {foreground!r}"
        )
    cohort, folder, rows = Cohort.from_source(source, "volumes", patient_pattern), Path(out), []
    for image in following(cohort.images, "cut", shown=progress):
        try:
            volume = _volume(image, spacing)
        except UnusableImageError as error:
            logger.warning("left out: %s", error)
            continue
        scaled = ((volume - low) / (high - low)).clip(0, 1).astype(np.float32)
        stem = image.image_id.replace("/", "_").split(".")[0]
        if any(have < want for have, want in zip(scaled.shape, size, strict=True)):
            logger.warning("left out: %s is smaller (%s) than a sub-volume", image.image_id, scaled.shape)
            continue
        for start in _grid(scaled.shape, size, step or size):
            part = scaled[tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))]
            if (part > 0).mean() < foreground or part.min() == part.max():
                continue
            name = f"{stem}_{'_'.join(map(str, start))}.nii.gz"
            save_image(folder / name, part[None])
            rows.append((name, image.patient_id, image.image_id))
    if not rows:
        raise CohortError(f"no sub-volume of {list(size)} voxels in {source} is more than background")
    return write_text(folder / "index.csv", csv_text(["image", "patient_id", "volume"], rows))


def _grid(shape: Sequence[int], size: Sequence[int], step: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Where sub-volumes start. MONAI's patch grids shift the last one back into the volume: it would overlap."""
    return product(*(range(0, have - want + 1, by) for have, want, by in zip(shape, size, step, strict=True)))


def _volume(image: CohortImage, spacing: Sequence[float] | None) -> np.ndarray:
    """``(x, y, z)`` in RAS orientation and, if asked for, at this spacing."""
    array, affine, _ = read_image(image)
    if array.ndim != 4 or len(array) != 1:
        raise UnusableImageError(image.path, "no volume with one channel")
    if affine is None:
        return array[0]
    volume = Orientation(axcodes="RAS", labels=AXIS_LABELS)(with_affine(array, affine))
    if spacing is not None:
        # Interpolation alone leaves voxels out where they get larger, which turns fine structure into noise.
        ratio = np.asarray(spacing) / volume.pixdim.numpy()
        volume = GaussianSmooth(sigma=np.maximum((ratio - 1) / 2, 0).tolist())(volume)
        volume = Spacing(pixdim=tuple(spacing), mode="bilinear", padding_mode="border")(volume)
    return np.asarray(volume)[0]
