# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What was written to an output folder, by which command: the rest there belongs to the user."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_memo import __version__
from monai_memo.errors import OutputError
from monai_memo.files import sha256_of_parts, write_json
from monai_memo.workspace.locking import LOCK
from monai_memo.workspace.place import EARLIER, WORK
from monai_memo.workspace.working_folder import Workspace

MANIFEST, KIND = ".monai_memo.json", "output of monai_memo"
AUDIT_FILES = (
    "audit.json", "matches.csv", "partial.csv", "report.html", "detector.pt", "figures/distributions.png",
    "figures/rates.png", "figures/sampling_curve.png", "figures/contact_sheet.png", "pairs/0001.html",
)  # fmt: skip


# Commands whose results stand beside that of an audit and go with it.
COMPANIONS = ("review", "inspect", "membership", "extraction")
CARD_HEADING = "# Memorization card"


@dataclass(frozen=True)
class Written:
    """The result of one command.

    Attributes:
        created: time, UTC.
        redacted: nothing in it names or shows a patient.
        files: hash of each file, by its place in the output folder.
    """

    created: str
    redacted: bool
    files: Mapping[str, str]


def read_manifest(out: Path) -> dict[str, Written]:
    """Results in a folder by command. An audit of a version that kept no such list is told by its record."""
    try:
        record = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        if record["kind"] == KIND:
            return {
                str(command): Written(str(item["created"]), bool(item["redacted"]), dict(item["files"]))
                for command, item in record["results"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    try:
        audit = json.loads((out / "audit.json").read_text(encoding="utf-8"))
        is_audit = isinstance(audit, dict) and {"schema_version", "n_synthetic", "tau"} <= set(audit)
    except (OSError, ValueError):
        is_audit = False
    if not is_audit:
        return {}
    found = {name: hash_of(out / name) for name in AUDIT_FILES if (out / name).is_file()}
    return {"audit": Written(str(audit.get("timing", {}).get("created", "")), audit.get("redacted") is True, found)}


def write_manifest(path: Path, results: Mapping[str, Written]) -> None:
    """Write the list; ``path`` is in the staging folder, so that it comes into place with what it lists."""
    record = {
        "kind": KIND,
        "format": 1,
        "version": __version__,
        "results": {
            command: {"created": item.created, "redacted": item.redacted, "files": dict(sorted(item.files.items()))}
            for command, item in results.items()
        },
    }
    write_json(path, record)


def hash_of(path: Path) -> str:
    """Hash of one file's bytes."""
    return sha256_of_parts([path])


def leftovers(out: Path, command: str, results: Mapping[str, Written], new: Iterable[str]) -> list[str]:
    """Files and folders of the command's earlier result that the new one does not write, relative to ``out``.

    A review, a look at the cohorts (``inspect``), what was found of the model itself, and a card belong to the audit
    that they were made beside.
    """
    written, found = set(new), []
    old = [*results[command].files] if command in results else []
    if command == "audit":
        old += [name for other in COMPANIONS if other in results for name in results[other].files]
    if command == "audit" and command in results:
        old += [
            "figures/sampling_curve.png",
            "review.json",
            *(path.name for path in sorted(out.glob("review*")) if is_review(out, path.name)),
            *(path.name for path in sorted(out.glob("*.md")) if is_card(path)),
        ]
    for name in dict.fromkeys(old):
        if name not in written and os.path.lexists(out / name):
            found.append(name)
    return found


def is_card(path: Path) -> bool:
    """Whether a file is a memorization card."""
    try:
        with open(path, encoding="utf-8") as stream:
            return path.is_file() and stream.read(len(CARD_HEADING)) == CARD_HEADING
    except (OSError, UnicodeDecodeError):
        return False


def is_review(out: Path, name: str) -> bool:
    """Whether a folder is one of a review, and not one of the user that is called so."""
    folder = out / name
    if re.fullmatch(r"review(\.old(\.\d+)?)?", name) is None:
        return False
    if folder.is_symlink() or not folder.is_dir():
        return False
    return (folder / "study.json").is_file() or (folder / "datastore").is_dir() or (out / "review.json").is_file()


def require_redacted(out: Path) -> None:
    """Refuse a redacted result in a folder that holds anything else than redacted results.

    Raises:
        OutputError: with counts, not with names: names can be those of patients.
    """
    results = read_manifest(out)
    known = {LOCK, MANIFEST, WORK}
    named = {name for item in results.values() for name in item.files}
    unredacted = [command for command, item in results.items() if not item.redacted]
    foreign = 0
    for path in out.iterdir():
        if path.name in known:
            continue
        if path.is_dir() and not path.is_symlink():
            if path.name == EARLIER:
                foreign += sum(not _all_redacted(item) for item in path.iterdir())
            else:
                inside = [item for item in path.rglob("*") if not item.is_dir() or item.is_symlink()]
                foreign += sum(item.relative_to(out).as_posix() not in named for item in inside) or int(not inside)
        elif path.name not in named:
            foreign += 1
    foreign += len(Workspace(out, "").foreign)
    if not unredacted and not foreign:
        return
    parts = [f"the unredacted result of monai-memo {' and '.join(sorted(unredacted))}"] if unredacted else []
    if foreign:
        parts.append(f"{foreign} file{'s' if foreign > 1 else ''} or folders that no redacted run wrote")
    reason = " and ".join(parts)
    rest = f"it holds {reason}. Name an empty folder with --out, or move everything else out of this one."
    raise OutputError(
        f"a redacted result cannot go to {out}: {rest}", f"a redacted result cannot go to the folder of --out: {rest}"
    )


def require_unredacted(out: str | Path) -> None:
    """Refuse to write in or below a folder with a redacted result: it is handed on as it is.

    Args:
        out: where something is to be written that can name or show patients; need not exist.

    Raises:
        OutputError: a redacted result is there, or in a folder above.
    """
    place = Path(out).resolve()
    for folder in (place, *place.parents):
        redacted = [command for command, item in read_manifest(folder).items() if item.redacted]
        if redacted:
            rest = (
                f"the redacted result of monai-memo {' and '.join(sorted(redacted))} is there, which is handed on as "
                "it is, and what this run writes can name or show patients. Name another folder with --out."
            )
            raise OutputError(f"cannot write to {out}: {rest}", f"cannot write to the folder of --out: {rest}")


def require_own(out: Path, command: str, writes: Iterable[str], shared: Iterable[str] = ()) -> None:
    """Refuse a run whose files would take the place of some that belong to the result of another command.

    Args:
        out: output folder.
        command: that is about to write there.
        writes: its files, relative to ``out``.
        shared: those that it brings up to date for another command.

    Raises:
        OutputError: naming the other command and the files. The other result would stay, but be mixed.
    """
    wanted = set(writes) - set(shared)
    for other, item in read_manifest(out).items():
        both = sorted(wanted & {name for name in item.files if os.path.lexists(out / name)})
        if other != command and both:
            rest = (
                f"{', '.join(both)} there {'belongs' if len(both) == 1 else 'belong'} to the result of monai-memo "
                f"{other}. Nothing was changed. Name another folder with --out."
            )
            raise OutputError(f"cannot write to {out}: {rest}", f"cannot write to the folder of --out: {rest}")


def _all_redacted(folder: Path) -> bool:
    results: dict[str, Any] = {} if not folder.is_dir() else dict(read_manifest(folder))
    return bool(results) and all(item.redacted for item in results.values())
