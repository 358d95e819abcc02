# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluate a review: ``review.json`` and a chapter in the audit's report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_memo.audit.report import set_chapter
from monai_memo.errors import MemoError
from monai_memo.files import write_json, write_text
from monai_memo.label.analysis import DEFINITIONS, Analysis
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.names import rater_key
from monai_memo.label.prepare import FINAL, open_study
from monai_memo.label.ratings import all_ratings
from monai_memo.label.settings import ReviewSettings
from monai_memo.workspace.output_folder import OutputFolder

logger = logging.getLogger(__name__)

SCHEMA_VERSION = "1.1"
METHOD = (
    "Pairs were drawn at random within strata of the similarity; each stratum counts with its number of synthetic "
    "images, so that rates hold for all of them and not for the pairs shown. Intervals combine the Wilson intervals of "
    "the strata (MOVER) and hold for further images of the same generator. Kappa weights each pair by how many it "
    "stands for; its interval is a bootstrap of pairs within strata. Where raters differ and the pair was settled, "
    "what settled it takes the place of the majority; numbers of single raters and kappa are of the first ratings."
)


@dataclass(frozen=True)
class ReviewResult:
    """The evaluation of a review.

    Attributes:
        record: as in ``review.json``.
    """

    record: dict[str, Any]

    @property
    def headline(self) -> str:
        """One sentence: the detector against the consensus."""
        rates = self.record["detector"]["copy_or_same_patient"]["consensus"]
        raters = len(self.record["raters"])
        who = "one rater" if raters == 1 else f"the consensus of {raters} raters"
        if self.record["adjudication"]["settled"]:
            who = f"{raters} raters, with disagreements settled"
        return f"Detector against {who}: {_words('sensitivity', rates)}, {_words('specificity', rates)}."

    def pseudonymous(self) -> ReviewResult:
        """Raters are numbered, and no image is named."""
        names = [row["rater"] for row in self.record["raters"]]
        known = {rater_key(name) for name in names}
        names += [name for name in self.record["adjudication"]["by"] if rater_key(name) not in known]
        numbers = {name: f"rater {number}" for number, name in enumerate(names, 1)}
        by_any_case = {rater_key(name): number for name, number in numbers.items()}

        def renamed(value: Any) -> Any:
            if isinstance(value, dict):
                return {numbers.get(key, key): renamed(item) for key, item in value.items()}
            if isinstance(value, list):
                return [renamed(item) for item in value]
            return numbers.get(value, value) if isinstance(value, str) else value

        record = {
            **self.record,
            "raters": [{**row, "rater": numbers[row["rater"]]} for row in self.record["raters"]],
            "agreement": renamed(self.record["agreement"]),
            "detector": {
                name: {**part, "raters": {numbers[rater]: rates for rater, rates in part["raters"].items()}}
                for name, part in self.record["detector"].items()
            },
            "adjudication": {
                **self.record["adjudication"],
                "by": [by_any_case[rater_key(name)] for name in self.record["adjudication"]["by"]],
            },
            "missing": [{"reason": item["reason"]} for item in self.record["missing"]],
            "disagreements": [
                {
                    **{key: row[key] for key in ("similarity", "detector")},
                    "ratings": {numbers[rater]: rating for rater, rating in row["ratings"].items()},
                }
                for row in self.record["disagreements"]
            ],
            "redacted": True,
        }
        return ReviewResult(record)


def _words(name: str, rates: dict[str, Any]) -> str:
    value = rates[name]
    if value is None:
        return f"{name} unknown"
    percent = [f"{100 * value[key]:.0f}" for key in ("value", "low", "high")]
    return f"{name} {percent[0]} % ({percent[1]} to {percent[2]})"


def evaluate_review(audit: AuditFolder) -> ReviewResult:
    """Read the ratings of a review and compute everything.

    Raises:
        MemoError: no review, or no ratings yet.
    """
    study = open_study(audit)
    history = all_ratings(audit.review / FINAL, study.by_id)
    confidence = float(audit.result.calibration["confidence"])
    analysis = Analysis(study, history, confidence)
    if not analysis.raters:
        raise MemoError(
            f"nobody has rated a pair of {audit.folder} yet. Start the review page: monai-memo review-server --audit "
            f"{audit.folder}"
        )
    sample = study.sample
    record = {
        "schema_version": SCHEMA_VERSION,
        "audit": study.audit,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "confidence": confidence,
        "method": METHOD,
        "definitions": {name: list(ratings) for name, ratings in DEFINITIONS.items()},
        "pairs": {
            "synthetic_images": sum(study.stratum_sizes),
            "sampled": sum(pair.sampled for pair in study.pairs),
            "shown": len(sample),
            "near_tau": len(study.uncertain),
        },
        "missing": [
            {"synthetic": pair.synthetic, "training": pair.training, "reason": pair.missing}
            for pair in study.pairs
            if pair.missing
        ],
        "strata": [
            {"synthetic_images": size, "detector_copy": copy, "shown": sum(pair.stratum == h for pair in sample)}
            for h, (size, copy) in enumerate(zip(study.stratum_sizes, study.stratum_copies, strict=True))
        ],
        "raters": analysis.rater_table(),
        "detector": analysis.detector(),
        "agreement": analysis.agreement(),
        "adjudication": analysis.adjudication(),
        "near_tau": analysis.near_tau(),
        "disagreements": analysis.disagreements(),
        "redacted": False,
    }
    return ReviewResult(record)


def review(audit: str | Path, **options: Any) -> ReviewResult:
    """Evaluate the ratings of a review.

    Writes ``AUDIT/review.json`` and adds a chapter to ``AUDIT/report.html``, or replaces the one of an earlier
    evaluation. The rest of the report stays as it is.

    Args:
        audit, options: see ``ReviewSettings``.

    Raises:
        MemoError: no review, no ratings, or no report there.
    """
    settings = ReviewSettings(audit=str(audit), **options)
    folder = AuditFolder(Path(settings.audit))
    with OutputFolder(folder.folder, "review", writes=["review.json", "report.html"], shared=["report.html"]) as output:
        result = evaluate_review(folder)
        if settings.redacted or folder.result.redacted:
            result = result.pseudonymous()
        report = folder.folder / "report.html"
        try:
            text = report.read_text(encoding="utf-8")
        except OSError as error:
            raise MemoError(f"cannot read {report}: {error.strerror or error}. Run the audit again.") from error
        text = set_chapter(text, "review.html.jinja", result.record)
        staging = output.staging()
        write_json(staging / "review.json", result.record)
        write_text(staging / "report.html", text)
        output.publish(of_others={"report.html": "audit"})
        output.clear()
    return result
