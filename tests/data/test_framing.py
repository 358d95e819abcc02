# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic images of other proportions: squeezed ones fit, cut and padded ones are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.framing import box, compare_framing, cut, padded
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom

PICTURE, VOLUME = Preprocessing(2, (32, 32)), Preprocessing(3, (16, 16, 16))


def cohort(folder: Path, name: str, images: list[np.ndarray]) -> Cohort:
    (folder / name).mkdir()
    for number, image in enumerate(images):
        np.save(folder / name / f"{number:02d}.npy", image[0])
    return Cohort.from_source(folder / name, name)


def oblong(first: int, n: int) -> list[np.ndarray]:
    return [chest_phantom(first + i, (64, 64))[:, 10:54] for i in range(n)]  # 44 x 64


def squeezed(image: np.ndarray) -> np.ndarray:
    return PICTURE.from_array(image)


def cut_square(image: np.ndarray) -> np.ndarray:
    return cut(image, box(image.shape[1:], (1, 1), True))


def padded_square(image: np.ndarray) -> np.ndarray:
    return padded(image, box(image.shape[1:], (1, 1), False))


def test_cut_and_padded_images_have_the_proportions_asked_for() -> None:
    image = np.arange(1, 21, dtype=float).reshape(1, 2, 10)
    assert cut_square(image)[0].tolist() == [[5, 6], [15, 16]]
    whole = padded_square(image)
    assert whole.shape == (1, 10, 10) and np.array_equal(whole[:, 4:6], image) and (whole[:, [0, 3, 6, 9]] == 1).all()


@pytest.mark.parametrize(
    ("change", "way"),
    [(squeezed, None), (cut_square, "cut"), (padded_square, "padded")],
    ids=["squeezed", "cut", "padded"],
)
def test_pictures_cut_or_padded_to_another_shape_are_told_and_squeezed_ones_fit(
    change: Callable[[np.ndarray], np.ndarray], way: str | None, tmp_path: Path
) -> None:
    training = cohort(tmp_path, "training", oblong(0, 40))
    synthetic = cohort(tmp_path, "synthetic", [change(image) for image in oblong(500, 20)])
    found = compare_framing(training, synthetic, PICTURE)
    assert (found and found.way) == way
    if found is not None:
        assert found.sentence.startswith("The training images measure 44 x 64, the synthetic images ")
        assert found.correlations[found.way] > found.correlations["squeezed"] + 0.02
        assert ".npy" not in found.sentence and "Prepare the real images in the same way" in found.sentence


def test_volumes_cut_to_a_cube_are_told(tmp_path: Path) -> None:
    real = [knee_phantom(i, (24, 24, 24))[:, :, :, 4:20] for i in range(40)]
    made = [knee_phantom(500 + i, (24, 24, 24))[:, :, :, 4:20] for i in range(12)]
    training = cohort(tmp_path, "training", real)
    cubes = cohort(tmp_path, "synthetic", [cut(image, box(image.shape[1:], (1, 1, 1), True)) for image in made])
    found = compare_framing(training, cubes, VOLUME)
    assert found is not None and found.way == "cut" and found.shapes == ((24, 24, 16), (16, 16, 16))


def test_images_of_the_same_proportions_or_too_few_are_not_judged(tmp_path: Path) -> None:
    training = cohort(tmp_path, "training", oblong(0, 10))
    assert compare_framing(training, cohort(tmp_path, "synthetic", oblong(500, 10)), PICTURE) is None
    few = cohort(tmp_path, "few", [cut_square(image) for image in oblong(500, 3)])
    assert compare_framing(training, few, PICTURE) is None


def test_images_that_lie_otherwise_are_not_said_to_be_cut(tmp_path: Path) -> None:
    """Whichever way they are treated, upright images do not fit turned ones; the least bad way would be wrong."""
    training = cohort(tmp_path, "training", oblong(0, 20))
    turned = [np.rot90(cut_square(image), 1, (1, 2)).copy() for image in oblong(500, 12)]
    assert compare_framing(training, cohort(tmp_path, "synthetic", turned), PICTURE) is None
