# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Train a detector further, on what raters have confirmed.

A confirmed copy and its original become two views of the same image; a synthetic image that raters call novel becomes
an image of its own, which nothing else may resemble.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from monai_memo.detector.detector import Detector
from monai_memo.detector.loop import SMALLEST_COHORT, TrainingPlan, contrastive_trainer
from monai_memo.errors import TrainingError
from monai_memo.sealing import fingerprint
from monai_memo.settings.keywords import with_defaults
from monai_memo.training.checkpoints import CheckpointFolder
from monai_memo.training.seeds import deterministic


class PartnerDataset(Dataset[dict[str, Tensor]]):
    """Images with the image that counts as the same: a confirmed copy where there is one, else the image itself.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        partners: ``(channels, *spatial)`` confirmed copy of the image at each of these positions.
        novel: ``(m, channels, *spatial)`` further images, each of its own kind.
    """

    def __init__(
        self,
        pixels: NDArray[np.floating],
        partners: Mapping[int, NDArray[np.floating]],
        novel: NDArray[np.floating] | None = None,
    ) -> None:
        self.pixels, self.partners = pixels, partners
        self.novel = pixels[:0] if novel is None else novel

    def __len__(self) -> int:
        return len(self.pixels) + len(self.novel)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        n = len(self.pixels)
        image = self.pixels[position] if position < n else self.novel[position - n]
        partner = self.partners.get(position, image)
        return {
            "image": torch.from_numpy(np.asarray(image, dtype=np.float32)),
            "partner": torch.from_numpy(np.asarray(partner, dtype=np.float32)),
        }


class FineTuningOptions(TypedDict, total=False):
    """What ``fine_tune`` takes by keyword.

    Attributes:
        epochs: passes over all images.
        learning_rate: at the start; it falls to zero along a cosine.
        seed: of order, views and dropout.
        device: to train on.
        folder: for checkpoints of this training alone, so that an interrupted one goes on; none are kept by default.
    """

    epochs: int
    learning_rate: float
    seed: int
    device: str | torch.device
    folder: str | Path | None


DEFAULTS = FineTuningOptions(epochs=10, learning_rate=1e-4, seed=0, device="cpu", folder=None)


def fine_tune(
    detector: Detector,
    pixels: NDArray[np.floating],
    partners: Mapping[int, NDArray[np.floating]],
    novel: NDArray[np.floating] | None = None,
    **options: Unpack[FineTuningOptions],
) -> Detector:
    """Train a detector further; the given one stays as it is.

    Args:
        detector: to begin with.
        pixels: ``(n, channels, *spatial)`` in [0, 1], the training cohort, prepared for this detector.
        partners: confirmed copy, prepared in the same way, of the training image at each of these positions.
        novel: ``(m, channels, *spatial)`` synthetic images that raters call novel.
        options: epochs, learning_rate, seed, device, folder; see ``FineTuningOptions``.

    Returns:
        A detector whose threshold has to be calibrated anew, by an audit with ``--detector``.

    Raises:
        TrainingError: fewer than 8 images, nothing confirmed, or a loss that is not a number.
        DetectorError: images of another shape than the detector takes.
    """
    chosen = with_defaults(DEFAULTS, options, "fine_tune")
    if len(pixels) < SMALLEST_COHORT:
        raise TrainingError(f"{len(pixels)} training images are too few: at least {SMALLEST_COHORT} are needed")
    novel = pixels[:0] if novel is None else novel
    if not partners and not len(novel):
        raise TrainingError("no pair has been rated as copy, same patient or novel yet: there is nothing to learn from")
    for array in (pixels, novel, *(partner[None] for partner in partners.values())):
        detector.check_fits(array.ndim - 2, array.shape[1], array.shape[2:])
    recipe = replace(
        detector.recipe,
        epochs=chosen["epochs"],
        learning_rate=chosen["learning_rate"],
        final_rate=0.0,
        warmup=0.0,
    )
    plan = TrainingPlan(recipe, chosen["seed"], chosen["device"])
    dataset = PartnerDataset(pixels, partners, novel)
    folder = chosen["folder"]
    checkpoints = None if folder is None else CheckpointFolder(folder, _identity(detector, plan, dataset))
    with deterministic(plan.seed):
        network = plan.place(copy.deepcopy(detector.network))
        contrastive_trainer(network, dataset, plan, checkpoints=checkpoints).run()
    summary = {
        **detector.training_summary,
        "fine_tuned": {
            "from": detector.sha256,
            "epochs": recipe.epochs,
            "learning_rate": recipe.learning_rate,
            "seed": plan.seed,
            "confirmed_copies": len(partners),
            "confirmed_novel": len(novel),
        },
    }
    return Detector(network.to("cpu").eval(), detector.recipe, detector.preprocessing, detector.seed, summary)


def _identity(detector: Detector, plan: TrainingPlan, dataset: PartnerDataset) -> str:
    positions = sorted(dataset.partners)
    settings = [
        detector.sha256, detector.network, plan.recipe.to_dict(), positions, plan.seed, torch.device(plan.device)
    ]  # fmt: skip
    arrays = [dataset.pixels, dataset.novel, *(dataset.partners[i] for i in positions)]
    return fingerprint("fine-tuning", settings, arrays)
