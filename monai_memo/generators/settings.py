# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the keys of the generator bundles may be. Every key is optional here: the configs hold the defaults."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import model_validator

from monai_memo.generators.condition_columns import ConditionColumns
from monai_memo.settings import (
    Boolean,
    Choice,
    Device,
    Epochs,
    File,
    Flag,
    Folder,
    Kind,
    Number,
    PatientPattern,
    Quantity,
    Refused,
    Seed,
    Settings,
    Several,
    Share,
    Source,
    Spacing,
    Text,
    Whole,
    Workers,
    require,
)

FIRST_STAGES = ("autoencoder", "vqvae", "none")
SCHEDULERS = ("ddim", "ddpm", "pndm", "rflow")
AUGMENTATIONS = ("none", "flips", "flips and rotations")

Channels = Annotated[int, Whole(1, 65_536)]
Blocks = Annotated[int, Whole(1, 64)]
Batch = Annotated[int, Whole(1, 65_536)]
LearningRate = Annotated[float, Number(0, 1, open_ends=True)]
Weight = Annotated[float, Number(0, 1e6)]
Rate = Annotated[float, Number(0, 0.999)]
ChannelsByLevel = Annotated[tuple[int, ...], Several(Whole(1, 65_536), 1, 10, example="64,128")]
Limit = Annotated[float, Number(-1, 1)]
InferenceSteps = Annotated[int, Whole(1, 100_000)]
Threads = Annotated[int, Whole(0, 1024)]
Epsilon = Annotated[float, Number(0, 10_000, open_ends=True)]
Delta = Annotated[float, Number(0, 1, open_ends=True)]
Clip = Annotated[float, Number(0, 1e6, open_ends=True)]


class AugmentationLevel(Kind):
    """A level by name; True stands for flips and False for none."""

    @property
    def allowed(self) -> str:
        return f"{Choice(*AUGMENTATIONS).allowed}, or True or False"

    def read(self, value: Any) -> str | bool:
        try:
            return Choice(*AUGMENTATIONS).read(value)
        except Refused:
            return Flag().read(value)


class GeneratorSettings(Settings):
    """Keys of the generator bundles.

    Attributes:
        bundle_root, output_dir, model_dir, checkpoint_dir: folders.
        dataset_dir, heldout_dir: cohorts; without the latter, patients are held out from the former.
        heldout_fraction: share of the patients that is held out.
        split_by: what is kept together in the split.
        n_training_patients: trains on so many patients only.
        patient_pattern: regular expression that finds the patient in a relative path.
        remove_duplicates: leave images out that stand twice or nearly twice, before training.
        augmentation: of training images.
        autoencoder_file, diffusion_file, detector_file, perceptual_weights_file: weights.
        other_bundle: folder of a generator bundle made elsewhere.
        seed: of every random step.
        workers: threads that read images.
        progress: show progress bars.
        rank: of this process.
        device: to compute on.
        amp: mixed precision.
        spatial_dims: of the images.
        image_channels: of the images.
        image_size: pixels or voxels per axis.
        spacing: in mm.
        image_format: of samples.
        first_stage: what the diffusion model sees: latents of an autoencoder or of a VQ-VAE, or the images themselves.
        codebook_size: entries of the VQ-VAE's codebook.
        latent_channels, autoencoder_channels, diffusion_channels, discriminator_channels: of the networks.
        autoencoder_res_blocks, diffusion_res_blocks: per level.
        autoencoder_norm_groups, diffusion_norm_groups: they divide all channels.
        discriminator_layers: of the discriminator.
        autoencoder_batch_size, diffusion_batch_size, sampling_batch_size: images per step.
        autoencoder_steps_per_epoch, diffusion_steps_per_epoch: optimiser steps.
        autoencoder_epochs, diffusion_epochs: of the trainings.
        autoencoder_learning_rate, diffusion_learning_rate, discriminator_learning_rate: of the optimisers.
        kl_weight, perceptual_weight, adversarial_weight: of the autoencoder's loss.
        diffusion_attention: for each level.
        diffusion_head_channels: for each level; 0 without attention.
        dropout: share of the values dropped in each block of the diffusion model while it trains.
        weight_decay: of the diffusion model's optimiser, decoupled.
        ambient_above: share of the timesteps above which the loss knows noisy training images only.
        stop_patience: stop after so many validations without a lower held-out loss, and keep the weights of the lowest.
        privacy_epsilon, privacy_delta: budget of a training of the diffusion model by DP-SGD, for each image; without
            an epsilon it is trained as usual.
        privacy_clip: norm that the gradient of an image is clipped to there.
        conditions: columns of the training table that the diffusion model is told, or none: text becomes classes (an
            embedding), numbers are standardised (cross-attention).
        condition_dropout: share of the training images of which nothing is told, for guidance.
        guidance_scale: 1 draws what was learnt of the conditions, 0 forgets them, more exaggerates them.
        condition_table: CSV of the conditions of samples, a row each; without it they are drawn as the training images
            have them.
        ema_momentum: of the averaged weights.
        latent_variants: augmented latents of each image.
        num_train_timesteps: of the noise scheduler.
        scheduler: how noise is removed: ddim, ddpm or pndm, which sample the same models; or rflow, which trains
            another kind of model, a rectified flow.
        prediction_type: what the network predicts; a rectified flow always its velocity.
        beta_start, beta_end: of the noise schedule.
        num_inference_steps: of sampling, at most ``num_train_timesteps``.
        repel: share of unseen patients that may lie within the shields around training latents, which samples leave.
        repel_shields: nearest shields that push.
        dissimilarity: scale of the guidance away from the nearest training latent.
        reject_detector: copy detector; samples that it calls copies are drawn again.
        reject_attempts: at most, for each sample.
        n_samples: images that are drawn.
        scale_factor: of the latents.
        monitor_every: epochs between two measurements of the copy rate.
        monitor_samples: images of each measurement.
        verification: count copies as an audit does; ``False`` compares embeddings alone. By default on, except for a
            detector by the paper's recipe.
        keep_under, stop_above: copy rates at which weights are kept, and training stops.
        val_interval: epochs between two validations.
    """

    bundle_root: Folder | None = None
    output_dir: Folder | None = None
    model_dir: Folder | None = None
    checkpoint_dir: Folder | None = None
    dataset_dir: Source | None = None
    heldout_dir: Source | None = None
    heldout_fraction: Share | None = None
    split_by: Annotated[str, Text(40)] | None = None
    n_training_patients: Quantity | None = None
    patient_pattern: PatientPattern | None = None
    remove_duplicates: Boolean | None = None
    augmentation: Annotated[str | bool, AugmentationLevel()] | None = None
    autoencoder_file: File | None = None
    diffusion_file: File | None = None
    detector_file: File | None = None
    perceptual_weights_file: File | None = None
    other_bundle: Folder | None = None
    seed: Seed | None = None
    workers: Workers | None = None
    progress: Boolean | None = None
    rank: Threads | None = None
    device: Device | None = None
    amp: Boolean | None = None
    spatial_dims: Annotated[int, Whole(2, 3)] | None = None
    image_channels: Annotated[int, Whole(1, 3)] | None = None
    image_size: Annotated[tuple[int, ...], Several(Whole(8, 4096), 2, 3, example="64,64")] | None = None
    spacing: Spacing | None = None
    image_format: Annotated[str, Text(10)] | None = None
    first_stage: Annotated[str, Choice(*FIRST_STAGES)] | None = None
    codebook_size: Annotated[int, Whole(2, 1_000_000)] | None = None
    latent_channels: Channels | None = None
    autoencoder_channels: ChannelsByLevel | None = None
    autoencoder_res_blocks: Blocks | None = None
    autoencoder_norm_groups: Channels | None = None
    autoencoder_batch_size: Batch | None = None
    autoencoder_steps_per_epoch: Quantity | None = None
    autoencoder_epochs: Epochs | None = None
    autoencoder_learning_rate: LearningRate | None = None
    kl_weight: Weight | None = None
    perceptual_weight: Weight | None = None
    adversarial_weight: Weight | None = None
    discriminator_channels: Channels | None = None
    discriminator_layers: Blocks | None = None
    discriminator_learning_rate: LearningRate | None = None
    diffusion_channels: ChannelsByLevel | None = None
    diffusion_attention: Annotated[tuple[bool, ...], Several(Flag(), 1, 10, example="False,True")] | None = None
    diffusion_head_channels: Annotated[tuple[int, ...], Several(Whole(0, 65_536), 1, 10)] | None = None
    diffusion_res_blocks: Blocks | None = None
    diffusion_norm_groups: Channels | None = None
    diffusion_batch_size: Batch | None = None
    diffusion_steps_per_epoch: Quantity | None = None
    diffusion_epochs: Epochs | None = None
    diffusion_learning_rate: LearningRate | None = None
    dropout: Rate | None = None
    weight_decay: Rate | None = None
    ambient_above: Share | None = None
    stop_patience: Epochs | None = None
    privacy_epsilon: Epsilon | None = None
    privacy_delta: Delta | None = None
    privacy_clip: Clip | None = None
    conditions: Annotated[tuple[str, ...], ConditionColumns()] | None = None
    condition_dropout: Rate | None = None
    guidance_scale: Annotated[float, Number(0, 100)] | None = None
    condition_table: File | None = None
    ema_momentum: LearningRate | None = None
    latent_variants: Annotated[int, Whole(1, 1000)] | None = None
    num_train_timesteps: InferenceSteps | None = None
    scheduler: Annotated[str, Choice(*SCHEDULERS)] | None = None
    prediction_type: Annotated[str, Choice("epsilon", "v_prediction")] | None = None
    beta_start: LearningRate | None = None
    beta_end: LearningRate | None = None
    num_inference_steps: InferenceSteps | None = None
    sampling_batch_size: Batch | None = None
    repel: Share | None = None
    repel_shields: Blocks | None = None
    dissimilarity: Annotated[float, Number(0, 1e6, open_ends=True)] | None = None
    reject_detector: File | None = None
    reject_attempts: Annotated[int, Whole(1, 1000)] | None = None
    n_samples: Quantity | None = None
    scale_factor: Annotated[float, Number(1e-6, 1e6)] | None = None
    monitor_every: Epochs | None = None
    monitor_samples: Quantity | None = None
    verification: Boolean | None = None
    keep_under: Limit | None = None
    stop_above: Limit | None = None
    val_interval: Epochs | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        steps, of = self.num_inference_steps, self.num_train_timesteps
        require(
            steps is None or of is None or steps <= of,
            f"num_inference_steps must be at most num_train_timesteps ({of}), got {steps}",
        )
        start, end = self.beta_start, self.beta_end
        require(start is None or end is None or start < end, f"beta_start {start} must be less than beta_end {end}")
        dims, size = self.spatial_dims, self.image_size
        require(
            dims is None or size is None or len(size) == dims,
            f"image_size must have as many values as spatial_dims ({dims}), got {size}",
        )
        levels = {
            name: len(value)
            for name in ("diffusion_channels", "diffusion_attention", "diffusion_head_channels")
            if (value := getattr(self, name)) is not None
        }
        require(len(set(levels.values())) <= 1, f"{', '.join(levels)} must have one value for each level, got {levels}")
        require(
            self.repel is None or self.dissimilarity is None,
            "repel and dissimilarity both push samples away from training images: take one",
        )
        for switch in ("keep_under", "stop_above"):
            require(
                self.privacy_epsilon is None or getattr(self, switch) is None,
                f"{switch} decides by training images without noise, which privacy_epsilon does not cover: "
                "leave one out",
            )
        for switch in ("ambient_above", "repel", "dissimilarity"):
            require(
                self.scheduler != "rflow" or not getattr(self, switch),
                f"{switch} needs a noise schedule with betas, which scheduler rflow does not have: leave one out",
            )
        for part in ("autoencoder", "diffusion"):
            channels, groups = getattr(self, f"{part}_channels"), getattr(self, f"{part}_norm_groups")
            require(
                channels is None or groups is None or all(number % groups == 0 for number in channels),
                f"{part}_norm_groups ({groups}) must divide each of {part}_channels {channels}",
            )
        return self
