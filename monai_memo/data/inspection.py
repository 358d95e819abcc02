# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What was read of a cohort: from the headers of all its images and the pixels of a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any

import numpy as np

from monai_memo.data.cohort import Cohort, CohortImage, SkippedImage
from monai_memo.data.header import ImageHeader
from monai_memo.data.intensities import Intensities
from monai_memo.data.reading import read_header
from monai_memo.errors import UnusableImageError
from monai_memo.progress import Progress

NOT_SAID = "not said"
COLOURS = {1: "grey", 2: "grey with transparency", 3: "colour", 4: "colour with transparency"}
CHUNK = 64  # headers that a thread takes at a time
LEVELS = (0.5, 50.0, 99.5)  # percentiles of intensity


@dataclass(frozen=True)
class CohortFacts:
    """What a cohort's files say.

    Attributes:
        cohort: as it was found.
        headers: of the images that can be read, in order.
        places: which images of the cohort these are.
        skipped: what cannot be used: the cohort's own list, and headers that cannot be read.
        patients_from: what named the patients, in words; empty where they are not known.
        repeated: images that are byte for byte another one of the same cohort.
    """

    cohort: Cohort
    headers: tuple[ImageHeader, ...]
    places: tuple[int, ...]
    skipped: tuple[SkippedImage, ...]
    patients_from: str
    repeated: int

    def count(self, what: str) -> Counter[str]:
        """How often each value of ``"format"``, ``"shape"``, ``"channels"``, ``"orientation"``, ... occurs."""
        return Counter(_TEXT[what](header) for header in self.headers)

    @property
    def images_per_patient(self) -> tuple[int, float, int]:
        """Smallest, median and largest number of images of a patient."""
        numbers = sorted(Counter(self.cohort.patient_ids).values())
        return numbers[0], float(np.median(numbers)), numbers[-1]

    def spacings(self) -> list[tuple[float, ...]]:
        """Of the images that say it."""
        return [header.spacing for header in self.headers if header.spacing is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        cohort, spacings = self.cohort, self.spacings()
        return {
            "source": cohort.source,
            "images": len(cohort),
            "readable": len(self.headers),
            **{what: dict(self.count(what).most_common()) for what in _TEXT},
            "spacing": [] if not spacings else [_range(column) for column in zip(*_same_length(spacings), strict=True)],
            "spacing_not_said": len(self.headers) - len(spacings),
            "patients_known": cohort.patients_known,
            "patients_from": self.patients_from,
            "patients": cohort.n_patients if cohort.patients_known else None,
            "images_per_patient": list(self.images_per_patient) if cohort.patients_known else None,
            "repeated": self.repeated,
            "skipped": [{"image": item.image_id, "reason": item.reason} for item in self.skipped],
            "notes": list(cohort.notes),
        }


def _channels(header: ImageHeader) -> str:
    if header.channels == 1 or header.colour:
        return COLOURS.get(header.channels, f"{header.channels} channels")
    return f"{header.channels} channels that are no colours"


_TEXT = {
    "format": lambda header: header.format,
    "dimensions": lambda header: f"{header.spatial_dims}D",
    "shape": lambda header: " x ".join(str(length) for length in header.shape),
    "channels": _channels,
    "orientation": lambda header: header.orientation or NOT_SAID,
    "dtype": lambda header: header.dtype,
}


def _same_length(rows: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """2D images beside volumes have fewer spacings: the rarer kind is left out."""
    length = Counter(len(row) for row in rows).most_common(1)[0][0]
    return [row for row in rows if len(row) == length]


def _range(values: Sequence[float]) -> list[float]:
    return [float(min(values)), float(np.median(values)), float(max(values))]


def read_headers(
    cohort: Cohort, workers: int | None = None, progress: bool = False
) -> tuple[list[tuple[int, ImageHeader]], list[SkippedImage]]:
    """Headers of all images of a cohort, with their places, and the images whose header cannot be read."""

    def one(image: CohortImage) -> ImageHeader | str:
        try:
            return read_header(image)
        except UnusableImageError as error:
            return error.reason

    def some(start: int) -> list[ImageHeader | str]:
        return [one(image) for image in cohort.images[start : start + CHUNK]]

    found: list[ImageHeader | str] = []
    with (
        ThreadPoolExecutor(workers or cpu_count() or 1) as pool,
        Progress(len(cohort), f"headers of {cohort.name}", shown=progress) as bar,
    ):
        for chunk in pool.map(some, range(0, len(cohort), CHUNK)):
            found += chunk
            bar.update(len(chunk))
    headers = [(place, item) for place, item in enumerate(found) if isinstance(item, ImageHeader)]
    skipped = [SkippedImage(cohort.images[i].image_id, item) for i, item in enumerate(found) if isinstance(item, str)]
    return headers, skipped


def count_text(counts: Counter[str], most: int = 3) -> str:
    """``"PNG 38, JPEG 2"``; a single value stands alone; rare ones are summed up."""
    if len(counts) == 1:
        return next(iter(counts))
    parts = [f"{value} {number}" for value, number in counts.most_common(most)]
    rest = len(counts) - most
    if rest > 0:
        parts.append(f"{rest} further {sum(number for _, number in counts.most_common()[most:])}")
    return ", ".join(parts)


def number_text(value: float) -> str:
    """Short, without an exponent where that can be read."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def _sizes(facts: CohortFacts) -> str:
    counts = facts.count("shape")
    if len(counts) <= 3:
        return count_text(Counter({f"{shape}:" if len(counts) > 1 else shape: n for shape, n in counts.items()}))
    dims = Counter(header.spatial_dims for header in facts.headers).most_common(1)[0][0]
    shapes = np.array([header.shape for header in facts.headers if header.spatial_dims == dims])
    ends = (" x ".join(map(str, edge)) for edge in (shapes.min(axis=0), shapes.max(axis=0)))
    text = f"{len(counts)} sizes, from {' to '.join(ends)}"
    shape, number = counts.most_common(1)[0]
    return f"{text}; most often {shape} ({number})" if number > len(facts.headers) / 5 else text


def _spacing(facts: CohortFacts) -> str:
    spacings = facts.spacings()
    if not spacings:
        return NOT_SAID
    ranges = [_range(column) for column in zip(*_same_length(spacings), strict=True)]
    axes = [f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}" for low, _, high in ranges]
    unsaid = len(facts.headers) - len(spacings)
    return " x ".join(f"({axis})" if " to " in axis else axis for axis in axes) + (
        f", {NOT_SAID} {unsaid}" if unsaid else ""
    )


def _patients(facts: CohortFacts) -> str:
    cohort = facts.cohort
    if not cohort.patients_known:
        return "not known: every image counts as one"
    low, median, high = facts.images_per_patient
    each = (
        f"{low} image{'s' if low > 1 else ''} each" if low == high else f"{low} to {high} images each, half {median:g}"
    )
    return f"{cohort.n_patients}, {each}, from {facts.patients_from}"


def _left_out(facts: CohortFacts) -> str:
    if not facts.skipped:
        return "nothing"
    reasons = Counter(item.reason for item in facts.skipped).most_common()
    if len(reasons) == 1:
        return f"{len(facts.skipped)}: {reasons[0][0]}"
    text = ", ".join(f"{number} {reason}" for reason, number in reasons[:5])
    return f"{len(facts.skipped)}: {text}{', ...' if len(reasons) > 5 else ''}"


def intensity_texts(sample: Intensities | None) -> tuple[str, str]:
    """Values as read, and the share of pixels at both ends."""
    if sample is None:
        return "none could be read", "none could be read"
    low, middle, high = np.percentile(sample.values, LEVELS)
    spread = f"{number_text(sample.lowest.min())} to {number_text(sample.highest.max())}"
    text = f"{spread}; most {number_text(low)} to {number_text(high)}, median {number_text(middle)}"
    if not sample.one_scale:
        text += "; every image on a scale of its own"
    ends = (sample if sample.one_scale else sample.relative()).heaps
    return text, f"{100 * ends[0]:.1f} % at the lowest, {100 * ends[1]:.1f} % at the highest"


def rows_of(facts: CohortFacts, sample: Intensities | None) -> dict[str, str]:
    """The facts as a reader wants them, by label. Cohorts of one inspection have the same labels."""
    cohort = facts.cohort
    values, ends = intensity_texts(sample)
    headers = facts.headers
    remarks = [note for note in cohort.notes if note not in cohort.warnings]  # these are told as findings
    return {
        "source": cohort.source,
        "images": str(len(cohort)),
        "formats": count_text(facts.count("format"), 5) if headers else "-",
        "dimensions": count_text(facts.count("dimensions")) if headers else "-",
        "sizes": _sizes(facts) if headers else "-",
        "channels": count_text(facts.count("channels")) if headers else "-",
        "orientations": count_text(facts.count("orientation"), 4) if headers else "-",
        "spacings (mm)": _spacing(facts) if headers else "-",
        "data types": count_text(facts.count("dtype")) if headers else "-",
        "intensities": values,
        "at the ends": ends,
        "patients": "-" if cohort.name == "synthetic" else _patients(facts),
        "repeats": f"{facts.repeated} byte-identical" if facts.repeated else "none",
        "left out": _left_out(facts),
        "notes": " ".join(note if note.endswith(".") else f"{note}." for note in remarks) or "-",
    }
