# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a MONAI bundle needs on top of ``train_detector``'s pieces: the same steps on one rank and on many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.detector.detector import Detector
from monai_memo.detector.fingerprint import fingerprint
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import SMALLEST_COHORT
from monai_memo.errors import TrainingError
from monai_memo.networks.copy_detector import CopyDetector
from monai_memo.training.checkpoints import last_checkpoint
from monai_memo.workspace.locking import hold, let_go_all

TRAINING = "training of a detector"


def prepare_for_training(
    cohort: Cohort, preprocessing: Preprocessing, folder: str | Path, workers: int | None = None, progress: bool = True
) -> PreparedCohort:
    """``prepare`` by rank 0, whose files the other ranks then read. All ranks have to see the same folder.

    Raises:
        TrainingError: fewer than 8 usable images.
    """
    with idist.one_rank_first():
        prepared = prepare(cohort, preprocessing, folder, workers, progress and idist.get_rank() == 0)
    if len(prepared.cohort) < SMALLEST_COHORT:
        raise TrainingError(
            f"{len(prepared.cohort)} usable images in {cohort.source} are too few for a detector: at least "
            f"{SMALLEST_COHORT} are needed. Check train_dir."
        )
    return prepared


def newest_checkpoint(
    folder: str | Path,
    pixels: NDArray[np.floating],
    recipe: Recipe,
    preprocessing: Preprocessing,
    seed: int,
    partition: Sequence[Sequence[int]] | None = None,
    device: Any = "cpu",
) -> str | None:
    """Where to go on: the newest checkpoint of this very training, or None.

    Call it before anything is written to ``folder``: checkpoints of a training with other images, another recipe or
    another seed are moved to ``superseded``.

    Args:
        folder: of the checkpoints of one training.
        pixels: ``(n, channels, *spatial)`` in [0, 1], the training images.
        partition: positions for training and for validation; with another partition the training starts anew.
        device: that is trained on.

    Raises:
        OutputError: another process trains in this folder.
    """
    identity = fingerprint(pixels, recipe, preprocessing, seed, partition, device=device)
    hold(folder, TRAINING)  # two trainings into one folder would go on from one another's checkpoints
    with idist.one_rank_first():
        found = last_checkpoint(Path(folder), identity)
    return None if found is None else str(found)


class DetectorSaver:
    """Ignite handler: write the detector file when training has finished.

    Attach it on every rank, since the validation loss is computed by all of them; rank 0 writes.

    Args:
        path: of the detector file.
        network: as built, not wrapped by ``DistributedDataParallel``.
        n_images: images trained on.
        n_validation: images of the validation loss.
        evaluator: gives the validation loss of the final weights; None without validation.
    """

    def __init__(
        self,
        path: str | Path,
        network: CopyDetector,
        recipe: Recipe,
        preprocessing: Preprocessing,
        seed: int,
        n_images: int,
        n_validation: int = 0,
        evaluator: SupervisedEvaluator | None = None,
    ) -> None:
        self.path, self.network, self.recipe, self.preprocessing = Path(path), network, recipe, preprocessing
        self.seed, self.n_images, self.n_validation, self.evaluator = seed, n_images, n_validation, evaluator

    def attach(self, engine: Engine) -> None:
        """Write at the end of a trainer's run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        loss = None
        if self.evaluator is not None:
            self.evaluator.run()
            loss = round(float(self.evaluator.state.metrics["validation_loss"]), 6)
        if idist.get_rank() == 0:
            summary = {
                "epochs": engine.state.epoch,
                "images": self.n_images,
                "validation_images": self.n_validation,
                "validation_loss": loss,
            }
            # Detector switches the network to evaluation mode, which is also what training leaves behind here.
            Detector(self.network, self.recipe, self.preprocessing, self.seed, summary).save(self.path)
            engine.logger.info("detector written to %s", self.path)
        let_go_all(TRAINING)
