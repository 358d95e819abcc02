# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What both commands begin with: the model, and the two cohorts as its training saw them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_memo.audit.run import resolve_device
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.errors import CohortError
from monai_memo.generators.weights import weights_sha256
from monai_memo.membership.denoiser import Denoiser, load_denoiser
from monai_memo.membership.settings import ExtractSettings, MembershipSettings

FEWEST = 10  # patients of either cohort


@dataclass(frozen=True)
class ModelInputs:
    """A model and what it was trained on.

    Attributes:
        denoiser: the model.
        preprocessing: of its training, as far as known.
        training, heldout: prepared.
        device: that is computed on.
    """

    denoiser: Denoiser
    preprocessing: Preprocessing
    training: PreparedCohort
    heldout: PreparedCohort
    device: str

    @property
    def skipped(self) -> int:
        """Images that could not be used."""
        return len(self.training.skipped) + len(self.heldout.skipped)

    def cohorts(self) -> dict[str, dict[str, Any]]:
        """Counts and hashes, for a record."""
        return {
            name: {
                "images": len(one.cohort), "patients": one.cohort.n_patients,
                "patients_known": one.cohort.patients_known, "skipped": len(one.skipped),
                "content_sha256": one.content_sha256,
            }
            for name, one in (("training", self.training), ("heldout", self.heldout))
        }  # fmt: skip


def read_inputs(settings: MembershipSettings | ExtractSettings, work: Path) -> ModelInputs:
    """Load the model first, which takes seconds, then read the images.

    Raises:
        MemoError: no model with weights, cohorts that cannot be read or share patients, or too few patients.
    """
    require_sources(settings.cohort_options())
    device = resolve_device(settings.device)
    denoiser, known = load_denoiser(
        settings.bundle, settings.profile, device, settings.batch_size,
        autoencoder_file=settings.autoencoder_file, diffusion_file=settings.diffusion_file,
        num_inference_steps=settings.steps if isinstance(settings, ExtractSettings) else None,
    )  # fmt: skip
    cohorts = [
        Cohort.from_source(source, name, settings.patient_pattern)
        for name, source in (("training", settings.train), ("heldout", settings.heldout))
    ]
    check_overlap(cohorts)
    for option, cohort in zip(("train", "heldout"), cohorts, strict=True):
        if cohort.n_patients < FEWEST:
            raise CohortError(
                f"--{option} {cohort.source} has {cohort.n_patients} patients: {FEWEST} at least are needed to tell "
                "one cohort from another"
            )
    if settings.size is not None or known is None:
        known = guess_preprocessing(cohorts, settings.size)
    training, heldout = (prepare(one, known, work, settings.workers, settings.progress) for one in cohorts)
    return ModelInputs(denoiser, known, training, heldout, device)


def described(denoiser: Denoiser) -> dict[str, Any]:
    """A model, for a record."""
    model = denoiser.model
    return {
        "predicts": denoiser.process, "timesteps": denoiser.steps, "latent_shape": list(model.latent_shape),
        "parameters": model.parameters, "weights_sha256": weights_sha256(model.diffusion),
        "first_stage_sha256": weights_sha256(model.autoencoder),
    }  # fmt: skip
