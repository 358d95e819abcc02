# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the header of an image file says, the same for every format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image before its pixels are read.

    Attributes:
        format: ``"PNG"``, ``"NIfTI"``, ``"DICOM"``, ...
        shape: axes of space, those of length 1 dropped; 2D rows, columns; 3D x, y, z.
        channels: values per pixel or voxel.
        colour: the channels are colours (and, with 2 or 4, transparency).
        orientation: directions in which the stored axes run, e.g. ``"LPS"``; None where the file does not say.
        spacing: mm, in the order of ``shape``; None where the file does not say.
        dtype: of the stored numbers, as NumPy names it.
    """

    format: str
    shape: tuple[int, ...]
    channels: int = 1
    colour: bool = False
    orientation: str | None = None
    spacing: tuple[float, ...] | None = None
    dtype: str = "uint8"

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.shape)
