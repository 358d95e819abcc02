# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of an audit that were edited, or saved by a spreadsheet, let no copy out."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_memo.audit.audit import Audit
from monai_memo.errors import MemoError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.release.release import Release
from tests.audit.small import settings
from tests.release.conftest import COPIES, options

QUICK = {"second_look": False, "second_detector": None}
Rows = list[dict[str, str]]


def edited(clinic: Path, audit: Path, change: Callable[[Rows], None]) -> str:
    shutil.copytree(clinic / "audit", audit)
    with open(audit / "matches.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with open(audit / "matches.csv", "w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return str(audit)


def test_a_table_that_a_spreadsheet_saved_still_removes_every_copy(clinic: Path, tmp_path: Path) -> None:
    def large(rows: Rows) -> None:
        for row in rows:
            row.update(copy=row["copy"].upper(), listed=row["listed"].upper())

    audit = edited(clinic, tmp_path / "audit", large)
    assert sum(match.copy for match in AuditFolder(Path(audit)).matches) >= COPIES
    done = Release(**options(clinic, tmp_path / "out", audit=audit, **QUICK)).run()
    assert not [line for line in (done.private / "key.csv").read_text().splitlines() if ",copy" in line]
    assert done.statement.removed["above the threshold"] == done.statement.left.above >= COPIES


def _words(rows: Rows) -> None:
    for row in rows:
        row["copy"] = {"true": "WAHR", "false": "FALSCH"}[row["copy"]]


def _none(rows: Rows) -> None:
    for row in rows:
        row["copy"] = "false"


def _swapped(rows: Rows) -> None:
    copy = next(row for row in rows if row["synthetic"] == "copy0.png")
    other = next(row for row in rows if row["copy"] == "false")
    copy["copy"], other["copy"] = "false", "true"


def _listed(rows: Rows) -> None:
    rows[-1]["listed"] = {"true": "false", "false": "true"}[rows[-1]["listed"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_words, "'WAHR' is neither true nor false"),
        (_none, "name 0 copies and the audit's record has"),
        (_swapped, "a look at the images disagree on whether [12] of them are copies"),
        (_listed, "listed images and the audit's record has"),
    ],
)
def test_a_table_that_contradicts_the_record_or_the_images_is_refused(
    clinic: Path, tmp_path: Path, change: Callable[[Rows], None], message: str
) -> None:
    audit = edited(clinic, tmp_path / "audit", change)
    with pytest.raises(MemoError, match=message):
        Release(**options(clinic, tmp_path / "out", audit=audit, **QUICK)).run()
    assert not (tmp_path / "out").exists()


def test_a_table_of_parts_that_is_gone_or_was_changed_is_refused(clinic: Path, tmp_path: Path) -> None:
    verified = settings(clinic, tmp_path / "audit", clinic / "detector.pt", allow_overlap=True, reference=False)
    Audit(**{**verified, "verification": True, "parts": True}).run()
    table = tmp_path / "audit" / "partial.csv"
    text = table.read_text()
    given = {"audit": str(tmp_path / "audit"), **QUICK}
    left_in = Release(**options(clinic, tmp_path / "left_in", parts=False, **given)).run()
    number = AuditFolder(tmp_path / "audit").result.partial["n_copies"].value  # type: ignore[index]
    assert f"**left in**, of {number} images that the audit called so" in (left_in.out / "RELEASE.md").read_text()
    table.write_text(text.replace(",true,", ",ja,").replace(",false,", ",nein,"))
    with pytest.raises(MemoError, match="is neither true nor false"):
        Release(**options(clinic, tmp_path / "out", **given)).run()
    found = AuditFolder(tmp_path / "audit").result.partial
    assert found is not None
    table.write_text(re.sub(r",false(,[0-9.]+,false)", r",true\1", text, count=1))
    with pytest.raises(MemoError, match=f"name {found['n_copies'].value + 1} copies in part"):
        Release(**options(clinic, tmp_path / "out", **given)).run()
    table.unlink()
    with pytest.raises(MemoError, match=r"has no partial\.csv"):
        Release(**options(clinic, tmp_path / "out", **given)).run()
