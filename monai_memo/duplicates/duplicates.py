# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo duplicates``: groups of images that are the same, a page to look at, and a cleaned table per cohort."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.contact_sheet import montage, picture_uri
from monai_memo.audit.pages import environment
from monai_memo.audit.run import resolve_device
from monai_memo.audit.slices import central_planes
from monai_memo.data.cohort import Cohort, SkippedImage
from monai_memo.data.dicom import files_of_folder, series_of
from monai_memo.data.loading import guess_preprocessing
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.data.writing import write_cohort
from monai_memo.duplicates.finding import Near, equal_pixels, near_duplicates
from monai_memo.duplicates.grouping import OTHER_ID, OTHER_SPLIT, Group, Member, dropped, groups_of, one_name
from monai_memo.duplicates.settings import DuplicatesSettings
from monai_memo.errors import CohortError, UnusableImageError
from monai_memo.files import write_json, write_text
from monai_memo.search.runner import Runner
from monai_memo.text import cell
from monai_memo.workspace.output_folder import OutputFolder

NAMES = {"train": "training", "heldout": "heldout", "synthetic": "synthetic"}
TITLES = {"training": "training", "heldout": "held-out", "synthetic": "synthetic"}
FILES = ("duplicates.html", "duplicates.json", "groups.csv", *(f"clean_{name}.csv" for name in NAMES))


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        members: every image that was looked at.
        groups: of them.
        left_out: of the cleaned tables, with the reason.
        near: thresholds; None where only equal pixels were looked for.
        skipped: images that cannot be read.
        shared_patients: those who stand in several real cohorts, by their ids.
        quantile: level of the threshold.
        untold: of each cohort, images in one folder with other DICOM series: no table can name them.
    """

    members: Sequence[Member]
    groups: Sequence[Group]
    left_out: Mapping[int, str]
    near: Near | None
    skipped: Sequence[SkippedImage]
    shared_patients: int
    quantile: float = 0.99
    untold: Mapping[str, int] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """What was found, for a terminal and the page."""
        n = len(self.members)
        inside = sum(len(group.members) for group in self.groups)
        kinds = Counter(group.kind for group in self.groups)
        told = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        looked_for = "duplicates" if self.near is not None and self.near.other is not None else "equal images"
        lines = [f"no {looked_for} among {n} images"]
        if self.groups:
            lines = [f"{_counted(len(self.groups), 'group')} ({told}) with {inside} of {n} images"]
        across = sum(len(group.cohorts) > 1 for group in self.groups)
        if across:
            lines.append(f"{_counted(across, 'group', 'spans', 'span')} several cohorts")
        several = sum(len(group.patients) > 1 for group in self.groups)
        if several:
            spans = _counted(several, "group", "spans", "span")
            lines.append(
                f"{spans} several patient ids: one patient under two names, or a mistake. The cleaned tables take "
                "them for one, under the first id"
            )
        if self.shared_patients:
            stand = _counted(self.shared_patients, "patient", "stands", "stand")
            lines.append(f"{stand} in more than one of the real cohorts by id")
        moved = sum(reason == OTHER_ID for reason in self.left_out.values())
        if moved:
            lines.append(
                f"{_counted(moved, 'further image is', '', '', 'further images are')} left out: of patients who, by "
                "such a group, stand in an earlier cohort under another id"
            )
        return [*lines, *self.unwritten()]

    def unwritten(self) -> list[str]:
        """Which cleaned tables there are not, and why."""
        return [
            f"clean_{_option(name)}.csv is not written: {_counted(number, 'image lies', '', '', 'images lie')} in a "
            "folder with other DICOM series. Give each series a folder of its own, or name it in a column "
            "SeriesInstanceUID of the cohort's table"
            for name, number in self.untold.items()
        ]

    def calibration(self) -> str:
        """How the threshold came about."""
        if self.near is None:
            return "Only images with equal pixels were looked for."
        if self.near.other is None:
            return "Near-duplicates were not looked for: that takes 20 images of different patients at least."
        other, same = self.near.other, self.near.same
        text = (
            f"Near-duplicates are more similar than {other.threshold:.4f}. Each image was looked up among those of "
            f"other patients; {100 * self.quantile:g} % of these images stay below the threshold ({other.images} "
            f"images, without {other.left_out} that stand out so far that they can be duplicates themselves)."
        )
        if self.groups:
            text += " The others pass by chance: look at the page before anything is thrown away."
        if same is not None:
            text += (
                f" Different images of one patient resemble each other more: for these the threshold is "
                f"{same.threshold:.4f}, from {same.images} images."
            )
        return text


class Duplicates:
    """Find duplicates in one to three cohorts.

    .. versionadded:: 0.2.0

    Args:
        options: see ``DuplicatesSettings``.

    Example:
        >>> from monai_memo.duplicates.duplicates import Duplicates
        >>> Duplicates(train="train.csv", heldout="heldout.csv", out="duplicates").run()  # doctest: +SKIP
    """

    def __init__(self, **options: Any) -> None:
        self.settings = DuplicatesSettings(**options)
        self.out = Path(self.settings.out)
        self.output = OutputFolder(
            self.out, "duplicates", self.settings.cohort_options(), FILES, self.settings.to_dict()
        )

    def run(self) -> Found:
        """Look for them and write the result.

        Raises:
            MemoError: cohorts that cannot be read or an output folder that cannot be written.
        """
        with self.output:
            found, prepared = self._find()
            self._write(found, prepared)
            self.output.clear()
        return found

    def _find(self) -> tuple[Found, list[PreparedCohort]]:
        settings, work = self.settings, self.output.work
        require_sources(settings.cohort_options())
        cohorts = [
            Cohort.from_source(
                source, NAMES[name], settings.patient_pattern if name != "synthetic" else None, settings.reading()
            )
            for name, source in settings.cohort_options().items()
        ]
        preprocessing = guess_preprocessing(cohorts, size=settings.size, spacing=settings.spacing)
        prepared = [
            prepare(cohort, preprocessing, work / "pixels", settings.workers, settings.progress) for cohort in cohorts
        ]
        images = [image for item in prepared for image in item.cohort.images]
        members = [
            Member(item.cohort.name, image.image_id, image.patient_id, item.cohort.patients_known)
            for item in prepared
            for image in item.cohort.images
        ]
        if len(members) < 2:
            raise CohortError(f"{len(members)} image can be used: duplicates take two at least")
        equal = equal_pixels(images, settings.progress)
        near = self._near(members, equal, prepared) if settings.near else None
        groups = groups_of(members, equal, () if near is None else near.pairs)
        skipped = [item for one in prepared for item in one.skipped]
        untold = {item.cohort.name: number for item in prepared if (number := _untold(item.cohort))}
        return Found(
            members, groups, dropped(members, groups), near, skipped, _shared(members), settings.quantile, untold
        ), prepared

    def _near(self, members: Sequence[Member], equal: Sequence[Sequence[int]], prepared: list[PreparedCohort]) -> Near:
        """Of images with equal pixels the first one stands for all."""
        again = {place for places in equal for place in places[1:]}
        places = [place for place in range(len(members)) if place not in again]
        pixels: NDArray[np.float16] = np.concatenate([np.asarray(item.pixels) for item in prepared])[places]
        # Ids of images are no patients: the same name in two cohorts is none either.
        ids = [
            members[p].patient_id if members[p].patients_known else f"{members[p].cohort}/{members[p].image_id}"
            for p in places
        ]
        device = resolve_device(self.settings.device)
        store = self.output.work / "verified" / "near.npz"
        store.parent.mkdir(parents=True, exist_ok=True)
        runner = Runner.on(device, folder=store.parent, seed=self.settings.seed, progress=self.settings.progress)
        found = near_duplicates(pixels, ids, runner, self.settings.quantile, store)
        pairs = tuple((places[one], places[other], value) for one, other, value in found.pairs)
        return Near(pairs, found.other, found.same)

    def _write(self, found: Found, prepared: list[PreparedCohort]) -> None:
        folder = self.output.staging()
        write_text(folder / "groups.csv", _table(found))
        start = 0
        for item in prepared:
            kept = [place for place in range(len(item.cohort)) if start + place not in found.left_out]
            if item.cohort.name not in found.untold:
                cohort = _of_one_id(item.cohort.subset(kept), found.groups)
                columns = list(dict.fromkeys(name for image in item.cohort.images for name in image.columns))
                write_cohort(cohort, folder / f"clean_{_option(cohort.name)}.csv", columns=columns)
            start += len(item.cohort)
        record = {
            "images": dict(Counter(member.cohort for member in found.members)),
            "groups": len(found.groups),
            "left_out": dict(Counter(found.left_out.values())),
            "shared_patients": found.shared_patients,
            "skipped": len(found.skipped),
            "calibration": found.calibration(),
            "threshold": None if found.near is None or found.near.other is None else found.near.other.threshold,
            "configuration": self.settings.to_dict(),
        }
        write_json(folder / "duplicates.json", record)
        pictures = np.concatenate([np.asarray(item.pixels) for item in prepared]) if found.groups else np.empty(0)
        write_text(folder / "duplicates.html", _page(found, pictures, self.settings.gallery))
        self.output.publish()


def _counted(number: int, one: str, verb: str = "", verbs: str = "", several: str | None = None) -> str:
    """``1 group spans``, ``2 groups span``."""
    word = one if number == 1 else several or f"{one}s"
    return f"{number} {word} {verb if number == 1 else verbs}".rstrip()


def _option(name: str) -> str:
    return next(option for option, cohort in NAMES.items() if cohort == name)


def _untold(cohort: Cohort) -> int:
    """Images that no table can name: series that share a folder."""
    number = 0
    for image in cohort.images:
        if image.path.is_dir():
            try:
                files_of_folder(image.path, series_of(image))
            except UnusableImageError:
                number += 1
    return number


def _of_one_id(cohort: Cohort, groups: Sequence[Group]) -> Cohort:
    """Patients whom groups show under two ids, under the first: a later split by patient keeps them together."""
    if cohort.name == "synthetic" or not cohort.patients_known:
        return cohort
    name = one_name(groups)
    return replace(cohort, images=tuple(replace(one, patient_id=name(one.patient_id)) for one in cohort.images))


def _shared(members: Sequence[Member]) -> int:
    cohorts: dict[str, set[str]] = {}
    for member in members:
        if member.patients_known and member.cohort != "synthetic":
            cohorts.setdefault(member.patient_id, set()).add(member.cohort)
    return sum(len(found) > 1 for found in cohorts.values())


def _table(found: Found) -> str:
    """One row for each image in a group, or left out of a cleaned table."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["group", "cohort", "image", "patient_id", "kind", "similarity", "kept"])
    grouped = set()
    for number, group in enumerate(found.groups, 1):
        for place in group.members:
            member, similarity = found.members[place], f"{group.similarity:.6f}"
            kept = str(place not in found.left_out).lower()
            who = [member.cohort, cell(member.image_id), cell(member.patient_id)]
            rows.writerow([number, *who, group.kind, similarity, kept])
            grouped.add(place)
    for place, reason in sorted(found.left_out.items()):
        if place not in grouped and reason in (OTHER_SPLIT, OTHER_ID):
            member = found.members[place]
            rows.writerow(["", member.cohort, cell(member.image_id), cell(member.patient_id), reason, "", "false"])
    return text.getvalue()


def _page(found: Found, pixels: NDArray[np.floating], most: int) -> str:
    shown = []
    for number, group in enumerate(found.groups[:most], 1):
        images = [np.asarray(pixels[place], dtype=np.float32).mean(axis=0) for place in group.members[:12]]
        planes = np.stack([image[None] if image.ndim == 2 else central_planes(image) for image in images])
        shown.append({
            "number": number, "group": group, "picture": picture_uri(montage(planes)),
            "members": [(found.members[place], place in found.left_out) for place in group.members[:12]],
        })  # fmt: skip
    return environment("monai_memo.duplicates").get_template("duplicates.html.jinja").render(
        sentences=found.sentences(), calibration=found.calibration(), shown=shown, total=len(found.groups),
        left_out=Counter(found.left_out.values()), skipped=found.skipped, titles=TITLES,
    )  # fmt: skip
