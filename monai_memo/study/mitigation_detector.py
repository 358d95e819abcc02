# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The detector of the rejection arm: another seed and other views than the audit's, which must not guide sampling.

    python -m monai_memo.study.mitigation_detector --dataset POOL.csv --like detector.pt --seed 1 --epochs 30 \
        --out rejecting_detector.pt
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from monai_memo.data.cohort import Cohort
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.errors import ConfigurationError
from monai_memo.settings.refusals import refusals
from monai_memo.views import Views


def train_rejecting_detector(
    dataset: str, like: str, out: str | Path, seed: int = 1, epochs: int | None = None, progress: bool = True
) -> Path:
    """Train it on a cohort, and write its file.

    Args:
        dataset: training patients.
        like: the audit's detector, whose preprocessing it takes over.
        seed: another one than the audit's detector has.
        epochs: by default the recipe's.

    Raises:
        ConfigurationError: the seed of the audit's detector.
    """
    other, out = Detector.load(like), Path(out)
    if other.seed == seed:
        raise ConfigurationError(f"{like} was trained with the seed {seed}: take another one")
    cohort, folder = Cohort.from_source(dataset, "training"), out.with_name(f"{out.name}.training")
    prepared = prepare(cohort, other.preprocessing, folder / "pixels", None, progress)
    shape = other.preprocessing
    recipe = Recipe.named(
        "default", shape.spatial_dims, shape.size, shape.channels, epochs, n_images=len(prepared.pixels)
    )
    detector = train_detector(
        prepared.pixels, replace(recipe, views=Views.other()), shape, folder / "checkpoints", seed=seed,
        patient_ids=prepared.cohort.patient_ids, progress=progress,
    )  # fmt: skip
    detector.save(out)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    for name, words in (("dataset", "training patients"), ("like", "the audit's detector"), ("out", "file")):
        parser.add_argument(f"--{name}", required=True, help=words)
    parser.add_argument("--seed", type=int, default=1, help="another one than that of --like")
    parser.add_argument("--epochs", type=int, help="by default those of the recipe")
    parser.add_argument("--noprogress", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with refusals(parser):
        path = train_rejecting_detector(
            given.dataset, given.like, given.out, given.seed, given.epochs, not given.noprogress
        )
        print(path)


if __name__ == "__main__":
    main()
