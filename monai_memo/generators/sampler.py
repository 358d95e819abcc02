# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Draw N samples into a folder, batch by batch, with a manifest; go on after a kill."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.files import write_text
from monai_memo.generators.latent_diffusion import LatentDiffusion, sample_seeds, starting_noise
from monai_memo.generators.weights import weights_sha256

logger = logging.getLogger(__name__)

FORMATS = {"png": 2, "nii.gz": 3}
COLUMNS = ("image", "seed", "model_sha256")


class Seeds(Dataset[dict[str, Tensor]]):
    """The noise that a series starts from, as a data set: ``{"image": (channels, *latent)}``."""

    def __init__(self, seed: int, n_samples: int, latent_shape: Sequence[int]) -> None:
        self.seeds, self.latent_shape = sample_seeds(seed, range(n_samples)), tuple(latent_shape)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {"image": starting_noise([self.seeds[position]], self.latent_shape)[0]}


class Sampler:
    """Samples of a latent diffusion model as image files.

    The folder gets ``sample_000000.png`` (or ``.nii.gz``) and so on, and ``manifest.csv`` with the columns ``image``,
    ``seed`` and ``model_sha256``, which an audit takes as the synthetic cohort. What a killed run has written is kept:
    the same call goes on behind it, and ends with the same files.

    Args:
        model: to draw from.
        output_dir: folder.
        n_samples: how many.
        seed: of the series; each image has a seed of its own, derived from it.
        image_format: ``"png"`` (2D) or ``"nii.gz"`` (3D).
        progress: show a progress bar.

    Raises:
        ConfigurationError: a format that does not fit the model, or less than one sample.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        output_dir: str | Path,
        n_samples: int,
        seed: int = 0,
        image_format: str = "png",
        progress: bool = True,
    ) -> None:
        dims = len(model.latent_shape) - 1
        if FORMATS.get(image_format) != dims:
            fitting = next(name for name, n in FORMATS.items() if n == dims)
            raise ConfigurationError(f"image_format must be {fitting!r} for a {dims}D model, got {image_format!r}")
        if n_samples < 1:
            raise ConfigurationError(f"n_samples must be at least 1, got {n_samples!r}")
        self.model, self.output_dir, self.n_samples, self.seed = model, Path(output_dir), n_samples, seed
        self.image_format, self.progress = image_format, progress

    @property
    def manifest(self) -> Path:
        return self.output_dir / "manifest.csv"

    @property
    def model_sha256(self) -> str:
        """Of weights, scale factor and number of denoising steps: the same value and seed give the same image."""
        parts = [weights_sha256(self.model.autoencoder), weights_sha256(self.model.diffusion)]
        parts += [repr(self.model.scale_factor), type(self.model.scheduler).__name__]
        parts.append(str(len(self.model.scheduler.timesteps)))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    def run(self) -> Path:
        """Draw what is missing; return the manifest.

        Raises:
            OutputError: the folder holds samples of another model or another seed, or cannot be written.
        """
        identity = self.model_sha256
        names = [f"sample_{i:06d}.{self.image_format}" for i in range(self.n_samples)]
        seeds = sample_seeds(self.seed, range(self.n_samples))
        rows = [(name, str(seed), identity) for name, seed in zip(names, seeds, strict=True)]
        done = self._done(rows)
        bar = tqdm(total=len(rows), initial=done, desc="sample", disable=None if self.progress else True)
        with bar:
            for start in range(done, len(rows), self.model.batch_size):
                batch = rows[start : start + self.model.batch_size]
                images = self.model.sample([int(seed) for _, seed, _ in batch])
                for (name, _, _), image in zip(batch, images, strict=True):
                    save_image(self.output_dir / name, image)
                # After the images: what the manifest names is there.
                self._write(rows[: start + len(batch)])
                bar.update(len(batch))
        return self.manifest

    def _done(self, rows: list[tuple[str, str, str]]) -> int:
        """How many of the first rows are in the manifest and on disk."""
        if not self.manifest.is_file():
            return 0
        with open(self.manifest, encoding="utf-8", newline="") as stream:
            found = [tuple(row.get(name, "") for name in COLUMNS) for row in csv.DictReader(stream)]
        shared = min(len(found), len(rows))
        if found[:shared] != rows[:shared]:
            raise OutputError(
                f"{self.output_dir} holds samples of another model or another seed. They are left as they are: name "
                "another output_dir."
            )
        missing = (i for i in range(shared) if not (self.output_dir / rows[i][0]).is_file())
        done = next(missing, shared)
        if done:
            logger.info("%s: going on after %d samples", self.output_dir, done)
        return done

    def _write(self, rows: list[tuple[str, str, str]]) -> None:
        stream = io.StringIO()
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)
        write_text(self.manifest, stream.getvalue())
