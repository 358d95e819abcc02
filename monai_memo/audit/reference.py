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
from monai_memo.audit.inputs import Inputs
from monai_memo.audit.parts import Estimate, ReferencePart
from monai_memo.data.cohort import Cohort
from monai_memo.data.orientation_check import OrientationFinding
from monai_memo.data.prepared import PreparedCohort
from monai_memo.files import blocks, write_with
from monai_memo.search.gallery import MAPPED_FROM, Gallery
from monai_memo.statistics.own_references import rows_looked_through
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


def unseen_rows(
    heldout: Cohort, training: Cohort, orientations: Sequence[OrientationFinding], seed: int
) -> NDArray[np.int64]:
    """Which held-out images the synthetic ones are looked up among on their own.

    Of whole patients, drawn at random until there are as many images as training images, so that neither gallery has an
    advantage. Patients who perhaps are training patients (the same id, or an image that looks like a training image)
    are no unseen ones: what was copied from them would pass for chance.

    Args:
        orientations: what the comparison of cohorts found, near twins among it.
        seed: of the draw.

    Returns:
        Rows of ``heldout``; all of them where none would be left.
    """
    alike = {
        name for one in orientations if (one.reference, one.other) == ("training", "heldout") for name, _ in one.twins
    }
    known = training.patients_known and heldout.patients_known
    trained_on = set(training.patient_ids) if known else set()
    pairs = list(zip(heldout.images, heldout.patient_ids, strict=True))
    doubtful = trained_on | {patient for image, patient in pairs if image.image_id in alike}
    usable = np.array([patient not in doubtful for _, patient in pairs])
    return rows_looked_through(patient_codes(heldout.patient_ids), len(training), seed, usable)


def unseen_gallery(seed: int, inputs: Inputs, embeddings: NDArray[np.float32] | None = None) -> Gallery:
    """The held-out images of ``unseen_rows``, as they are.

    Args:
        seed: of the draw.
        inputs: of the audit.
        embeddings: of all held-out images.
    """
    heldout = inputs.prepared["heldout"]
    rows = unseen_rows(heldout.cohort, inputs.training.cohort, inputs.orientations, seed)
    pixels = np.asarray(heldout.pixels)[rows] if len(rows) < len(heldout.cohort) else heldout.pixels
    patients = patient_codes(heldout.cohort.patient_ids)[rows]
    return Gallery(pixels, patients, None if embeddings is None else embeddings[rows])


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


def heldout_copied(number: int, samples: int) -> list[str]:
    """What to tell where held-out images seem to have been copied: no or one sentence."""
    if not number:
        return []
    return [
        f"{number} of {samples} synthetic images agree with a held-out image, place by place, as copies do, more than "
        "chance makes. Was the generator trained on these patients, or chosen by them? Then they are no "
        "held-out patients, and the reference control cannot show copying: take others."
    ]


def raised_warning(tau_control: float, tau: float, between: int, above_among_unseen: int, samples: int) -> list[str]:
    """What to tell where the synthetic images themselves made tau higher: no or one sentence.

    Args:
        tau_control: of held-out images alone.
        between: images above that, and not above tau.
        above_among_unseen: images above it among unseen patients, where nothing can be a copy.
        samples: all of them.
    """
    if tau <= tau_control:
        return []
    return [
        f"Among patients whom the generator never saw, {above_among_unseen} of {samples} synthetic images come above "
        f"{tau_control:.3f}, the threshold from held-out images. So tau was raised to {tau:.3f}, above which no more "
        "of them come there than chance allows, also with other patients held out. "
        f"{between_both(between, f'{tau_control:.3f}', 'copies', 'similarity of matches.csv')}"
    ]


def between_both(number: int, lower: str, what: str, column: str) -> str:
    """What to tell of images that lie between a threshold from held-out images and the raised one."""
    if not number:
        return "No synthetic image lies between both: no call rests on it."
    return (
        f"Between both {'lies' if number == 1 else 'lie'} {number}, not called {what}: look-alikes or soft copies, "
        f"nothing here can tell. To take {'it' if number == 1 else 'them'} out as well, remove what is above {lower} "
        f"in the column {column}."
    )


def near_many_warning(number: int, samples: int) -> list[str]:
    """What to tell of images that are not called only because their patient is near to many: no or one sentence."""
    if not number:
        return []
    one = number == 1
    return [
        f"{number} of {samples} synthetic images {'is' if one else 'are'} above tau as the search found "
        f"{'it' if one else 'them'}, and not called, since the patient is near to 15 % of the samples or more: "
        "look-alikes, or soft copies of one patient again and again, nothing here can tell. Look at "
        f"{'it' if one else 'them'}: as_found in matches.csv is above tau, and copy is false. To be on the safe side, "
        f"remove {'it' if one else 'them'} too."
    ]


def describe_reference(
    found: ReferenceControl,
    ratio: float,
    listed: int,
    by_search: bool,
    tau_control: float,
    between: int,
    near_many: int = 0,
) -> ReferencePart:
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
        tau_control=tau_control,
        between=between,
        near_many=near_many,
    )
