# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit: three cohorts in, a verdict and a report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.contact_sheet import contact_sheet
from monai_memo.audit.controls import plant_copies
from monai_memo.audit.evidence import PairEvidence, each_evidence
from monai_memo.audit.gallery import shown_pairs
from monai_memo.audit.inputs import Inputs, read_inputs
from monai_memo.audit.looking_up import look_up
from monai_memo.audit.partial_evidence import PartialEvidence, collect_partial_evidence
from monai_memo.audit.parts import Match
from monai_memo.audit.record import build_result
from monai_memo.audit.report import write_report
from monai_memo.audit.result import AuditResult
from monai_memo.audit.run import Run, resolve_device
from monai_memo.audit.searching import Searched, detector_for
from monai_memo.audit.sharing import Follower, Sharing
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.progress import following
from monai_memo.redaction import names_hidden, without_names
from monai_memo.search.copy_search import CopySearch, MakeSearch
from monai_memo.workspace.manifest import AUDIT_FILES
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.team import Team

logger = logging.getLogger(__name__)


class Audit:
    """One audit of a synthetic cohort.

    Work in progress (preprocessed images, training checkpoints, embeddings) lies in ``<out>/.monai_memo_work``, so that
    the same call continues after an interruption; it is removed at the end. Results come to ``<out>`` only when all of
    them exist, and all at once, so that an earlier result stays whole until then (see ``workspace.output_folder``).

    Args:
        search: makes the search for copies, from the detector's network and the batch size; by default
            ``CopySearch.default``. With it encoders, retrievers and a reranker of your own decide in the whole audit:
            thresholds, p-values, both controls and the limit of detection are measured with them.
        arguments: see ``AuditConfiguration``.

    Attributes:
        said: of cohorts by name, what is told of them beside what their files tell.

    Example:
        >>> audit = Audit(train="train", heldout="heldout", synthetic="synthetic", out="audit")  # doctest: +SKIP
        >>> result = audit.run()  # doctest: +SKIP
        >>> result.n_copies.value, result.n_copies.low, result.n_copies.high  # doctest: +SKIP
    """

    def __init__(self, *, search: MakeSearch = CopySearch.default, **arguments: Any) -> None:
        self.configuration = AuditConfiguration(**arguments)
        self.make_search = search
        self.out = Path(self.configuration.out)
        settings = self.configuration
        if settings.redacted and settings.keep_work:
            raise ConfigurationError(
                "keep_work leaves images of patients in the output folder, which redacted rules out: leave one of "
                "them away"
            )
        self.output = OutputFolder(
            settings.out, "audit", settings.cohort_options(), AUDIT_FILES, settings.to_dict(),
            redacted=settings.redacted,
        )  # fmt: skip
        self.work = self.output.work
        self.said: dict[str, str] = {}

    def run(self, team: Team | None = None) -> AuditResult:
        """Do the audit and write its output.

        Args:
            team: the ranks that share the work, of which this process is one; rank 0 alone writes, and all of them
                get the result. None: this process alone.

        Raises:
            MemoError: bad input or output folder; the message says what to do. All ranks end with it.
        """
        if team is None:
            return self._alone(None)
        settings = self.configuration
        with team:
            device = resolve_device(settings.device, team)
            if team.leads:
                return self._alone(Sharing(team, device, settings.batch_size, self.make_search))
            with names_hidden(settings.redacted, self._secrets()):
                return Follower(team, device, settings.batch_size, self.make_search).run()

    def _alone(self, sharing: Sharing | None) -> AuditResult:
        with names_hidden(self.configuration.redacted, self._secrets()):
            try:
                with self.output:
                    if sharing is not None:
                        sharing.team.meet_in(self.work)
                    return self._run(sharing)
            except Exception as error:
                if not self.configuration.redacted:
                    raise
                raise without_names(error, self._secrets()) from None

    def _secrets(self) -> list[str]:
        settings = self.configuration
        paths = [settings.train, settings.heldout, settings.synthetic, settings.out, settings.detector]
        found = [path for path in paths if path] + [str(Path(path).resolve()) for path in paths if path]
        return [*found, str(Path.cwd()), settings.patient_pattern or ""]

    def _run(self, sharing: Sharing | None) -> AuditResult:
        start = time.perf_counter()
        run = Run(self.configuration, self.out, self.work, sharing, said=self.said, make_search=self.make_search)
        inputs = read_inputs(run)
        detector = detector_for(run, inputs)
        searched, calibrated, in_part = look_up(run, inputs, detector)
        controls = plant_copies(run, inputs, searched, calibrated, in_part)
        with run.timed("write report"):
            result = build_result(run, inputs, searched, calibrated, controls, in_part)
            run.seconds["total"] = round(time.perf_counter() - start, 3)
            self._write(result, inputs, searched)
        self._tell(result)
        if sharing is not None:
            sharing.end(result)  # the others let go of the files in the working folder
        if not run.settings.keep_work:
            self.output.clear()
        return result

    def _tell(self, result: AuditResult) -> None:
        logger.info("%s", result.verdict["headline"])
        redacted = self.configuration.redacted
        where = "report.html in the output folder" if redacted else (self.out / "report.html").resolve()
        logger.info("report: %s", where)

    def _write(self, result: AuditResult, inputs: Inputs, searched: Searched) -> None:
        """Write everything beside the old result, then put it in place: either all of it is new or none."""
        staging = self.output.staging()
        settings = self.configuration
        evidence, parts = (None, None) if settings.redacted else self._pairs(result, inputs, searched)
        sheet = None if settings.redacted else contact_sheet(inputs.prepared, settings.seed)
        result = result.without_patients() if settings.redacted else result
        result.validate()
        try:
            write_report(result, evidence, staging, redacted=settings.redacted, sheet=sheet, parts=parts)
            result.write(staging)  # names the pages of pairs that are there
            searched.detector.save(staging / "detector.pt")
            self.output.publish()
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.out}: {error.strerror or error}. Earlier results there are unchanged. "
                "Free some space and run the same command again: it continues where it stopped."
            ) from error

    def _pairs(
        self, result: AuditResult, inputs: Inputs, searched: Searched
    ) -> tuple[Iterator[PairEvidence], list[PartialEvidence]]:
        """The pairs to show, loaded one by one while the report is written, and the copies in part."""
        cohorts = inputs.prepared["synthetic"].cohort, inputs.training.cohort
        preprocessing, settings = searched.detector.preprocessing, self.configuration
        in_part = [match for match in result.partial_matches if match.in_part][: settings.gallery]
        shown = shown_pairs(result)
        chosen = {result.matches[number - 1].synthetic: number in shown.aligned for number in shown.numbers}
        verified = result.verification is not None

        def aligned(match: Match) -> bool:
            return verified and chosen[match.synthetic]

        matches = [result.matches[number - 1] for number in shown.numbers]
        evidence = each_evidence(matches, *cohorts, preprocessing, aligned, searched.symmetries[1:])
        parts = collect_partial_evidence(in_part, *cohorts, preprocessing)
        return following(evidence, "show pairs", len(matches), settings.progress), parts
