# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The record of an audit: every number, and everything needed to repeat the run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema

from monai_memo.errors import MemoError
from monai_memo.files import write_json, write_text

SCHEMA_VERSION = "1.3"
REMOVED = "[redacted]"
# MONAI Label 0.8.5 brings jsonschema 3, which ends at draft 7; the schema uses nothing that came later.
VALIDATOR = getattr(jsonschema, "Draft202012Validator", None) or jsonschema.Draft7Validator
MATCH_COLUMNS = ("synthetic", "nearest_training", "similarity", "tau", "copy", "p_value", "listed", "same_image")


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Count:
    """A number of images or patients out of ``of``; ``low`` and ``high`` in the same unit; ``rate`` from 0 to 1."""

    value: int
    low: float
    high: float
    of: int
    rate: Estimate


@dataclass(frozen=True)
class CohortSummary:
    """What of a cohort was audited, and what was left out and why."""

    source: str
    n_images: int
    n_patients: int
    patients_known: bool
    skipped: list[dict[str, str]]
    notes: list[str]
    repeated: int
    content_sha256: str


@dataclass(frozen=True)
class Match:
    """A synthetic image with its nearest training image.

    Attributes:
        copy: similarity above tau.
        p_value: conformal p-value against the held-out images.
        listed: on the list of copies at the false discovery rate asked for.
        same_image: more similar than 95 % of the pairs of different images of one patient are; None if not measured.
    """

    synthetic: str
    nearest_training: str
    nearest_patient: str
    similarity: float
    tau: float
    copy: bool
    p_value: float = 1.0
    listed: bool = False
    same_image: bool | None = None


@dataclass(frozen=True)
class AuditResult:
    """One audit. ``audit_result.schema.json`` describes each field; ``matches`` go to ``matches.csv``."""

    schema_version: str
    n_synthetic: int
    n_train: int
    n_heldout: int
    tau: Estimate
    tau_memorized: Estimate
    n_copies: Count
    n_mem: Count
    n_mem_patients: Count
    control_copies: Estimate
    control_mem: Estimate | None
    excess_copies: Estimate
    excess_mem: Estimate | None
    sensitivity: dict[str, Any] | None
    calibration: dict[str, Any]
    verdict: dict[str, str]
    cohorts: dict[str, CohortSummary]
    detector: dict[str, Any]
    preprocessing: dict[str, Any]
    configuration: dict[str, Any]
    software: dict[str, str]
    warnings: list[str]
    distributions: dict[str, list[float]]
    timing: dict[str, Any]
    redacted: bool = False
    discoveries: dict[str, Any] | None = None
    sampling_curve: dict[str, Any] | None = None
    same_patient: dict[str, Any] | None = None
    verification: dict[str, Any] | None = None
    detection_limit: dict[str, Any] | None = None
    matches: list[Match] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The record as it stands in ``audit.json`` (without the matches)."""
        record = asdict(self)
        del record["matches"]
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
        except json.JSONDecodeError as error:
            raise MemoError(f"the record of an audit must be JSON: {error}") from error
        version = str(record.get("schema_version", "none")) if isinstance(record, dict) else "none"
        if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise MemoError(
                f"this record has schema version {version}; this version of monai_memo reads {SCHEMA_VERSION}"
            )
        validate_record(record)

        def estimate(value: Mapping[str, float] | None) -> Estimate | None:
            return None if value is None else Estimate(**value)

        for name in ("tau", "tau_memorized", "control_copies", "control_mem", "excess_copies", "excess_mem"):
            record[name] = estimate(record[name])
        for name in ("n_copies", "n_mem", "n_mem_patients"):
            record[name] = Count(**{**record[name], "rate": Estimate(**record[name]["rate"])})
        if record["sensitivity"] is not None:
            record["sensitivity"]["rate"] = Estimate(**record["sensitivity"]["rate"])
        record["cohorts"] = {name: CohortSummary(**summary) for name, summary in record["cohorts"].items()}
        return cls(**{key: record[key] for key in (item.name for item in fields(cls)) if key in record})

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
        matches = [
            replace(
                match,
                synthetic=synthetic[match.synthetic],
                nearest_training=originals[match.nearest_training],
                nearest_patient=patients[match.nearest_patient],
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
        hidden = ("train", "heldout", "synthetic", "out", "detector", "patient_pattern")
        configuration = {
            key: REMOVED if key in hidden and value is not None else value for key, value in self.configuration.items()
        }
        # Warnings about overlaps start with a number and name patients and files after a colon.
        warnings = [re.sub(r"^(\d+ [^:]+: ).*", rf"\1{REMOVED}", text, flags=re.DOTALL) for text in self.warnings]
        return replace(
            self, matches=matches, cohorts=cohorts, configuration=configuration, warnings=warnings, redacted=True
        )

    def write(self, folder: str | Path) -> None:
        """Write ``audit.json`` and ``matches.csv``."""
        write_json(Path(folder) / "audit.json", self.to_dict())
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(MATCH_COLUMNS)
        for match in self.matches:
            numbers = (f"{match.similarity:.6f}", f"{match.tau:.6f}", "true" if match.copy else "false")
            same_image = "" if match.same_image is None else str(match.same_image).lower()
            certainty = (f"{match.p_value:.6f}", "true" if match.listed else "false", same_image)
            rows.writerow([match.synthetic, match.nearest_training, *numbers, *certainty])
        write_text(Path(folder) / "matches.csv", text.getvalue())


def schema() -> dict[str, Any]:
    """The JSON schema of ``audit.json``."""
    text = files("monai_memo.audit").joinpath("audit_result.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def validate_record(record: Any) -> None:
    """Check a record against the schema.

    Raises:
        MemoError: the first field that does not fit, and why.
    """
    errors = sorted(VALIDATOR(schema()).iter_errors(record), key=lambda error: list(error.path))
    if errors:
        where = "/".join(str(part) for part in errors[0].path) or "the record"
        raise MemoError(f"not an audit's record: {where}: {errors[0].message[:300]}")
