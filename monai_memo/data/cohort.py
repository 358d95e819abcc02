# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cohorts: images with the patients they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from monai_memo.errors import CohortError
from monai_memo.files import parts_of
from monai_memo.redaction import Named

if TYPE_CHECKING:
    from monai_memo.image_arrays import Images


@dataclass(frozen=True)
class Reading:
    """What people say of a cohort's files because the files do not say it themselves.

    Attributes:
        orientation: in which the images are stored, see ``data.orientation``; None takes the files at their word.
        window: ``(low, high)`` in the files' own intensity units (HU in CT): values beyond are clipped before scaling.
        channel: the one to take, from 0, of images with several that are no colours.
        allow_gaps: take DICOM series in which slices are missing.
    """

    orientation: str | None = None
    window: tuple[float, float] | None = None
    channel: int | None = None
    allow_gaps: bool = False


AS_IT_IS = Reading()


@dataclass(frozen=True)
class CohortImage:
    """One image of a cohort.

    Attributes:
        path: a file, or the folder of a DICOM series.
        image_id: unique within the cohort; the path relative to the cohort's folder, with forward slashes.
        patient_id: the patient; the image's own id where patients are not known.
        columns: further columns of the CSV or datalist, as given.
        files: the DICOM files that form the image, where ``path`` alone does not tell; empty otherwise.
        reading: how it is read.
    """

    path: Path
    image_id: str
    patient_id: str
    columns: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    reading: Reading = AS_IT_IS

    @property
    def parts(self) -> list[Path]:
        """Every file that holds a part of the image."""
        return list(self.files) or parts_of(self.path)


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be used, and why. The reason names no path: it is shown in redacted reports as well."""

    image_id: str
    reason: str


def by_reason(intro: str, skipped: Iterable[SkippedImage], most: int = 5) -> Named:
    """Every reason once, most frequent first, with how many images have it and one of them.

    Args:
        intro: what goes before the colon.
        skipped: one image at least.
        most: reasons that are told.

    Example:
        >>> text = by_reason("2 images are skipped", [SkippedImage("a.png", "empty"), SkippedImage("b.png", "empty")])
        >>> str(text), text.plain
        ('2 images are skipped: empty (2, for example a.png)', '2 images are skipped: empty (2)')
    """
    groups: dict[str, list[str]] = {}
    for item in skipped:
        groups.setdefault(item.reason, []).append(item.image_id)
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    told = [
        f"{reason} ({f'{len(names)}, for example ' if len(names) > 1 else ''}{names[0]})"
        for reason, names in ranked[:most]
    ]
    single = len(ranked) == len(ranked[0][1]) == 1
    counted = [reason if single else f"{reason} ({len(names)})" for reason, names in ranked[:most]]
    further = [f"{len(ranked) - most} further reasons"] if len(ranked) > most else []
    return Named(
        f"{intro}: {'; '.join(counted + further)}",
        [names[0] for _, names in ranked[:most]],
        whole=f"{intro}: {'; '.join(told + further)}",
    )


@dataclass(frozen=True)
class Cohort:
    """Images that play one part in an audit.

    Attributes:
        name: ``"training"``, ``"heldout"`` or ``"synthetic"``.
        images: in a fixed order, sorted by id.
        source: folder, CSV or datalist as the user named it.
        patients_known: False where every image counts as a patient of its own.
        skipped: what was found and cannot be an image of the cohort (dangling links, stray slices), by name.
        notes: what else is worth telling, without names ("37 files were not looked at: 20 .svs, ...").
        warnings: those of the notes that a person has to see.
        placeholder: what stands in every image in place of the patient ("ANONYMOUS"), if that is so.
    """

    name: str
    images: tuple[CohortImage, ...]
    source: str
    patients_known: bool
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    placeholder: str | None = None

    def __post_init__(self) -> None:
        repeated = [name for name, number in Counter(image.image_id for image in self.images).items() if number > 1]
        if repeated:
            raise CohortError(
                f"{self.source} lists {len(repeated)} images more than once, for example {repeated[0]}. "
                "List each image once."
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def patient_ids(self) -> list[str]:
        """Patient of each image, in order."""
        return [image.patient_id for image in self.images]

    @property
    def n_patients(self) -> int:
        return len(set(self.patient_ids))

    def subset(self, indices: Iterable[int], name: str | None = None) -> Cohort:
        """The images at these positions, as a cohort of its own."""
        return Cohort(name or self.name, tuple(self.images[int(i)] for i in indices), self.source, self.patients_known)

    @classmethod
    def from_source(
        cls, source: str | Path, name: str, patient_pattern: str | None = None, reading: Reading = AS_IT_IS
    ) -> Cohort:
        """Read a cohort.

        Args:
            source: a folder (searched recursively), a ``.csv`` with a column ``image`` and, if known, ``patient_id``,
                or a ``.json`` MONAI datalist; ``datalist.json:validation`` names another list than ``training``.
            name: part that the cohort plays.
            patient_pattern: a regular expression that finds the patient in the relative path (its first group, or the
                whole match). In folders it goes before the PatientID of DICOM files; a table's own ``patient_id`` goes
                before it.
            reading: how the images are read.

        Raises:
            CohortError: nothing there, nothing readable there, or a table without the columns it needs.
        """
        from monai_memo.data.sources import read_source  # sources builds Cohorts' images: avoids a circle at import

        found = read_source(source, name, patient_pattern)
        images = (replace(image, reading=reading) for image in found.images)
        return cls(
            name,
            tuple(sorted(images, key=lambda image: image.image_id)),
            str(source),
            found.patients_known,
            found.skipped,
            found.notes,
            found.warnings,
            found.placeholder,
        )

    @classmethod
    def from_images(
        cls, images: Images, name: str, folder: str | Path, patients: Sequence[object] | None = None,
        dims: int | None = None,
    ) -> Cohort:  # fmt: skip
        """A cohort of images in memory, which are written as files to a folder.

        Args:
            images: arrays, tensors, pictures or a sequence of these: see ``monai_memo.image_arrays``.
            name: part that the cohort plays.
            folder: for the files; the same images are not written twice.
            patients: one for each image.
            dims: 2 or 3 where the shape does not tell.

        Raises:
            ConfigurationError: a shape that is none of images, NaN, several sizes.
        """
        from monai_memo.data.in_memory import write_images  # needs NumPy, which help shall not wait for

        written = write_images(images, folder, patients, f"the {name} images", dims)
        cohort = cls.from_source(written.table, name)
        return replace(cohort, notes=(*cohort.notes, written.note))


def split_by_patient(cohort: Cohort, fractions: Mapping[str, float], seed: int) -> dict[str, Cohort]:
    """Split a cohort so that all images of a patient stay together.

    Args:
        fractions: share of the patients for each part; they may add up to less than 1.
        seed: of the assignment.

    Raises:
        CohortError: fractions that are not positive or add up to more than 1, or a part without any patient.

    Example:
        >>> images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", f"p{i // 2}") for i in range(20))
        >>> parts = split_by_patient(Cohort("training", images, "x", True), {"training": 0.7, "heldout": 0.3}, seed=0)
        >>> len(parts["training"]), len(parts["heldout"])
        (14, 6)
    """
    if not fractions or min(fractions.values()) <= 0 or sum(fractions.values()) > 1 + 1e-9:
        raise CohortError(f"fractions must be positive and add up to at most 1, got {dict(fractions)}")
    import numpy as np  # late: options know how cohorts are read, and help shall be quick

    patients = np.unique(cohort.patient_ids)
    order = np.random.default_rng(seed).permutation(len(patients))
    ends = np.round(np.cumsum(list(fractions.values())) * len(patients)).astype(int)
    parts = {}
    for name, start, end in zip(fractions, [0, *ends[:-1]], ends, strict=True):
        chosen = set(patients[order[start:end]])
        if not chosen:
            raise CohortError(
                f"{cohort.source} has {len(patients)} patients: too few for a part {name!r} of {fractions[name]}"
            )
        parts[name] = cohort.subset((i for i, patient in enumerate(cohort.patient_ids) if patient in chosen), name)
    return parts
