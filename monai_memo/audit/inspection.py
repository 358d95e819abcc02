# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo inspect``: what was read of each cohort, what differs between them, and how they look side by side."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.audit.configuration import InspectionSettings
from monai_memo.audit.contact_sheet import (
    TITLES,
    SheetColumn,
    contact_sheet,
    sheet_figure,
    sheet_record,
    spread_figure,
)
from monai_memo.audit.figures import png_bytes
from monai_memo.audit.pages import environment
from monai_memo.audit.pictures import png_uri
from monai_memo.data.cohort import Cohort, SkippedImage, by_reason
from monai_memo.data.differences import Finding, differences
from monai_memo.data.framing import compare_framing
from monai_memo.data.inspection import NOT_SAID, CohortFacts, read_headers, rows_of
from monai_memo.data.intensities import SAMPLE, Intensities, sample_intensities
from monai_memo.data.intensity_check import find_negatives
from monai_memo.data.loading import COLOUR_NOTE, Preprocessing, guess_preprocessing
from monai_memo.data.near_twins import near_twins
from monai_memo.data.orientation_check import compare_orientation
from monai_memo.data.overlap import check_overlap, repeated_images, source_warnings
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.data.windows import check_windows
from monai_memo.errors import CohortError
from monai_memo.files import write_json, write_text, write_with
from monai_memo.redaction import listed
from monai_memo.workspace.manifest import require_unredacted
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import check_place

FOLDER_NAMES = ("inspection.html", "inspection.json", "contact_sheet.png")
SHOWN_NAMES = 5  # of each finding in the terminal
RUN = "Run monai-memo audit: it looks at every image and says which are copies, and of whom."
NOTHING_FOUND = "Nothing that stands in the way of an audit was found. Look at the sheet all the same."
MOST_NAMES = 200
WIDTH = 34  # characters of a column in the terminal
SHEET_NOTE = {
    2: "Images as prepared for the detector.",
    3: "Volumes as prepared for the detector, three planes through the middle each; R and L, A and P, S and I are the "
    "patient's right and left, front and back, head and feet, where the files are right about it.",
}


class Inspection:
    """Look at cohorts before an audit.

    Args:
        arguments: see ``InspectionSettings``.

    Example:
        >>> inspection = Inspection(train="train", synthetic="synthetic", out="look.html")
        >>> inspection.read()  # doctest: +SKIP
        >>> inspection.compare()  # doctest: +SKIP
        >>> inspection.write()  # doctest: +SKIP
    """

    def __init__(self, **arguments: Any) -> None:
        self.settings = InspectionSettings(**arguments)
        self.out = Path(self.settings.out)
        self.facts: dict[str, CohortFacts] = {}
        self.intensities: dict[str, Intensities | None] = {}
        self.findings: list[Finding] = []
        self.sheet: list[SheetColumn] = []
        self.preparation = ""

    def read(self) -> None:
        """Read the headers of all images and the intensities of a sample.

        Raises:
            CohortError: a cohort is missing or holds no image.
        """
        settings, readings = self.settings, self.settings.readings()
        if not self._is_one_file():
            check_place(settings.out, settings.cohort_options())
        require_unredacted(self.out)
        require_sources(settings.cohort_options())
        for name, source in settings.cohort_sources().items():
            pattern = settings.patient_pattern if name != "synthetic" else None
            cohort = Cohort.from_source(source, name, pattern, readings[name])
            headers, skipped = read_headers(cohort, self.settings.workers, self.settings.progress)
            self.facts[name] = CohortFacts(
                cohort=cohort,
                headers=tuple(header for _, header in headers),
                places=tuple(place for place, _ in headers),
                skipped=(*cohort.skipped, *skipped),
                patients_from=_patients_from(source, pattern),
                repeated=sum(len(group) - 1 for group in repeated_images(cohort)),
            )
            readable = cohort.subset(self.facts[name].places)
            most = min(self.settings.sample, SAMPLE)
            self.intensities[name] = sample_intensities(
                readable, most, self.settings.seed, self.settings.workers, self.settings.progress
            )

    def compare(self) -> None:
        """Prepare a sample of each cohort as an audit would, and compare the cohorts.

        Raises:
            CohortError: 2D and 3D images are mixed, or no image of a cohort can be used.
        """
        preprocessing = self._preprocessing()
        self.findings = differences(self.facts)
        cohorts = {name: facts.cohort for name, facts in self.facts.items()}
        self.findings += [Finding("files", text) for text in source_warnings(list(cohorts.values()))]
        self.findings += [Finding.of("overlap", text) for text in check_overlap(list(cohorts.values()), allow=True)]
        with tempfile.TemporaryDirectory() as work:
            prepared = {name: self._prepare(name, preprocessing, Path(work)) for name in self.facts}
            self.findings += [_left_out(facts) for facts in self.facts.values() if facts.skipped]
            self._compare_pixels(prepared)
            if {"training", "synthetic"} <= cohorts.keys():
                framed = compare_framing(
                    cohorts["training"], cohorts["synthetic"], preprocessing, self.settings.seed
                )  # fmt: skip
                self.findings += [Finding("proportions", framed.sentence)] if framed else []
            self.sheet = contact_sheet(prepared, self.settings.seed)
        self.findings.sort(key=lambda finding: not finding.serious)
        self.preparation = preprocessing.describe().replace("all three cohorts", "every cohort")

    def _preprocessing(self) -> Preprocessing:
        """As an audit would; a few images suffice where the headers agree, the others only make the message whole."""
        kinds = {header.spatial_dims for facts in self.facts.values() for header in facts.headers}
        cohorts = [facts.cohort for facts in self.facts.values()]
        if len(kinds) == 1:
            cohorts = [facts.cohort.subset(facts.places[:20]) for facts in self.facts.values()]
        return guess_preprocessing(cohorts, size=self.settings.size, spacing=self.settings.spacing)

    def _prepare(self, name: str, preprocessing: Preprocessing, work: Path) -> PreparedCohort:
        facts = self.facts[name]
        if not facts.headers:
            none = f"none of the {len(facts.cohort)} images of the {name} cohort can be read"
            raise CohortError(by_reason(none, facts.skipped))
        order = _some(len(facts.places), self.settings.sample, self.settings.seed)
        sample = facts.cohort.subset(facts.places[place] for place in order)
        prepared = prepare(sample, preprocessing, work, self.settings.workers, self.settings.progress)
        known = {item.image_id for item in facts.skipped}
        found = tuple(item for item in prepared.skipped if item.image_id not in known)
        self.facts[name] = _with_skipped(facts, found)
        for note in prepared.notes:
            if COLOUR_NOTE in note:  # the table tells
                continue
            self.findings.append(Finding("reading", f"{TITLES[name]} (sample of {len(sample)}): {note}.", False))
        return prepared

    def _compare_pixels(self, prepared: Mapping[str, PreparedCohort]) -> None:
        self.findings += [Finding("window", found.sentence) for found in check_windows(self.intensities)]
        for one, other in combinations(prepared, 2):
            if one != next(iter(prepared)):
                continue
            turned = compare_orientation(prepared[one], prepared[other], self.settings.seed, self._applied(other))
            if turned.status != "same":
                text, serious = f"{turned.sentence} {turned.remedy}".strip(), turned.status != "cannot_tell"
                self.findings.append(Finding("orientation", text, serious, tuple(turned.turned_names())))
            twins = near_twins(turned, RUN)
            if twins is not None:
                subject = "possible copies" if other == "synthetic" else "patients"
                self.findings.append(Finding.of(subject, twins))
            negatives = find_negatives(
                (one, other), prepared[one].pixels, prepared[other].pixels, seed=self.settings.seed
            )
            if negatives is not None:
                self.findings.append(Finding("negatives", negatives.sentence))

    def _applied(self, name: str) -> str | None:
        return self.settings.readings()[name].orientation

    @property
    def n_skipped(self) -> int:
        return sum(len(facts.skipped) for facts in self.facts.values())

    def rows(self) -> list[tuple[str, list[str]]]:
        """The table: a label and a text for each cohort. Rows that say nothing of any cohort are left out."""
        columns = [rows_of(facts, self.intensities[name]) for name, facts in self.facts.items()]
        rows = [(label, [column[label] for column in columns]) for label in columns[0]]
        flat = all(header.spatial_dims == 2 for facts in self.facts.values() for header in facts.headers)
        nothing = ({"-"}, {NOT_SAID}) if flat else ({"-"},)
        return [(label, texts) for label, texts in rows if set(texts) not in nothing]

    def table(self) -> str:
        """The table for a terminal."""
        lines = [_terminal_row("", [TITLES[name] for name in self.facts])]
        return "\n".join(lines + [_terminal_row(label, texts) for label, texts in self.rows()])

    def findings_text(self) -> str:
        """The findings for a terminal."""
        lines = []
        for finding in self.findings:
            lines.append(f"{'warning' if finding.serious else 'note'}: {finding.sentence}")
            lines += [f"         {listed(finding.names, SHOWN_NAMES)}"] if finding.names else []
        if not any(finding.serious for finding in self.findings):
            lines.append(NOTHING_FOUND)
        return "\n".join(lines)

    def write(self) -> Path:
        """Write the page; into a folder, also the facts as JSON and the sheet as a picture.

        Returns:
            The page.

        Raises:
            OutputError: it cannot be written.
        """
        sampled = f"{self.settings.sample} of each cohort by chance" if self._is_sampled() else "all of them"
        text = (
            environment()
            .get_template("inspection.html.jinja")
            .render(
                titles=[TITLES[name] for name in self.facts],
                rows=self.rows(),
                findings=self.findings,
                nothing_found=NOTHING_FOUND,
                sheet=sheet_record(self.sheet),
                sheet_note=SHEET_NOTE[2 if self.sheet[0].mean.shape[0] == 1 else 3],
                spread=png_uri(png_bytes(spread_figure(self.sheet), dpi=90)),
                most_names=MOST_NAMES,
                sampled=sampled,
                preparation=self.preparation,
            )
        )
        if self._is_one_file():
            return write_text(self.out, text)
        with OutputFolder(self.out, "inspect", self.settings.cohort_options(), FOLDER_NAMES) as output:
            staging = output.staging()
            write_text(staging / FOLDER_NAMES[0], text)
            write_json(staging / FOLDER_NAMES[1], self.to_dict())
            picture = png_bytes(sheet_figure(self.sheet), dpi=90)
            write_with(staging / FOLDER_NAMES[2], lambda temporary: temporary.write_bytes(picture))
            output.publish()
            output.clear()
        return self.out / FOLDER_NAMES[0]

    def _is_one_file(self) -> bool:
        return self.out.suffix.lower() in (".html", ".htm")

    def _is_sampled(self) -> bool:
        return any(len(facts.places) > self.settings.sample for facts in self.facts.values())

    def to_dict(self) -> dict[str, Any]:
        """Facts and findings in plain types, for JSON."""
        cohorts = {}
        for name, facts in self.facts.items():
            sample = self.intensities[name]
            cohorts[name] = {
                **facts.to_dict(),
                "intensities": None if sample is None else sample.describe(),
            }
        return {
            "cohorts": cohorts,
            "findings": [asdict(finding) for finding in self.findings],
            "sample": self.settings.sample,
            "seed": self.settings.seed,
        }


def _patients_from(source: str, pattern: str | None) -> str:
    if Path(source).is_dir():
        return "the pattern" if pattern is not None else "PatientID of the DICOM files"
    return "the table"


def _some(number: int, most: int, seed: int) -> list[int]:
    return sorted(int(place) for place in np.random.default_rng([seed, 18]).permutation(number)[:most])


def _with_skipped(facts: CohortFacts, further: tuple[SkippedImage, ...]) -> CohortFacts:
    return replace(facts, skipped=(*facts.skipped, *further))


def _left_out(facts: CohortFacts) -> Finding:
    number, name = len(facts.skipped), facts.cohort.name
    things, them = ("file or image", "it") if number == 1 else ("files or images", "them")
    told = by_reason(f"{number} {things} of the {TITLES[name].lower()} cohort cannot be used", facts.skipped).plain
    means = f"An audit says nothing about {them}." if name == "synthetic" else ""
    means = f"Copies of {them} are not found." if name == "training" else means
    several = len({item.reason for item in facts.skipped}) > 1
    names = [f"{item.image_id} ({item.reason})" if several else item.image_id for item in facts.skipped]
    return Finding("left out", f"{told}. {means}".rstrip(), True, tuple(names))


def _terminal_row(label: str, texts: list[str]) -> str:
    cells = [textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False) or [""] for text in texts]
    lines = []
    for place in range(max(len(cell) for cell in cells)):
        parts = [(cell[place] if place < len(cell) else "").ljust(WIDTH) for cell in cells]
        lines.append(f"{label if place == 0 else '':<15}{''.join(parts)}".rstrip())
    return "\n".join(lines)
