# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo duplicates``."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from monai_memo.data.cohort import Reading
from monai_memo.settings import (
    Amount,
    Boolean,
    Channel,
    Device,
    Folder,
    Level,
    PatientPattern,
    Seed,
    Settings,
    Size,
    Source,
    Spacing,
    Workers,
    require,
)


class DuplicatesSettings(Settings):
    """Find images that stand twice, within and between cohorts, before a generator is trained on them.

    Equal pixels are found by themselves; near-duplicates by the search of an audit, without a trained detector. A
    cleaned table of each cohort keeps one image of each group.

    Attributes:
        train, heldout, synthetic: a folder, a CSV (``image``, ``patient_id``) or a MONAI datalist; one at least. Of a
            group that spans several, the image in the first of them is kept.
        out: folder for the result.
        patient_pattern: regular expression that finds the patient in a relative path.
        near: look for near-duplicates as well; equal pixels alone take no search.
        quantile: level of the threshold: this share of images without a duplicate stay below it.
        size: image size for the search, pixels or voxels per axis.
        spacing: resample to this voxel size in mm before resizing (files with an affine only).
        channel: the one to take, from 0, of images with several channels that are no colours.
        allow_gaps: take DICOM series in which slices are missing.
        gallery: groups shown in the page.
        seed: of every random step.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show how far it is.
    """

    train: Source | None = None
    heldout: Source | None = None
    synthetic: Source | None = None
    out: Folder
    patient_pattern: PatientPattern | None = None
    near: Boolean = True
    quantile: Level = 0.99
    size: Size | None = None
    spacing: Spacing | None = None
    channel: Channel | None = None
    allow_gaps: Boolean = False
    gallery: Amount = 30
    seed: Seed = 0
    device: Device = "auto"
    workers: Workers | None = None
    progress: Boolean = True

    @model_validator(mode="after")
    def _some_cohort(self) -> Self:
        require(bool(self.cohort_options()), "name at least one cohort: train, heldout or synthetic")
        return self

    def cohort_options(self) -> dict[str, str]:
        """Source of each cohort that is named, by the name of its option."""
        named = {"train": self.train, "heldout": self.heldout, "synthetic": self.synthetic}
        return {name: source for name, source in named.items() if source is not None}

    def reading(self) -> Reading:
        """How images are read."""
        return Reading(channel=self.channel, allow_gaps=self.allow_gaps)
