# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo twins``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from monai_memo.settings import (
    Boolean,
    Choice,
    Device,
    File,
    Folder,
    PatientPattern,
    Quantity,
    Seed,
    Settings,
    Several,
    Source,
    Whole,
    Workers,
    require,
)

GENERATORS = ("memorizer", "gaussian", "principal_diffusion", "latent_diffusion", "variational_autoencoder", "gan")
TRAINED = GENERATORS[2:]


class TwinSettings(Settings):
    """Train generators on two halves of the patients: what samples of one half show against the other is no copying.

    Attributes:
        train: patients that are split in halves (folder, CSV or datalist).
        heldout: images of other patients, seen by no generator.
        detector: copy detector that suits the images.
        out: folder for ``twins.json``, ``twins.md`` and what is kept of each training.
        generators: which kinds are trained.
        steps: optimiser steps at which the trained ones are halted and sampled.
        patients: in each half; by default half of all.
        splits: ways to split the patients.
        samples: drawn from each generator of each half.
        baselines: look samples up by older methods as well.
        paper_detector: file of a detector by the paper's recipe, looked up with as well.
        patient_pattern: regular expression that finds the patient in a file's path.
        seed: of splits, trainings and samples.
        workers: threads that read images, processes where there are many; one per core by default.
        device: that generators are trained on and samples looked up on: ``"auto"`` (a GPU if there is one), ``"cpu"``,
            ``"cuda"``, ...
        progress: show progress bars.
    """

    train: Source
    heldout: Source
    detector: File
    out: Folder
    generators: Annotated[tuple[str, ...], Several(Choice(*GENERATORS), 1, len(GENERATORS), example="gaussian,gan")] = (
        "memorizer", "gaussian", "principal_diffusion",
    )  # fmt: skip
    steps: Annotated[tuple[int, ...], Several(Whole(1, 10_000_000), 1, 100, rising=True, example="1000,4000")] = (
        1000,
        4000,
        16000,
    )
    patients: Quantity | None = None
    splits: Quantity = 3
    samples: Annotated[int, Whole(10, 1_000_000)] = 100
    baselines: Boolean = True
    paper_detector: File | None = None
    patient_pattern: PatientPattern | None = None
    seed: Seed = 0
    workers: Workers | None = None
    device: Device = "auto"
    progress: Boolean = True

    @model_validator(mode="after")
    def _once(self) -> Self:
        twice = sorted({kind for kind in self.generators if self.generators.count(kind) > 1})
        require(not twice, f"generators must be named once, got {', '.join(twice)} again")
        return self
