# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Train a detector further, on what raters have confirmed.

A confirmed copy and its original become two views of the same image; a synthetic image that raters call novel becomes
an image of its own, which nothing else may resemble.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.handlers import Checkpoint
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.inferers import SimpleInferer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from monai_memo.detector.detector import Detector
from monai_memo.detector.pairs import ViewPairs
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import SMALLEST_COHORT, deterministic
from monai_memo.errors import TrainingError
from monai_memo.losses.nt_xent import NTXentLoss
from monai_memo.sealing import fingerprint, load_torch
from monai_memo.training.batches import SeededLoader
from monai_memo.training.checkpoints import AtomicCheckpointSaver, last_checkpoint
from monai_memo.training.guards import StopAtNaN


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


def fine_tune(
    detector: Detector,
    pixels: NDArray[np.floating],
    partners: Mapping[int, NDArray[np.floating]],
    novel: NDArray[np.floating] | None = None,
    epochs: int = 10,
    learning_rate: float = 1e-4,
    seed: int = 0,
    device: str = "cpu",
    folder: str | Path | None = None,
) -> Detector:
    """Train a detector further; the given one stays as it is.

    Args:
        detector: to begin with.
        pixels: ``(n, channels, *spatial)`` in [0, 1], the training cohort, prepared for this detector.
        partners: confirmed copy, prepared in the same way, of the training image at each of these positions.
        novel: ``(m, channels, *spatial)`` synthetic images that raters call novel.
        epochs: passes over all images.
        learning_rate: at the start; it falls to zero along a cosine.
        seed: of order, views and dropout.
        folder: for checkpoints of this training alone, so that an interrupted one goes on; none are kept by default.

    Returns:
        A detector whose threshold has to be calibrated anew, by an audit with ``--detector``.

    Raises:
        TrainingError: fewer than 8 images, nothing confirmed, or a loss that is not a number.
        DetectorError: images of another shape than the detector takes.
    """
    if len(pixels) < SMALLEST_COHORT:
        raise TrainingError(f"{len(pixels)} training images are too few: at least {SMALLEST_COHORT} are needed")
    novel = pixels[:0] if novel is None else novel
    if not partners and not len(novel):
        raise TrainingError("no pair has been rated as copy, same patient or novel yet: there is nothing to learn from")
    for array in (pixels, novel, *(partner[None] for partner in partners.values())):
        detector.check_fits(array.ndim - 2, array.shape[1], array.shape[2:])
    recipe = replace(detector.recipe, epochs=epochs, learning_rate=learning_rate, final_rate=0.0, warmup=0.0)
    identity = None if folder is None else _identity(detector, recipe, pixels, partners, novel, seed, device)
    checkpoint = None if folder is None or identity is None else last_checkpoint(Path(folder), identity)
    with deterministic(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")  # the order of two calls at a resume
        network = copy.deepcopy(detector.network).to(device)
        loader = SeededLoader(PartnerDataset(pixels, partners, novel), recipe.batch_size, seed)
        optimizer = recipe.build_optimizer(network)
        scheduler = recipe.build_scheduler(optimizer, epochs * len(loader))
        views = ViewPairs(recipe.views, seed, recipe.both_views)
        trainer = SupervisedTrainer(
            device=torch.device(device),
            max_epochs=epochs,
            train_data_loader=loader,
            network=network,
            optimizer=optimizer,
            loss_function=NTXentLoss(recipe.temperature),
            inferer=SimpleInferer(),
            prepare_batch=views,
            decollate=False,
            train_handlers=[
                views, loader, StopAtNaN(), LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)
            ],
        )  # fmt: skip
        state = {"network": network, "optimizer": optimizer, "scheduler": scheduler, "trainer": trainer}
        if folder is not None:
            AtomicCheckpointSaver(str(folder), state, save_interval=1, n_saved=2).attach(trainer)
        if checkpoint is not None:
            Checkpoint.load_objects(state, checkpoint=load_torch(checkpoint))
        if trainer.state.epoch < epochs:
            trainer.run()
    summary: dict[str, Any] = {
        **detector.training_summary,
        "fine_tuned": {
            "from": detector.sha256,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "seed": seed,
            "confirmed_copies": len(partners),
            "confirmed_novel": len(novel),
        },
    }
    return Detector(network.to("cpu").eval(), detector.recipe, detector.preprocessing, detector.seed, summary)


def _identity(
    detector: Detector,
    recipe: Recipe,
    pixels: NDArray[np.floating],
    partners: Mapping[int, NDArray[np.floating]],
    novel: NDArray[np.floating],
    seed: int,
    device: str,
) -> str:
    settings = [detector.sha256, detector.network, recipe.to_dict(), sorted(partners), seed, torch.device(device)]
    return fingerprint("fine-tuning", settings, [pixels, novel, *(partners[i] for i in sorted(partners))])
