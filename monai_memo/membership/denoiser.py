# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A diffusion model as somebody sees it who has its weights: which noise does it think an image holds?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.data.columns import given
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.bundle_model import config_file, load_bundle, read_bundle
from monai_memo.generators.conditions import ConditionCode
from monai_memo.generators.first_stage import moments
from monai_memo.generators.guidance import Guided, at_scale
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.schedulers import RECTIFIED, process_of

FEWEST_STEPS = 2  # of a sampler that is not asked to sample
KNOWN = ("epsilon", "v_prediction", "sample", RECTIFIED)
INSTEAD = (
    "Of a generator that only draws images (a function, a folder, a GAN, a pipeline of diffusers, a TorchScript file) "
    "the losses are not at hand: audit its samples, monai-memo audit, whose reference control tests whether they lie "
    "nearer to training than to held-out patients"
)
UNTOLD = "or take the weaker attack with --conditions untold"


class Denoiser:
    """The weights of a latent diffusion model, asked for noise instead of images.

    All of it happens in the latents that the model was trained on (means of the first stage, scaled).

    Args:
        model: with networks; what draws samples alone will not do.

    Raises:
        ConfigurationError: nothing with networks and a noise scheduler.

    .. versionadded:: 0.2.0
    """

    def __init__(self, model: LatentDiffusion) -> None:
        if not isinstance(model, LatentDiffusion):
            raise ConfigurationError(
                f"membership inference needs the weights of a diffusion model, got {type(model).__name__}. {INSTEAD}"
            )
        self.model, self.process = model, process_of(model.scheduler)
        if self.process not in KNOWN:
            raise ConfigurationError(f"prediction_type must be one of {', '.join(KNOWN)}, got {self.process!r}")
        self.steps = int(model.scheduler.num_train_timesteps)

    @property
    def code(self) -> ConditionCode:
        """The conditions of its training, as far as they can be told of real images."""
        return self.model.conditioned.code if isinstance(self.model.conditioned, Guided) else ConditionCode()

    def told(self, rows: Sequence[Mapping[str, str]], source: str, strict: bool = True) -> dict[str, Tensor]:
        """What the network takes for images with these conditions; empty for a model without conditions.

        Args:
            rows: of each image, the columns of its table.
            source: of the images, for messages.
            strict: these are its training images: refuse what none of them had. Of others such a class counts as not
                told.

        Raises:
            ConfigurationError: a condition that no image has, or a value that is none.
        """
        absent = [name for name in self.code.names if not any(given(row.get(name)) for row in rows)]
        if absent:
            raise ConfigurationError(
                f"{source}: no image has {' or '.join(absent)}, which the model was told in its training: add it to "
                f"the table, {UNTOLD}"
            )
        try:
            return self.code.encoded(rows, strict)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{source}: {error}. Write it as the table of the training does, {UNTOLD}"
            ) from error

    def latents(self, images: NDArray[np.floating]) -> Tensor:
        """``(n, channels, *spatial)`` in [0, 1] to scaled means of their latents."""

        def encode(part: Tensor) -> Tensor:
            found = moments(self.model.autoencoder, part)[0]
            if tuple(found.shape[1:]) != self.model.latent_shape:
                raise GeneratorError(
                    f"the first stage gives latents of {tuple(found.shape[1:])}, latent_shape is "
                    f"{self.model.latent_shape}: the images have another size than those of the training (--size)"
                )
            return found * self.model.scale_factor

        return self._in_batches([torch.from_numpy(np.asarray(images, dtype=np.float32))], encode)

    def level(self, share: float) -> int:
        """The timestep at this share of all."""
        return min(round(share * self.steps), self.steps - 1)

    def noisy(self, latents: Tensor, noise: Tensor, level: int) -> Tensor:
        """Latents with noise, as in training."""
        times = torch.full((len(latents),), level)
        mixed: Tensor = self.model.scheduler.add_noise(latents, noise, times)
        return mixed

    def noise_in(self, noisy: Tensor, level: int, told: Mapping[str, Tensor] | None = None) -> Tensor:
        """The noise that the model takes noisy latents to hold, whatever it was trained to predict.

        Args:
            told: see ``told``; None tells nothing.
        """
        keep, share = self._shares(level)
        conditioned, names = self.model.conditioned, list(told or {})

        def predict(part: Tensor, *rows: Tensor) -> Tensor:
            times = torch.full((len(part),), level, device=part.device)
            network, inputs = self.model.diffusion, dict(zip(names, rows, strict=True))
            if isinstance(conditioned, Guided):  # as in training: without guidance
                network = conditioned.network
                inputs = inputs or {
                    name: row.to(part.device) for name, row in conditioned.code.untold(len(part)).items()
                }
            elif conditioned is not None:
                conditioned.choose(None, range(len(part)), [0] * len(part))
            output: Tensor = network(part, timesteps=times, **inputs)
            if self.process == "epsilon":
                return output
            if self.process == "v_prediction":
                return keep * output + share * part
            if self.process == "sample":
                return (part - keep * output) / share
            return part - keep * output  # MONAI's rectified flow learns image minus noise

        return self._in_batches([noisy, *(told or {}).values()], predict)

    def _shares(self, level: int) -> tuple[float, float]:
        """Of image and noise in what ``noisy`` gives."""
        if self.process == RECTIFIED:
            return 1 - level / self.steps, level / self.steps
        alpha = float(torch.as_tensor(self.model.scheduler.alphas_cumprod)[level])
        return alpha**0.5, (1 - alpha) ** 0.5

    def _in_batches(self, tensors: Sequence[Tensor], make: Callable[..., Tensor]) -> Tensor:
        """On the model's device, without gradients, and both networks afterwards as they were before."""
        model, blocks = self.model, []
        networks = (model.autoencoder, model.diffusion)
        modes = [network.training for network in networks]
        for network in networks:
            network.to(model.device).eval()
        with torch.no_grad():
            for parts in zip(*(tensor.split(model.batch_size) for tensor in tensors), strict=True):
                blocks.append(make(*(part.to(model.device) for part in parts)).float().cpu())
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
        return torch.cat(blocks) if blocks else torch.empty((0, *model.latent_shape))


def load_denoiser(
    folder: str | Path,
    profile: str | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 16,
    option: str = "bundle",
    **overrides: Any,
) -> tuple[Denoiser, Preprocessing | None]:
    """The model of a bundle without the switches of its sampling, and how its training images were prepared.

    Args:
        folder: of a bundle (``configs/inference.json`` or ``.yaml``).
        profile: name of a further config file, such as ``"small"``.
        option: of the command, for messages.
        overrides: config values by id, such as ``diffusion_file``; None leaves a value as it is.

    Returns:
        The preprocessing is None where the bundle's config does not name it.

    Raises:
        MemoError: no bundle, no latent diffusion model, or weights that do not fit.
    """
    if not config_file(folder, "inference").is_file():
        raise ConfigurationError(
            f"--{option} {folder} is no bundle: there is no configs/inference.json. Membership inference needs the "
            f"weights of a diffusion model. {INSTEAD}"
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        asked = {"num_inference_steps": FEWEST_STEPS, **given}
        model = load_bundle(folder, batch_size=batch_size, device=device, profile=profile, **asked)
    except GeneratorError as error:
        if "no latent diffusion model" not in str(error):
            raise
        raise ConfigurationError(f"--{option} {folder}: {error}. {INSTEAD}") from error
    config = read_bundle(folder, profile, **given)
    found = config.get_parsed_content("preprocessing") if "preprocessing" in config else None
    return Denoiser(at_scale(model)), found if isinstance(found, Preprocessing) else None
