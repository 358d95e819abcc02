# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo membership`` and ``monai-memo extract``."""

from __future__ import annotations

from typing import Annotated

from monai_memo.settings import (
    BatchSize,
    Boolean,
    Choice,
    Device,
    File,
    Folder,
    Number,
    PatientPattern,
    Quantity,
    Seed,
    Settings,
    Several,
    Share,
    Size,
    Source,
    Text,
    Whole,
    Workers,
)

Levels = Annotated[tuple[float, ...], Several(Number(0, 1, open_ends=True), 1, 50, rising=True, example="0.1,0.3")]
TOLD, UNTOLD = "told", "untold"
Name = Annotated[str, Text(200)]


class _OfAModel(Settings):
    """A model with its weights, and the two cohorts.

    Attributes:
        bundle: folder of the MONAI bundle whose weights might be shared.
        train: images that it was trained on (folder, CSV or datalist).
        heldout: images of other patients of the same source.
        out: folder for the result.
        audit: output folder of an audit of its samples, whose report gets a chapter and whose card a line.
        profile: a further config file of the bundle, such as ``small``.
        autoencoder_file, diffusion_file: weights, where they are not those that the bundle's config names.
        conditions: a model that was trained with conditions is ``told`` those of each image (columns of the same name
            in both tables), or asked ``untold``, which is a weaker attack.
        size: image size of the training, pixels or voxels per axis, where the bundle's config does not say it.
        patient_pattern: regular expression that finds the patient in a relative path.
        batch_size: images at once.
        seed: of every random step.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ...
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show how far it is.
    """

    bundle: Folder
    train: Source
    heldout: Source
    out: Folder
    audit: Folder | None = None
    profile: Name | None = None
    autoencoder_file: File | None = None
    diffusion_file: File | None = None
    conditions: Annotated[str, Choice(TOLD, UNTOLD)] = TOLD
    size: Size | None = None
    patient_pattern: PatientPattern | None = None
    batch_size: BatchSize = 16
    seed: Seed = 0
    device: Device = "auto"
    workers: Workers | None = None
    progress: Boolean = True

    def cohort_options(self) -> dict[str, str]:
        """Source of each cohort, by the name of its option."""
        return {"train": self.train, "heldout": self.heldout}


class MembershipSettings(_OfAModel):
    """Find out whether a model's weights betray who was in its training data.

    The model is asked how much noise it sees in images of training and of held-out patients. What comes out names and
    shows nobody, unless ``patients`` is asked for.

    Attributes:
        bundle: folder of the MONAI bundle whose weights might be shared.
        train: images that it was trained on (folder, CSV or datalist).
        heldout: images of other patients of the same source; 99 patients for a false positive rate of 1 %, 999 for
            0.1 %.
        out: folder for ``membership.json`` and ``membership.html``.
        audit: output folder of an audit of its samples, whose report gets a chapter and whose card a line.
        reference_bundle: bundle of a model of the same kind that was trained on neither cohort.
        reference_profile: a further config file of that bundle.
        reference_autoencoder_file, reference_diffusion_file: its weights, where its config does not name them.
        profile: a further config file of the bundle, such as ``small``.
        autoencoder_file, diffusion_file: weights, where they are not those that the bundle's config names.
        levels: shares of the timesteps at which noise is added.
        draws: of the noise, for each image and level.
        query_level: share of the timesteps of the one-query score.
        patients: also write ``membership.csv``, the scores of each patient by name.
        conditions: a model that was trained with conditions is ``told`` those of each image (columns of the same name
            in both tables), or asked ``untold``, which is a weaker attack.
        size: image size of the training, pixels or voxels per axis, where the bundle's config does not say it.
        patient_pattern: regular expression that finds the patient in a relative path.
        batch_size: images at once.
        seed: of every random step.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ...
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show how far it is.
    """

    reference_bundle: Folder | None = None
    reference_profile: Name | None = None
    reference_autoencoder_file: File | None = None
    reference_diffusion_file: File | None = None
    levels: Levels = (0.05, 0.1, 0.2, 0.4, 0.6)
    draws: Annotated[int, Whole(1, 1000)] = 4
    query_level: Share = 0.2
    patients: Boolean = False


class ExtractSettings(_OfAModel):
    """Search a model for its training images on purpose, more than samples can show.

    Images are started from noised training images, and drawn towards them; what comes back is looked up by the search
    of an audit. The same with held-out images is the control.

    Attributes:
        bundle: folder of the MONAI bundle whose weights might be shared.
        train: images that it was trained on (folder, CSV or datalist).
        heldout: images of other patients of the same source.
        detector: copy detector that suits the images, such as that of an audit (``detector.pt``).
        out: folder for ``extraction.json`` and ``extraction.html``.
        audit: output folder of an audit of its samples, whose report gets a chapter and whose card a line.
        profile: a further config file of the bundle, such as ``small``.
        autoencoder_file, diffusion_file: weights, where they are not those that the bundle's config names.
        targets: patients of each cohort that are aimed at, drawn at random; one image of each.
        levels: shares of the timesteps from which noised images are denoised.
        tries: for each target and level.
        pull: share of the way to its target that a sample is drawn at each step while noise outweighs image; 0 leaves
            guidance out.
        steps: of the sampler.
        conditions: a model that was trained with conditions is ``told`` those of each image (columns of the same name
            in both tables), or asked ``untold``, which is a weaker attack.
        size: image size of the training, pixels or voxels per axis, where the bundle's config does not say it.
        patient_pattern: regular expression that finds the patient in a relative path.
        batch_size: images at once.
        seed: of every random step.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ...
        workers: threads that read images, processes where there are many; one per core by default.
        progress: show how far it is.
    """

    detector: File
    targets: Quantity = 60
    levels: Levels = (0.5, 0.7, 0.85, 0.95)
    tries: Annotated[int, Whole(1, 1000)] = 2
    pull: Annotated[float, Number(0, 1)] = 0.5
    steps: Annotated[int, Whole(1, 100_000)] = 50
