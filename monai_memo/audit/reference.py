# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The reference control of an audit: synthetic images looked up among training and held-out patients together.

One gallery holds both, so that patients of either are found, aligned, scored and normalised in the same way: the
candidates, the neighbours that a score is normalised by and the common scale know nothing of sides. See
``statistics.reference``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.comparison import patient_codes
from monai_memo.audit.parts import Estimate, ReferencePart
from monai_memo.data.prepared import PreparedCohort
from monai_memo.files import blocks, write_with
from monai_memo.search.gallery import MAPPED_FROM, Gallery
from monai_memo.statistics.reference import NearestPatients, ReferenceControl

SIDES = ("training", "heldout")


def joint_patients(training: Sequence[str], heldout: Sequence[str]) -> NDArray[np.int64]:
    """Number the patients of both cohorts, training patients first; the same name in both is two patients."""
    codes = patient_codes(training), patient_codes(heldout)
    return np.concatenate([codes[0], codes[1] + codes[0].max() + 1])


def joint_gallery(
    prepared: Mapping[str, PreparedCohort], embeddings: Mapping[str, NDArray[np.float32]], folder: Path | None = None
) -> Gallery:
    """Training and held-out images as one gallery; the latter as they are, never softened, since the former are.

    Args:
        prepared, embeddings: of ``"training"`` and ``"heldout"``.
        folder: for a file, where both together are large.
    """
    both = [prepared[name].pixels for name in SIDES]
    patients = joint_patients(*(prepared[name].cohort.patient_ids for name in SIDES))
    vectors = np.concatenate([embeddings[name] for name in SIDES])
    if folder is None or sum(pixels.nbytes for pixels in both) < MAPPED_FROM:
        return Gallery(np.concatenate([np.asarray(pixels) for pixels in both]), patients, vectors)

    def write(path: Path) -> None:
        with open(path, "wb") as stream:
            for pixels in both:
                for rows in blocks(pixels):
                    stream.write(np.ascontiguousarray(pixels[rows], dtype=both[0].dtype).tobytes())

    folder.mkdir(parents=True, exist_ok=True)
    write_with(folder / "both.pixels", write)
    shape = (len(patients), *both[0].shape[1:])
    return Gallery(np.memmap(folder / "both.pixels", dtype=both[0].dtype, mode="r", shape=shape), patients, vectors)


def nearest_patients(
    similarity: NDArray[np.float64], image: NDArray[np.int64], patients: NDArray[np.int64], n_training: int
) -> NearestPatients:
    """Of each synthetic image.

    Args:
        similarity, image: ``(m,)``, of the nearest image of the joint gallery.
        patients: ``(n,)`` of the gallery's images, training images first.
        n_training: how many of them are training images.
    """
    images = np.bincount(patients)
    training = np.zeros(len(images), dtype=bool)
    training[patients[:n_training]] = True
    return NearestPatients(similarity, patients[np.maximum(image, 0)], training, images)


def describe_reference(found: ReferenceControl, ratio: float, listed: int, by_search: bool) -> ReferencePart:
    """For the record."""
    return ReferencePart(
        by="search" if by_search else "embeddings",
        to_training=found.to_training,
        to_unseen=found.to_unseen,
        n_training_patients=found.n_training,
        n_unseen_patients=found.n_unseen,
        ratio=ratio,
        expected=found.expected,
        excess=Estimate(found.excess.value, found.excess.low, found.excess.high),
        p_value=found.p_value,
        patients_needed=found.patients_needed,
        smallest_p=found.smallest_p,
        detectable=found.detectable,
        listed=listed,
    )
