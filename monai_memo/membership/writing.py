# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The result as files, and as a chapter in the report of an audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai_memo.audit.pages import environment
from monai_memo.audit.report import set_chapter
from monai_memo.audit.result import AuditResult
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import sha256_of, write_json, write_text
from monai_memo.workspace.output_folder import OutputFolder

TITLES = {"membership": "Membership test", "extraction": "Targeted search"}


def write_result(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """``NAME.json`` and a page of its own, ``NAME.html``.

    Args:
        name: ``"membership"`` or ``"extraction"``.
    """
    write_json(folder / f"{name}.json", record)
    page = environment("monai_memo.membership").get_template("page.html.jinja")
    write_text(folder / f"{name}.html", page.render(chapter=record, template=f"{name}.html.jinja", title=TITLES[name]))


class AuditChapter:
    """The folder of an audit that gets a chapter.

    Args:
        folder: of the audit.
        name: ``"membership"`` or ``"extraction"``.
        output: the same folder, locked.
    """

    def __init__(self, folder: Path, name: str, output: OutputFolder) -> None:
        self.folder, self.name, self.output = folder, name, output
        self.result = AuditResult.from_json((folder / "audit.json").read_text(encoding="utf-8"))

    def compare(self, training: Mapping[str, Any]) -> list[str]:
        """Why this test may not be of the generator that was audited."""
        audited = self.result.cohorts["training"]
        if (audited.n_images, audited.n_patients) == (training["images"], training["patients"]):
            return []
        return [
            f"The audit looked for copies of {audited.n_images} training images of {audited.n_patients} patients, this "
            f"test has {training['images']} of {training['patients']}: it may be of another training."
        ]

    def publish(self, record: Mapping[str, Any]) -> None:
        """Put the record beside the audit's, and the chapter into its report. Neither names anybody."""
        path = self.folder / "report.html"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise MemoError(f"cannot read {path}: {error.strerror or error}. Run the audit again.") from error
        whole = {**record, "audit": sha256_of(self.folder / "audit.json")}
        staging = self.output.staging()
        write_text(staging / "report.html", set_chapter(text, f"{self.name}.html.jinja", whole))
        write_json(staging / f"{self.name}.json", whole)
        self.output.publish(of_others={"report.html": "audit"})
        self.output.clear()


@contextmanager
def in_audit(audit: str | None, name: str, out: Path) -> Iterator[AuditChapter | None]:
    """The audit whose report gets a chapter, locked while the test runs; None without one.

    Raises:
        MemoError: no audit there, or the result is to go to its very folder.
    """
    if audit is None:
        yield None
        return
    folder = Path(audit)
    if not (folder / "audit.json").is_file():
        raise ConfigurationError(f"--audit {folder} has no audit.json: name the output folder of an audit")
    if folder.resolve() == out.resolve():
        raise ConfigurationError(f"--out and --audit are the same folder ({out}): name another one with --out")
    redacted = AuditResult.from_json((folder / "audit.json").read_text(encoding="utf-8")).redacted
    files = [f"{name}.json", "report.html"]
    with OutputFolder(folder, name, writes=files, shared=["report.html"], redacted=redacted) as output:
        yield AuditChapter(folder, name, output)
