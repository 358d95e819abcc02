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
from monai_memo.metrics.copy_rate import RATE_DEFAULTS, RATE_KINDS, CopyRate, RateOptions
from monai_memo.settings import Flag, Text, Whole
from monai_memo.settings.keywords import with_defaults


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


READ_KINDS = {"batch_size": Whole(1, 65_536), "workers": Whole(1, 1024), "progress": Flag()}
KINDS = {**RATE_KINDS, **READ_KINDS, "quantity": Text(100)}
DEFAULTS = ReferenceOptions(batch_size=64, workers=None, progress=True, quantity="copies", **RATE_DEFAULTS)


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
    chosen = with_defaults(DEFAULTS, options, "copy_rate_from_cohorts", KINDS)
    batch_size, workers, progress = chosen["batch_size"], chosen["workers"], chosen["progress"]
    folder = Path(folder)
    embeddings: list[NDArray[np.float32]] = []
    patients: list[list[str]] = []
    with idist.one_rank_first():
        for cohort in (training, heldout):
            prepared = prepare(cohort, detector.preprocessing, folder, workers, progress and idist.get_rank() == 0)
            name = f"{cohort.name}-{detector.sha256[:12]}-{prepared.content_sha256[:12]}.npy"
            embeddings.append(detector.embed(prepared.pixels, batch_size, device, progress, folder / name))
            patients.append(prepared.cohort.patient_ids)
    of_rates = cast(CopyRateOptions, {name: value for name, value in chosen.items() if name not in READ_KINDS})
    metric = CopyRate(embeddings[0], embeddings[1], patients[0], patients[1], detector=detector, **of_rates)
    metric.device = torch.device(device)
    return metric
