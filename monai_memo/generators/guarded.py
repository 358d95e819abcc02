# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The switches of a bundle that make sampling copy less: repellency, dissimilarity guidance, rejection.

They compare samples with the training images, which therefore have to be there when samples are drawn. Nothing of them
is written to the samples' folder or the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_memo.data.cohort import Cohort
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.generators.bundle_model import load_bundle, read_bundle
from monai_memo.generators.clean_latent import CorrectedDiffusion, Correction
from monai_memo.generators.cohorts import GeneratorCohorts, GeneratorData, prepare_cohorts
from monai_memo.generators.dissimilarity import DissimilarityGuidance, nearness_limit
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.latents import encode_latents
from monai_memo.generators.private import tell_of_samples
from monai_memo.generators.rejection import RejectingGenerator
from monai_memo.generators.repellency import SparseRepellency, shield_radius
from monai_memo.generators.split_tables import HELDOUT, TRAINING
from monai_memo.metrics.verified import VerifiedCopyRate
from monai_memo.sealing import fingerprint
from monai_memo.settings.bundles import config_in_use

logger = logging.getLogger(__name__)

SWITCHES = ("repel", "dissimilarity", "reject_detector")
OF_SAMPLING = (
    *SWITCHES, "repel_shields", "reject_attempts", "num_inference_steps", "sampling_batch_size", "guidance_scale",
    "condition_table",
)  # fmt: skip
GUESSED = "$@bundle_root + '/data'"  # where a bundle looks for images that nobody named


def from_bundle(model: LatentDiffusion) -> LatentDiffusion | RejectingGenerator:
    """``guarded``, for a component of the bundle's config that is being parsed."""
    config = config_in_use()
    parser = ConfigParser(dict(config))
    if config.get("other_bundle", None) is None:
        tell_of_samples(parser.get_parsed_content("diffusion_file"), asked(config))
    return model if not asked(config) else guarded(model, parser)


def load_guarded(
    folder: str | Path,
    num_inference_steps: int = 50,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    profile: str | None = None,
    **overrides: Any,
) -> LatentDiffusion | RejectingGenerator:
    """``load_bundle``, with the switches that its config, or an override, turns on."""
    model = load_bundle(folder, num_inference_steps, batch_size, device, profile, **overrides)
    return guarded(model, read_bundle(folder, profile, **overrides))


def asked(config: Any) -> list[str]:
    """Which of the switches are on."""
    return [name for name in SWITCHES if config.get(name, None)]


def guarded(model: LatentDiffusion, config: ConfigParser) -> LatentDiffusion | RejectingGenerator:
    """The model with what the config asks for; as it is where that is nothing.

    Args:
        model: as it was trained.
        config: of its bundle.

    Raises:
        ConfigurationError: switches without the images that they need, or two ways to correct at once.
    """
    switches = asked(config)
    if not switches:
        return model
    if "repel" in switches and "dissimilarity" in switches:
        raise ConfigurationError("repel and dissimilarity both push samples away from training images: take one")
    cohorts = cohorts_of(config)
    folder = Path(str(config.get_parsed_content("diffusion_file"))).parent / "guards"
    if switches != ["reject_detector"]:
        preprocessing = config.get_parsed_content("preprocessing")
        data = prepare_cohorts(cohorts, preprocessing, folder, config.get_parsed_content("workers"), progress=False)
        training, heldout = _latents(model, data, folder)
        correction = _correction(config, switches[0], training, heldout).to(model.device)
        model.diffusion = CorrectedDiffusion(model.diffusion, model.scheduler, correction).eval()  # type: ignore[assignment]
    if "reject_detector" not in switches:
        return model
    detector = Detector.load(config.get_parsed_content("reject_detector"))
    attempts = int(config.get_parsed_content("reject_attempts"))
    return rejecting(model, detector, cohorts, folder / "search", attempts, model.device)


def rejecting(
    model: LatentDiffusion, detector: Detector, cohorts: GeneratorCohorts, folder: Path, attempts: int,
    device: str | torch.device = "cpu",
) -> RejectingGenerator:  # fmt: skip
    """A generator whose copies, by the search of an audit and its threshold, are drawn again.

    The threshold is the audit's for held-out images as they are. Soft samples may lie above it and still be told from
    copies by an audit: they are rejected all the same.
    """
    metric = VerifiedCopyRate(detector, cohorts.training, cohorts.heldout, folder, device, progress=False)
    found = metric.threshold()
    images = [[image.image_id for image in cohort.images] for cohort in (cohorts.training, cohorts.heldout)]
    logger.info("samples above a similarity of %.3f are drawn again", found)
    return RejectingGenerator(
        model, metric.similarity_of, found, attempts, fingerprint("rejection", [detector.sha256, images], packages=())
    )


def cohorts_of(config: ConfigParser) -> GeneratorCohorts:
    """What a generator was trained on: named images, or else the tables that its training left beside the weights.

    Raises:
        ConfigurationError: neither.
    """
    if config["dataset_dir"] != GUESSED:
        found: GeneratorCohorts = config.get_parsed_content("cohorts")
        return found
    folder = Path(str(config.get_parsed_content("diffusion_file"))).parent
    tables = folder / TRAINING, folder / HELDOUT
    if not all(table.is_file() for table in tables):
        raise ConfigurationError(
            f"{', '.join(asked(config))} compares samples with the images of the training: {folder} has no {TRAINING} "
            f"and {HELDOUT}. Name them with dataset_dir and heldout_dir."
        )
    return GeneratorCohorts(Cohort.from_source(tables[0], "training"), Cohort.from_source(tables[1], "heldout"))


def _latents(model: LatentDiffusion, data: GeneratorData, folder: Path) -> Sequence[Tensor]:
    """Means of both cohorts' latents, scaled as the diffusion model sees them."""
    both = []
    for name, prepared in (("training", data.training), ("heldout", data.heldout)):
        found = encode_latents(
            prepared.pixels, model.autoencoder, folder, name, model.latent_shape,
            batch_size=model.batch_size, device=model.device, progress=False,
        )  # fmt: skip
        both.append(torch.from_numpy(np.asarray(found.values[:, 0, 0], dtype=np.float32)) * model.scale_factor)
    return both


def _correction(config: ConfigParser, switch: str, training: Tensor, heldout: Tensor) -> Correction:
    value = float(config.get_parsed_content(switch))
    if switch == "dissimilarity":
        return DissimilarityGuidance(training, nearness_limit(training, heldout), value)
    radius = shield_radius(training, heldout, value)
    logger.info("shields of radius %.3f around %d training latents", radius, len(training))
    return SparseRepellency(training, radius, int(config.get_parsed_content("repel_shields")))
