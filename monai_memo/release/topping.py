# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Further images from the generator: each is looked up like those of the audit before it enters a release."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.data.cohort import Cohort, CohortImage, Reading
from monai_memo.data.prepared import prepare
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, ConfigurationError
from monai_memo.label.generator import check_bundle, sample_from_bundle
from monai_memo.progress import Progress
from monai_memo.release.looks import Look
from monai_memo.release.rules import Row
from monai_memo.sampling import Generator, as_generator

Draw = Callable[[Path, int, int], object]  # folder, number of images, seed
BATCH = 32
BEYOND = 0.1  # of [0, 1]: what overshoots so little may be cut off
SURPLUS, LEAST_SURPLUS = 0.1, 3  # what the second look may take away again


@dataclass
class Drawn:
    """What was drawn.

    Attributes:
        images, rows: of those that enter.
        drawn: images in all.
        copies: rejected, above the audit's threshold.
        others: rejected for another reason: below it and above the lowered one, a copy in part, near a copied patient,
            or drawn before.
        unreadable: could not be read or prepared.
        surplus: entered, and were not needed in the end.
        seen: hashes of the images that entered: a generator that gives few images gives them again and again.
    """

    images: dict[str, CohortImage] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    drawn: int = 0
    copies: int = 0
    others: int = 0
    unreadable: int = 0
    surplus: int = 0
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Wanted:
    """How many, and what may enter.

    Attributes:
        number: of images to let in.
        most: to draw.
        threshold: lowered one; None for the audit's.
        copied: patients whose neighbourhood stays out; empty where it may enter.
        seed: of the first batch; each further one takes the next.
        reading: how the images are read.
    """

    number: int
    most: int
    threshold: float | None = None
    copied: frozenset[str] = frozenset()
    seed: int = 0
    reading: Reading = field(default_factory=Reading)


def drawer(bundle: str | None, draw: Generator | Callable[[Sequence[int]], Any] | None, dims: int) -> Draw:
    """Writes images of a generator to a folder.

    Args:
        bundle: folder of a generator bundle.
        draw: a generator of Python, which goes before.
        dims: 2 or 3.

    Raises:
        ConfigurationError: no bundle.
    """
    if draw is None:
        root = check_bundle(str(bundle))
        return lambda folder, number, seed: sample_from_bundle(root, folder, number, seed)
    generator, ending = as_generator(draw), "png" if dims == 2 else "nii.gz"

    def write(folder: Path, number: int, seed: int) -> None:
        seeds = [seed * BATCH + place for place in range(number)]  # no seed in two batches
        for one, image in zip(seeds, generator.sample(seeds), strict=True):
            low, high = float(np.min(image)), float(np.max(image))
            if low < -BEYOND or high > 1 + BEYOND:
                raise ConfigurationError(
                    f"the image that was drawn for seed {one} has values from {low:g} to {high:g}, and files would cut "
                    "them off: draw images in [0, 1]"
                )
            save_image(folder / f"{one:012d}.{ending}", image)

    return write


def with_surplus(number: int, second: bool) -> int:
    """So many that the second look can take some away again."""
    return number + max(LEAST_SURPLUS, math.ceil(SURPLUS * number)) if second else number


def top_up(first: Look, draw: Draw, wanted: Wanted, folder: Path) -> Drawn:
    """Draw, look up, and let in what is no copy.

    Args:
        first: the look of the audit's detector.
        folder: for the images; what lies there is removed.

    Raises:
        ConfigurationError: after so many draws too few have entered.
    """
    if folder.exists():
        shutil.rmtree(folder)
    found, batch = Drawn(), 0
    with Progress(wanted.number, "top up", shown=first.run.settings.progress) as bar:
        while len(found.images) < wanted.number and found.drawn < wanted.most:
            number = min(BATCH, wanted.most - found.drawn)
            place = folder / f"{batch:05d}"
            place.mkdir(parents=True)
            draw(place, number, wanted.seed + batch)
            before = len(found.images)
            _let_in(first, place, wanted, found)
            bar.update(len(found.images) - before)
            batch += 1
    if len(found.images) < wanted.number:
        raise ConfigurationError(
            f"of {found.drawn} images that were drawn {len(found.images)} may enter, and {wanted.number} are missing: "
            f"{found.copies} are copies, {found.others} were rejected for other reasons, {found.unreadable} cannot be "
            "read. Ask for fewer with --top_up_to, allow more draws with --most_draws, or train the generator again."
        )
    return found


def _let_in(first: Look, place: Path, wanted: Wanted, found: Drawn) -> None:
    searched, training = first.searched, first.inputs.training.cohort
    cohort = Cohort.from_source(place, "synthetic", reading=wanted.reading)
    settings = first.run.settings
    found.drawn += len(cohort)
    try:
        prepared = prepare(cohort, searched.detector.preprocessing, place / "prepared", settings.workers, False)
    except CohortError:  # not one of this batch: counted like any other, the next one may do
        found.unreadable += len(cohort)
        return
    found.unreadable += len(prepared.skipped)
    pixels = np.asarray(prepared.pixels)
    if searched.search is not None:
        matches = searched.search.search(pixels)
        similarity = matches.similarity[:, 0]
        patients = [training.images[int(one)].patient_id for one in matches.candidates[:, 0]]
    else:
        similarity, patients = searched.similarity_of(pixels), [""] * len(pixels)
    called = ~(similarity <= first.tau)  # what is no number is not let in
    other = ~(similarity <= (first.tau if wanted.threshold is None else wanted.threshold))
    other |= np.array([patient in wanted.copied for patient in patients], dtype=bool)
    rest = ~(called | other)
    if first.in_part is not None and rest.any():
        other[rest] = first.in_part.contain(pixels[rest])
    for image, array, value, patient, copy, out in zip(
        prepared.cohort.images, pixels, similarity, patients, called, other, strict=True
    ):
        content = hashlib.sha256(array.tobytes()).hexdigest()
        if copy:
            found.copies += 1
        elif out or content in found.seen:
            found.others += 1
        elif len(found.images) < wanted.number:
            found.seen.add(content)
            name = f"drawn/{place.name}/{image.image_id}"
            found.images[name] = image
            found.rows.append(Row(name, patient, float(value), copy=False, listed=False))
        else:
            found.surplus += 1
