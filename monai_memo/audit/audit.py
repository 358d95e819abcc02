# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit: three cohorts in, a verdict and a report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.certainty import judge
from monai_memo.audit.comparison import Comparison, compare
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.contact_sheet import contact_sheet
from monai_memo.audit.detection_limit import detection_limit
from monai_memo.audit.evidence import collect_evidence
from monai_memo.audit.forecast import Forecast, forecast
from monai_memo.audit.orientation import compare_cohorts, require_alike
from monai_memo.audit.parts import Timing
from monai_memo.audit.record import build_result
from monai_memo.audit.report import write_report
from monai_memo.audit.result import AuditResult
from monai_memo.audit.self_check import positive_control
from monai_memo.audit.sharing import Follower, Sharing
from monai_memo.audit.sharpness import blur_warning, match_sharpness, partly_soft_warning
from monai_memo.audit.symmetries import TurnedSearch, best_of_views, embed_views
from monai_memo.audit.verified_comparison import compare_verified, gallery_of, search_in
from monai_memo.data.cohort import Cohort
from monai_memo.data.framing import compare_framing
from monai_memo.data.intensity_check import intensity_findings
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.orientation import Symmetry, orientation, searched
from monai_memo.data.overlap import check_overlap, source_warnings
from monai_memo.data.planted_files import ReadBack, through_files
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.detector.agreement import require_agreement
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.errors import CohortError, ConfigurationError, OutputError
from monai_memo.progress import Progress, is_first_rank
from monai_memo.redaction import names_hidden, without_names
from monai_memo.search.protocols import Search
from monai_memo.search.runner import Runner
from monai_memo.statistics.calibration import require_heldout
from monai_memo.statistics.rates import audit_rates
from monai_memo.workspace.manifest import AUDIT_FILES
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import check_images
from monai_memo.workspace.team import Team
from monai_memo.workspace.torchrun import local_rank

logger = logging.getLogger(__name__)

TOGETHER = 2**27  # bytes of planted copies that are looked up together


def resolve_device(device: str, team: Team | None = None) -> str:
    """``"auto"`` is a GPU if there is one; of several ranks on a machine each takes its own."""
    found = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if team is not None and found == "cuda":
        return f"cuda:{local_rank() % max(1, torch.cuda.device_count())}"
    return found


class Audit:
    """One audit of a synthetic cohort.

    Work in progress (preprocessed images, training checkpoints, embeddings) lies in ``<out>/.monai_memo_work``, so that
    the same call continues after an interruption; it is removed at the end. Results come to ``<out>`` only when all of
    them exist, and all at once, so that an earlier result stays whole until then (see ``workspace.output_folder``).

    Args:
        arguments: see ``AuditConfiguration``.

    Example:
        >>> audit = Audit(train="train", heldout="heldout", synthetic="synthetic", out="audit")  # doctest: +SKIP
        >>> result = audit.run()  # doctest: +SKIP
        >>> result.n_copies.value, result.n_copies.low, result.n_copies.high  # doctest: +SKIP
    """

    def __init__(self, **arguments: Any) -> None:
        self.configuration = AuditConfiguration(**arguments)
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
        self._sharing: Sharing | None = None
        self._seconds: dict[str, float] = {}
        self._forecast: Forecast | None = None

    @contextmanager
    def _timed(self, step: str, wanted: bool = True) -> Iterator[None]:
        if not wanted:
            yield
            return
        logger.info("%s ...", step)
        start = time.perf_counter()
        with Progress(None, step, shown=self.configuration.progress):
            yield
        self._seconds[step] = round(time.perf_counter() - start, 3)

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
                return self._alone(Sharing(team, device, settings.batch_size))
            with names_hidden(settings.redacted, self._secrets()):
                return Follower(team, device, settings.batch_size).run()

    def _alone(self, sharing: Sharing | None) -> AuditResult:
        with names_hidden(self.configuration.redacted, self._secrets()):
            try:
                with self.output:
                    self._sharing = sharing
                    if sharing is not None:
                        sharing.team.meet_in(self.work)
                    return self._run()
            except Exception as error:
                if not self.configuration.redacted:
                    raise
                raise without_names(error, self._secrets()) from None

    def _secrets(self) -> list[str]:
        settings = self.configuration
        paths = [settings.train, settings.heldout, settings.synthetic, settings.out, settings.detector]
        found = [path for path in paths if path] + [str(Path(path).resolve()) for path in paths if path]
        return [*found, str(Path.cwd()), settings.patient_pattern or ""]

    def _run(self) -> AuditResult:
        start = time.perf_counter()
        given = self._given_detector()
        require_sources(self.configuration.cohort_options())
        with self._timed("read cohorts"):
            cohorts, warnings = self._read_cohorts()
            files = (part for cohort in cohorts.values() for image in cohort.images for part in image.parts)
            check_images(self.out, files, AUDIT_FILES)
            preprocessing = self._preprocessing(cohorts, given)
        if self.configuration.progress and is_first_rank():
            self._tell_forecast(cohorts, preprocessing, given)
        with self._timed("preprocess images"):
            prepared = {name: self._prepare(cohort, preprocessing) for name, cohort in cohorts.items()}
            self._check_sizes(prepared)
        with self._timed("compare orientations"):
            asked, dims = self.configuration.orientation, preprocessing.spatial_dims
            orientations = compare_cohorts(prepared, self.configuration.seed, asked)
            warnings += require_alike(orientations, asked, self.configuration.symmetries, dims)
        with self._timed("compare intensities"):
            unlike = intensity_findings(cohorts, prepared, self.configuration.seed, self.configuration.workers)
            warnings, concerns = warnings + unlike.warnings, unlike.concerns
        with self._timed("compare proportions"):
            framed = compare_framing(
                cohorts["training"], cohorts["synthetic"], preprocessing, self.configuration.seed
            )  # fmt: skip
            if framed is not None:
                warnings, concerns = [*warnings, framed.sentence], [*concerns, framed.sentence]
        trained_here = given is None
        if given is None:
            with self._timed("train detector"):
                detector = self._train(prepared["training"], preprocessing)
        else:
            detector = given
        with self._timed("match sharpness"):
            softening = match_sharpness(prepared["synthetic"].pixels, prepared["heldout"].pixels)
            matched = self.configuration.match_sharpness and self.configuration.calibration == "size_matched"
            warnings += blur_warning(softening, matched)
            if softening is None:
                warnings += partly_soft_warning(prepared["synthetic"].pixels, prepared["heldout"].pixels)
            softening = softening if matched else None
            alike = prepared
            if softening is not None:
                alike = {**prepared, "heldout": softening.cohort(prepared["heldout"], self.work / "pixels")}
        with self._timed("embed images"):
            if self._sharing is not None:
                self._sharing.bring(detector)
            embeddings = {name: self._embed(detector, item, name) for name, item in alike.items()}
        with self._timed("search and verify"):
            search = self._search(detector, prepared["training"], embeddings["training"])
            comparison = self._compare(alike, embeddings, detector, search)
        with self._timed("calibrate"):
            settings = self.configuration
            rates = audit_rates(
                comparison.sims,
                settings.calibration,
                settings.quantile,
                settings.confidence,
                settings.n_bootstrap,
                settings.seed,
            )
            training = prepared["training"]
            certainty = judge(
                comparison, search, training.pixels, training.cohort.patient_ids, training.cohort.patients_known,
                rates.tau.value, settings.fdr, settings.confidence, settings.seed, softening,
            )  # fmt: skip
        with self._timed("positive control", settings.planted > 0):

            def similarity_of(images: NDArray[np.floating]) -> NDArray[np.float64]:
                images = images if softening is None else softening(images)
                if search is not None:
                    return search.search(images).similarity[:, 0]
                views = embed_views(images, self._symmetries(detector), self._embedder(detector))
                assert comparison.training_index is not None
                return best_of_views(comparison.training_index, views)[0][:, 0]

            def through(copies: NDArray[np.float32]) -> ReadBack:
                like, folder = prepared["synthetic"].cohort, self.work / "planted"
                return through_files(copies, like, detector.preprocessing, folder, settings.seed)

            sensitivity = positive_control(
                similarity_of, training.pixels, rates.tau.value, settings.planted, settings.seed, settings.confidence,
                through,
            )  # fmt: skip
        with self._timed("limit of detection", settings.limit_copies > 0):
            limit = detection_limit(
                similarity_of, training.cohort, detector.preprocessing, rates.tau.value, settings.limit_copies,
                settings.seed, TOGETHER,
            )  # fmt: skip
        with self._timed("write report"):
            timing: Timing = {"created": datetime.now(UTC).isoformat(timespec="seconds")}
            timing["seconds"] = self._seconds
            if self._forecast is not None:
                timing["forecast"] = self._forecast.part()
            result = build_result(
                settings, prepared, detector, trained_here, comparison, rates, sensitivity, limit, certainty, softening,
                warnings, timing, orientations, concerns,
            )  # fmt: skip
            self._seconds["total"] = round(time.perf_counter() - start, 3)
            self._write(result, prepared, detector)
        logger.info("%s", result.verdict["headline"])
        where = "report.html in the output folder" if settings.redacted else (self.out / "report.html").resolve()
        logger.info("report: %s", where)
        if self._sharing is not None:
            self._sharing.end(result)  # the others let go of the files in the working folder
        if not settings.keep_work:
            self.output.clear()
        return result

    def _given_detector(self) -> Detector | None:
        """The detector that was brought along: whatever is wrong with it is told before a cohort is read."""
        settings = self.configuration
        if not settings.detector:
            return None
        detector = Detector.given(settings.detector)
        require_agreement(detector, settings.given())
        return detector.without_free_text() if settings.redacted else detector

    def _read_cohorts(self) -> tuple[dict[str, Cohort], list[str]]:
        settings = self.configuration
        cohorts = {
            # Synthetic images have no patients: a pattern that finds them in real paths need not match there.
            name: Cohort.from_source(
                source, name, settings.patient_pattern if name != "synthetic" else None, settings.readings()[name]
            )
            for name, source in settings.cohort_sources().items()
        }
        warnings = check_overlap(list(cohorts.values()), allow=settings.allow_overlap)
        warnings += source_warnings(list(cohorts.values()))
        unknown = [name for name in ("training", "heldout") if not cohorts[name].patients_known]
        if unknown:
            which = "" if len(unknown) == 2 else f" in the {unknown[0]} cohort"
            warnings.append(
                f"Patients are not known{which}: every image counts as a patient of its own. If a patient has images "
                "in the training and in the held-out cohort, tau is too high and copies are missed. Give a CSV with "
                "patient_id, or --patient-pattern."
            )
        if settings.calibration == "size_matched":
            require_heldout(cohorts["heldout"].n_patients, settings.quantile)
        return cohorts, warnings

    def _preprocessing(self, cohorts: Mapping[str, Cohort], detector: Detector | None) -> Preprocessing:
        settings = self.configuration
        guessed = guess_preprocessing(list(cohorts.values()), size=settings.size, spacing=settings.spacing)
        if settings.orientation is not None:
            orientation(settings.orientation, guessed.spatial_dims)  # before thousands of files are read
        if detector is None:
            return guessed
        detector.check_fits(guessed.spatial_dims, guessed.channels)
        return detector.preprocessing

    def _tell_forecast(
        self, cohorts: Mapping[str, Cohort], preprocessing: Preprocessing, detector: Detector | None
    ) -> None:
        begun = (self.work / "pixels").exists()
        recipe = self._recipe(len(cohorts["training"]), preprocessing) if detector is None else detector.recipe
        device = resolve_device(self.configuration.device)
        self._forecast = forecast(cohorts, preprocessing, self.configuration, device, recipe, detector)
        if self._forecast is not None:
            logger.info("%s", self._forecast.work)
            logger.info("%s%s", self._forecast, "; less, since an interrupted audit goes on" if begun else "")

    def _prepare(self, cohort: Cohort, preprocessing: Preprocessing) -> PreparedCohort:
        settings = self.configuration
        return prepare(cohort, preprocessing, self.work / "pixels", settings.workers, settings.progress)

    def _check_sizes(self, prepared: Mapping[str, PreparedCohort]) -> None:
        """Skipped images can leave too little."""
        if self.configuration.calibration == "size_matched":
            require_heldout(prepared["heldout"].cohort.n_patients, self.configuration.quantile)
        n_train = len(prepared["training"].cohort)
        if n_train < 2:
            raise CohortError(
                f"the training cohort has {n_train} usable image; an audit needs at least 2, a detector at least 8. "
                "Check --train."
            )

    def _recipe(self, n_images: int, preprocessing: Preprocessing) -> Recipe:
        settings = self.configuration
        return Recipe.named(
            settings.recipe,
            preprocessing.spatial_dims,
            preprocessing.size,
            channels=preprocessing.channels,
            epochs=settings.epochs,
            n_images=n_images,
        )

    def _train(self, training: PreparedCohort, preprocessing: Preprocessing) -> Detector:
        settings = self.configuration
        return train_detector(
            training.pixels,
            self._recipe(len(training.pixels), preprocessing),
            preprocessing,
            self.work / "training",
            seed=settings.seed,
            device=resolve_device(settings.device, None if self._sharing is None else self._sharing.team),
            patient_ids=training.cohort.patient_ids,
            progress=settings.progress,
        )

    def _embed(self, detector: Detector, prepared: PreparedCohort, name: str) -> NDArray[np.float32]:
        store = self.work / "embeddings" / f"{detector.sha256[:16]}-{prepared.content_sha256[:16]}.npy"
        store.parent.mkdir(parents=True, exist_ok=True)
        if self._sharing is not None:
            return self._sharing.embed(detector, prepared.pixels, name, store.absolute())
        return detector.embed(
            prepared.pixels,
            batch_size=self.configuration.batch_size,
            device=resolve_device(self.configuration.device),
            progress=self.configuration.progress,
            store=store,
        )

    def _embedder(self, detector: Detector) -> Callable[[NDArray[np.floating]], NDArray[np.float32]]:
        sharing = self._sharing
        if sharing is not None:
            return lambda images: sharing.embed(detector, images)
        device = resolve_device(self.configuration.device)
        return lambda images: detector.embed(images, self.configuration.batch_size, device, progress=False)

    def _search(self, detector: Detector, training: PreparedCohort, embeddings: NDArray[np.float32]) -> Search | None:
        settings = self.configuration
        if not settings.verifies(detector.recipe.name):
            return None
        symmetries, sharing = self._symmetries(detector), self._sharing
        team = None if sharing is None else sharing.team
        device = torch.device(resolve_device(settings.device, team))
        folder = self.work / "verified"
        runner = Runner(device, folder=folder, seed=settings.seed, progress=settings.progress, team=team)
        search: Search = (
            search_in(training, embeddings, detector, runner, settings.batch_size) if sharing is None
            else sharing.search(detector, gallery_of(training, embeddings), runner)
        )  # fmt: skip
        return search if len(symmetries) == 1 else TurnedSearch(search, symmetries)

    def _symmetries(self, detector: Detector) -> tuple[Symmetry, ...]:
        return searched(self.configuration.symmetries, detector.preprocessing.spatial_dims)

    def _compare(
        self,
        prepared: Mapping[str, PreparedCohort],
        embeddings: Mapping[str, NDArray[np.float32]],
        detector: Detector,
        search: Search | None,
    ) -> Comparison:
        if search is None:
            patients = (prepared[name].cohort.patient_ids for name in ("training", "heldout"))
            symmetries = self._symmetries(detector)
            if len(symmetries) > 1:
                views = {
                    name: embed_views(prepared[name].pixels, symmetries, self._embedder(detector))
                    for name in ("heldout", "synthetic")
                }
                return compare({**embeddings, **views}, *patients)
            return compare(embeddings, *patients)
        return compare_verified(prepared, search, detector.sha256, self.work / "verified")

    def _write(self, result: AuditResult, prepared: Mapping[str, PreparedCohort], detector: Detector) -> None:
        """Write everything beside the old result, then put it in place: either all of it is new or none."""
        staging = self.output.staging()
        settings = self.configuration
        evidence = None
        if not settings.redacted and settings.gallery:
            evidence = collect_evidence(
                result.matches[: settings.gallery],
                prepared["synthetic"].cohort,
                prepared["training"].cohort,
                detector.preprocessing,
                verified=result.verification is not None,
                symmetries=self._symmetries(detector)[1:],
            )
        sheet = None if settings.redacted else contact_sheet(prepared, settings.seed)
        result = result.without_patients() if settings.redacted else result
        result.validate()
        try:
            result.write(staging)
            write_report(result, evidence, staging, redacted=settings.redacted, sheet=sheet)
            detector.save(staging / "detector.pt")
            self.output.publish()
        except OSError as error:
            raise OutputError(
                f"cannot write to {self.out}: {error.strerror or error}. Earlier results there are unchanged. "
                "Free some space and run the same command again: it continues where it stopped."
            ) from error
