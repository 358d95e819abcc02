# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Write images: planted copies, phantoms, samples."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from monai_memo.errors import ConfigurationError
from monai_memo.files import write_with


def save_image(path: str | Path, image: np.ndarray) -> Path:
    """Write one image atomically; the ending of ``path`` chooses the format.

    Args:
        path: ``.png`` (8 bit, 2D), ``.nii`` / ``.nii.gz`` (3D, unit spacing, RAS) or ``.npy``.
        image: ``(1, *spatial)`` float in [0, 1].
    """
    path = Path(path)
    values = np.asarray(image, dtype=np.float32)[0]
    name = path.name.lower()
    if name.endswith(".png"):
        if values.ndim != 2:
            raise ConfigurationError(f"{path}: a PNG takes a 2D image, got shape {np.shape(image)}")
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
        return write_with(path, lambda temporary: np.save(temporary, np.asarray(image, dtype=np.float32)))
    raise ConfigurationError(f"{path}: images are written as .png, .nii, .nii.gz or .npy")
