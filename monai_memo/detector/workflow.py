# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a MONAI bundle needs on top of ``train_detector``'s pieces: the same steps on one rank and on many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.detector.fingerprint import fingerprint
from monai_memo.detector.loop import SMALLEST_COHORT, ContrastiveTrainer, TrainingPlan
from monai_memo.errors import TrainingError
from monai_memo.training.checkpoints import CheckpointFolder
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


def open_checkpoints(
    folder: str | Path,
    pixels: NDArray[np.floating],
    preprocessing: Preprocessing,
    plan: TrainingPlan,
    partition: Sequence[Sequence[int]] | None = None,
) -> CheckpointFolder:
    """The checkpoints of this very training, in a folder that is held for it until its end.

    Call it before anything is written to ``folder``: checkpoints of a training with other images, another recipe or
    another seed are moved to ``superseded``.

    Args:
        folder: of the checkpoints of one training.
        pixels: ``(n, channels, *spatial)`` in [0, 1], the training images.
        preprocessing: how they were made.
        plan: recipe, seed, device and precision.
        partition: positions for training and for validation; with another partition the training starts anew.

    Raises:
        OutputError: another process trains in this folder.
    """
    identity = fingerprint(pixels, preprocessing, plan, partition)
    hold(folder, TRAINING)  # two trainings into one folder would go on from one another's checkpoints
    return CheckpointFolder(folder, identity)


class DetectorSaver:
    """Ignite handler: write the detector file when training has finished.

    Attach it on every rank, since the validation loss is computed by all of them; rank 0 writes.

    Args:
        path: of the detector file.
        preprocessing: how the images were prepared.
    """

    def __init__(self, path: str | Path, preprocessing: Preprocessing) -> None:
        self.path, self.preprocessing = Path(path), preprocessing

    def attach(self, engine: Engine) -> None:
        """Write at the end of a trainer's run."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: ContrastiveTrainer) -> None:
        # Detector switches the network to evaluation mode, which is also what training leaves behind here.
        detector = engine.detector(self.preprocessing)
        if idist.get_rank() == 0:
            detector.save(self.path)
            engine.logger.info("detector written to %s", self.path)
        let_go_all(TRAINING)
