# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion model of principal components, with every switch of the bundles: for studies that a processor can do.

The autoencoder is linear and fixed: the principal components of all patients of the study, brought to variance 1. What
is trained is a small network on these numbers. Sampling, repellency, dissimilarity, rejection and the ambient loss are
those of the bundles, not copies of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.schedulers import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from monai_memo.detector.detector import Detector
from monai_memo.generators.ambient import WeightedInferer, training_batch, training_latents
from monai_memo.generators.batches import augmentation_views
from monai_memo.generators.clean_latent import CorrectedDiffusion
from monai_memo.generators.cohorts import GeneratorCohorts
from monai_memo.generators.dissimilarity import DissimilarityGuidance, nearness_limit
from monai_memo.generators.fast import PrincipalComponents
from monai_memo.generators.guarded import rejecting
from monai_memo.generators.guidance import ConditionalBatch, ConditionedItems, Guided
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.latents import Latents
from monai_memo.generators.private import most_of_a_patient
from monai_memo.generators.repellency import SparseRepellency, shield_radius
from monai_memo.sampling import TrainedGenerator
from monai_memo.sealing import fingerprint, is_sealed, load_torch, save_torch, write_sealed
from monai_memo.study.conditioning import Told
from monai_memo.study.memorizer import ClosedFormMemorizer
from monai_memo.study.pixel_training import epochs_of
from monai_memo.study.settings import PrincipalDiffusionSettings
from monai_memo.training.private import PRIVACY, PrivacyBudget, PrivateTraining

logger = logging.getLogger(__name__)

TIMESTEPS, FREQUENCIES, VARIANTS, VALIDATION_DRAWS = 1000, 16, 8, 8
EMBEDDED, UNTOLD = 64, 0.1  # numbers of a class; share of the images of which nothing is told, as in the bundles
FORMAT = 1  # raise it when the same training would come to have other weights


class PrincipalAutoencoder(nn.Module):
    """Principal components of images as latents of variance 1, in the place of an AutoencoderKL.

    Latents are ``(n, components, 1, 1)``.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1], of all patients of the study.
        components: at most so many.
    """

    def __init__(self, pixels: NDArray[np.floating], components: int) -> None:
        super().__init__()
        space = PrincipalComponents(pixels, components)
        self.shape = tuple(pixels.shape[1:])
        self.mean: Tensor
        self.axes: Tensor
        self.deviations: Tensor
        for name in ("mean", "axes", "deviations"):
            self.register_buffer(name, getattr(space, name).clone())
        self.latent_channels = len(self.deviations)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latents, and their standard deviations, which are 0."""
        latents = ((images.flatten(1) - self.mean) @ self.axes.T / self.deviations)[..., None, None]
        return latents, torch.zeros_like(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(n, channels, *spatial)``."""
        return (self.mean + (latents.flatten(1) * self.deviations) @ self.axes).view(-1, *self.shape)

    def decode_stage_2_outputs(self, latents: Tensor) -> Tensor:
        """What MONAI's inferer calls."""
        return self.decode(latents)

    def reconstruct(self, images: Tensor) -> Tensor:
        """What is left of images."""
        return self.decode(self.encode(images)[0])


class LatentNetwork(nn.Module):
    """Predicts velocities of latents ``(n, values, 1, 1)``.

    Args:
        values: of a latent.
        hidden: width.
        dropout: share of the hidden values that are dropped while it trains.
        classes: that it is told, the last of which stands for none; 0: it is told nothing.
    """

    def __init__(self, values: int, hidden: int, dropout: float = 0.0, classes: int = 0) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * 2 ** torch.linspace(0, 6, FREQUENCIES))
        self.classes: nn.Embedding | None
        self.register_module("classes", nn.Embedding(classes, EMBEDDED) if classes else None)
        sizes = [values + 2 * FREQUENCIES + (EMBEDDED if classes else 0), hidden, hidden, hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.SiLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, values))

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None, **_: Any
    ) -> Tensor:
        """As MONAI's diffusion models are called."""
        times = timesteps.float().expand(len(x)) if timesteps.numel() == 1 else timesteps.float()
        angles = (times / TIMESTEPS)[:, None] * self.frequencies
        parts = [x.flatten(1), angles.sin(), angles.cos()]
        if self.classes is not None:
            none = torch.full((len(x),), self.classes.num_embeddings - 1, device=x.device)
            parts.append(self.classes(none if class_labels is None else class_labels))
        found: Tensor = self.layers(torch.cat(parts, dim=1))
        return found.view_as(x)


def scheduler() -> DDIMScheduler:
    """Of training and sampling."""
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195,
        clip_sample=False, prediction_type="v_prediction",
    )  # fmt: skip


@dataclass(frozen=True)
class PrincipalTraining:
    """One training, and the generators that come of it.

    Attributes:
        autoencoder: of all patients of the study.
        training, heldout: pixels ``(n, channels, *spatial)`` in [0, 1].
        cohorts: of the same images, which rejection looks samples up in.
        augmentation: see ``generators.batches.augmentation_views``.
        steps: optimiser steps.
        seed: of weights, order, noise and augmentation.
        folder: for weights and searches.
        settings: of ``study.settings.PrincipalDiffusionSettings``.
        told: conditions of the training images; None: the generator is told nothing.
    """

    autoencoder: PrincipalAutoencoder
    training: NDArray[np.floating]
    heldout: NDArray[np.floating]
    cohorts: GeneratorCohorts
    augmentation: str
    steps: int
    seed: int
    folder: Path
    settings: Mapping[str, Any]
    told: Told | None = None

    def generator(self, memorizer: bool = False) -> TrainedGenerator:
        """Train, or read the same training, and put the switches on.

        Args:
            memorizer: the closed-form model of the training images in the place of the one that was trained.
        """
        asked = PrincipalDiffusionSettings(**self.settings)
        epochs_of(self.steps, asked.steps_per_epoch)
        autoencoder = self.autoencoder
        training, heldout = (self._latents(pixels) for pixels in (self.training, self.heldout))
        network: nn.Module
        network = ClosedFormMemorizer(training, scheduler()) if memorizer else self._trained(heldout, asked)
        if self.told is not None and not memorizer:
            network = Guided(network, self.told.code, self.told.guidance).eval()
        guided = network
        if asked.repel is not None:
            radius = shield_radius(training, heldout, asked.repel)
            network = CorrectedDiffusion(
                network, scheduler(), SparseRepellency(training, radius, asked.repel_shields)
            ).eval()
        elif asked.dissimilarity is not None:
            guidance = DissimilarityGuidance(training, nearness_limit(training, heldout), asked.dissimilarity)
            network = CorrectedDiffusion(network, scheduler(), guidance).eval()
        shape = (autoencoder.latent_channels, 1, 1)
        model = LatentDiffusion(
            autoencoder,
            network,
            scheduler(),
            1.0,
            shape,
            asked.num_inference_steps,
            50,  # type: ignore[arg-type]
        )
        if isinstance(guided, Guided):
            model.conditioned = guided  # under what corrects it
        if asked.reject_detector is None:
            return model
        detector = Detector.load(asked.reject_detector)
        return rejecting(model, detector, self.cohorts, self.folder / "search", asked.reject_attempts)

    def _latents(self, pixels: NDArray[np.floating]) -> Tensor:
        with torch.no_grad():
            return self.autoencoder.encode(torch.from_numpy(np.asarray(pixels, dtype=np.float32)))[0]

    def _variants(self) -> NDArray[np.float32]:
        """``(n, variants, 2, components, 1, 1)``: the images as they are, and augmented ones if asked for."""
        images = torch.from_numpy(np.asarray(self.training, dtype=np.float32))
        views, versions = augmentation_views(self.augmentation), [images]
        if views is not None:
            draws = torch.Generator().manual_seed(self.seed * 1_000_003 + 5)
            versions += [views(images, draws) for _ in range(VARIANTS - 1)]
        with torch.no_grad():
            encoded = [torch.stack(self.autoencoder.encode(version), dim=1) for version in versions]
        return torch.stack(encoded, dim=1).numpy()

    def _trained(self, heldout: Tensor, asked: PrincipalDiffusionSettings) -> LatentNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            classes = 0 if self.told is None else int(self.told.code.num_class_embeds or 0)
            network = LatentNetwork(self.autoencoder.latent_channels, asked.hidden, asked.dropout, classes)
            decides = [
                FORMAT, self.steps, self.seed, self.augmentation, asked.batch_size, asked.learning_rate,
                asked.weight_decay, asked.ambient_above, asked.stop_patience, asked.dropout, asked.steps_per_epoch,
            ]  # fmt: skip
            if asked.privacy_epsilon is not None:
                decides.append([asked.privacy_epsilon, asked.privacy_delta, asked.privacy_clip])
            arrays = [np.asarray(self.training), heldout.numpy()]
            arrays += [] if self.told is None else [self.told.inputs["class_labels"].numpy()]
            identity = fingerprint("principal diffusion", [*decides, network], arrays, packages=())
            path = self.folder / f"principal_{self.steps}.pt"
            if is_sealed(path, identity):
                network.load_state_dict(load_torch(path)["network"])
                return network.eval()
            private = self._private(asked)
            self._train(network, self._variants(), heldout, asked, private)
        content: dict[str, Any] = {"network": network.state_dict()}
        if private is not None:
            content[PRIVACY] = private.record()
            logger.info("%s", content[PRIVACY]["statement"])
        self.folder.mkdir(parents=True, exist_ok=True)
        write_sealed(path, lambda temporary: save_torch(temporary, content), identity)
        return network.eval()

    def _private(self, asked: PrincipalDiffusionSettings) -> PrivateTraining | None:
        """The privacy budget, if one is asked for. Its noise comes from the study's seed: units can be repeated."""
        if asked.privacy_epsilon is None:
            return None
        budget = PrivacyBudget(
            asked.privacy_epsilon, asked.privacy_delta, asked.privacy_clip, len(self.training), asked.batch_size,
            self.steps,
        )  # fmt: skip
        return PrivateTraining(
            budget, most_of_a_patient(self.cohorts.training), seed=self.seed * 1_000_003 + 11,
            not_covered=(
                "the principal components, which are of all patients of the study",
                "classes and counts that it was told" if self.told is not None else "",
                "the choice of settings",
            ),
        )  # fmt: skip

    def _train(
        self, network: LatentNetwork, values: NDArray[np.float32], heldout: Tensor, asked: PrincipalDiffusionSettings,
        private: PrivateTraining | None = None,
    ) -> None:  # fmt: skip
        noise, ambient = scheduler(), asked.ambient_above
        batches, inferer = training_batch(1.0, noise, ambient), WeightedInferer(noise)
        items: Any = training_latents(Latents(values, 1.0), ambient, self.seed)  # type: ignore[arg-type]
        if self.told is not None:
            batches = ConditionalBatch(batches, self.told.code, UNTOLD)  # type: ignore[assignment]
            items = ConditionedItems(items, self.told.inputs)
        n, variants = values.shape[:2]
        records = [items[(row, variant)] for row in range(n) for variant in range(variants)]
        known = {key: torch.stack([record[key] for record in records]) for key in records[0]}
        unseen = torch.stack([heldout, torch.zeros_like(heldout)], dim=1)
        optimizer = torch.optim.AdamW(network.parameters(), asked.learning_rate, weight_decay=asked.weight_decay)

        def loss_of(batch: dict[str, Tensor], prepare: Any) -> Tensor:
            inputs, target, _, further = prepare(batch)
            return functional.mse_loss(inferer(inputs, network, **further), target)

        def loss_of_rows(rows: Tensor, part: slice = slice(None)) -> Tensor:
            return loss_of({key: value[rows[part]] for key, value in known.items()}, batches)

        plainly = training_batch(1.0, noise, None)
        best, kept, waited = math.inf, None, 0
        network.train()
        for step in range(1, self.steps + 1):
            torch.manual_seed(self.seed * 1_000_003 + step)
            if private is not None:
                rows = private.versions(private.chosen(), variants)
                private.step(network, optimizer, len(rows), partial(loss_of_rows, rows))
            else:
                optimizer.zero_grad(set_to_none=True)
                loss_of_rows(torch.randint(len(records), (asked.batch_size,))).backward()
                optimizer.step()
            if asked.stop_patience is None or step % asked.steps_per_epoch:
                continue
            network.eval()
            torch.manual_seed(self.seed)  # the same noise at every validation
            with torch.no_grad():
                found = float(np.mean([float(loss_of({"image": unseen}, plainly)) for _ in range(VALIDATION_DRAWS)]))
            network.train()
            if found < best:
                best, waited = found, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
                continue
            waited += 1
            if waited >= asked.stop_patience:
                logger.info("stopped after %d steps: the held-out loss had stopped falling", step)
                break
        if kept is not None:
            network.load_state_dict(kept)
