# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Train a detector on a cohort and write its file: ``monai-memo train-detector``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import guess_preprocessing
from monai_memo.data.prepared import prepare
from monai_memo.data.sources import require_sources
from monai_memo.detector.agreement import require_agreement
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.settings import TrainDetectorSettings
from monai_memo.detector.training import train_detector
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import check_images


def train_detector_command(colour: bool = True, **arguments: Any) -> Path:
    """Train a detector on the training cohort, for use by several audits.

    Args:
        colour: compare in colour where the cohort is; False reduces it to grey values.
        arguments: see ``TrainDetectorSettings``.

    Returns:
        The detector's file.

    Raises:
        MemoError: bad input, or options that say otherwise than the detector to begin with.
    """
    settings = TrainDetectorSettings(**arguments)
    cohorts, asked = {"train": settings.train}, settings.to_dict()
    with OutputFolder(settings.out, "train-detector", cohorts, ["detector.pt"], asked) as output:
        detector = _train(settings, output, colour)
        detector.save(output.staging() / "detector.pt")
        output.publish()
        output.clear()
    return output.out / "detector.pt"


def _train(settings: TrainDetectorSettings, output: OutputFolder, colour: bool) -> Detector:
    start = None if settings.start_from is None else Detector.given(settings.start_from, "start_from")
    if start is not None:
        require_agreement(start, settings.given(), ("recipe", "size", "spacing"))
    require_sources({"train": settings.train})
    cohort = Cohort.from_source(settings.train, "training", settings.patient_pattern)
    check_images(output.out, (part for image in cohort.images for part in image.parts), ["detector.pt"])
    preprocessing = guess_preprocessing([cohort], size=settings.size, spacing=settings.spacing)
    if not colour:
        preprocessing = replace(preprocessing, channels=1)
    if start is not None:
        start.check_cohort(preprocessing)
        preprocessing = start.preprocessing
    work = output.work
    prepared = prepare(cohort, preprocessing, work / "pixels", settings.workers, settings.progress)
    return train_detector(
        prepared.pixels,
        Recipe.named(
            start.recipe.name if start is not None else settings.recipe or "default",
            preprocessing.spatial_dims,
            preprocessing.size,
            channels=preprocessing.channels,
            epochs=settings.epochs,
            n_images=len(prepared.pixels),
        ),
        preprocessing,
        work / "training",
        seed=settings.seed,
        device=("cuda" if torch.cuda.is_available() else "cpu") if settings.device == "auto" else settings.device,
        patient_ids=prepared.cohort.patient_ids,
        progress=settings.progress,
        start_from=start,
        amp=settings.amp,
    )
