# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The record of an audit: every number, and everything needed to repeat the run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from monai_memo.audit.by_condition import without_names
from monai_memo.audit.parts import (
    COHORTS,
    AgreementPart,
    CalibrationPart,
    CohortSummary,
    ConditionPart,
    Count,
    DetectionLimit,
    DetectorPart,
    DiscoveriesPart,
    Estimate,
    Match,
    Natural,
    OrientationPart,
    PartialMatch,
    PartialPart,
    PreprocessingPart,
    ReferencePart,
    SamePatient,
    SamplingCurve,
    Sensitivity,
    StandardPart,
    Timing,
    Verdict,
    VerificationPart,
    all_three,
)
from monai_memo.audit.shown_pairs import page_of
from monai_memo.audit.verdict import first_thing_to_do
from monai_memo.detector.detector import known_summary
from monai_memo.detector.recipe import NAMES
from monai_memo.errors import MemoError
from monai_memo.files import write_json, write_text
from monai_memo.redaction import listed
from monai_memo.settings.model import shown_name, shown_value
from monai_memo.text import cell, uncell

SCHEMA_VERSION = "1.6"
REMOVED = "[redacted]"
SHOWN = 3  # names behind a warning, so that it stays a line or two; the record has them all
MATCH_COLUMNS = (
    "synthetic",
    "nearest_training",
    "similarity",
    "tau",
    "copy",
    "p_value",
    "listed",
    "same_image",
    "look_alikes",
    "agrees",
    "as_found",
    "pair",
    "page",
)
CONDITION = "condition_"  # before the name of a column of the synthetic images' table

PARTIAL_COLUMNS = ("synthetic", "training", "score", "tau", "in_part", "p_value", "listed", "region", "part")


@dataclass(frozen=True)
class AuditResult:
    """One audit. ``audit_result.schema.json`` is made from these fields; ``matches`` go to ``matches.csv``."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)

    schema_version: Annotated[str, Field(pattern=r"^1\.")]
    """Version of this schema."""
    n_synthetic: Natural
    """Synthetic images audited."""
    n_train: Natural
    """Training images compared with."""
    n_heldout: Natural
    """Held-out images that calibrate the thresholds."""
    tau: Estimate
    """Threshold for copies: similarity of a synthetic image to its nearest training image (see verification)."""
    tau_memorized: Estimate
    """Threshold for memorized training images: similarity of a training image to its nearest synthetic image. Equal
    to tau with paper calibration."""
    n_copies: Count
    """Synthetic images above tau. The interval covers new held-out patients and new synthetic images of the same
    generator."""
    n_mem: Count
    """Training images above tau_memorized."""
    n_mem_patients: Count
    """Training patients with at least one memorized image."""
    control_copies: Estimate
    """Rate of copies when held-out patients pose as synthetic."""
    control_mem: Estimate | None
    """Rate of memorized training images when held-out patients pose as synthetic; null if the held-out cohort is
    too small to be split."""
    excess_copies: Estimate
    """Rate of copies minus control_copies."""
    excess_mem: Estimate | None
    """Rate of memorized training images minus control_mem."""
    sensitivity: Sensitivity | None
    """Positive control: copies planted from the training cohort, and how many lie above tau."""
    calibration: CalibrationPart
    """How the thresholds and intervals came about."""
    verdict: Verdict
    """The result in words."""
    cohorts: Annotated[
        dict[str, CohortSummary], AfterValidator(all_three), Field(json_schema_extra={"required": [*COHORTS]})
    ]
    """What was audited and what was skipped."""
    detector: DetectorPart
    """The detector: recipe, hash of weights, what counts as the same image."""
    preprocessing: PreprocessingPart
    """The one preprocessing of all cohorts."""
    configuration: dict[str, Any]
    """Every argument of the run."""
    software: dict[str, str]
    """Versions."""
    warnings: list[str]
    """What limits this result."""
    distributions: dict[str, list[float]]
    """Sorted samples of nearest-neighbour similarities, for figures."""
    timing: Timing
    """When and how long; the only part that differs between two identical runs."""
    redacted: bool = False
    """True if names, ids and paths were removed."""
    discoveries: DiscoveriesPart | None = None
    """List of copies at a false discovery rate (conformal p-values, Benjamini-Hochberg). smallest_p: what the
    held-out cohort allows; least: the fewest images that a list can hold."""
    sampling_curve: SamplingCurve | None = None
    """Distinct training images copied over the number of synthetic images drawn: rarefaction up to n_synthetic,
    Chao1 extrapolation beyond; limit is a lower bound of the number in the end."""
    same_patient: SamePatient | None = None
    """Different images of one training patient: share of pairs above tau, and the similarity that 95 % of them stay
    below. Null without verification, without patient ids or with fewer than 20 pairs."""
    verification: VerificationPart | None = None
    """How similarities came about: candidates by embedding, aligned and compared locally. Null where similarities
    are Pearson correlations of embeddings."""
    detection_limit: DetectionLimit | None = None
    """Which planted copies this audit would find: of each kind, strengths in the units of
    monai_memo.data.ladder."""
    partial: PartialPart | None = None
    """Copies in part: synthetic images that are no copy as a whole, with a region of a training image; counted apart.
    Null where they were not looked for."""
    orientation: list[OrientationPart] | None = None
    """Whether held-out and synthetic images have the orientation of the training images, see
    monai_memo.data.orientation_check."""
    reference: ReferencePart | None = None
    """Reference control: the same synthetic images, looked up among training and held-out patients together. Null
    where it was left out."""
    agreement: AgreementPart | None = None
    """Copies that are the same image, and those that share the layout only. Null without verification."""
    standard: list[StandardPart] | None = None
    """Numbers that readers of papers on generators know, on the embeddings. None of them decides anything."""
    conditions: ConditionPart | None = None
    """Copies by class of a condition. Null where nobody asked for it."""
    warning_names: list[list[str]] | None = None
    """Names of images or patients that each warning is about; empty in a redacted record."""
    matches: list[Match] = field(default_factory=list)
    partial_matches: list[PartialMatch] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The record as it stands in ``audit.json`` (without the matches)."""
        record = asdict(self)
        del record["matches"], record["partial_matches"]
        return record

    def to_json(self) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AuditResult:
        """Inverse of ``to_json``; the matches are empty.

        Raises:
            MemoError: no JSON, another major version of the schema, or not an audit's record.
        """
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MemoError(f"the record of an audit must be JSON: {error}") from error
        version = str(record.get("schema_version", "none")) if isinstance(record, dict) else "none"
        if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise MemoError(
                f"this record has schema version {shown_name(version)}; this version of monai_memo reads "
                f"{SCHEMA_VERSION}"
            )
        record.pop("matches", None)
        record.pop("partial_matches", None)
        return validate_record(record)

    def validate(self) -> None:
        """Check the record against its schema."""
        validate_record(json.loads(self.to_json()))

    def without_patients(self) -> AuditResult:
        """The record without any name, id or path of an image, patient or folder.

        Images are numbered in the order of their similarity, so that numbers say nothing about names.
        """
        synthetic = {match.synthetic: f"synthetic {number}" for number, match in enumerate(self.matches, 1)}
        originals: dict[str, str] = {}
        patients: dict[str, str] = {}
        for match in self.matches:
            originals.setdefault(match.nearest_training, f"training {len(originals) + 1}")
            patients.setdefault(match.nearest_patient, f"patient {len(patients) + 1}")
        for part in self.partial_matches:
            originals.setdefault(part.training, f"training {len(originals) + 1}")
            patients.setdefault(part.patient, f"patient {len(patients) + 1}")
        partial = [
            replace(
                part,
                synthetic=synthetic[part.synthetic],
                training=originals[part.training],
                patient=patients[part.patient],
            )
            for part in self.partial_matches
        ]
        matches = [
            replace(
                match,
                synthetic=synthetic[match.synthetic],
                nearest_training=originals[match.nearest_training],
                nearest_patient=patients[match.nearest_patient],
                conditions={},  # of a rare one few patients are known to have it
            )
            for match in self.matches
        ]
        cohorts = {
            name: replace(
                summary,
                source=REMOVED,
                skipped=[{"image": REMOVED, "reason": item["reason"]} for item in summary.skipped],
            )
            for name, summary in self.cohorts.items()
        }
        configuration = {key: _without_text(key, value) for key, value in self.configuration.items()}
        detector: DetectorPart = {**self.detector, "training": known_summary(self.detector.get("training") or {})}
        detector["recipe"] = detector["recipe"] if detector["recipe"] in NAMES else "custom"
        warnings = self.warnings
        if self.warning_names is None:
            # A record of before the names stood apart: overlaps begin with a number and name them after a colon.
            warnings = [re.sub(r"^(\d+ [^:]+: ).*", rf"\1{REMOVED}", text, flags=re.DOTALL) for text in warnings]
        return replace(
            self,
            matches=matches,
            partial_matches=partial,
            cohorts=cohorts,
            configuration=configuration,
            warnings=warnings,
            redacted=True,
            warning_names=[[] for _ in warnings],
            detector=detector,
            conditions=without_names(self.conditions, self.calibration["confidence"]),
        )

    def to_do(self) -> str:
        """What to do first, see ``verdict.first_thing_to_do``."""
        in_part = self.partial["n_copies"].value if self.partial else 0
        return first_thing_to_do(self.verdict, in_part, self.configuration.get("redacted") is True or self.redacted)

    def told(self) -> list[str]:
        """The warnings with the names that belong to them."""
        names = self.warning_names or [[] for _ in self.warnings]
        return [
            f"{text} ({listed(who, SHOWN)})" if who else text for text, who in zip(self.warnings, names, strict=True)
        ]

    def write(self, folder: str | Path) -> None:
        """Write ``audit.json``, ``matches.csv`` and, where parts were looked for, ``partial.csv``.

        Pairs are numbered, since pages show no names; the table has the pages of those that lie in ``folder``, and at
        the end the conditions that the synthetic images' table has.
        """
        write_json(Path(folder) / "audit.json", self.to_dict())
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        conditions = list(dict.fromkeys(name for match in self.matches for name in match.conditions))
        rows.writerow([*MATCH_COLUMNS, *(f"{CONDITION}{cell(name)}" for name in conditions)])
        for pair, match in enumerate(self.matches, 1):
            numbers = (f"{match.similarity:.6f}", f"{match.tau:.6f}", "true" if match.copy else "false")
            same_image = "" if match.same_image is None else str(match.same_image).lower()
            look_alikes = "" if match.look_alikes is None else f"{match.look_alikes:.6f}"
            certainty = (
                f"{match.p_value:.6f}",
                "true" if match.listed else "false",
                same_image,
                look_alikes,
                match.agrees or "",
                "" if match.as_found is None else f"{match.as_found:.6f}",
            )
            page = page_of(pair) if (Path(folder) / page_of(pair)).is_file() else ""
            names = cell(match.synthetic), cell(match.nearest_training)
            told = (cell(match.conditions.get(name, "")) for name in conditions)
            rows.writerow([*names, *numbers, *certainty, str(pair), page, *told])
        write_text(Path(folder) / "matches.csv", text.getvalue())
        if self.partial is not None:
            write_text(Path(folder) / "partial.csv", partial_table(self.partial_matches))


def partial_table(matches: Sequence[PartialMatch]) -> str:
    """``partial.csv``: for each synthetic image that is no copy as a whole, the region that resembles one most."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(PARTIAL_COLUMNS)
    for part, match in enumerate(matches, 1):
        numbers = (f"{match.score:.4f}", f"{match.tau:.4f}", str(match.in_part).lower(), f"{match.p_value:.6f}")
        region = " x ".join(f"{low:.2f}-{high:.2f}" for low, high in match.region)
        names = cell(match.synthetic), cell(match.training)
        rows.writerow([*names, *numbers, str(match.listed).lower(), region, str(part)])
    return text.getvalue()


def truth(cell: str) -> str:
    """``"true"`` or ``"false"``, as a table says; a spreadsheet that saved it writes them large.

    Raises:
        ValueError: neither: to take it for "no" would turn a copy into an image that is none.
    """
    if cell.lower() not in ("true", "false"):
        raise ValueError(f"{cell!r} is neither true nor false")
    return cell.lower()


def matches_in(folder: str | Path) -> list[dict[str, str]]:
    """The rows of ``matches.csv`` with images and conditions as their files and tables have them.

    Raises:
        MemoError: no such table, or not the one of an audit.
    """
    path = Path(folder) / "matches.csv"
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        names = (
            ["synthetic", "nearest_training", *(name for name in rows[0] if name.startswith(CONDITION))] if rows else []
        )
        said = [name for name in ("copy", "listed") if rows and name in rows[0]]
        return [
            {**row, **{name: uncell(row[name]) for name in names}, **{name: truth(row[name]) for name in said}}
            for row in rows
        ]
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise MemoError(f"{path} is not the table of an audit: {error}") from error


def _without_text(key: str, value: Any) -> Any:
    """A setting without words, unless they can only be one of ours."""
    if value is None or isinstance(value, bool | int | float) or key in ("recipe", "calibration", "symmetries"):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, bool | int | float) for item in value):
        return value
    if key in ("orientation", "device") and re.fullmatch(r"[A-Za-z]{2,12}(_[a-z0-9]{1,12})?(:\d{1,3})?", str(value)):
        return value
    return REMOVED


def schema() -> dict[str, Any]:
    """The JSON schema of ``audit.json``."""
    text = files("monai_memo.audit").joinpath("audit_result.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@lru_cache(maxsize=1)
def _reader() -> TypeAdapter[AuditResult]:
    return TypeAdapter(AuditResult)


def validate_record(record: Any) -> AuditResult:
    """Check a record against its types, and make an ``AuditResult`` of it.

    Raises:
        MemoError: the first field that does not fit, and why.
    """
    try:
        return _reader().validate_json(json.dumps(record), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "/".join(str(part) for part in first["loc"]) or "the record"
        given = "" if first["type"] == "missing" else f", got {shown_value(first['input'])}"
        raise MemoError(f"not an audit's record: {where}: {first['msg']}{given}") from None
