# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo train-detector``."""

from __future__ import annotations

from typing import Annotated

from monai_memo.settings import (
    Boolean,
    Device,
    Epochs,
    File,
    Folder,
    Number,
    PatientPattern,
    RecipeName,
    Seed,
    Settings,
    Size,
    Source,
    Spacing,
    Whole,
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
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show progress bars.
        start_from: file of a trained detector to begin with, or the name of a ready one (chest_xray, hippocampus_mri);
            it brings recipe and preprocessing, so that ``recipe``, ``size`` and ``spacing`` are not asked for.
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


class DetectorBundleSettings(Settings):
    """Keys of the bundle ``memorization_detection``. Every key is optional here: the configs hold the defaults.

    Attributes:
        bundle_root, output_dir, checkpoint_dir: folders.
        dataset_dir, train_dir, heldout_dir, synthetic_dir: cohorts.
        detector_file: where the detector is written.
        detector: a trained one.
        patient_pattern: regular expression that finds the patient in a relative path.
        spatial_dims, channels: of the images.
        size: of images for the detector.
        spacing: in mm.
        recipe: network and training.
        epochs: of the training.
        seed: of every random step.
        workers: threads that read images.
        progress: show progress bars.
        rank: of this process.
        device: to compute on.
        validation_fraction: share of the patients that validates the training.
        val_interval: epochs between two validations.
    """

    bundle_root: Folder | None = None
    output_dir: Folder | None = None
    checkpoint_dir: Folder | None = None
    dataset_dir: Source | None = None
    train_dir: Source | None = None
    heldout_dir: Source | None = None
    synthetic_dir: Source | None = None
    detector_file: File | None = None
    detector: File | None = None
    patient_pattern: PatientPattern | None = None
    spatial_dims: Annotated[int, Whole(2, 3)] | None = None
    channels: Annotated[int, Whole(1, 3)] | None = None
    size: Size | None = None
    spacing: Spacing | None = None
    recipe: RecipeName | None = None
    epochs: Epochs | None = None
    seed: Seed | None = None
    workers: Workers | None = None
    progress: Boolean | None = None
    rank: Annotated[int, Whole(0, 100_000)] | None = None
    device: Device | None = None
    validation_fraction: Annotated[float, Number(0, 0.9)] | None = None
    val_interval: Epochs | None = None
