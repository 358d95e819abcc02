# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Generators: latent diffusion models (training, sampling, evaluation), and whatever else draws images for seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.generators.anything import load_generator as load_generator
    from monai_memo.generators.autoencoder_losses import AutoencoderObjective as AutoencoderObjective
    from monai_memo.generators.autoencoder_trainer import AutoencoderTrainer as AutoencoderTrainer
    from monai_memo.generators.bundle_model import assemble as assemble
    from monai_memo.generators.bundle_model import load_bundle as load_bundle
    from monai_memo.generators.cohorts import GeneratorCohorts as GeneratorCohorts
    from monai_memo.generators.cohorts import prepare_cohorts as prepare_cohorts
    from monai_memo.generators.cohorts import split_cohorts as split_cohorts
    from monai_memo.generators.diffusers import DiffusersGenerator as DiffusersGenerator
    from monai_memo.generators.evaluation import GeneratorEvaluation as GeneratorEvaluation
    from monai_memo.generators.folder import FolderGenerator as FolderGenerator
    from monai_memo.generators.latent_diffusion import LatentDiffusion as LatentDiffusion
    from monai_memo.generators.latent_diffusion import sample_seeds as sample_seeds
    from monai_memo.generators.latent_diffusion import starting_noise as starting_noise
    from monai_memo.generators.latents import Latents as Latents
    from monai_memo.generators.latents import encode_latents as encode_latents
    from monai_memo.generators.latents import latent_shape as latent_shape
    from monai_memo.generators.monitoring import CopyRateHandlers as CopyRateHandlers
    from monai_memo.generators.sampler import Sampler as Sampler
    from monai_memo.generators.saving import WeightsSaver as WeightsSaver
    from monai_memo.generators.scores import distribution_distances as distribution_distances
    from monai_memo.generators.scores import diversity as diversity
    from monai_memo.generators.scores import reconstruction_scores as reconstruction_scores
    from monai_memo.generators.subvolumes import cut_subvolumes as cut_subvolumes
    from monai_memo.generators.torchscript import TorchScriptGenerator as TorchScriptGenerator
    from monai_memo.generators.weights import load_weights as load_weights
    from monai_memo.generators.weights import save_weights as save_weights
    from monai_memo.sampling import Generator as Generator
    from monai_memo.sampling import as_generator as as_generator

_MODULES = {
    "Generator": "monai_memo.sampling",
    "as_generator": "monai_memo.sampling",
    "AutoencoderObjective": "monai_memo.generators.autoencoder_losses",
    "AutoencoderTrainer": "monai_memo.generators.autoencoder_trainer",
    "CopyRateHandlers": "monai_memo.generators.monitoring",
    "DiffusersGenerator": "monai_memo.generators.diffusers",
    "FolderGenerator": "monai_memo.generators.folder",
    "GeneratorCohorts": "monai_memo.generators.cohorts",
    "GeneratorEvaluation": "monai_memo.generators.evaluation",
    "LatentDiffusion": "monai_memo.generators.latent_diffusion",
    "Latents": "monai_memo.generators.latents",
    "Sampler": "monai_memo.generators.sampler",
    "TorchScriptGenerator": "monai_memo.generators.torchscript",
    "WeightsSaver": "monai_memo.generators.saving",
    "assemble": "monai_memo.generators.bundle_model",
    "cut_subvolumes": "monai_memo.generators.subvolumes",
    "distribution_distances": "monai_memo.generators.scores",
    "diversity": "monai_memo.generators.scores",
    "encode_latents": "monai_memo.generators.latents",
    "latent_shape": "monai_memo.generators.latents",
    "load_bundle": "monai_memo.generators.bundle_model",
    "load_generator": "monai_memo.generators.anything",
    "load_weights": "monai_memo.generators.weights",
    "prepare_cohorts": "monai_memo.generators.cohorts",
    "reconstruction_scores": "monai_memo.generators.scores",
    "sample_seeds": "monai_memo.generators.latent_diffusion",
    "save_weights": "monai_memo.generators.weights",
    "split_cohorts": "monai_memo.generators.cohorts",
    "starting_noise": "monai_memo.generators.latent_diffusion",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)
