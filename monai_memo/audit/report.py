# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML file that opens anywhere, with the verdict first."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.contact_sheet import SheetColumn, sheet_figure, sheet_record
from monai_memo.audit.evidence import PairEvidence
from monai_memo.audit.figures import distribution_figure, rates_figure, sampling_figure, write_figure
from monai_memo.audit.gallery import Gallery
from monai_memo.audit.glossary import report_terms
from monai_memo.audit.pages import environment
from monai_memo.audit.pair_cards import PartCard, part_cards
from monai_memo.audit.partial_evidence import PartialEvidence
from monai_memo.audit.parts import KindLimit
from monai_memo.audit.pictures import png_uri
from monai_memo.audit.result import REMOVED, AuditResult
from monai_memo.data.ladder import UNITS
from monai_memo.errors import MemoError
from monai_memo.files import write_text
from monai_memo.statistics.membership import excluded_share
from monai_memo.statistics.standard import IF_COPIED

LEVELS = {
    "copies_found": ("Copies found", "&#9888;"),
    "inconclusive": ("Not conclusive", "?"),
    "no_excess": ("No excess of copies", "&#10003;"),
}
CHAPTERS = "<!-- further chapters -->"  # stands in the template; text of users cannot hold it, being escaped
DEFAULTS = {name: field.default for name, field in AuditConfiguration.model_fields.items()}
HEAD = (("Data set", "data_set"), ("Model", "model"), ("Author", "author"))
OMITTED = ("train", "heldout", "synthetic", "out", "redacted", "progress", "keep_work", "workers")


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


def named(result: AuditResult) -> list[tuple[str, str]]:
    """What the head of a report says of the data set: titles, and texts that are empty where nobody gave one.

    A redacted report leaves out what was typed in, like any other text: nobody can know whom it names.
    """
    settings = result.configuration
    given = {title: settings.get(name) for title, name in HEAD}
    texts = {title: "" if text in (None, REMOVED) else str(text) for title, text in given.items()}
    shown = {title: text for title, text in texts.items() if text or not result.redacted}
    return [*shown.items(), ("Audited", result.timing["created"].replace("T", " ").replace("+00:00", " UTC"))]


def contents(result: AuditResult, sheet: bool, skipped: bool, sampling: bool) -> list[tuple[str, str]]:
    """Anchor and title of each section."""
    every = (
        ("verdict", "Verdict", True),
        ("warnings", "Read first", bool(result.warnings) or skipped),
        ("numbers", "Numbers", True),
        ("larger", "Larger release", sampling),
        ("same-patient", "Same patient", result.same_patient is not None),
        ("reference", "Look-alikes", result.reference is not None),
        ("conditions", "By condition", result.conditions is not None),
        ("checks", "Two checks", True),
        ("orientation", "Orientation", bool(result.orientation)),
        ("similar", "Similarities", True),
        ("pairs", "Pairs", True),
        ("parts", "Copies in part", result.partial is not None),
        ("cohorts", "Cohorts", sheet),
        ("standard", "Known numbers", bool(result.standard)),
        ("calibration", "Calibration", True),
        ("limits", "What it cannot say", True),
        ("glossary", "Glossary", True),
        ("repeat", "Repeat", True),
    )
    return [(anchor, title) for anchor, title, there in every if there]


def _limits(result: AuditResult) -> dict[str, list[KindLimit]]:
    """Kinds of change of which copies are missed, the most sensitive first, and those that are found throughout."""
    rows = [] if result.detection_limit is None else result.detection_limit["limits"]
    missed = [row for row in rows if row["missed_from"] is not None]
    missed.sort(key=lambda row: min(row["found"].values()))
    return {"missed": missed, "found": [row for row in rows if row["missed_from"] is None]}


def render_report(
    result: AuditResult,
    evidence: Iterable[PairEvidence] | None,
    figures: Mapping[str, bytes],
    sheet: list[SheetColumn] | None = None,
    parts: Iterable[PartialEvidence] | None = None,
) -> str:
    """The report as HTML text. Without evidence there are no pairs, without a sheet no section of it."""
    gallery = Gallery.of(result, evidence or [])
    return _render(result, gallery, figures, sheet, part_cards(parts or [], _names_of_parts(result)))


def _names_of_parts(result: AuditResult) -> list[str]:
    return [match.synthetic for match in result.partial_matches]


def _render(
    result: AuditResult,
    gallery: Gallery,
    figures: Mapping[str, bytes],
    sheet: list[SheetColumn] | None,
    parts: Sequence[PartCard],
) -> str:
    word, icon = LEVELS[result.verdict["level"]]
    skipped = skipped_images(result)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            result=result,
            word=word,
            icon=icon,
            head=named(result),
            contents=contents(result, bool(sheet), bool(skipped), "sampling" in figures),
            figures={name: png_uri(content) for name, content in figures.items()},
            **gallery.for_report(),
            parts=parts,
            sheet=sheet_record(sheet) if sheet else None,
            skipped=skipped,
            warnings=[*zip(result.warnings, result.warning_names or [[] for _ in result.warnings], strict=True)],
            command=repeat_command(result),
            confidence=f"{100 * result.calibration['confidence']:g} %",
            patients_unknown=[name for name in ("training", "heldout") if not result.cohorts[name].patients_known],
            units=UNITS,
            limits=_limits(result),
            excluded=excluded_share(result.n_synthetic, result.calibration["confidence"]),
            paragraphs=paragraphs(result.verdict["detail"]),
            directions=IF_COPIED,
            glossary=report_terms(result),
            titles={"training": "Training", "heldout": "Held-out", "synthetic": "Synthetic"},
        )
    )


def write_report(
    result: AuditResult,
    evidence: Iterable[PairEvidence] | None,
    folder: str | Path,
    redacted: bool = False,
    sheet: list[SheetColumn] | None = None,
    parts: Iterable[PartialEvidence] | None = None,
) -> Path:
    """Write ``report.html``, ``figures/*.png`` and, for the pairs, ``pairs/*.html``.

    Args:
        evidence: pairs to show, see ``shown_pairs.choose_pairs``; ignored if ``redacted``.
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
    gallery = Gallery.of(result, evidence or [])
    gallery.write(folder)
    page = _render(result, gallery, figures, sheet, part_cards(parts or [], _names_of_parts(result)))
    return write_text(folder / "report.html", page)


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
