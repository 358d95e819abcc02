# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo study``, and every key of the file that holds its grid (``study.grid`` reads it)."""

from __future__ import annotations

from numbers import Integral
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from monai_memo.generators.settings import (
    AUGMENTATIONS,
    Batch,
    Blocks,
    Channels,
    ChannelsByLevel,
    Clip,
    Delta,
    Epsilon,
    InferenceSteps,
    LearningRate,
    Rate,
    Weight,
)
from monai_memo.settings import (
    Boolean,
    Choice,
    Device,
    Epochs,
    File,
    Folder,
    Number,
    Quantity,
    Seed,
    Seeds,
    Settings,
    Several,
    Share,
    Source,
    Table,
    Text,
    Whole,
    Workers,
    require,
)


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
        workers: threads that read images, processes where there are many; one per core by default.
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


class Name(Text):
    """Text; YAML makes a number of a name such as 2024."""

    def read(self, value: Any) -> str:
        return super().read(str(value) if isinstance(value, Integral) and not isinstance(value, bool) else value)


Entries = Annotated[dict[str, Any], Table()]
Names = Annotated[str, Name(100)]


class GridSettings(Settings):
    """Keys of a study's file.

    Attributes:
        base: the run that all others are compared with.
        factors: levels by name of the factor.
        seeds: every run is done once for each.
        generators: by name.
        image_size: pixels or voxels per axis.
        further: runs beyond one factor at a time.
        n_samples: images drawn from each generator.
        heldout_patients: of the held-out cohort; by default all.
        detector_epochs: of the detector, where none is named.
        dataset, heldout, detector, autoencoder: sources.
        condition: column of the dataset's table with the class of each image, for the factor conditioning.
        seed: of detector, autoencoder and choice of held-out patients.
    """

    base: Entries
    factors: Entries
    seeds: Seeds
    generators: Entries
    image_size: Annotated[tuple[int, ...], Several(Whole(8, 1024), 2, 3, example="[64, 64]")]
    further: Annotated[tuple[dict[str, Any], ...], Several(Table(), 0, 1000)] = ()
    n_samples: Annotated[int, Whole(20, 1_000_000)] = 200
    heldout_patients: Quantity | None = None
    detector_epochs: Epochs | None = None
    dataset: Source | None = None
    heldout: Source | None = None
    detector: File | None = None
    autoencoder: File | None = None
    condition: Annotated[str, Name(100)] | None = None
    seed: Seed = 0


CONDITIONINGS = ("none", "class", "random", "unique")


class RunSettings(Settings):
    """Values of a run, which are the factors of a study. Those that are left out are not changed.

    Attributes:
        n_patients: training patients.
        augmentation: of training images.
        steps: optimiser steps.
        network: name of a size in the generator's entry.
        generator: name of an entry of the generators.
        conditioning: what the generator is told of its training images: none, class, random (the same labels,
            shuffled) or unique (one for each image).
        guidance: scale of classifier-free guidance.
    """

    # Not optional: "none" is an augmentation.
    n_patients: Quantity = 0
    augmentation: Annotated[str, Choice(*AUGMENTATIONS)] = ""
    steps: Annotated[int, Whole(1, 10_000_000)] = 0
    network: Names = ""
    generator: Names = ""
    conditioning: Annotated[str, Choice(*CONDITIONINGS)] = ""
    guidance: Annotated[float, Number(0, 100)] = 1.0


FACTORS = tuple(RunSettings.model_fields)
REQUIRED = tuple(name for name in FACTORS if name not in ("conditioning", "guidance"))  # of a base run
KINDS = ("latent_diffusion", "variational_autoencoder", "gan", "principal_diffusion")


class EntrySettings(Settings):
    """Keys of a generator's entry.

    Attributes:
        kind: of generator.
        settings: of its training.
        networks: further settings by name of the network size.
        bundle: folder of the bundle (latent_diffusion), relative to the study's file.
        profile: config file of the bundle that goes on top of its ``common``.
        base: values in which this generator's base run differs from that of the study.
    """

    kind: Annotated[str, Choice(*KINDS)]
    settings: Entries = Field(default_factory=dict)
    networks: Entries = Field(default_factory=dict)
    bundle: Folder | None = None
    profile: Names | None = None
    base: Entries = Field(default_factory=dict)


class VariationalAutoencoderSettings(Settings):
    """Settings of a variational autoencoder.

    Attributes:
        channels: by level; each halves the image.
        latent_size: numbers that an image is coded in.
        kl_weight: of the KL divergence.
        learning_rate: of the optimiser.
        batch_size: images per step.
        steps_per_epoch: optimiser steps between two checkpoints.
    """

    channels: ChannelsByLevel = (16, 32, 64, 64)
    latent_size: Channels = 32
    kl_weight: Weight = 1e-3
    learning_rate: LearningRate = 1e-3
    batch_size: Batch = 16
    steps_per_epoch: Quantity = 250


class GanSettings(Settings):
    """Settings of a GAN.

    Attributes:
        channels: of the generator by level; each doubles the image.
        latent_size: numbers that an image is made from.
        residual_units: of each level.
        discriminator_channels: by level; each halves the image.
        learning_rate, discriminator_learning_rate: of the optimisers.
        batch_size: images per step.
        steps_per_epoch: optimiser steps between two checkpoints.
    """

    channels: ChannelsByLevel = (64, 64, 32, 16)
    latent_size: Channels = 64
    residual_units: Annotated[int, Whole(0, 64)] = 0
    discriminator_channels: ChannelsByLevel = (16, 32, 64, 64)
    learning_rate: LearningRate = 2e-4
    discriminator_learning_rate: LearningRate = 2e-4
    batch_size: Batch = 16
    steps_per_epoch: Quantity = 250


class PrincipalDiffusionSettings(Settings):
    """Settings of a diffusion model of principal components (``study.principal``); switches as in the bundles.

    Attributes:
        components: of the images of all patients of the study.
        hidden: width of the network.
        learning_rate: of the optimiser.
        batch_size: images per step.
        steps_per_epoch: optimiser steps between two validations.
        num_inference_steps: of sampling.
        dropout: share of the hidden values dropped while it trains.
        weight_decay: decoupled.
        ambient_above: share of the timesteps above which the loss knows noisy training images only.
        stop_patience: stop after so many validations without a lower held-out loss, and keep the weights of the lowest.
        privacy_epsilon, privacy_delta: budget of a training by DP-SGD for each image; None trains without.
        privacy_clip: norm that the gradient of an image is clipped to there.
        repel: share of unseen patients that may lie within the shields around training latents.
        repel_shields: nearest shields that push.
        dissimilarity: scale of the guidance away from the nearest training latent.
        reject_detector: copy detector; samples that it calls copies are drawn again.
        reject_attempts: at most, for each sample.
    """

    components: Channels = 128
    hidden: Channels = 256
    learning_rate: LearningRate = 1e-3
    batch_size: Batch = 64
    steps_per_epoch: Quantity = 250
    num_inference_steps: InferenceSteps = 50
    dropout: Rate = 0.0
    weight_decay: Rate = 0.0
    ambient_above: Share | None = None
    stop_patience: Epochs | None = None
    privacy_epsilon: Epsilon | None = None
    privacy_delta: Delta = 1e-5
    privacy_clip: Clip = 1.0
    repel: Share | None = None
    repel_shields: Blocks = 1
    dissimilarity: Annotated[float, Number(0, 1e6, open_ends=True)] | None = None
    reject_detector: File | None = None
    reject_attempts: Annotated[int, Whole(1, 1000)] = 20

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        require(self.repel is None or self.dissimilarity is None, "repel and dissimilarity exclude one another")
        return self


PIXEL_SETTINGS: dict[str, type[Settings]] = {
    "variational_autoencoder": VariationalAutoencoderSettings,
    "gan": GanSettings,
    "principal_diffusion": PrincipalDiffusionSettings,
}
