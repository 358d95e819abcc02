# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of an audit, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from monai_memo.data.cohort import Reading
from monai_memo.data.orientation import check_name, searched
from monai_memo.errors import ConfigurationError
from monai_memo.statistics.calibration import MODES


def recorded_readings(settings: Mapping[str, Any]) -> dict[str, Reading]:
    """How an audit with these settings (a record's ``configuration``) reads each cohort. Older records lack some."""
    window = settings.get("window")
    orientation = settings.get("orientation")
    common: dict[str, Any] = {"channel": settings.get("channel"), "allow_gaps": bool(settings.get("allow_gaps"))}
    real = Reading(window=None if window is None else (float(window[0]), float(window[1])), **common)
    synthetic = Reading(orientation=None if orientation == "as_is" else orientation, **common)
    return {"training": real, "heldout": real, "synthetic": synthetic}


@dataclass(frozen=True)
class AuditConfiguration:
    """What an audit is asked to do. Kept in ``audit.json``, so that the run can be repeated.

    Attributes:
        train, heldout, synthetic: a folder, a CSV (``image``, ``patient_id``) or a MONAI datalist for each cohort.
        out: folder for the result.
        detector: file of a trained detector; by default one is trained on the training cohort.
        recipe: ``"default"`` or ``"paper"``, for training a detector.
        epochs: overrides the recipe's number of epochs.
        size: image size for the detector, pixels or voxels per axis (one number for a square or cube).
        spacing: resample to this voxel size in mm before resizing (files with an affine only).
        calibration: ``"size_matched"`` or ``"paper"``.
        quantile: level of the thresholds; 0.95 lets 5 % of unseen patients pass as copies.
        confidence: of all intervals.
        n_bootstrap: resamples of patients.
        verification: align and compare each synthetic image's candidates (see ``monai_memo.verification``) instead of
            trusting the embeddings; by default on, except for the paper's recipe and the paper's calibration.
        match_sharpness: where the synthetic images are softer than the held-out ones, soften the held-out images alike
            before thresholds and control are taken from them (size-matched calibration only).
        fdr: false discovery rate of the list of copies.
        planted: copies planted for the positive control; 0 leaves it out.
        limit_copies: copies planted of each kind and strength, for the limit of detection; 0 leaves it out.
        gallery: most similar pairs shown in the report.
        patient_pattern: regular expression that finds the patient in a relative path.
        orientation: how the synthetic images lie, where that differs from the training images (see
            ``data.orientation``): they are turned before anything else. ``"as_is"`` takes them as they are, also where
            they seem to lie otherwise.
        symmetries: turns and mirror images under which every image is looked up, for generators trained with such
            augmentation: ``"none"``, ``"mirror"`` (every axis) or ``"all"`` (axes exchanged as well).
        window: ``(low, high)``: clip training and held-out images to these intensities (HU in CT), for synthetic images
            that were made from windowed ones.
        channel: the one to take, from 0, of images with several channels that are no colours.
        allow_gaps: take DICOM series in which slices are missing.
        allow_overlap: go on although patients or files stand in two cohorts.
        redacted: no patient pixel, name, id or path in the output.
        seed: of every random step.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        batch_size: images per forward pass of the encoder.
        workers: threads that read images; by default one per core.
        keep_work: keep the working folder (preprocessed images and embeddings) after the audit has finished.
        progress: show progress bars.
    """

    train: str
    heldout: str
    synthetic: str
    out: str
    detector: str | None = None
    recipe: str = "default"
    epochs: int | None = None
    size: int | Sequence[int] | None = None
    spacing: float | Sequence[float] | None = None
    calibration: str = "size_matched"
    quantile: float = 0.95
    confidence: float = 0.95
    n_bootstrap: int = 1000
    verification: bool | None = None
    match_sharpness: bool = True
    fdr: float = 0.05
    planted: int = 100
    limit_copies: int = 10
    gallery: int = 12
    patient_pattern: str | None = None
    orientation: str | None = None
    symmetries: str = "none"
    window: Sequence[float] | None = None
    channel: int | None = None
    allow_gaps: bool = False
    allow_overlap: bool = False
    redacted: bool = False
    seed: int = 0
    device: str = "auto"
    batch_size: int = 64
    workers: int | None = None
    keep_work: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("train", "heldout", "synthetic", "out", "detector"):
            value = getattr(self, name)
            if value is None and name != "detector":
                raise ConfigurationError(f"{name} is required")
            if value is not None:
                # A folder called 2024 arrives from a command line as a number.
                object.__setattr__(self, name, str(value))
        if self.calibration not in MODES:
            raise ConfigurationError(f"calibration must be one of {', '.join(MODES)}, got {self.calibration!r}")
        for name in ("quantile", "confidence", "fdr"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must lie between 0 and 1, got {getattr(self, name)!r}")
        for name, smallest in (
            ("n_bootstrap", 100),
            ("planted", 0),
            ("limit_copies", 0),
            ("gallery", 0),
            ("batch_size", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < smallest:
                raise ConfigurationError(f"{name} must be a whole number of at least {smallest}, got {value!r}")
        if self.verification is not None and not isinstance(self.verification, bool):
            raise ConfigurationError(f"verification must be True or False, got {self.verification!r}")
        if not isinstance(self.match_sharpness, bool):
            raise ConfigurationError(f"match_sharpness must be True or False, got {self.match_sharpness!r}")
        if self.verification and self.calibration == "paper":
            raise ConfigurationError(
                "the paper's calibration is defined on embeddings: leave verification off, or take "
                "calibration size_matched"
            )
        if self.orientation is not None:
            object.__setattr__(self, "orientation", check_name(self.orientation))
        object.__setattr__(self, "symmetries", str(self.symmetries).lower())
        searched(self.symmetries, 2)
        for name in ("size", "spacing", "window"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float):
                object.__setattr__(self, name, tuple(value))

    def cohort_sources(self) -> dict[str, str]:
        """Source of each cohort by its name."""
        return {"training": self.train, "heldout": self.heldout, "synthetic": self.synthetic}

    def verifies(self, recipe: str) -> bool:
        """Whether an audit with a detector of this recipe verifies its matches."""
        if self.verification is None:
            return recipe != "paper" and self.calibration != "paper"
        return self.verification

    def readings(self) -> dict[str, Reading]:
        """How the images of each cohort are read."""
        return recorded_readings(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
