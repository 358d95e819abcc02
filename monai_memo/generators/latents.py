# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Latents of a cohort, encoded once and cached: the second stage then trains without the autoencoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ignite.distributed as idist
import numpy as np
import torch
from monai.networks.nets import DiffusionModelUNet
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.conditioned import Conditioned
from monai_memo.generators.first_stage import FirstStage, moments
from monai_memo.generators.weights import weights_sha256
from monai_memo.progress import following
from monai_memo.sealing import fingerprint, is_sealed, read_sealed_json, write_sealed, write_sealed_json
from monai_memo.views import Views

logger = logging.getLogger(__name__)


def latent_shape(
    image_size: Sequence[int], channels: int, levels: int, first_stage: str = "autoencoder", image_channels: int = 1
) -> list[int]:
    """``[channels, *spatial]`` of an autoencoder's latents: each level after the first halves the image.

    Args:
        image_size: pixels or voxels per axis.
        channels: of the latents.
        levels: of the autoencoder.
        first_stage: ``"none"`` where the images themselves stand in place of latents.
        image_channels: of the images.

    Raises:
        ConfigurationError: an image that cannot be halved evenly so often.

    Example:
        >>> latent_shape([64, 32], channels=4, levels=3)
        [4, 16, 8]
    """
    if first_stage == "none":
        return [image_channels, *image_size]
    factor = 2 ** (levels - 1)
    if levels < 1 or any(length % factor for length in image_size):
        raise ConfigurationError(
            f"image_size {list(image_size)} must be divisible by {factor}: the autoencoder has {levels} levels"
        )
    return [channels, *(length // factor for length in image_size)]


def check_latents(autoencoder: FirstStage, diffusion: DiffusionModelUNet | Conditioned, shape: Sequence[int]) -> None:
    """Refuse an autoencoder and a diffusion model that do not fit together, before hours are spent on them.

    Args:
        shape: ``(channels, *spatial)`` of the latents.

    Raises:
        GeneratorError: another number of channels, or a size that the diffusion model cannot halve and double again.
    """
    own = getattr(autoencoder, "latent_channels", getattr(autoencoder, "embedding_dim", shape[0]))
    if own != shape[0]:
        raise GeneratorError(
            f"the autoencoder has {own} latent channels, latent_shape is {list(shape)}. "
            "Set latent_channels to what the autoencoder was trained with."
        )
    wanted = getattr(diffusion, "in_channels", shape[0])
    if wanted != shape[0]:
        raise GeneratorError(
            f"the diffusion model takes {wanted} channels, the autoencoder's latents have {shape[0]} "
            f"(latent_shape {list(shape)}). They belong to different models: name the autoencoder that the diffusion "
            "model was trained with."
        )
    factor = 2 ** (len(getattr(diffusion, "block_out_channels", (1,))) - 1)
    if any(length % factor for length in shape[1:]):
        raise GeneratorError(
            f"latents of {list(shape)} cannot be halved evenly {factor.bit_length() - 1} times by the diffusion "
            "model: choose another image_size or fewer diffusion_channels"
        )


@dataclass(frozen=True)
class Latents(Dataset[dict[str, Tensor]]):
    """Cached latents of one cohort.

    Attributes:
        values: ``(n, variants, 2, channels, *spatial)`` float16, means and standard deviations, memory-mapped. The
            first variant is the image as it is, the others are augmented.
        scale_factor: 1 / standard deviation of the latents, so that scaled ones have variance 1 (Rombach et al.,
            arXiv 2112.10752, appendix G).
    """

    values: NDArray[np.float16]
    scale_factor: float
    draws: ClassVar[bool] = True  # see SeededLoader

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        """``{"image": (2, channels, *spatial)}``.

        Args:
            key: position (the plain image), or position and a random number that chooses the variant.
        """
        position, number = key if isinstance(key, tuple) else (key, 0)
        variant = number % self.values.shape[1]
        return {"image": torch.from_numpy(self.values[position, variant].astype(np.float32))}


def scale_factor_of(values: NDArray[np.floating]) -> float:
    """1 / standard deviation of latents drawn from means and deviations, ``(n, variants, 2, channels, *spatial)``."""
    mean = np.asarray(values[:, 0, 0], dtype=np.float64)
    spread = np.asarray(values[:, 0, 1], dtype=np.float64)
    return float(1 / np.sqrt(mean.var() + np.square(spread).mean()))


def encode_latents(
    pixels: NDArray[np.floating],
    autoencoder: FirstStage,
    folder: str | Path,
    name: str,
    shape: Sequence[int],
    views: Views | None = None,
    variants: int = 1,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> Latents:
    """Encode images, or read what was encoded before with the same images, weights and settings.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        autoencoder: trained.
        folder: for ``<name>.npy`` and ``<name>.json``; rank 0 writes, the others read. Files that were damaged or
            altered are made again.
        shape: ``(channels, *spatial)`` that the latents must have.
        views: augmentation; None encodes every image once.
        variants: versions of each image, the plain one included, where there is augmentation.
        seed: of the augmentation.

    Raises:
        GeneratorError: latents of another shape than ``shape``, or not finite.
    """
    folder = Path(folder)
    path, marker = folder / f"{name}.npy", folder / f"{name}.json"
    count = max(1, variants) if views is not None else 1
    made_from = {
        "autoencoder": [autoencoder, weights_sha256(autoencoder)],
        "views": None if views is None else views.to_dict(),
        "variants": count,
        "seed": seed,
        "shape": list(shape),
        "batch_size": batch_size,
        "device": torch.device(device),
    }
    with idist.one_rank_first():
        identity = fingerprint("latents", made_from, [pixels])
        if idist.get_rank() == 0:
            known = is_sealed(path, identity)
            if not known:
                values = _encode(pixels, autoencoder, shape, views, count, batch_size, device, seed, progress)
                write_sealed(path, lambda temporary: np.save(temporary, values), identity)
            record = read_sealed_json(marker)
            if not known or record is None or record.get("identity") != identity:
                factor = scale_factor_of(np.load(path, mmap_mode="r", allow_pickle=False))
                write_sealed_json(marker, {"identity": identity, "scale_factor": factor})
    found: dict[str, Any] | None = read_sealed_json(marker)
    if found is None or found.get("identity") != identity:
        raise GeneratorError(f"{marker} is not what was just written: is another training using {folder}?")
    return Latents(np.load(path, mmap_mode="r", allow_pickle=False), float(found["scale_factor"]))


def _encode(
    pixels: NDArray[np.floating],
    autoencoder: FirstStage,
    shape: Sequence[int],
    views: Views | None,
    variants: int,
    batch_size: int,
    device: str | torch.device,
    seed: int,
    progress: bool,
) -> NDArray[np.float16]:
    values = np.empty((len(pixels), variants, 2, *shape), dtype=np.float16)
    stage = autoencoder.to(device).eval()
    generator = torch.Generator().manual_seed(seed)
    starts = range(0, len(pixels), batch_size)
    with torch.inference_mode():
        for start in following(starts, "encode", shown=progress):
            images = torch.from_numpy(np.asarray(pixels[start : start + batch_size], dtype=np.float32)).to(device)
            for variant in range(variants):
                seen = images if variant == 0 or views is None else views(images, generator)
                both = torch.stack(moments(stage, seen), dim=1)
                if tuple(both.shape[2:]) != tuple(shape):
                    raise GeneratorError(
                        f"the autoencoder gives latents of {tuple(both.shape[2:])}, latent_shape is {tuple(shape)}. "
                        "Set image_size and latent_channels to what it was trained with."
                    )
                if not torch.isfinite(both).all():
                    raise GeneratorError("the autoencoder gives latents that are not finite: train it again")
                values[start : start + len(images), variant] = both.cpu().numpy()
    return values
