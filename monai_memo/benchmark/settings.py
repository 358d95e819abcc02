# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo evaluate``, ``benchmark``, ``planted-audit`` and ``coverage``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from monai_memo.audit.configuration import AuditOptions
from monai_memo.settings import (
    BatchSize,
    Boolean,
    Device,
    Epochs,
    File,
    Folder,
    Number,
    PatientPattern,
    Quantity,
    RecipeName,
    Seed,
    Seeds,
    Settings,
    Several,
    Share,
    Size,
    Source,
    Spacing,
    Steps,
    Text,
    Whole,
    Workers,
    require,
)

Kinds = Annotated[tuple[str, ...], Several(Text(40), 1, 50, example="noise,flip")]


class EvaluationSettings(Settings):
    """Plant copies of training images, look them up in the whole training cohort, and score them against negatives.

    Attributes:
        train: training cohort (folder, CSV or datalist).
        negatives: images of patients that are not in the training cohort; 1,000 or more allow a rate of 0.1 %.
        out: folder for ``evaluation.json`` and ``evaluation.md``.
        detector: file of a trained detector, or the name of a ready one (chest_xray, hippocampus_mri); by default one
            is trained.
        recipe, epochs, size, spacing: for training a detector, as in an audit.
        verification: score by verified matches, as an audit does; ``False`` scores by embeddings alone, which is
            quicker and tells what the network does. By default on, except for the paper's recipe.
        per_kind: planted copies of each kind.
        kinds: kinds of ``data.planting``; all by default.
        patient_pattern: regular expression that finds the patient in a relative path.
        allow_overlap: go on although patients or files stand in both cohorts.
        seed: of every random step.
        device: ``"auto"`` is a GPU if there is one.
        batch_size: images per forward pass of the encoder.
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show progress bars.
    """

    train: Source
    negatives: Source
    out: Folder
    detector: File | None = None
    recipe: RecipeName = "default"
    epochs: Epochs | None = None
    size: Size | None = None
    spacing: Spacing | None = None
    verification: Boolean | None = None
    per_kind: Quantity = 200
    kinds: Kinds | None = None
    patient_pattern: PatientPattern | None = None
    allow_overlap: Boolean = False
    seed: Seed = 0
    device: Device = "auto"
    batch_size: BatchSize = 64
    workers: Workers | None = None
    progress: Boolean = True

    @model_validator(mode="after")
    def _known_kinds(self) -> Self:
        from monai_memo.data.planting import KINDS

        unknown = sorted(set(self.kinds or ()) - set(KINDS))
        require(not unknown, f"kinds must be among {', '.join(KINDS)}, got {', '.join(unknown)}")
        return self


class BenchmarkSettings(Settings):
    """Plant copies at every strength, and look them and unseen patients up with every detector.

    Attributes:
        train: training cohort (folder, CSV or datalist).
        negatives: images of patients that are not in the training cohort; 1,000 or more allow a rate of 0.1 %.
        out: folder for ``benchmark.json``, ``benchmark.md``, ``scores.npz`` and ``curves.png``.
        heldout: further unseen patients that set tau, as in an audit; by default half of the negatives do.
        detector: file of a trained detector, or the name of a ready one (chest_xray, hippocampus_mri); by default one
            is trained on the training cohort.
        epochs, size, spacing: for training a detector, as in an audit.
        paper_epochs: epochs of the paper's recipe (200 in the paper); 0 leaves that baseline out.
        paper_detector: file of a detector by the paper's recipe, instead of training one.
        baselines: compare with pixel correlation, SSIM, squared error, a random network and, for 2D images, what the
            packages of the extra ``baselines`` offer (perceptual hash, SIFT keypoints).
        generator_steps: of the small latent diffusion model behind the kinds ``round_trip`` and ``denoising``
            (autoencoder; the diffusion model takes 5 / 3 as many); 0 leaves them out.
        per_level: planted copies of each kind and strength.
        kinds: kinds of ``benchmark.planted``; all by default.
        source_factor: how many times larger than the detector's images those are that copies are planted in.
        patient_pattern: regular expression that finds the patient in a relative path.
        allow_overlap: go on although patients or files stand in two cohorts.
        seed: of every random step.
        device: ``"auto"`` is a GPU if there is one.
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show progress bars.
    """

    train: Source
    negatives: Source
    out: Folder
    heldout: Source | None = None
    detector: File | None = None
    epochs: Epochs | None = None
    size: Size | None = None
    spacing: Spacing | None = None
    paper_epochs: Annotated[int, Whole(0, 100_000)] = 0
    paper_detector: File | None = None
    baselines: Boolean = True
    generator_steps: Steps = 0
    per_level: Annotated[int, Whole(2, 100_000)] = 40
    kinds: Kinds | None = None
    source_factor: Annotated[float, Number(1, 8)] = 2.0
    patient_pattern: PatientPattern | None = None
    allow_overlap: Boolean = False
    seed: Seed = 0
    device: Device = "auto"
    workers: Workers | None = None
    progress: Boolean = True

    @model_validator(mode="after")
    def _known_kinds(self) -> Self:
        if self.kinds:
            from monai_memo.benchmark.planted import GENERATED
            from monai_memo.data.ladder import kinds_of

            known = {**kinds_of(2), **kinds_of(3), **(GENERATED if self.generator_steps else {})}
            unknown = sorted(set(self.kinds) - set(known))
            require(not unknown, f"kinds must be among {', '.join(known)}, got {', '.join(unknown)}")
        return self


class PlantedAuditSettings(AuditOptions):
    """Run one audit with planted copies per seed; write ``planted_audit.json`` and ``planted_audit.md``.

    Attributes:
        cohort: real images with patient ids (CSV or datalist).
        out: folder; each seed has its own below it.
        copy_share: share of planted copies in the synthetic cohort.
        shares: share of patients in the training, held-out, novel and unseen part; at most 1 together.
        seeds: one audit with a split, plants and detector of its own for each.
        detectors: folder of an earlier run with the same cohort, shares and seeds, whose detectors are used again.
        planting_size: pixels or voxels per axis at which copies are planted (default 224 in 2D, 48 in 3D).
        patient_pattern: regular expression that finds the patient in a relative path, for the split.
    """

    cohort: Source
    out: Folder
    copy_share: Share = 0.3
    shares: Annotated[tuple[float, ...], Several(Number(0, 1, open_ends=True), 4, 4, example="0.4,0.25,0.15,0.2")] = (
        0.4,
        0.25,
        0.15,
        0.2,
    )
    seeds: Seeds = (0, 1, 2)
    planting_size: Size | None = None
    detectors: Folder | None = None
    patient_pattern: PatientPattern | None = None

    @model_validator(mode="after")
    def _parts_of_one_cohort(self) -> Self:
        require(sum(self.shares) <= 1 + 1e-9, f"shares must add up to at most 1, got {sum(self.shares):g}")
        require(
            self.detector is None or self.detectors is None,
            "detector and detectors are two ways to say the same: leave one out",
        )
        return self


class CoverageSettings(Settings):
    """Write ``coverage.json`` and ``coverage.md``: floors of both calibrations, coverage of the intervals.

    Attributes:
        out: folder.
        audits: simulated audits per row of the coverage table; 300 or more fix a coverage to about 1 %.
        seed: of the simulation.
        progress: show progress bars.
    """

    out: Folder
    audits: Annotated[int, Whole(1, 100_000)] = 400
    seed: Seed = 0
    progress: Boolean = True
