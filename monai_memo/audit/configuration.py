# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of an audit, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import model_validator

from monai_memo.data.cohort import Reading
from monai_memo.data.orientation_names import PICTURE_NAMES, SYMMETRIES, check_name
from monai_memo.errors import ConfigurationError
from monai_memo.settings import (
    Amount,
    BatchSize,
    Boolean,
    Calibration,
    Channel,
    Choice,
    Device,
    Epochs,
    File,
    Folder,
    Kind,
    Level,
    PatientPattern,
    Place,
    Quantity,
    RecipeName,
    Refused,
    Resamples,
    Seed,
    Settings,
    Share,
    Size,
    Source,
    Spacing,
    Text,
    Title,
    Window,
    Workers,
    require,
)


def recorded_readings(settings: Mapping[str, Any]) -> dict[str, Reading]:
    """How an audit with these settings (a record's ``configuration``) reads each cohort. Older records lack some."""
    window = settings.get("window")
    orientation = settings.get("orientation")
    common: dict[str, Any] = {"channel": settings.get("channel"), "allow_gaps": bool(settings.get("allow_gaps"))}
    real = Reading(window=None if window is None else (float(window[0]), float(window[1])), **common)
    synthetic = Reading(orientation=None if orientation == "as_is" else orientation, **common)
    return {"training": real, "heldout": real, "synthetic": synthetic}


@dataclass(frozen=True)
class OrientationName(Kind):
    """The name of an orientation."""

    @property
    def allowed(self) -> str:
        return f"{', '.join(PICTURE_NAMES)}, or three axis codes such as LPS or PIR"

    def read(self, value: Any) -> str:
        try:
            return check_name(value)
        except ConfigurationError:
            raise Refused from None


MOST_IN_PARTS = 10_000  # training images up to which parts are looked for by default: the time grows with them


def is_verified(asked: bool | None, recipe: str, calibration: str = "size_matched") -> bool:
    """Whether matches by a detector of this recipe are verified: as asked; else unless the paper is followed."""
    return recipe != "paper" and calibration != "paper" if asked is None else asked


class AuditOptions(Settings):
    """How an audit is done: what every command that runs one takes.

    Attributes:
        detector: file of a trained detector, or the name of a ready one (chest_xray, hippocampus_mri); by default one
            is trained on the training cohort.
        recipe: ``"default"`` or ``"paper"``, for training a detector.
        epochs: overrides the recipe's number of epochs.
        size: image size for the detector, pixels or voxels per axis (one number for a square or cube).
        spacing: resample to this voxel size in mm before resizing (files with an affine only).
        calibration: ``"size_matched"`` or ``"paper"``.
        quantile: level of the thresholds; 0.95 lets 5 % of unseen patients pass as copies.
        confidence: of all intervals.
        n_bootstrap: resamples of patients.
        verification: align and compare each synthetic image's candidates (see ``monai_memo.search``) instead of
            trusting the embeddings; by default on, except for the paper's recipe and the paper's calibration.
        parts: look for copies in part as well: regions of a quarter of the image (of a volume: an eighth) that come
            from one training image. By default wherever matches are verified, among up to 10,000 training images.
        match_sharpness: where the synthetic images are softer than the held-out ones, blur the held-out images to the
            same sharpness before thresholds and control are taken from them (size-matched calibration only).
        reference: the reference control: look the synthetic images up among training and held-out patients together,
            and among held-out patients alone, which takes two further look-ups of each. Without it look-alikes can
            pass for copies.
        fdr: false discovery rate of the list of copies.
        planted: copies planted for the positive control; 0 leaves it out.
        limit_copies: copies planted of each kind and strength, for the limit of detection; 0 leaves it out.
        gallery: copies shown in the report itself, the most similar first; further ones are shown on pages in
            ``pairs``. The pairs nearest to the threshold and some at random come on top. 0 shows no images of pairs.
        data_set, model, author: what the head of the report calls the data set and the generator, and who audited. A
            redacted report leaves them out.
        orientation: of the synthetic images, where it differs from that of the training images (see
            ``data.orientation``): they are turned before anything else. ``"as_is"`` takes them as they are, also where
            they seem to be stored in another orientation.
        symmetries: turns and mirror images under which every image is looked up (as a whole; copies in part are looked
            for upright and mirrored left to right alone), for generators trained with such augmentation: ``"none"``,
            ``"mirror"`` (every axis) or ``"all"`` (axes exchanged as well). The search takes 4 or 8 times as long in 2D
            and 8 or 48 times in 3D; left-right mirror images are found without it.
        window: ``(low, high)``: clip training and held-out images to these intensities (HU in CT), for synthetic images
            that were made from windowed ones.
        channel: the one to take, from 0, of images with several channels that are no colours.
        allow_gaps: take DICOM series in which slices are missing.
        allow_overlap: go on although patients or files stand in two cohorts.
        redacted: no patient pixel, name, id or path in the output. While it runs, and if it is killed until the same
            command has finished, pixels lie in the hidden folder .monai_memo_work in it.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        batch_size: images per forward pass of the encoder.
        workers: threads that read images, processes where there are many; one per core by default.
        keep_work: keep the working folder (preprocessed images and embeddings) after the audit has finished.
        progress: tell how long it will take, and show how far it is: bars on a terminal, lines elsewhere.
    """

    detector: File | None = None
    recipe: RecipeName = "default"
    epochs: Epochs | None = None
    size: Size | None = None
    spacing: Spacing | None = None
    calibration: Calibration = "size_matched"
    quantile: Level = 0.95
    confidence: Level = 0.95
    n_bootstrap: Resamples = 1000
    verification: Boolean | None = None
    parts: Boolean | None = None
    match_sharpness: Boolean = True
    reference: Boolean = True
    fdr: Share = 0.05
    planted: Amount = 100
    limit_copies: Amount = 5
    gallery: Amount = 100
    data_set: Title | None = None
    model: Title | None = None
    author: Title | None = None
    orientation: Annotated[str, OrientationName()] | None = None
    symmetries: Annotated[str, Choice(*SYMMETRIES)] = "none"
    window: Window | None = None
    channel: Channel | None = None
    allow_gaps: Boolean = False
    allow_overlap: Boolean = False
    redacted: Boolean = False
    device: Device = "auto"
    batch_size: BatchSize = 64
    workers: Workers | None = None
    keep_work: Boolean = False
    progress: Boolean = True

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        require(
            not (self.verification and self.calibration == "paper"),
            "the paper's calibration is defined on embeddings: leave verification off, or take calibration "
            "size_matched",
        )
        require(
            not (self.parts and self.verification is False),
            "copies in part are looked for where matches are verified: leave verification on, or parts off",
        )
        require(
            not (self.parts and not self.detector and not self.verifies(self.recipe)),
            f"copies in part are looked for where matches are verified, which recipe {self.recipe} does not do: take "
            "recipe default, or leave parts off",
        )
        require(
            not (self.parts and self.calibration == "paper"),
            "copies in part have a size-matched threshold: take calibration size_matched, or leave parts off",
        )
        return self

    def audit_options(self) -> dict[str, Any]:
        """What was set of how an audit is done, without what a command adds."""
        return {name: value for name, value in self.given().items() if name in AuditOptions.model_fields}

    def looks_for_parts(self, recipe: str, n_train: int) -> bool:
        """Whether an audit looks for copies in part as well."""
        return self.verifies(recipe) and (n_train <= MOST_IN_PARTS if self.parts is None else self.parts)

    def verifies(self, recipe: str) -> bool:
        """Whether an audit with a detector of this recipe verifies its matches."""
        return is_verified(self.verification, recipe, self.calibration)


class AuditConfiguration(AuditOptions):
    """Find out whether synthetic images copy training patients: a verdict, a report, and the copies by name.

    What was asked is kept in ``audit.json``, so that the run can be repeated.

    Attributes:
        train, heldout, synthetic: a folder, a CSV (``image``, ``patient_id``) or a MONAI datalist for each cohort.
        out: folder for the result.
        patient_pattern: regular expression that finds the patient in a relative path.
        seed: of every random step.
        condition: column of the tables of training and synthetic images (and, if it is there, of the held-out ones) by
            whose classes copies are counted as well.
        within: one class of ``condition``: only its images are audited, those of all three cohorts, so that a sample is
            compared with training images of its own class.
    """

    train: Source
    heldout: Source
    synthetic: Source
    out: Folder
    seed: Seed = 0
    patient_pattern: PatientPattern | None = None
    condition: Annotated[str, Text(100)] | None = None
    within: Annotated[str, Text(100)] | None = None

    @model_validator(mode="after")
    def _class_of_a_condition(self) -> Self:
        require(
            self.within is None or self.condition is not None,
            f"within {self.within!r} is a class of a column: name the column with condition",
        )
        return self

    def cohort_sources(self) -> dict[str, str]:
        """Source of each cohort by its name."""
        return {"training": self.train, "heldout": self.heldout, "synthetic": self.synthetic}

    def cohort_options(self) -> dict[str, str]:
        """Source of each cohort by the name of its option."""
        return {"train": self.train, "heldout": self.heldout, "synthetic": self.synthetic}

    def readings(self) -> dict[str, Reading]:
        """How the images of each cohort are read."""
        return recorded_readings(self.to_dict())


class InspectionSettings(Settings):
    """Look at cohorts before an audit: what was read, what differs, and a contact sheet in one HTML page.

    Nothing is trained, and nothing is kept but the page.

    Attributes:
        train, heldout, synthetic: a folder, a CSV (``image``, ``patient_id``) or a MONAI datalist; one at least.
        out: the page (``.html``), or a folder for ``inspection.html``, ``inspection.json`` and ``contact_sheet.png``.
        patient_pattern: regular expression that finds the patient in a relative path.
        size: image size for the detector, pixels or voxels per axis.
        spacing: resample to this voxel size in mm before resizing (files with an affine only).
        orientation: of the synthetic images (see ``data.orientation``): they are turned before anything else.
        window: ``(low, high)``: clip training and held-out images to these intensities (HU in CT).
        channel: the one to take, from 0, of images with several channels that are no colours.
        allow_gaps: take DICOM series in which slices are missing.
        sample: images of each cohort whose pixels are looked at.
        seed: of the sample.
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show progress bars.
    """

    train: Source | None = None
    heldout: Source | None = None
    synthetic: Source | None = None
    out: Annotated[str, Place("a page (.html) or a folder")] = "inspection.html"
    patient_pattern: PatientPattern | None = None
    size: Size | None = None
    spacing: Spacing | None = None
    orientation: Annotated[str, OrientationName()] | None = None
    window: Window | None = None
    channel: Channel | None = None
    allow_gaps: Boolean = False
    sample: Quantity = 200
    seed: Seed = 0
    workers: Workers | None = None
    progress: Boolean = True

    @model_validator(mode="after")
    def _some_cohort(self) -> Self:
        require(bool(self.cohort_sources()), "name at least one cohort: train, heldout or synthetic")
        return self

    def cohort_sources(self) -> dict[str, str]:
        """Source of each cohort that is named."""
        named = {"training": self.train, "heldout": self.heldout, "synthetic": self.synthetic}
        return {name: source for name, source in named.items() if source is not None}

    def cohort_options(self) -> dict[str, str]:
        """Source of each cohort that is named, by the name of its option."""
        named = {"train": self.train, "heldout": self.heldout, "synthetic": self.synthetic}
        return {name: source for name, source in named.items() if source is not None}

    def readings(self) -> dict[str, Reading]:
        """How the images of each cohort are read."""
        return recorded_readings(self.to_dict())


class CardSettings(Settings):
    """Fill in the memorization card of a data set from its audit.

    Attributes:
        audit: output folder of the audit of what is released. A review in it (``review.json``) is summed up.
        out: file, Markdown.
        before: output folder of the audit before images were removed, if any were.
        title: name of the data set.
        weights: file of the diffusion model that drew the images, if it was trained with differential privacy.
    """

    audit: Folder
    out: File = "card.md"
    before: Folder | None = None
    title: Title | None = None
    weights: File | None = None
