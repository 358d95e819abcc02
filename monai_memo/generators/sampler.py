# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Draw N samples into a folder, batch by batch, with a manifest; go on after a kill."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import ignite.distributed as idist
from torch import Tensor
from torch.utils.data import Dataset

from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError, OutputError
from monai_memo.files import csv_text, sha256_of, write_text
from monai_memo.generators.latent_diffusion import sample_seeds, starting_noise
from monai_memo.progress import Progress
from monai_memo.sampling import Conditions, Generator, Identified, drawn, require_writable
from monai_memo.sealing import fingerprint
from monai_memo.settings.keywords import with_defaults
from monai_memo.workspace.locking import hold, let_go

SAMPLING = "sampling"

logger = logging.getLogger(__name__)

FORMATS = {"png": 2, "nii.gz": 3}
BATCH = 16  # images at once, of generators that do not say
COLUMNS = ("image", "seed", "model_sha256", "sha256")


class Seeds(Dataset[dict[str, Tensor]]):
    """The noise that a series starts from, as a data set: ``{"image": (channels, *latent)}``."""

    def __init__(self, seed: int, n_samples: int, latent_shape: Sequence[int]) -> None:
        self.seeds, self.latent_shape = sample_seeds(seed, range(n_samples)), tuple(latent_shape)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {"image": starting_noise([self.seeds[position]], self.latent_shape)[0]}


def check_format(image_format: str, dims: int) -> None:
    """Refuse a format that cannot hold images of so many spatial axes.

    Raises:
        ConfigurationError: it cannot.
    """
    if FORMATS[image_format] != dims:
        fitting = next((name for name, n in FORMATS.items() if n == dims), None)
        raise ConfigurationError(f"image_format must be {fitting!r} for a {dims}D model, got {image_format!r}")


class SamplerOptions(TypedDict, total=False):
    """How samples are drawn.

    Attributes:
        progress: show a progress bar.
        identity: of everything that decides the images (a hash of the weights, say), for generators that have no method
            ``identity``.
        conditions: by name, one value for each sample. Those that are not given a model with conditions draws itself;
            the manifest has them all, a column each.
    """

    progress: bool
    identity: str | None
    conditions: Conditions | None


DEFAULTS = SamplerOptions(progress=True, identity=None, conditions=None)


class Sampler:
    """Samples of a generator as image files.

    The folder gets ``sample_000000.png`` (or ``.nii.gz``) and so on, and ``manifest.csv`` with the columns ``image``,
    ``seed``, ``model_sha256``, ``sha256`` (of the file) and one for each condition, which an audit takes as the
    synthetic cohort. What a killed run has written is kept: the same call goes on behind it, and ends with the same
    files. An image that is missing or was damaged is drawn again, with those of its batch. Where several processes run
    (``ignite.distributed``) they share the batches, and write the same files as one; all have to see the same folder.

    Args:
        model: generator to draw from.
        output_dir: folder.
        n_samples: how many.
        seed: of the series; each image has a seed of its own, derived from it.
        image_format: ``"png"`` (2D) or ``"nii.gz"`` (3D).
        options: progress, identity, conditions; see ``SamplerOptions``.

    Raises:
        ConfigurationError: a format that does not fit the model, less than one sample, or no identity.
    """

    def __init__(
        self,
        model: Generator,
        output_dir: str | Path,
        n_samples: int,
        seed: int = 0,
        image_format: str = "png",
        **options: Unpack[SamplerOptions],
    ) -> None:
        chosen = with_defaults(DEFAULTS, options, "Sampler")
        identity = chosen["identity"]
        if image_format not in FORMATS:
            raise ConfigurationError(f"image_format must be one of {', '.join(FORMATS)}, got {image_format!r}")
        check_format(image_format, getattr(model, "spatial_dims", FORMATS[image_format]))
        if identity is None and not isinstance(model, Identified):
            raise ConfigurationError(
                f"{type(model).__name__} does not say what decides its images: name it with identity, so that samples "
                "of another model are not taken for its own"
            )
        if n_samples < 1:
            raise ConfigurationError(f"n_samples must be at least 1, got {n_samples!r}")
        self.model, self.output_dir, self.n_samples, self.seed = model, Path(output_dir), n_samples, seed
        self.image_format, self.progress, self.identity = image_format, chosen["progress"], identity
        self.batch_size = int(getattr(model, "batch_size", BATCH))
        self.conditions = self._told(chosen["conditions"])
        self.columns = (*COLUMNS, *self.conditions)

    def _told(self, conditions: Conditions | None) -> Conditions:
        """Of every sample, what it is drawn for."""
        ask = getattr(self.model, "conditions_of", None)
        found: Conditions = (
            conditions or {} if ask is None else ask(sample_seeds(self.seed, range(self.n_samples)), conditions)
        )
        for name, values in found.items():
            if len(values) != self.n_samples:
                raise ConfigurationError(
                    f"{name} must have one value for each of the {self.n_samples} samples, got {len(values)}"
                )
            if name in COLUMNS:
                raise ConfigurationError(f"a condition cannot be called {name}: the manifest has such a column")
        return found

    @property
    def manifest(self) -> Path:
        return self.output_dir / "manifest.csv"

    @property
    def model_sha256(self) -> str:
        """Of everything that decides the images: the same value, seed and number give the same file."""
        made_from = dict(self.model.identity()) if isinstance(self.model, Identified) else {}
        if self.identity is not None:
            made_from["identity"] = self.identity
        return fingerprint("samples", {**made_from, "format": self.image_format})

    def run(self) -> Path:
        """Draw what is missing; return the manifest.

        Raises:
            OutputError: the folder holds samples of another model, seed or conditions, or images that no manifest
                names,
                another process draws into it, or it cannot be written.
        """
        hold(self.output_dir, SAMPLING)
        try:
            return self._draw()
        finally:
            let_go(self.output_dir)

    def _draw(self) -> Path:
        identity = self.model_sha256
        names = [f"sample_{i:06d}.{self.image_format}" for i in range(self.n_samples)]
        seeds = sample_seeds(self.seed, range(self.n_samples))
        rows = [(name, str(seed), identity) for name, seed in zip(names, seeds, strict=True)]
        told = [tuple(str(values[i]) for values in self.conditions.values()) for i in range(self.n_samples)]
        rank, world = idist.get_rank(), idist.get_world_size()
        written: list[tuple[str, ...]] = []
        if rank == 0:
            written = self._done(rows, told)
            if not self.manifest.is_file():
                self._write([])  # before the first image, so that those of a killed run are known for ours
        done = int(idist.broadcast(len(written), src=0))  # and no rank draws before this is settled
        batches = [rows[start : start + self.batch_size] for start in range(done, len(rows), self.batch_size)]
        with Progress(len(rows), "sample", done, self.progress and rank == 0) as bar:
            for start in range(0, len(batches), world):
                turn = batches[start : start + world]
                digests = self._save(turn[rank]) if rank < len(turn) else []
                found = idist.all_gather(",".join(digests) or "none")
                for batch, hashes in zip(turn, found, strict=False):
                    for row, digest in zip(batch, hashes.split(","), strict=True):
                        written.append((*row, digest, *told[len(written)]))
                if rank == 0:
                    # After the images: what the manifest names is there.
                    self._write(written)
                bar.update(sum(len(batch) for batch in turn))
        return self.manifest

    def _save(self, batch: list[tuple[str, str, str]]) -> list[str]:
        """Draw a batch and write its images; return their hashes."""
        first = int(batch[0][0].removeprefix("sample_").partition(".")[0])
        told = {name: values[first : first + len(batch)] for name, values in self.conditions.items()}
        images = drawn(self.model, [int(seed) for _, seed, _ in batch], told or None)
        require_writable(images, f"what {type(self.model).__name__} draws")
        check_format(self.image_format, images.ndim - 2)
        paths = [save_image(self.output_dir / row[0], image) for row, image in zip(batch, images, strict=True)]
        return [sha256_of(path) for path in paths]

    def _done(self, rows: list[tuple[str, str, str]], told: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The rows of the manifest whose images need not be drawn again: whole batches, so that a resumed run computes
        in the same batches as an uninterrupted one."""
        if not self.manifest.is_file():
            if taken := [name for name, _, _ in rows if (self.output_dir / name).exists()]:
                raise OutputError(
                    f"{self.output_dir} holds {taken[0]} and no manifest.csv that names it. It is left as it is: name "
                    "another output_dir."
                )
            return []
        try:
            with open(self.manifest, encoding="utf-8", newline="") as stream:
                found = [tuple(str(row.get(name) or "") for name in self.columns) for row in csv.DictReader(stream)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise OutputError(
                f"{self.manifest} is damaged ({error}). Nothing was changed: move it and its samples away to draw "
                "them anew, or name another output_dir."
            ) from error
        shared = min(len(found), len(rows))
        wanted = zip(rows[:shared], told[:shared], strict=True)
        if [(row[:3], row[4:]) for row in found[:shared]] != [*wanted]:
            raise OutputError(
                f"{self.output_dir} holds samples of another model or another seed, or for other conditions. They are "
                "left as they are: name another output_dir."
            )
        damaged = (i for i in range(shared) if not self._is_whole(found[i]))
        done = next(damaged, shared)
        if done < shared:
            logger.warning("%s is missing or damaged: drawn again", self.output_dir / rows[done][0])
        if done < len(rows):
            done -= done % self.batch_size
        if done:
            logger.info("%s: going on after %d samples", self.output_dir, done)
        return found[:done]

    def _is_whole(self, row: tuple[str, ...]) -> bool:
        path = self.output_dir / row[0]
        return path.is_file() and sha256_of(path) == row[3]

    def _write(self, rows: list[tuple[str, ...]]) -> None:
        write_text(self.manifest, csv_text(self.columns, rows))
