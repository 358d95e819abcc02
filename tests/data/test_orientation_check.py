# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import PICTURES, VOLUMES, name_of, orientation, turn_back
from monai_memo.data.orientation_check import compare_orientation
from monai_memo.data.phantoms import chest_phantom, coronary_phantom, knee_phantom
from monai_memo.data.prepared import PreparedCohort


def prepared(pixels: NDArray[np.floating], name: str = "synthetic") -> PreparedCohort:
    images = tuple(CohortImage(Path(f"{i}.png"), f"{i}.png", f"{name} {i}") for i in range(len(pixels)))
    return PreparedCohort(Cohort(name, images, "x", True), np.asarray(pixels, dtype=np.float16), (), (), "x")


def as_read(images: NDArray[np.floating], size: tuple[int, ...]) -> NDArray[np.float32]:
    preprocessing = Preprocessing(len(size), size)
    return np.stack([preprocessing.from_array(image) for image in images])


@cache
def chests(first: int, n: int) -> NDArray[np.float32]:
    return as_read(np.stack([chest_phantom(first + i, (48, 48)) for i in range(n)]), (48, 48))


@cache
def knees(first: int, n: int) -> NDArray[np.float32]:
    return as_read(np.stack([knee_phantom(first + i, (16, 16, 16)) for i in range(n)]), (16, 16, 16))


def laid(images: NDArray[np.floating], name: str) -> NDArray[np.floating]:
    return turn_back(images, name, images.ndim - 2)


@pytest.mark.parametrize("n", [6, 12, 60])
def test_cohorts_of_the_same_orientation_are_said_to_be(n: int) -> None:
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(chests(500, n)))
    assert (found.status, found.best, found.remedy, found.not_told) == ("same", None, "", ())
    assert found.sentence == (
        f"The synthetic images have the same orientation as the training images ({n} were compared in 8 orientations)."
    )


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "as_is"])
def test_every_wrong_orientation_of_pictures_is_found_with_its_remedy(name: str) -> None:
    lying = laid(chests(500, 12), name)
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(lying))
    assert (found.status, found.best) == ("otherwise", name)
    assert f"--orientation {name}," in found.remedy and "--orientation as_is" in found.remedy
    assert f"{found.evidence['fit_better']:.0f} of 12 synthetic images fit the training images" in found.sentence
    assert found.evidence["mean_turned"] > max(0.95, found.evidence["mean"] + 0.03)
    assert f"turned, {found.evidence['mean']:.2f} as stored)" in found.sentence and len(found.turned_images) >= 10


@pytest.mark.parametrize("name", ["LPS", "LAI", "PIR", "ASL", "SPR", "IRA"])
def test_wrong_axes_of_volumes_are_found_up_to_left_and_right_of_a_symmetric_knee(name: str) -> None:
    lying = laid(knees(500, 12), name)
    found = compare_orientation(prepared(knees(0, 60), "training"), prepared(lying))
    assert found.status == "otherwise" and found.best is not None
    swapped = name.translate(str.maketrans("LR", "RL"))
    assert found.best in (name, swapped)
    if orientation(name, 3).is_rotation:
        assert found.best == name  # a mirror image is the less likely of the two


def test_oblong_sizes_are_compared_as_well() -> None:
    training = as_read(np.stack([chest_phantom(i, (48, 36)) for i in range(120)]), (40, 24))
    files = np.stack([chest_phantom(500 + i, (48, 36)) for i in range(12)])
    lying = as_read(laid(files, "transpose"), (40, 24))  # (36, 48) in the files
    found = compare_orientation(prepared(training, "training"), prepared(lying))
    assert (found.status, found.best) == ("otherwise", "transpose")
    assert compare_orientation(prepared(training, "training"), prepared(as_read(files, (40, 24)))).status == "same"


@pytest.mark.parametrize("name", ["transpose", "rotate_180", "rotate_90", "flip_up_down"])
def test_a_fifth_in_another_orientation_is_told_with_its_share(name: str) -> None:
    images = chests(500, 60).copy()
    images[:12] = laid(images[:12], name)
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    assert (found.status, found.best) == ("mixed", name)
    assert 10 <= found.evidence["fit_better"] <= 12 and 0.15 < found.evidence["share"] < 0.25
    assert f"--symmetries {'mirror' if name in ('rotate_180', 'flip_up_down') else 'all'}" in found.remedy


def test_turned_images_and_near_twins_are_named() -> None:
    """Turned images fit better by themselves; copies are near twins, whether they are turned or not."""
    rng = np.random.default_rng(0)
    training, images = chests(0, 120), chests(500, 60).copy()
    images[:12] = laid(images[:12], "rotate_90")
    copies = training[[30, 31]] + 0.02 * rng.standard_normal((2, 1, 48, 48))
    images[5:6], images[40:41] = laid(copies[:1], "rotate_90"), copies[1:]
    found = compare_orientation(prepared(training, "training"), prepared(images))
    assert found.twins == (("5.png", "30.png"), ("40.png", "31.png")) and found.evidence["near_twins"] == 2
    assert len(found.turned_images) >= 11 and {int(name[:-4]) for name, _ in found.turned_images} <= set(range(12))
    assert {words for _, words in found.turned_images} == {"when turned by 90 degrees counter-clockwise"}
    assert "mean images" not in found.sentence
    for clean in (chests(500, 60), knees(500, 24)):
        reference = chests(0, 120) if clean.ndim == 4 else knees(0, 60)
        none = compare_orientation(prepared(reference, "training"), prepared(clean))
        assert none.twins == () == none.turned_images


def test_images_turned_in_several_ways_are_each_named_with_theirs() -> None:
    images = chests(500, 60).copy()
    images[:24] = laid(images[:24], "flip_up_down")
    images[24:36] = laid(images[24:36], "rotate_90")
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    told = found.turned_names()
    assert "3.png (when mirrored upside down)" in told
    assert "30.png (when turned by 90 degrees counter-clockwise)" in told


def test_mirrored_images_are_told_without_an_alarm() -> None:
    images = chests(500, 60).copy()
    images[:30] = laid(images[:30], "flip_left_right")
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    assert (found.status, found.best) == ("mixed", "flip_left_right")
    assert found.remedy == "Left-right mirror images are looked for in any case."


def test_all_turns_that_occur_are_named_and_not_the_most_frequent_alone() -> None:
    images = chests(500, 60).copy()
    images[:24] = laid(images[:24], "flip_up_down")
    images[24:36] = laid(images[24:36], "rotate_90")
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    assert (found.status, found.best, found.turned) == ("mixed", "flip_up_down", ("flip_up_down", "rotate_90"))
    assert "Others fit better when turned by 90 degrees counter-clockwise." in found.sentence
    assert "--symmetries all" in found.remedy  # mirror images alone would leave out what is turned by 90 degrees


@pytest.mark.parametrize("n", [16, 32])
def test_images_in_all_orientations_are_told_where_none_of_them_has_many(n: int) -> None:
    """A generator that was trained with all turns: 2 or 4 images of each prove little, all of them together much."""
    images = chests(500, n).copy()
    for place, name in enumerate(PICTURES):
        images[place::8] = laid(images[place::8], name)
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    assert found.status == "mixed" and "--symmetries all" in found.remedy
    assert len(set(found.turned)) >= 4 and len(found.turned_images) >= n // 2
    assert f"({len(found.turned_images)} of {n} images fit better turned in one way or another)" in found.sentence


def test_turned_images_among_many_mirror_images_are_told() -> None:
    images = chests(500, 60).copy()
    images[:30] = laid(images[:30], "flip_left_right")
    images[30:42] = laid(images[30:42], "transpose")
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    assert (found.status, found.best) == ("mixed", "transpose")
    assert set(found.turned) == {"transpose", "flip_left_right"} and "--symmetries all" in found.remedy


def test_a_handful_of_turned_copies_is_enough() -> None:
    """The rest of the cohort lies as it should: 4 of 60 would be lost in shares."""
    rng = np.random.default_rng(0)
    images = chests(500, 60).copy()
    images[:4] = laid(chests(0, 120)[10:14], "rotate_90") + 0.03 * rng.standard_normal((4, 1, 48, 48))
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(images))
    assert (found.status, found.best) == ("mixed", "rotate_90")
    assert "4 of 60 synthetic images have a near twin among the training images" in found.sentence


def test_copies_of_symmetric_objects_show_the_orientation_that_the_object_does_not() -> None:
    """Discs with a texture of their own: only the texture of copies tells their orientation."""
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(*[np.linspace(-1, 1, 32)] * 2, indexing="ij")
    disc = (np.hypot(x, y) < 0.7)[None, None]
    texture = gaussian_filter(rng.standard_normal((130, 1, 32, 32)), (0, 0, 2, 2))
    discs = (disc * (0.6 + 1.5 * texture)).clip(0, 1)
    training, others = prepared(discs[:100], "training"), discs[100:].copy()
    found = compare_orientation(training, prepared(others))
    assert found.status == "cannot_tell" and len(found.not_told) == 6  # and left-right, which is looked for anyway
    assert found.sentence == (
        "Whether the synthetic images have the same orientation as the training images cannot be told: 6 of 7 other "
        "orientations look alike in the training images themselves."
    )
    others[:6] = laid(discs[20:26], "transpose")
    found = compare_orientation(training, prepared(others))
    assert (found.status, found.best, found.evidence["twins"]) == ("otherwise", "transpose", 6)


@pytest.mark.parametrize("kind", ["noise", "blobs", "one blob", "negative", "blurred", "noisy"])
def test_poor_samples_are_no_reason_to_refuse(kind: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        images = chests(500 + 50 * seed, 40)
        noise = rng.standard_normal(images.shape)
        poor = {
            "noise": noise,
            "blobs": gaussian_filter(noise, (0, 0, 4, 4)),
            "one blob": gaussian_filter(noise[:1], (0, 0, 4, 4)) + 0.002 * noise,
            "negative": 1 - images,
            "blurred": gaussian_filter(images, (0, 0, 3, 3)),
            "noisy": images + noise,
        }[kind]
        found = compare_orientation(prepared(chests(0, 120), "training"), prepared(as_read(poor, (48, 48))), seed)
        assert found.status == ("same" if kind == "blurred" else "cannot_tell")


def test_hearts_without_a_fixed_pose_are_not_refused() -> None:
    hearts = as_read(np.stack([coronary_phantom(i, (12, 12, 12)) for i in range(64)]), (12, 12, 12))
    training, others = hearts[:40], hearts[40:]
    assert compare_orientation(prepared(training, "training"), prepared(others)).status in ("same", "cannot_tell")


def test_a_second_turn_is_named_as_one_with_the_first() -> None:
    upright = chests(500, 12)
    lying = laid(upright, "rotate_90")
    wrongly = orientation("rotate_180", 2)(lying)  # --orientation rotate_180 was given
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(wrongly), applied="rotate_180")
    assert (found.status, found.best) == ("otherwise", "rotate_90")


def test_too_few_patients_cannot_be_told() -> None:
    found = compare_orientation(prepared(chests(0, 4), "training"), prepared(chests(500, 12), "heldout"))
    assert found.status == "cannot_tell" and "fewer than 5 training patients" in found.sentence


def test_held_out_images_in_another_orientation_are_mended_in_their_files() -> None:
    lying = laid(chests(500, 20), "flip_up_down")
    found = compare_orientation(prepared(chests(0, 120), "training"), prepared(lying, "heldout"))
    assert found.status == "otherwise" and found.remedy.startswith("Write the held-out files and the training files in")


def test_the_same_seed_gives_the_same_finding() -> None:
    pair = prepared(chests(0, 120), "training"), prepared(laid(chests(500, 12), "transverse"))
    assert compare_orientation(*pair, seed=3) == compare_orientation(*pair, seed=3)
    assert {name_of(one) for one in (orientation(name, 3) for name in VOLUMES)} == set(VOLUMES)
