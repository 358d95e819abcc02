# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.data.cohort import Cohort
from monai_memo.data.colours import has_colours
from monai_memo.data.loading import guess_preprocessing, look_over
from monai_memo.data.phantom_skin import skin_phantom
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image

SIZE = (24, 24)
Arrays = np.ndarray


def skins(number: int) -> list[Arrays]:
    return [skin_phantom(i, SIZE) for i in range(number)]


def write(folder: Path, images: list[Arrays], ending: str = "png") -> Cohort:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        path = folder / f"{number}.{ending}"
        if ending == "png":
            save_image(path, image)
        else:
            Image.fromarray((np.moveaxis(image, 0, -1) * 255).astype(np.uint8)).save(path, quality=90)
    return Cohort.from_source(str(folder), folder.name)


def test_cohorts_in_colour_keep_their_channels(tmp_path: Path) -> None:
    cohorts = [write(tmp_path / name, skins(3), ending) for name, ending in (("one", "png"), ("two", "jpg"))]
    preprocessing, colours = look_over(cohorts, size=16)
    assert preprocessing.channels == 3 and colours.everywhere and colours.remark is None
    pixels = preprocessing(cohorts[0].images[0])
    assert pixels.shape == (3, 16, 16) and np.ptp(pixels, axis=0).mean() > 0.1
    assert pixels.mean(axis=(1, 2)).argmax() == 0  # skin is red: channels are neither exchanged nor scaled apart


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_grey_images_with_three_channels_are_grey(tmp_path: Path, ending: str) -> None:
    grey = [np.repeat(chest_phantom(i, SIZE), 3, axis=0) for i in range(3)]
    mark = grey[0].copy()
    mark[0, :2, :2] = 1.0  # a red mark, as of the side in a radiograph
    cohort = write(tmp_path / "grey", [mark, *grey], ending)
    preprocessing, colours = look_over([cohort], size=16)
    assert preprocessing.channels == 1 and colours.remark is None
    plain = guess_preprocessing([write(tmp_path / "plain", [image[:1] for image in grey])], size=16)
    assert plain == preprocessing


@pytest.mark.parametrize(("stored", "told"), [(1, "two in grey"), (3, "two in grey")])
def test_a_grey_cohort_beside_one_in_colour_makes_both_grey(tmp_path: Path, stored: int, told: str) -> None:
    grey = [np.repeat(chest_phantom(i, SIZE), stored, axis=0) for i in range(3)]
    cohorts = [write(tmp_path / "one", skins(3)), write(tmp_path / "two", grey)]
    preprocessing, colours = look_over(cohorts)
    assert preprocessing.channels == 1 and not colours.everywhere
    assert colours.remark is not None and f"(one in colour, {told})" in colours.remark


def test_a_cohort_with_grey_images_among_colours_is_mixed(tmp_path: Path) -> None:
    cohort = write(tmp_path / "one", [*skins(3), *(chest_phantom(i, SIZE) for i in range(2))])
    preprocessing, colours = look_over([cohort])
    assert preprocessing.channels == 1 and colours.remark is not None and "one mixed" in colours.remark


def test_a_faded_picture_among_many_makes_no_cohort_grey(tmp_path: Path) -> None:
    faded = np.repeat(skin_phantom(50, SIZE).mean(axis=0, keepdims=True), 3, axis=0)
    assert look_over([write(tmp_path / "one", [faded, *skins(15)])])[0].channels == 3


def test_what_counts_as_colour() -> None:
    ramp = np.linspace(0, 255, 300).reshape(1, 15, 20)
    assert not has_colours(np.repeat(ramp, 3, axis=0))
    assert not has_colours(np.zeros((3, 4, 4))) and not has_colours(np.full((3, 4, 4), np.nan))
    assert has_colours(np.concatenate([ramp, 0.9 * ramp, 0.8 * ramp]))
    deep = np.concatenate([257 * ramp, 230 * ramp, 200 * ramp, np.full_like(ramp, 65535)]).astype(np.uint16)
    assert has_colours(deep) and not has_colours(np.concatenate([deep[:1]] * 3 + [deep[3:]]))
