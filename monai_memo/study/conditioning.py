# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a run tells its generator of each training image: nothing, its class, a class at random, or which image it is.

After Gu et al. (arXiv 2310.02664), who found on CIFAR-10 that labels raise memorization whether or not they mean
something, and that a label of its own for each image makes copies of most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from monai_memo.data.cohort import Cohort
from monai_memo.data.columns import cells_of
from monai_memo.data.writing import write_cohort
from monai_memo.errors import ConfigurationError
from monai_memo.generators.condition_columns import CLASS
from monai_memo.generators.conditions import ConditionCode, columns_of
from monai_memo.sealing import fingerprint

COLUMN = "condition"  # of the labels in tables of a study
BUNDLE_COLUMN = f"{COLUMN}{CLASS}"  # also labels that are numbers


@dataclass(frozen=True)
class Told:
    """What a training is told.

    Attributes:
        code: of its classes.
        inputs: of each training image, what the network takes.
        guidance: scale of sampling.
    """

    code: ConditionCode
    inputs: Mapping[str, Tensor]
    guidance: float = 1.0

    @classmethod
    def of(cls, cohort: Cohort, guidance: float = 1.0) -> Told:
        """Of a cohort from ``labelled``."""
        rows = columns_of(cohort)
        code = ConditionCode.of(rows, BUNDLE_COLUMN)
        return cls(code, code.encoded(rows), guidance)


def labels_of(cohort: Cohort, column: str) -> list[str]:
    """The class of each image.

    Raises:
        ConfigurationError: the cohort's table has no such column.
    """
    found = cells_of(cohort, column)
    if found is None:
        raise ConfigurationError(f"{cohort.source} has no column {column!r}, which the study names as its condition")
    return found


def labelled(cohort: Cohort, conditioning: str, column: str | None, seed: int) -> Cohort:
    """The training images of a run with a column ``condition``.

    Args:
        conditioning: ``class``; ``random``: the same labels, shuffled among the images; ``unique``: one for each image.
        column: of the classes.
        seed: of the shuffling.

    Raises:
        ConfigurationError: a table without the column.
    """
    if conditioning == "unique":
        labels = [f"{number:06d}" for number in range(len(cohort))]
    else:
        labels = labels_of(cohort, str(column))
        if conditioning == "random":
            order = np.random.default_rng([seed, 29]).permutation(len(labels))
            labels = [labels[i] for i in order]
    images = tuple(
        replace(image, columns={**image.columns, COLUMN: label})
        for image, label in zip(cohort.images, labels, strict=True)
    )
    return replace(cohort, images=images)


def table_of(cohort: Cohort, folder: Path) -> Path:
    """A labelled cohort as a table, which a bundle is trained on."""
    rows = [[image.image_id, image.columns[COLUMN]] for image in cohort.images]
    name = fingerprint("labels of a study", rows, packages=())[:16]
    return write_cohort(cohort, folder / f"{name}.csv", columns=[COLUMN])
