# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What both commands begin with: the model, and the two cohorts as its training saw them."""

from __future__ import annotations

from collections.abc import Sequence
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
from monai_memo.generators.conditions import columns_of
from monai_memo.generators.weights import weights_sha256
from monai_memo.membership.attack import Group
from monai_memo.membership.denoiser import Denoiser, load_denoiser
from monai_memo.membership.settings import TOLD, ExtractSettings, MembershipSettings

FEWEST = 10  # patients of either cohort
PIXELS = "pixels"  # of patients, in the working folder: one of the parts that are removed at the end


@dataclass(frozen=True)
class ModelInputs:
    """A model and what it was trained on.

    Attributes:
        denoiser: the model.
        preprocessing: of its training, as far as known.
        training, heldout: prepared.
        device: that is computed on.
        told: whether a model that was trained with conditions is told those of each image.
    """

    denoiser: Denoiser
    preprocessing: Preprocessing
    training: PreparedCohort
    heldout: PreparedCohort
    device: str
    told: bool = True

    @property
    def skipped(self) -> int:
        """Images that could not be used."""
        return len(self.training.skipped) + len(self.heldout.skipped)

    def groups(self) -> tuple[Group, Group]:
        """Of training and held-out cohort, with the columns of their tables where the model is told them."""
        training, heldout = (
            Group(one.pixels, one.cohort.patient_ids, columns_of(one.cohort) if self.told else None)
            for one in (self.training, self.heldout)
        )
        return training, heldout

    @property
    def unheard(self) -> int:
        """Held-out images with conditions that no training image has, as far as the model is told any."""
        return self.denoiser.code.unheard(columns_of(self.heldout.cohort)) if self.told else 0

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
    if settings.conditions == TOLD:
        require_conditions(denoiser, cohorts, members="training")
    if settings.size is not None or known is None:
        known = guess_preprocessing(cohorts, settings.size)
    training, heldout = (prepare(one, known, work, settings.workers, settings.progress) for one in cohorts)
    return ModelInputs(denoiser, known, training, heldout, device, settings.conditions == TOLD)


def require_conditions(
    denoiser: Denoiser, cohorts: Sequence[Cohort], members: str | None = None, model: str = ""
) -> None:
    """Refuse cohorts that do not say what the model was told: a weaker attack in silence would pass for a safe model.

    Args:
        members: name of the cohort that the model was trained on.
        model: which one, for messages.

    Raises:
        ConfigurationError: a column that is not there or empty, or values that the training did not have.
    """
    for option, cohort in zip(("train", "heldout"), cohorts, strict=True):
        denoiser.told(columns_of(cohort), f"{model}--{option} {cohort.source}", cohort.name == members)


def described(denoiser: Denoiser, told: bool = True) -> dict[str, Any]:
    """A model, for a record.

    Args:
        told: whether it was told the conditions of each image, if it was trained with any.
    """
    model = denoiser.model
    known = None if model.conditioned is None else {
        "columns": len(model.conditioned.names), "told": told and bool(denoiser.code),
    }  # fmt: skip
    return {
        "predicts": denoiser.process, "timesteps": denoiser.steps, "latent_shape": list(model.latent_shape),
        "parameters": model.parameters, "weights_sha256": weights_sha256(model.diffusion),
        "first_stage_sha256": weights_sha256(model.autoencoder),
        "conditions": known,
    }  # fmt: skip
