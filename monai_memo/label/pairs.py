# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs as raters see them: the synthetic image on the left, its nearest training image, aligned, on the right."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_memo.audit.slices import PLANES
from monai_memo.data.cohort import CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.reading import read_image
from monai_memo.errors import MemoError, UnusableImageError
from monai_memo.files import write_with
from monai_memo.label.native import NativePair, load_whole, native_pair, save_native
from monai_memo.label.study import Study, StudyPair
from monai_memo.progress import Progress

LONGEST = {2: 512, 3: 96}  # for MONAI Label's clients; the viewer gets what the files have
MOST_THREADS = {2: 16, 3: 2}  # a volume of a CT takes a few GB on its way
ENDING = {2: ".png", 3: ".nii.gz"}
BLOCK = 16


@dataclass(frozen=True)
class AlignedPair:
    """Two images to compare.

    Attributes:
        synthetic, training: ``(*spatial)`` in [0, 1], of the same shape; the training image is aligned.
    """

    synthetic: NDArray[np.float32]
    training: NDArray[np.float32]

    @property
    def difference(self) -> NDArray[np.float32]:
        """Synthetic minus training, -1 to 1."""
        return self.synthetic - self.training


def shown_preprocessing(preprocessing: Preprocessing, example: CohortImage | str | Path | None) -> Preprocessing:
    """The audit's preprocessing at a size for people; 2D images keep the proportions of ``example``."""
    dims = preprocessing.spatial_dims
    size: tuple[int, ...] = (LONGEST[dims],) * dims
    if dims == 2 and example is not None:
        array = read_image(example).array
        rows, columns = array.shape[1:3]
        scale = LONGEST[2] / max(rows, columns)
        size = (max(8, round(rows * scale)), max(8, round(columns * scale)))
    return replace(preprocessing, size=size)


def gap(columns: int) -> int:
    """Pixels or voxels between the two images of a picture with images of this width."""
    return max(2, columns // 32)


def side_by_side(pair: AlignedPair) -> NDArray[np.float32]:
    """One image: 2D ``(1, rows, 2 * columns + gap)``, 3D ``(1, 2 * x + gap, y, z)``.

    In 3D the first axis points from right to left as files name it (RAS), and viewers put it across the picture.
    """
    axis = 1 if pair.synthetic.ndim == 2 else 0
    shape = list(pair.synthetic.shape)
    shape[axis] = gap(shape[axis])
    # In 2D columns run to the right; in 3D viewers show +x on the left, so that the synthetic image comes last.
    parts = [pair.synthetic, np.zeros(shape, dtype=np.float32), pair.training]
    return np.concatenate(parts if axis == 1 else parts[::-1], axis=axis)[None]


def slice_picture(volume: NDArray[np.float32], width: int, plane: str, index: int) -> NDArray[np.float32]:
    """One slice through both volumes of ``side_by_side``, as a picture with the synthetic image on the left.

    Args:
        volume: ``(2 * width + gap, y, z)``.
        width: of one volume along x.
        plane: of ``PLANES``.
        index: of the slice, from 0.

    Returns:
        ``(rows, columns)``, superior or anterior up.

    Raises:
        ValueError: unknown plane, or an index outside the volume.
    """
    if plane not in PLANES:
        raise ValueError(f"plane must be one of {', '.join(PLANES)}, got {plane!r}")
    axis = PLANES.index(plane)
    training, synthetic = volume[:width], volume[-width:]
    if not 0 <= index < synthetic.shape[axis]:
        raise ValueError(f"slice must lie between 0 and {synthetic.shape[axis] - 1}, got {index}")
    planes = [np.rot90(np.take(part, index, axis=axis)) for part in (synthetic, training)]
    if axis > 0:  # radiological display: the patient's right is on the left
        planes = [np.fliplr(picture) for picture in planes]
    empty = np.zeros((planes[0].shape[0], gap(planes[0].shape[1])), dtype=np.float32)
    return np.concatenate([planes[0], empty, planes[1]], axis=1)


def load_pair(
    pair: StudyPair, images: dict[str, dict[str, CohortImage]], preprocessing: Preprocessing, verified: bool
) -> NativePair:
    """Read and align one pair, at the resolution of its files.

    Raises:
        UnusableImageError: an image is missing or has become unreadable; its reason says which.
    """
    found = []
    for name, image_id in (("synthetic", pair.synthetic), ("training", pair.training)):
        image = images[name].get(image_id)
        if image is None:
            raise UnusableImageError(image_id, f"{name} image missing")
        try:
            found.append(load_whole(image, preprocessing))
        except UnusableImageError as error:
            raise UnusableImageError(image.path, f"{name} image {error.reason}") from error
    return native_pair(found[0], found[1], preprocessing, verified)


def picture_of(pair: NativePair, shown: Preprocessing) -> NDArray[np.float32]:
    """``side_by_side`` at the size that MONAI Label's clients get, in colour ``(1, rows, columns, 3)``."""
    if pair.channels > 1:
        colours = (replace(pair, synthetic=pair.synthetic[i], training=pair.training[i]) for i in range(pair.channels))
        return np.stack([picture_of(one, shown) for one in colours], axis=-1)
    synthetic, training = (shown.sized(image.clip(0, 1)[None])[0] for image in (pair.synthetic, pair.training))
    return side_by_side(AlignedPair(synthetic, training))


def save_picture(path: Path, picture: NDArray[np.float32]) -> Path:
    """Write a picture for MONAI Label's clients, with 256 values, as on a screen.

    It is not compressed: a copy beside its original takes less than two patients do, and its size would tell.
    """
    if path.suffix == ENDING[2]:
        image = Image.fromarray(np.round(picture.clip(0, 1) * 255).astype(np.uint8))
        return write_with(path, lambda temporary: image.save(temporary, format="PNG", compress_level=0))
    volume = nibabel.Nifti1Image(picture.clip(0, 1), np.eye(4))  # type: ignore[attr-defined, no-untyped-call]
    volume.header.set_data_dtype(np.uint8)
    volume.header.set_slope_inter(1 / 255, 0)
    return write_with(path, lambda temporary: temporary.write_bytes(gzip.compress(volume.to_bytes(), 0, mtime=0)))


def write_pairs(
    study: Study,
    images: dict[str, dict[str, CohortImage]],
    preprocessing: Preprocessing,
    folders: tuple[Path, Path],
    verified: bool,
    progress: bool = True,
) -> Study:
    """Write the picture of every pair; return the study with the pairs that are missing named.

    Pictures are written in the order of their ids, so that their times say nothing about the similarity.

    Args:
        folders: for MONAI Label's clients (both images side by side, smaller), and for the viewer.
        verified: whether the audit verified its matches; then training images are turned, zoomed and shifted as well.

    Raises:
        MemoError: no pair can be shown.
    """
    example = next((image for pair in study.pairs if (image := images["synthetic"].get(pair.synthetic))), None)
    try:
        shown = shown_preprocessing(preprocessing, example)
    except UnusableImageError:
        shown = shown_preprocessing(preprocessing, None)

    def one(pair: StudyPair) -> tuple[StudyPair, NDArray[np.float32] | None]:
        try:
            native = load_pair(pair, images, preprocessing, verified)
        except UnusableImageError as error:
            return replace(pair, missing=error.reason), None
        save_native(folders[1], pair.pair_id, native)
        return pair, picture_of(native, shown)

    written = []
    with (
        ThreadPoolExecutor(min(cpu_count() or 1, MOST_THREADS[study.spatial_dims])) as pool,
        Progress(len(study.pairs), "pairs", shown=progress) as bar,
    ):
        for start in range(0, len(study.pairs), BLOCK):  # holds only a few pictures in memory
            for pair, picture in pool.map(one, study.pairs[start : start + BLOCK]):
                if picture is not None:
                    save_picture(folders[0] / f"{pair.pair_id}{ENDING[study.spatial_dims]}", picture[0])
                written.append(pair)
                bar.update()
    if all(pair.missing for pair in written):
        reasons = sorted({pair.missing for pair in written})
        raise MemoError(f"none of the {len(written)} pairs can be shown: {', '.join(reasons)}")
    return replace(study, pairs=tuple(written), shape=shown.size)
