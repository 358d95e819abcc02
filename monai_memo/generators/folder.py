# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images that were drawn earlier, as a generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.reading import read_header
from monai_memo.data.tables import read_table
from monai_memo.errors import ConfigurationError
from monai_memo.sampling import Conditions, refuse_conditions

MANIFEST = "manifest.csv"


class FolderGenerator:
    """A folder of images as a generator: nothing is computed, each seed names an image.

    .. versionadded:: 0.2.0

    Where a ``manifest.csv`` (as ``Sampler`` writes it) has a column ``seed``, seeds are those; otherwise they number
    the images from 0 on, in the order of the cohort.

    Args:
        source: folder, or table with a column ``image``.
        preprocessing: that brings files to one size and to [0, 1], such as a detector's; by default to the size of the
            first image, in colour where all images are.

    Raises:
        CohortError: no images there, or a table that cannot be read.
        ConfigurationError: a seed that is no whole number, or two images with one seed.
    """

    def __init__(self, source: str | Path, preprocessing: Preprocessing | None = None) -> None:
        self.source = Path(source)
        manifest = self.source / MANIFEST if self.source.is_dir() else self.source
        seeds = _seeds_in(manifest)
        cohort = Cohort.from_source(manifest if seeds else self.source, "synthetic")
        images = cohort.images
        self.preprocessing = preprocessing or guess_preprocessing([cohort], read_header(images[0]).shape)
        self.by_seed = bool(seeds)
        self.images: dict[int, CohortImage] = {}
        for number, image in enumerate(images):
            seed = seeds[image.path.resolve()] if seeds else number
            if seed in self.images:
                raise ConfigurationError(f"{manifest} has two images with the seed {seed}")
            self.images[seed] = image

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``monai_memo.sampling.Generator``.

        Raises:
            ConfigurationError: a seed that names no image, or conditions.
            UnusableImageError: an image that cannot be read.
        """
        refuse_conditions(conditions)
        absent = [int(seed) for seed in seeds if int(seed) not in self.images]
        if absent:
            known = "seeds stand in its manifest.csv" if self.by_seed else f"they go from 0 to {len(self.images) - 1}"
            raise ConfigurationError(f"{self.source} has no image for the seed {absent[0]}: {known}")
        return np.stack([self.preprocessing(self.images[int(seed)]) for seed in seeds]).astype(np.float32, copy=False)


def _seeds_in(table: Path) -> dict[Path, int]:
    """Seeds by the path of the image; empty where there is no table, or no column ``seed`` in it."""
    if not table.is_file():
        return {}
    found = read_table(table, "synthetic")
    if "seed" not in found.columns:
        return {}
    seeds = {}
    for row in found.rows:
        try:
            seeds[(table.parent / row["image"].strip()).resolve()] = int(str(row.get("seed")).strip())
        except ValueError as error:
            raise ConfigurationError(
                f"{table}: the seed of {row['image']} must be a whole number, got {row.get('seed')!r}"
            ) from error
    return seeds
