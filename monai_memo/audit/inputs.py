# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The first steps of an audit: three cohorts are read, prepared in one way, and compared as a whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from monai_memo.audit.by_condition import restricted
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.forecast import Forecast, forecast
from monai_memo.audit.orientation import compare_cohorts, partly_stated, require_alike
from monai_memo.audit.run import Run, resolve_device
from monai_memo.data.cohort import Cohort
from monai_memo.data.framing import compare_framing
from monai_memo.data.intensity_check import intensity_findings
from monai_memo.data.loading import Preprocessing, look_over
from monai_memo.data.orientation import orientation
from monai_memo.data.orientation_check import OrientationFinding
from monai_memo.data.overlap import check_overlap, source_warnings
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.detector.agreement import require_agreement
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import CohortError, ConfigurationError
from monai_memo.progress import is_first_rank
from monai_memo.statistics.calibration import require_heldout
from monai_memo.workspace.manifest import AUDIT_FILES
from monai_memo.workspace.place import check_images

logger = logging.getLogger(__name__)

GREY_DETECTOR = (
    "The images are in colour and the detector takes grey ones: all were compared in grey values. Images that differ "
    "in colour alone count as equal. Train a detector on them to compare in colour: leave --detector out."
)


@dataclass(frozen=True)
class Inputs:
    """Three cohorts, ready to be looked up.

    Attributes:
        prepared: of ``"training"``, ``"heldout"`` and ``"synthetic"``.
        preprocessing: of all of them.
        given: the detector that was brought along; None where one is to be trained.
        orientations: of held-out and synthetic images, compared with training images.
        warnings: what limits the result.
        concerns: why finding nothing would say little.
        forecast: how long it may take; None where nobody is told.
    """

    prepared: Mapping[str, PreparedCohort]
    preprocessing: Preprocessing
    given: Detector | None
    orientations: Sequence[OrientationFinding]
    warnings: Sequence[str]
    concerns: Sequence[str]
    forecast: Forecast | None

    @property
    def training(self) -> PreparedCohort:
        return self.prepared["training"]


def read_inputs(run: Run) -> Inputs:
    """Read, prepare and compare the cohorts of an audit.

    Raises:
        MemoError: cohorts or a detector that cannot be audited with; the message says what to do.
    """
    settings = run.settings
    given = given_detector(settings)
    require_sources(settings.cohort_options())
    with run.timed("read cohorts"):
        cohorts, warnings = read_cohorts(settings)
        for name, sentence in run.said.items():
            cohorts[name] = replace(cohorts[name], notes=(*cohorts[name].notes, sentence))
        files = (part for cohort in cohorts.values() for image in cohort.images for part in image.parts)
        check_images(run.out, files, AUDIT_FILES)
        preprocessing, remarks = preprocessing_for(settings, cohorts, given)
        warnings += remarks
    told = _tell_forecast(run, cohorts, preprocessing, given) if settings.progress and is_first_rank() else None
    with run.timed("preprocess images"):
        prepared = {
            name: prepare(cohort, preprocessing, run.work / "pixels", settings.workers, settings.progress)
            for name, cohort in cohorts.items()
        }
        _check_sizes(settings, prepared)
    with run.timed("compare orientations"):
        asked = settings.orientation
        orientations = compare_cohorts(prepared, settings.seed, asked)
        warnings += require_alike(orientations, asked, settings.symmetries, preprocessing.spatial_dims)
        warnings += partly_stated(prepared)
    with run.timed("compare intensities"):
        unlike = intensity_findings(cohorts, prepared, settings.seed, settings.workers)
    with run.timed("compare proportions"):
        framed = compare_framing(cohorts["training"], cohorts["synthetic"], preprocessing, settings.seed)
        proportions = [] if framed is None else [framed.sentence]
    return Inputs(
        prepared, preprocessing, given, orientations, [*warnings, *unlike.warnings, *proportions],
        [*unlike.concerns, *proportions], told,
    )  # fmt: skip


def given_detector(settings: AuditConfiguration) -> Detector | None:
    """The detector that was brought along: whatever is wrong with it is told before a cohort is read."""
    if not settings.detector:
        return None
    detector = Detector.given(settings.detector)
    require_agreement(detector, settings.given())
    if settings.parts and not settings.verifies(detector.recipe.name):
        raise ConfigurationError(
            f"parts: copies in part are looked for where matches are verified, which a detector of the recipe "
            f"{detector.recipe.name} does not do: leave parts off, or take another detector"
        )
    return detector.without_free_text() if settings.redacted else detector


def read_cohorts(settings: AuditConfiguration) -> tuple[dict[str, Cohort], list[str]]:
    """What lies in the three sources, and what to warn of.

    Raises:
        CohortError: a source that cannot be read, or cohorts that overlap.
        CalibrationError: too few held-out patients.
    """
    cohorts = {
        # Synthetic images have no patients: a pattern that finds them in real paths need not match there.
        name: Cohort.from_source(
            source, name, settings.patient_pattern if name != "synthetic" else None, settings.readings()[name]
        )
        for name, source in settings.cohort_sources().items()
    }
    cohorts = restricted(cohorts, settings.condition, settings.within)
    warnings = check_overlap(list(cohorts.values()), allow=settings.allow_overlap)
    warnings += source_warnings(list(cohorts.values()))
    unknown = [name for name in ("training", "heldout") if not cohorts[name].patients_known]
    if unknown:
        which = "" if len(unknown) == 2 else f" in the {unknown[0]} cohort"
        warnings.append(
            f"Patients are not known{which}: every image counts as a patient of its own. If a patient has images "
            "in the training and in the held-out cohort, tau is too high and copies are missed. Give a CSV with "
            "patient_id, or --patient_pattern."
        )
    if settings.calibration == "size_matched":
        require_heldout(cohorts["heldout"].n_patients, settings.quantile)
    return cohorts, warnings


def preprocessing_for(
    settings: AuditConfiguration, cohorts: Mapping[str, Cohort], detector: Detector | None
) -> tuple[Preprocessing, list[str]]:
    """The detector's, or what fits the cohorts where one is to be trained; and what to tell of colours."""
    guessed, colours = look_over(list(cohorts.values()), size=settings.size, spacing=settings.spacing)
    if settings.orientation is not None:
        orientation(settings.orientation, guessed.spatial_dims)  # before thousands of files are read
    remarks = [] if colours.remark is None else [colours.remark]
    if detector is None:
        return guessed, remarks
    detector.check_cohort(guessed)
    if detector.preprocessing.channels < guessed.channels:
        remarks = [GREY_DETECTOR]
    return detector.preprocessing, remarks


def recipe_for(settings: AuditConfiguration, n_images: int, preprocessing: Preprocessing) -> Recipe:
    """Of the detector that is trained on so many images."""
    return Recipe.named(
        settings.recipe,
        preprocessing.spatial_dims,
        preprocessing.size,
        channels=preprocessing.channels,
        epochs=settings.epochs,
        n_images=n_images,
    )


def _tell_forecast(
    run: Run, cohorts: Mapping[str, Cohort], preprocessing: Preprocessing, detector: Detector | None
) -> Forecast | None:
    settings, begun = run.settings, (run.work / "pixels").exists()
    known = recipe_for(settings, len(cohorts["training"]), preprocessing) if detector is None else detector.recipe
    ranks = 1 if run.team is None else run.team.world
    found = forecast(cohorts, preprocessing, settings, resolve_device(settings.device), known, detector, ranks)
    if found is not None:
        logger.info("%s", found.work)
        logger.info("%s%s", found, "; less, since an interrupted audit goes on" if begun else "")
    return found


def _check_sizes(settings: AuditConfiguration, prepared: Mapping[str, PreparedCohort]) -> None:
    """Skipped images can leave too little."""
    if settings.calibration == "size_matched":
        require_heldout(prepared["heldout"].cohort.n_patients, settings.quantile)
    n_train = len(prepared["training"].cohort)
    if n_train < 2:
        raise CohortError(
            f"the training cohort has {n_train} usable image; an audit needs at least 2, a detector at least 8. "
            "Check --train."
        )
