# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The files of a release: those that are given away, and the key to them, which is not."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from monai_memo.audit.card import TODO, render_card
from monai_memo.audit.giving import Record, privacy_promise
from monai_memo.audit.pages import FILTERS
from monai_memo.audit.record import software_versions
from monai_memo.audit.report import write_report
from monai_memo.audit.verdict import percent
from monai_memo.data.cohort import by_reason
from monai_memo.data.ladder import UNITS
from monai_memo.files import sha256_of, write_json, write_text
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.release.page import page_of
from monai_memo.release.progressed import Progressed
from monai_memo.release.rules import SECOND, SECOND_NEAR, Row
from monai_memo.release.settings import ReleaseSettings
from monai_memo.release.statement import Statement
from monai_memo.text import cell, markdown

SCHEMA_VERSION = "1.0"
IMAGES, MANIFEST = "images", "release.json"  # the manifest comes last: a folder without it is no release
PRIVATE_FILES = ("key.csv", "removed.csv", "second_detector.pt")
RULES = {
    "tau": "every image above the audit's threshold tau",
    "list": "every image on the audit's list of copies at its false discovery rate; others above the threshold stay",
    "bound": "every image above a threshold that was lowered until the bound on the copies left was met",
}


def private_folder(out: Path) -> Path:
    """Where the key to a release lies: beside it."""
    place = out.resolve()
    return place.with_name(f"{place.name or 'release'}.private")


@dataclass(frozen=True)
class Files:
    """Released files, in the order of their content's hash, so that their numbers say nothing about old names.

    Attributes:
        names: of the synthetic images.
        sources: clean files in the working folder.
        released: their places in the release.
        hashes: of their bytes.
    """

    names: Sequence[str]
    sources: Sequence[Path]
    released: Sequence[str]
    hashes: Sequence[str]

    @classmethod
    def of(cls, written: dict[str, Path], kept: Sequence[str]) -> Files:
        """Number what is kept."""
        found = sorted((sha256_of(written[name]), name) for name in kept)
        width = max(4, len(str(len(found))))
        sources = [written[name] for _, name in found]
        endings = [path.name[path.name.index(".") :] for path in sources]
        released = [f"{IMAGES}/{number:0{width}d}{ending}" for number, ending in enumerate(endings, 1)]
        return cls([name for _, name in found], sources, released, [value for value, _ in found])


@dataclass(frozen=True)
class ModelTests:
    """What is known of the generator itself; None where nothing is.

    Attributes:
        membership, extraction: records of these commands for this audit, see ``giving.records_of_model``.
        privacy: of the training, see ``giving.privacy_of``.
    """

    membership: Record | None = None
    extraction: Record | None = None
    privacy: Record | None = None


def write_private(folder: Path, rows: Sequence[Row], done: Progressed, files: Files, detector: Path) -> None:
    """The key, what was removed and why, and the second detector."""
    row_of = {row.name: row for row in rows}
    table = io.StringIO()
    key = csv.writer(table, lineterminator="\n")
    key.writerow(["released", "sha256", "synthetic", "similarity", "nearest_patient"])
    for name, released, value in zip(files.names, files.released, files.hashes, strict=True):
        row = row_of[name]
        key.writerow([released, value, cell(name), f"{row.similarity:.6f}", cell(row.patient)])
    write_text(folder / "key.csv", table.getvalue())
    table = io.StringIO()
    removed = csv.writer(table, lineterminator="\n")
    removed.writerow(["synthetic", "reason", "similarity", "patient"])
    for name, reason in done.choice.removed.items():
        row = row_of[name]
        patient = row.part_patient if row.in_part and not row.copy and row.part_patient else row.patient
        removed.writerow([cell(name), reason, f"{row.similarity:.6f}", cell(patient)])
    for name, patient in done.seconds.items():
        removed.writerow([cell(name), SECOND, f"{row_of[name].similarity:.6f}", cell(patient)])
    for name, patient in done.neighbours.items():
        removed.writerow([cell(name), SECOND_NEAR, f"{row_of[name].similarity:.6f}", cell(patient)])
    drawn = {} if done.drawn is None else done.drawn.rejected
    for name, reason in (*((item.image_id, item.reason) for item in done.skipped), *drawn.items()):
        removed.writerow([cell(name), cell(reason), "", ""])
    write_text(folder / "removed.csv", table.getvalue())
    if detector.is_file():
        shutil.copyfile(detector, folder / "second_detector.pt")


def write_public(
    folder: Path, settings: ReleaseSettings, audit: AuditFolder, done: Progressed, files: Files, statement: Statement,
    tests: ModelTests,
) -> dict[str, Any]:  # fmt: skip
    """Everything that is given away. Nothing in it names or shows a patient, a file or a folder.

    Returns:
        The manifest, as in ``release.json``.
    """
    (folder / IMAGES).mkdir(parents=True)
    for source, released in zip(files.sources, files.released, strict=True):
        shutil.copyfile(source, folder / released)
    first = audit.result.without_patients()
    last = done.looks[-1].result.without_patients() if done.looks else None
    audit_sha256 = sha256_of(audit.folder / "audit.json")
    if last is not None:
        last.validate()
        write_json(folder / "second_look.json", last.to_dict())
        write_report(last, None, folder, redacted=True)
        before = {
            "result": first, "removed": sum(statement.reasons().values()), "review": None, "same_detector": False,
            "same_filter": True, "rule": RULES[settings.rule], "reasons": statement.reasons(), "release": statement,
        }  # fmt: skip
        model = {"membership": tests.membership, "extraction": tests.extraction}
        card = render_card(
            last, sha256_of(folder / "second_look.json"), settings.title, None, before, model, tests.privacy
        )
        write_text(folder / "card.md", card)
        write_text(folder / "card.html", page_of(card, "Memorization card"))
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": software_versions(),
        "audit_sha256": audit_sha256,
        "matches_sha256": audit.identity,
        "rule": {
            "name": settings.rule, "says": RULES[settings.rule], "at_most": settings.at_most, "parts": settings.parts,
            "neighbourhoods": settings.neighbourhoods, "keep_novel": settings.keep_novel,
            "second_look": settings.second_look, "remove_second": settings.remove_second,
        },
        "detectors": {
            "first": first.detector["sha256"], "second": None if last is None else last.detector["sha256"],
        },
        "statement": statement.to_dict(),
        "differential_privacy": None if tests.privacy is None else dict(tests.privacy),
    }  # fmt: skip
    text = _environment().get_template("RELEASE.md.jinja").render(
        title=settings.title, first=first, last=last, statement=statement, record=record, settings=settings, todo=TODO,
        units=UNITS, skipped=by_reason("", done.skipped).plain.removeprefix(": ") if done.skipped else None,
        membership=tests.membership, extraction=tests.extraction, privacy=tests.privacy,
    )  # fmt: skip
    write_text(folder / "RELEASE.md", text)
    write_text(folder / "RELEASE.html", page_of(text, "Release"))
    inside = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    record["files"] = {name: sha256_of(folder / name) for name in inside}
    write_json(folder / MANIFEST, record)
    return record


def _environment() -> Environment:
    # The table of attacks is that of the card.
    places = ChoiceLoader([PackageLoader("monai_memo.release"), PackageLoader("monai_memo.audit")])
    environment = Environment(
        loader=places, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=False,  # Markdown; text that comes from elsewhere goes through the filter md
    )  # fmt: skip
    environment.filters.update({**FILTERS, "md": markdown, "percent": percent, "promise": privacy_promise})
    return environment
