# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A TorchScript file as a generator: noise in, images out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.errors import GeneratorError
from monai_memo.files import sha256_of
from monai_memo.generators.latent_diffusion import starting_noise
from monai_memo.sampling import Conditions, refuse_conditions, understood
from monai_memo.settings import Several, Whole, value_of


class TorchScriptGenerator:
    """A model that was saved by ``torch.jit.save`` and takes standard normal noise.

    Loading such a file runs no Python of its own, but drawing runs the model: take files that you trust.

    Args:
        path: of the file.
        noise_shape: of the noise of one image, ``(channels, *spatial)`` or ``(length,)``.
        batch_size: images at once.
        device: to compute on.

    Raises:
        GeneratorError: no such file, or no TorchScript.
    """

    def __init__(
        self,
        path: str | Path,
        noise_shape: Sequence[int],
        batch_size: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        self.path, self.device = Path(path), torch.device(device)
        self.noise_shape: tuple[int, ...] = value_of("noise_shape", noise_shape, Several(Whole(1, 2**20), 1, 4))
        self.batch_size: int = value_of("batch_size", batch_size, Whole(1, 65_536))
        if not self.path.is_file():
            raise GeneratorError(f"no TorchScript file at {path}")
        try:
            self.model: Any = torch.jit.load(str(path), map_location=self.device).eval()
        except (RuntimeError, ValueError) as error:
            raise GeneratorError(
                f"{path} is no TorchScript file: save the model with torch.jit.save(torch.jit.trace(model, noise), "
                f"path), or wrap its weights in a function of seeds ({str(error).splitlines()[0]})"
            ) from error

    def identity(self) -> Mapping[str, Any]:
        """Everything that decides the images."""
        return {"torchscript": sha256_of(self.path), "noise": list(self.noise_shape), "device": self.device}

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``monai_memo.sampling.Generator``; what the model gives may be in [0, 1], [-1, 1] or bytes.

        Raises:
            ConfigurationError: conditions, or a model that gives no images.
            GeneratorError: a model that takes something else than this noise.
        """
        refuse_conditions(conditions)
        drawn = []
        # A model that draws further noise itself must not disturb a training that goes on around it.
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            for start in range(0, len(seeds), self.batch_size):
                some = seeds[start : start + self.batch_size]
                torch.manual_seed(int(some[0]))
                try:
                    images = self.model(starting_noise(some, self.noise_shape).to(self.device))
                except RuntimeError as error:
                    told = str(error).strip().splitlines()[-1]
                    raise GeneratorError(
                        f"{self.path} does not take noise of the shape {(len(some), *self.noise_shape)}: {told}. Name "
                        "the shape for one image with noise_shape."
                    ) from error
                if not isinstance(images, torch.Tensor):
                    raise GeneratorError(
                        f"{self.path} gives {type(images).__name__} where images as one tensor are asked for: take "
                        "them out of it in a function of seeds"
                    )
                drawn.append(images.cpu())
        return understood(torch.cat(drawn), len(seeds), str(self.path)) if drawn else np.empty((0,), dtype=np.float32)
