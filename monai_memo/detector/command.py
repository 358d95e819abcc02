# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Train a detector on a cohort and write its file: ``monai-memo train-detector``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import guess_preprocessing
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector


def train_detector_command(
    train: str,
    out: str,
    recipe: str = "default",
    epochs: int | None = None,
    size: int | Sequence[int] | None = None,
    spacing: float | Sequence[float] | None = None,
    patient_pattern: str | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    start_from: str | None = None,
    amp: bool = False,
) -> Path:
    """Train a detector on the training cohort, for use by several audits.

    Args:
        train: folder, CSV or datalist.
        out: folder; the detector becomes ``<out>/detector.pt``. An interrupted training continues.
        recipe: ``"default"`` or ``"paper"``.
        epochs: overrides the recipe's number of epochs.
        size: image size for the detector, pixels or voxels per axis.
        spacing: resample to this voxel size in mm before resizing.
        patient_pattern: regular expression that finds the patient in a relative path.
        seed: of every random step.
        start_from: file of a trained detector to begin with, for example a ready one; it brings recipe and
            preprocessing, so that ``recipe``, ``size`` and ``spacing`` are not asked for.
        amp: mixed precision, for large networks.
    """
    cohort = Cohort.from_source(str(train), "training", patient_pattern)
    preprocessing = guess_preprocessing([cohort], size=size, spacing=spacing)
    start = None if start_from is None else Detector.load(start_from)
    if start is not None:
        start.check_fits(preprocessing.spatial_dims, preprocessing.channels)
        preprocessing = start.preprocessing
    work = Path(str(out)) / "work"
    prepared = prepare(cohort, preprocessing, work / "pixels", workers, progress)
    detector = train_detector(
        prepared.pixels,
        Recipe.named(
            recipe if start is None else start.recipe.name,
            preprocessing.spatial_dims,
            preprocessing.size,
            channels=preprocessing.channels,
            epochs=epochs,
            n_images=len(prepared.pixels),
        ),
        preprocessing,
        work / "training",
        seed=seed,
        device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device,
        patient_ids=prepared.cohort.patient_ids,
        progress=progress,
        start_from=start,
        amp=amp,
    )
    path = Path(str(out)) / "detector.pt"
    detector.save(path)
    shutil.rmtree(work, ignore_errors=True)
    return path
