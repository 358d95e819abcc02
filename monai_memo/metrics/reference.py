# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Embeddings of real cohorts that synthetic images are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack, cast

import ignite.distributed as idist
import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.metrics.copy_rate import CopyRate, RateOptions


class CopyRateOptions(RateOptions, total=False):
    """What of ``CopyRate`` can be chosen.

    Attributes:
        quantity: what ``aggregate`` returns; ``"copies"`` by default.
    """

    quantity: str


class ReferenceOptions(CopyRateOptions, total=False):
    """How cohorts are read and embedded, beside what can be chosen of ``CopyRate``.

    Attributes:
        batch_size: images embedded at once; 64 by default.
        workers: threads that read images; by default one per core.
        progress: show progress bars; True by default.
    """

    batch_size: int
    workers: int | None
    progress: bool


def copy_rate_from_cohorts(
    detector: Detector,
    training: Cohort,
    heldout: Cohort,
    folder: str | Path,
    device: str | torch.device = "cpu",
    **options: Unpack[ReferenceOptions],
) -> CopyRate:
    """A ``CopyRate`` for these cohorts. Their files are read with the detector's preprocessing, as an audit does.

    Args:
        detector: trained on (at least) the training cohort.
        folder: for the prepared images, which the next call finds again; rank 0 writes.
        device: of the detector.
        options: batch_size, workers, progress, quantity, mode, quantile, confidence, n_bootstrap, seed; see
            ``ReferenceOptions`` and ``RateOptions``.
    """
    batch_size, workers = options.pop("batch_size", 64), options.pop("workers", None)
    progress = options.pop("progress", True)
    folder = Path(folder)
    embeddings: list[NDArray[np.float32]] = []
    patients: list[list[str]] = []
    with idist.one_rank_first():
        for cohort in (training, heldout):
            prepared = prepare(cohort, detector.preprocessing, folder, workers, progress and idist.get_rank() == 0)
            name = f"{cohort.name}-{detector.sha256[:12]}-{prepared.content_sha256[:12]}.npy"
            embeddings.append(detector.embed(prepared.pixels, batch_size, device, progress, folder / name))
            patients.append(prepared.cohort.patient_ids)
    metric = CopyRate(
        embeddings[0], embeddings[1], patients[0], patients[1], detector=detector, **cast(CopyRateOptions, options)
    )
    metric.device = torch.device(device)
    return metric
