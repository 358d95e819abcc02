# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML file that opens anywhere, with the verdict first."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.contact_sheet import SheetColumn, sheet_figure, sheet_record
from monai_memo.audit.evidence import PairEvidence
from monai_memo.audit.figures import (
    data_uri,
    distribution_figure,
    pair_figure,
    png_bytes,
    rates_figure,
    sampling_figure,
    write_figure,
)
from monai_memo.audit.partial_evidence import PartialEvidence, partial_figure
from monai_memo.audit.result import REMOVED, AuditResult, Count, Estimate
from monai_memo.audit.verdict import percent
from monai_memo.data.ladder import UNITS
from monai_memo.errors import MemoError
from monai_memo.files import write_text
from monai_memo.statistics.standard import IF_COPIED

LEVELS = {
    "copies_found": ("Copies found", "&#9888;"),
    "inconclusive": ("Not conclusive", "?"),
    "no_excess": ("No excess of copies", "&#10003;"),
}
CHAPTERS = "<!-- further chapters -->"  # stands in the template; text of users cannot hold it, being escaped
DEFAULTS = {name: field.default for name, field in AuditConfiguration.model_fields.items()}
OMITTED = ("train", "heldout", "synthetic", "out", "redacted", "progress", "keep_work", "workers")


def _count(count: Count) -> str:
    """``31 of 100 (24 to 39)``; zero is phrased so that nobody reads it as proof."""
    if count.value == 0:
        return f"0 of {count.of} (up to {count.high:.0f}, {percent(count.rate.high)}, cannot be excluded)"
    return f"{count.value} of {count.of} ({count.low:.0f} to {count.high:.0f})"


def _rate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} ({percent(estimate.low)} to {percent(estimate.high)})"


def _similarity(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


FILTERS = {"count": _count, "rate": _rate, "similarity": _similarity, "percent": percent}


def repeat_command(result: AuditResult) -> str:
    """The command line that repeats the audit. Names of folders are placeholders in a redacted report."""
    settings = result.configuration
    parts = ["monai-memo", "audit"]
    for name in ("train", "heldout", "synthetic", "out"):
        value = f"<{name}>" if settings.get(name) == REMOVED else shlex.quote(str(settings.get(name)))
        parts += [f"--{name}", value]
    for name, value in settings.items():
        if name in OMITTED or value is None or value == REMOVED or (value is False and DEFAULTS.get(name) is False):
            continue
        text = str(value).replace(" ", "") if isinstance(value, list | tuple) else str(value)
        parts.append(f"--{name}" if value is True else f"--{name} {shlex.quote(text)}")
    return " ".join(parts)


PARAGRAPHS = (  # how the sentences of a verdict begin that tell of something else than the one before
    "Looked up among training and held-out patients together", "The control on held-out images does not show it",
    r"(?:All )?\d+ agree with a training image", "Of images that are no copy as a whole", "Besides, ", "As a whole: ",
    r"\d+ synthetic images? could not be read",
)  # fmt: skip


def paragraphs(detail: str) -> list[str]:
    """The verdict's text, which the record has in one piece, in several."""
    return re.split(rf"(?<=[.)]) (?={'|'.join(PARAGRAPHS)})", detail)


def skipped_images(result: AuditResult) -> list[dict[str, Any]]:
    """Skipped images by cohort: total, reasons with counts, and the first names."""
    rows = []
    for name, summary in result.cohorts.items():
        if summary.skipped:
            reasons = Counter(item["reason"] for item in summary.skipped)
            names = [f"{item['image']} ({item['reason']})" for item in summary.skipped]
            rows.append({"cohort": name, "total": len(names), "reasons": reasons.most_common(), "names": names[:50]})
    return rows


def _gallery(evidence: Sequence[PairEvidence]) -> list[dict[str, Any]]:
    return [
        {
            "image": data_uri(png_bytes(pair_figure(pair), dpi=90)),
            "match": pair.match,
            "mirrored": pair.mirrored,
            "turned": pair.turned,
            "correlation": f"{pair.correlation:.2f}",
            "similarity": f"{pair.match.similarity:.3f}",
            "p_value": f"{pair.match.p_value:.2g}",
            "columns": 3 if pair.agreement is None else 4,
        }
        for pair in evidence
    ]


def _parts(evidence: Sequence[PartialEvidence]) -> list[dict[str, Any]]:
    return [{"image": data_uri(png_bytes(partial_figure(pair), dpi=90)), "match": pair.match} for pair in evidence]


def environment() -> Environment:
    """Jinja for the pages: everything is escaped, a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("monai_memo.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(FILTERS)
    return environment


def render_report(
    result: AuditResult,
    evidence: Sequence[PairEvidence] | None,
    figures: dict[str, bytes],
    sheet: list[SheetColumn] | None = None,
    parts: Sequence[PartialEvidence] | None = None,
) -> str:
    """The report as HTML text. Without evidence there is no gallery, without a sheet no section of it."""
    word, icon = LEVELS[result.verdict["level"]]
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            result=result,
            word=word,
            icon=icon,
            figures={name: data_uri(content) for name, content in figures.items()},
            gallery=_gallery(evidence or []),
            parts=_parts(parts or []),
            sheet=sheet_record(sheet) if sheet else None,
            skipped=skipped_images(result),
            command=repeat_command(result),
            confidence=f"{100 * result.calibration['confidence']:g} %",
            patients_unknown=[name for name in ("training", "heldout") if not result.cohorts[name].patients_known],
            units=UNITS,
            paragraphs=paragraphs(result.verdict["detail"]),
            directions=IF_COPIED,
            titles={"training": "Training", "heldout": "Held-out", "synthetic": "Synthetic"},
        )
    )


def write_report(
    result: AuditResult,
    evidence: Sequence[PairEvidence] | None,
    folder: str | Path,
    redacted: bool = False,
    sheet: list[SheetColumn] | None = None,
    parts: Sequence[PartialEvidence] | None = None,
) -> Path:
    """Write ``report.html`` and ``figures/*.png``.

    Args:
        evidence: pairs for the gallery; ignored if ``redacted``.
        redacted: no patient pixel, name, id or path; ``result`` must come from ``AuditResult.without_patients``.
        sheet: images of the cohorts side by side; ignored if ``redacted``.
        parts: copies in part to show; ignored if ``redacted``.
    """
    if redacted and not result.redacted:
        raise ValueError("a redacted report takes a result without patients: AuditResult.without_patients()")
    folder = Path(folder)
    figures = {
        "distributions": write_figure(folder / "figures" / "distributions.png", distribution_figure(result)),
        "rates": write_figure(folder / "figures" / "rates.png", rates_figure(result)),
    }
    if result.sampling_curve is not None and result.sampling_curve["seen"]:
        figures["sampling"] = write_figure(folder / "figures" / "sampling_curve.png", sampling_figure(result))
    evidence, sheet, parts = (None, None, None) if redacted else (evidence, sheet, parts)
    if sheet:
        write_figure(folder / "figures" / "contact_sheet.png", sheet_figure(sheet))
    return write_text(folder / "report.html", render_report(result, evidence, figures, sheet, parts))


def set_chapter(report: str, template: str, record: Mapping[str, Any]) -> str:
    """A finished report with a further chapter, in place of the one of the same name that it may have.

    The rest stays as it is, byte for byte: the images of a report can be gone when its chapters come.

    Args:
        report: HTML text of a report.
        template: file in ``templates``, which sees ``record`` as ``chapter``.

    Raises:
        MemoError: not a report of an audit.
    """
    start, end = f"<!-- chapter {template} -->", f"<!-- end of chapter {template} -->"
    chapter = environment().get_template(template).render(chapter=record)
    without = re.sub(f"\n{re.escape(start)}.*?{re.escape(end)}", "", report, flags=re.DOTALL)
    before, place, after = without.partition(CHAPTERS)
    if not place:
        raise MemoError("the report has no place for further chapters: it is of an older version. Audit again.")
    return f"{before}{place}\n{start}\n{chapter}\n{end}{after}"
