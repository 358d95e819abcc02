# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo study``; the grid itself stands in a file (``study.configuration``)."""

from __future__ import annotations

from monai_memo.settings import Boolean, Device, File, Folder, Settings, Source, Workers


class StudySettings(Settings):
    """Train, sample and audit a grid of generators; the same command goes on where it was interrupted.

    Attributes:
        config: YAML or JSON file, see ``study.configuration.StudyConfiguration``.
        out: folder for ``study.csv``, ``study.md``, ``figures`` and ``runs``.
        dataset: training patients to choose from (folder, CSV or datalist).
        heldout: images of other patients, seen by no generator and no detector.
        detector: copy detector trained on the data set; by default one is trained on all of it.
        autoencoder: weights for the latent diffusion model; by default one is trained on the whole data set.
        report_only: write tables and figures from what has been done, and do nothing else.
        device: ``"auto"`` is a GPU if there is one.
        workers: threads that read images; by default one per core.
        progress: show progress bars.
    """

    config: File
    out: Folder
    dataset: Source | None = None
    heldout: Source | None = None
    detector: File | None = None
    autoencoder: File | None = None
    report_only: Boolean = False
    device: Device = "auto"
    workers: Workers | None = None
    progress: Boolean = True
