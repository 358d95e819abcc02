# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive training of a detector from arrays: the loop of ``monai_memo.detector.loop`` for Python and commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.detector.fingerprint import fingerprint
from monai_memo.detector.loop import SMALLEST_COHORT, TrainingPlan, contrastive_trainer
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import DetectorError, TrainingError
from monai_memo.settings.keywords import with_defaults
from monai_memo.training.batches import PixelDataset
from monai_memo.training.checkpoints import CheckpointFolder
from monai_memo.training.progress import TrainingProgress
from monai_memo.training.seeds import deterministic


class TrainingOptions(TypedDict, total=False):
    """What ``train_detector`` takes by keyword.

    Attributes:
        seed: of weights, order and views.
        device: to train on.
        patient_ids: patient of each image, for a validation split by patient; by default each image is a patient.
        validation_fraction: share of patients kept for the validation loss; 0 trains on all.
        progress: show a progress bar.
        start_from: a trained detector whose weights are the first ones; of the same network and preprocessing.
        amp: mixed precision: float16 on a GPU, bfloat16 on a CPU that has it. Large networks train up to three times
            as fast; the weights differ a little from those of single precision.
    """

    seed: int
    device: str | torch.device
    patient_ids: Sequence[str] | None
    validation_fraction: float
    progress: bool
    start_from: Detector | None
    amp: bool


DEFAULTS = TrainingOptions(
    seed=0, device="cpu", patient_ids=None, validation_fraction=0.1, progress=True, start_from=None, amp=False
)


def split_validation(patient_ids: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of training and validation images, split by patient; no validation where it would be under 4 images."""
    patients = np.unique(np.asarray(patient_ids))
    chosen = set(np.random.default_rng([seed, 3]).permutation(patients)[: round(fraction * len(patients))].tolist())
    validation = [i for i, patient in enumerate(patient_ids) if patient in chosen]
    if len(validation) < 4:
        return list(range(len(patient_ids))), []
    return [i for i, patient in enumerate(patient_ids) if patient not in chosen], validation


def train_detector(
    pixels: NDArray[np.floating],
    recipe: Recipe,
    preprocessing: Preprocessing,
    folder: str | Path,
    **options: Unpack[TrainingOptions],
) -> Detector:
    """Train a detector, or go on with a training that was interrupted.

    A checkpoint is written after every epoch. Since order, views and weights depend on seed and epoch alone, a training
    that is killed and started again ends with the same weights as one that is not (on the same machine).

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        recipe: network, views and optimisation.
        preprocessing: how the pixels were made; kept in the detector.
        folder: for checkpoints and TensorBoard logs of this training alone; those of another training are moved to its
            ``superseded``.
        options: seed, device, patient_ids, validation_fraction, progress, start_from, amp; see ``TrainingOptions``.

    Raises:
        DetectorError: ``start_from`` has another network or preprocessing.
        TrainingError: fewer than 8 images, a loss that is not a number, or a folder with files of another origin.
    """
    chosen = with_defaults(DEFAULTS, options, "train_detector")
    if len(pixels) < SMALLEST_COHORT:
        raise TrainingError(
            f"{len(pixels)} training images are too few for a detector: at least {SMALLEST_COHORT} are needed. "
            "Use a ready one with --detector."
        )
    plan = TrainingPlan(recipe, chosen["seed"], chosen["device"], chosen["amp"])
    patients, start_from = chosen["patient_ids"], chosen["start_from"]
    ids = [str(i) for i in range(len(pixels))] if patients is None else list(patients)
    kept, held = split_validation(ids, chosen["validation_fraction"], plan.seed)
    origin = None if start_from is None else start_from.sha256
    checkpoints = CheckpointFolder(folder, fingerprint(pixels, preprocessing, plan, (kept, held), origin))
    with deterministic(plan.seed), TrainingProgress("train detector", chosen["progress"]) as shown:
        network = plan.place(recipe.build_network())
        if start_from is not None:
            _take_weights(network, start_from, preprocessing)
        trainer = contrastive_trainer(
            network,
            PixelDataset(pixels, kept),
            plan,
            PixelDataset(pixels, held) if held else None,
            checkpoints,
            [shown],
        )
        trainer.run()
        detector = trainer.detector(preprocessing, **({} if origin is None else {"started_from": origin}))
    detector.network.to("cpu")
    return detector


def _take_weights(network: torch.nn.Module, detector: Detector, preprocessing: Preprocessing) -> None:
    if detector.preprocessing != preprocessing:
        raise DetectorError(
            f"the detector to start from prepares images otherwise ({detector.preprocessing.describe()}); "
            "leave size and spacing to it"
        )
    try:
        network.load_state_dict(detector.network.state_dict())
    except RuntimeError as error:
        raise DetectorError("the detector to start from has another network; name its recipe") from error
