# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cohorts from images in memory: written as files, so that whatever is done with files can be done with them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_memo.errors import ConfigurationError
from monai_memo.files import csv_text, write_text, write_with
from monai_memo.image_arrays import SHORTEST, Images, take_images

TABLE = "images.csv"


@dataclass(frozen=True)
class Written:
    """Images that were in memory, as files.

    Attributes:
        table: CSV with the columns ``image`` and, where patients are known, ``patient_id``; the rows are in the order
            of the images, whose names are their numbers from 0 on.
        note: what they were taken for.
        files: all that was written, the table among them.
    """

    table: Path
    note: str
    files: tuple[Path, ...]


def write_images(
    images: Images, folder: str | Path, patients: Sequence[object] | None = None, what: str = "images",
    dims: int | None = None,
) -> Written:  # fmt: skip
    """Write images in memory to a folder: grey ones as npy without loss, bytes and colours as PNG.

    Files that hold the same already are left as they are, so that what was computed from them stays valid.

    Args:
        images: see ``monai_memo.image_arrays``.
        folder: made if it is not there.
        patients: one for each image.
        what: the images are called in messages.
        dims: 2 or 3 where the shape does not tell.

    Raises:
        ConfigurationError: what ``take_images`` refuses, fewer or more patients than images, or a volume that a file
            without orientation cannot hold.
        OutputError: the folder cannot be written.
    """
    taken = take_images(images, what, dims)
    if patients is not None and len(patients) != len(taken):
        raise ConfigurationError(f"{what}: {len(patients)} patient ids for {len(taken)} images: one for each is needed")
    first = taken.arrays[0]
    if first.ndim == 4 and min(first.shape[1:]) < SHORTEST:
        raise ConfigurationError(
            f"{what}: volumes of {first.shape[1:]} have an axis shorter than {SHORTEST}, which could be taken for "
            "channels: save them as NIfTI and name the folder"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    in_bytes = first.ndim == 3 and (len(first) == 3 or first.dtype == np.uint8)
    pixels = taken.in_unit_range()
    names = [f"{number:06d}.{'png' if in_bytes else 'npy'}" for number in range(len(taken))]
    for name, original, array in zip(names, taken.arrays, pixels, strict=True):
        if in_bytes:
            _write(folder / name, _png(original if original.dtype == np.uint8 else np.round(_unit(array) * 255)))
        else:
            _write(folder / name, _npy(array[0]))
    if patients is None:
        text = csv_text(["image"], ([name] for name in names))
    else:
        text = csv_text(["image", "patient_id"], ([name, _id(who)] for name, who in zip(names, patients, strict=True)))
    table = folder / TABLE
    if not table.is_file() or table.read_text(encoding="utf-8") != text:
        write_text(table, text)
    return Written(table, taken.sentence, (*(folder / name for name in names), table))


def _id(patient: object) -> str:
    """As a table would have it: a tensor of one number by its number, or no patient would ever be in two cohorts."""
    return str(patient.item() if hasattr(patient, "item") else patient)


def _unit(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours of other values, between the ends of their image."""
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high <= 1:
        return array
    return (array - np.float32(low)) / np.float32(max(high - low, 1e-12))


def _png(array: NDArray[np.generic]) -> bytes:
    values = np.moveaxis(array, 0, -1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(stream, format="PNG")
    return stream.getvalue()


def _npy(array: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
        write_with(path, lambda temporary: temporary.write_bytes(content))
