# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Write images (planted copies, phantoms, samples) and cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.columns import SERIES
from monai_memo.errors import ConfigurationError
from monai_memo.files import csv_text, write_text, write_with


def save_image(path: str | Path, image: np.ndarray) -> Path:
    """Write one image atomically; the ending of ``path`` chooses the format.

    Args:
        path: ``.png`` (8 bit, 2D), ``.nii`` / ``.nii.gz`` (3D, unit spacing, RAS) or ``.npy``.
        image: ``(channels, *spatial)`` float in [0, 1]; one channel, or three for a colour PNG; any number for npy.

    Raises:
        ConfigurationError: a shape or ending that does not fit, NaN or infinity.
        OutputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    whole = np.asarray(image, dtype=np.float32)
    name = path.name.lower()
    if not np.isfinite(whole).all():
        raise ConfigurationError(f"{path}: the image contains NaN or infinity")
    if name.endswith((".png", ".nii", ".nii.gz")):
        wanted = (1, 3) if name.endswith(".png") else (1,)
        if whole.ndim < 3 or len(whole) not in wanted:
            raise ConfigurationError(
                f"{path}: expected (channels, *spatial) with channels in {wanted}, got shape {whole.shape}"
            )
    values = whole[0] if len(whole) == 1 else np.moveaxis(whole, 0, -1)
    if name.endswith(".png"):
        if whole.ndim != 3:
            raise ConfigurationError(f"{path}: a PNG takes a 2D image, got shape {whole.shape}")
        picture = Image.fromarray(np.round(values.clip(0, 1) * 255).astype(np.uint8))
        return write_with(path, lambda temporary: picture.save(temporary, format="PNG"))
    if name.endswith((".nii", ".nii.gz")):
        volume = nibabel.Nifti1Image(values, np.eye(4))  # type: ignore[attr-defined, no-untyped-call]
        if name.endswith(".gz"):
            # The clock in a gzip header would make the same image different bytes every second.
            import gzip

            return write_with(path, lambda temporary: temporary.write_bytes(gzip.compress(volume.to_bytes(), mtime=0)))
        return write_with(path, lambda temporary: temporary.write_bytes(volume.to_bytes()))
    if name.endswith(".npy"):
        return write_with(path, lambda temporary: np.save(temporary, whole))
    raise ConfigurationError(f"{path}: images are written as .png, .nii, .nii.gz or .npy")


def write_cohort(
    cohort: Cohort, path: str | Path, further: Sequence[tuple[Path, str]] = (), columns: Sequence[str] = ()
) -> Path:
    """Write a cohort as a CSV (``image``, ``patient_id``) of absolute paths, with further images as (path, patient id).

    Args:
        columns: of the cohort's images that are kept; of DICOM series that share a folder the UIDs are in any case.

    An audit takes it as a cohort. Where patients are not known there is no column for them: names of files would be
    taken for patients, and equal names in two cohorts for one who is in both.
    """
    return write_text(path, cohort_table(cohort, further, columns))


def cohort_table(cohort: Cohort, further: Sequence[tuple[Path, str]] = (), columns: Sequence[str] = ()) -> str:
    """The text that ``write_cohort`` writes."""

    def kept(image: CohortImage) -> list[str]:
        return [image.columns.get(name, "") for name in columns]

    if SERIES not in columns and any(image.columns.get(SERIES) for image in cohort.images):
        columns = [*columns, SERIES]
    if not cohort.patients_known and not further:
        return csv_text(["image", *columns], ([str(image.path.resolve()), *kept(image)] for image in cohort.images))
    rows = [[str(image.path.resolve()), image.patient_id, *kept(image)] for image in cohort.images]
    rows += [[str(extra.resolve()), patient] for extra, patient in further]
    return csv_text(["image", "patient_id", *columns], rows)
