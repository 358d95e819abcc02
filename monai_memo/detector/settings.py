# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo train-detector``."""

from __future__ import annotations

from monai_memo.settings import (
    Boolean,
    Device,
    Epochs,
    File,
    Folder,
    PatientPattern,
    RecipeName,
    Seed,
    Settings,
    Size,
    Source,
    Spacing,
    Workers,
)


class TrainDetectorSettings(Settings):
    """Train a detector on the training cohort, for use by several audits.

    Attributes:
        train: folder, CSV or datalist.
        out: folder; the detector becomes ``<out>/detector.pt``. An interrupted training continues.
        recipe: network and training; ``default`` unless ``start_from`` brings another.
        epochs: overrides the recipe's number of epochs.
        size: image size for the detector, pixels or voxels per axis.
        spacing: resample to this voxel size in mm before resizing.
        patient_pattern: regular expression that finds the patient in a relative path.
        seed: of every random step.
        device: ``"auto"`` is a GPU if there is one.
        workers: threads that read images; by default one per core.
        progress: show progress bars.
        start_from: file of a trained detector to begin with, for example a ready one; it brings recipe and
            preprocessing, so that ``recipe``, ``size`` and ``spacing`` are not asked for.
        amp: mixed precision, for large networks.
    """

    train: Source
    out: Folder
    recipe: RecipeName | None = None
    epochs: Epochs | None = None
    size: Size | None = None
    spacing: Spacing | None = None
    patient_pattern: PatientPattern | None = None
    seed: Seed = 0
    device: Device = "auto"
    workers: Workers | None = None
    progress: Boolean = True
    start_from: File | None = None
    amp: Boolean = False
