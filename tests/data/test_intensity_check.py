# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort, Reading
from monai_memo.data.intensities import Intensities, intensities_of, join, sample_intensities
from monai_memo.data.intensity_check import find_negatives, intensity_findings
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import name_of, turn_back
from monai_memo.data.phantoms import PHANTOMS, VOLUMES, chest_phantom
from monai_memo.data.prepared import prepare
from monai_memo.data.windows import fit_window, windowing
from monai_memo.errors import UnusableImageError


def ct(number: int, size: int = 48) -> np.ndarray:
    """A slice through a body in HU: air, lungs, fat, muscle, vessels and bone, of another shape each time."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.full((size, size), -1000.0)
    wide, high = rng.uniform(0.7, 0.95), rng.uniform(0.6, 0.9)
    image[(x / wide) ** 2 + (y / high) ** 2 < 1] = -100  # fat
    image[(x / wide / 0.9) ** 2 + (y / high / 0.88) ** 2 < 1] = 50  # muscle
    for side in (-1, 1):
        image[((x - side * 0.38) / rng.uniform(0.15, 0.25)) ** 2 + (y / rng.uniform(0.3, 0.45)) ** 2 < 1] = -850
    image[(x / 0.12) ** 2 + ((y - 0.45) / rng.uniform(0.1, 0.15)) ** 2 < 1] = rng.uniform(500, 900)  # bone
    image[(x / 0.12) ** 2 + ((y + 0.2) / rng.uniform(0.08, 0.14)) ** 2 < 1] = rng.uniform(250, 350)  # vessels
    return np.round(image + rng.normal(0, 25, image.shape))[None]


def cohort_of(
    make: Callable[[int], np.ndarray], start: int, change: Callable[[np.ndarray], np.ndarray] = lambda image: image
) -> Intensities:
    found = join([intensities_of(change(make(start + number)), seed=number) for number in range(40)])
    assert found is not None
    return found


def windowed(low: float, high: float, noise: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)

    def change(image: np.ndarray) -> np.ndarray:
        scaled = (np.clip(image, low, high) - low) / (high - low)
        # A network's output scatters around its ends; a PNG has whole numbers.
        return scaled * 2 - 1 + rng.normal(0, noise, image.shape) if noise else np.round(255 * scaled)

    return change


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize(("low", "high"), [(-160.0, 240.0), (-200.0, 600.0), (-1000.0, 200.0), (-450.0, 650.0)])
def test_the_window_of_synthetic_images_is_found_from_raw_training_images(
    low: float, high: float, noise: float
) -> None:
    training, synthetic = cohort_of(ct, 0), cohort_of(ct, 1000, windowed(low, high, noise))
    found = windowing("synthetic", "training", synthetic, training)
    assert found is not None and found.window is not None
    width = high - low
    assert abs(found.window[0] - low) < 0.06 * width and abs(found.window[1] - high) < 0.06 * width
    assert f"try --window={found.window[0]:g},{found.window[1]:g}" in found.sentence
    assert windowing("training", "synthetic", training, synthetic) is None


def test_windowed_training_images_against_raw_synthetic_ones_are_found_as_well() -> None:
    found = windowing("training", "synthetic", cohort_of(ct, 0, windowed(-160, 240)), cohort_of(ct, 1000))
    assert found is not None and found.window is not None
    assert found.sentence.startswith("The training images pile up at their ends")
    assert "clip the synthetic images there before the audit" in found.sentence and "--window" not in found.sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: np.clip(image, -1024, 3071),
        lambda image: (image + 1024) / 4095,
        lambda image: np.clip(image, -1000, 1000),  # takes nothing away that matters
        lambda image: np.round(255 * (image - image.min()) / np.ptp(image)),
    ],
    ids=["raw", "clipped by the scanner", "another unit", "wide window", "8 bit"],
)
def test_ct_against_ct_gives_no_warning(change: Callable[[np.ndarray], np.ndarray]) -> None:
    training, synthetic = cohort_of(ct, 0), cohort_of(ct, 1000, change)
    assert windowing("synthetic", "training", synthetic, training) is None
    assert windowing("training", "synthetic", training, synthetic) is None


@pytest.mark.parametrize("modality", list(PHANTOMS))
def test_phantoms_of_the_demo_give_no_warning(modality: str) -> None:
    shape = (16, 16, 16) if modality in VOLUMES else (32, 32)
    training = cohort_of(lambda number: np.round(255 * PHANTOMS[modality](number, shape)), 0)
    synthetic = cohort_of(lambda number: PHANTOMS[modality](number, shape), 1000)
    assert windowing("synthetic", "training", synthetic, training) is None
    assert windowing("training", "synthetic", training, synthetic) is None


def test_images_without_a_common_scale_are_compared_each_on_its_own() -> None:
    """As in MRI, whose units differ from scanner to scanner by factors of thousands."""

    def mri(number: int) -> np.ndarray:
        return (ct(number) + 1100) * 10 ** np.random.default_rng(number).uniform(0, 3)

    def cut(image: np.ndarray) -> np.ndarray:
        return np.clip(image, *np.percentile(image, (35, 90)))

    training = cohort_of(mri, 0)
    assert not training.one_scale and cohort_of(ct, 0).one_scale
    assert windowing("synthetic", "training", cohort_of(mri, 1000), training) is None
    found = windowing("synthetic", "training", cohort_of(mri, 1000, cut), training)
    assert found is not None and found.relative
    assert "look windowed" in found.sentence and "--window" not in found.sentence


def test_a_window_that_takes_nothing_away_fits_two_alike_cohorts() -> None:
    fit = fit_window(cohort_of(ct, 1000), cohort_of(ct, 0))
    assert fit.distance == fit.uncut < 0.2


def test_luminance_of_colours_and_pixels_that_are_no_numbers() -> None:
    colour = np.zeros((3, 4, 4))
    colour[1] = 100
    assert intensities_of(colour).highest[0] == pytest.approx(58.7)
    broken = np.array([[[np.nan, 1.0, 5.0, np.inf]]])
    assert (intensities_of(broken).lowest[0], intensities_of(broken).highest[0]) == (1.0, 5.0)
    assert intensities_of(broken, window=(2, 3)).lowest[0] == 2.0
    with pytest.raises(UnusableImageError, match="no finite number"):
        intensities_of(np.full((1, 2, 2), np.nan))


def write(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        np.save(folder / f"{number:03d}.npy", image[0])
    return folder


def test_cohorts_in_files_are_warned_about_and_the_option_mends_it(tmp_path: Path) -> None:
    training = write(tmp_path / "training", [ct(number) for number in range(30)])
    synthetic = write(tmp_path / "synthetic", [windowed(-160, 240)(ct(1000 + number)) for number in range(30)])
    preprocessing = Preprocessing(2, (32, 32))

    def warnings(reading: Reading) -> list[str]:
        cohorts = {
            "training": Cohort.from_source(training, "training", reading=reading),
            "synthetic": Cohort.from_source(synthetic, "synthetic"),
        }
        work = tmp_path / f"work{reading.window}"
        prepared = {n: prepare(c, preprocessing, work, progress=False) for n, c in cohorts.items()}
        return intensity_findings(cohorts, prepared).warnings

    (told,) = warnings(Reading())
    assert told.startswith("The synthetic images pile up") and ".npy" not in told
    assert warnings(Reading(window=(-160.0, 240.0))) == []


def test_the_window_clips_before_scaling(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", [np.linspace(-1000, 1000, 64 * 64).reshape(1, 64, 64)])
    image = Cohort.from_source(folder, "training", reading=Reading(window=(0.0, 500.0))).images[0]
    pixels = Preprocessing(2, (64, 64), percentiles=(0.0, 100.0))(image)[0]
    assert (pixels[:32] == 0).mean() > 0.99 and (pixels[48:] == 1).mean() > 0.99
    assert pixels[40, 32] == pytest.approx(0.532, abs=0.001)
    empty = Cohort.from_source(folder, "training", reading=Reading(window=(2000.0, 3000.0))).images[0]
    with pytest.raises(UnusableImageError, match="lies outside the window 2000 to 3000"):
        Preprocessing(2, (64, 64))(empty)


def test_the_sample_leaves_unreadable_images_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", [ct(number) for number in range(5)])
    (folder / "001.npy").write_bytes(b"nothing")
    cohort = Cohort.from_source(folder, "training")
    found = sample_intensities(cohort)
    assert found is not None and len(found) == 4
    some = sample_intensities(cohort, most=2, seed=3)
    assert some is not None and len(some) <= 2


def chests(start: int, number: int = 30) -> np.ndarray:
    return np.stack([chest_phantom(start + i, (32, 32)) for i in range(number)])


NAMES = ("training", "synthetic")


def test_negatives_are_found_and_counted() -> None:
    mine, theirs = chests(0), chests(1000)
    found = find_negatives(NAMES, mine, 1 - theirs)
    assert found is not None and (found.found, found.of) == (30, 30) and found.correlation < -0.5
    assert found.sentence.startswith("30 of 30 synthetic images look like negatives of the training images")
    some = find_negatives(NAMES, mine, np.concatenate([1 - theirs[:6], theirs[6:]]))
    assert some is not None and some.found == 6


@pytest.mark.parametrize("name", ["transpose", "rotate_90", "flip_up_down", "rotate_180", "transverse"])
def test_turned_negatives_are_found_with_both_remedies(name: str) -> None:
    mine, theirs = chests(0), chests(1000)
    found = find_negatives(NAMES, mine, turn_back(1 - theirs, name, 2))
    assert found is not None and found.found == 30 and found.turn is not None
    upright = found.turn(turn_back(theirs, name, 2)).mean(axis=0)
    assert np.corrcoef(upright.ravel(), mine.mean(axis=0).ravel())[0, 1] > 0.9
    assert f"--orientation {name_of(found.turn)}" in found.sentence
    assert "look like negatives of the training images when" in found.sentence
    some = find_negatives(NAMES, mine, np.concatenate([turn_back(1 - theirs[:6], name, 2), theirs[6:]]))
    assert some is not None and some.found == 6


def test_positives_turned_images_and_unlike_images_are_no_negatives() -> None:
    mine, theirs = chests(0), chests(1000)
    for other in (theirs, theirs[:, :, ::-1], theirs[..., ::-1], np.rot90(theirs, 1, (2, 3)), theirs[:, :, ::-1, ::-1]):
        assert find_negatives(NAMES, mine, other) is None
    noise = np.random.default_rng(0).random((30, 1, 32, 32))
    assert find_negatives(NAMES, noise, 1 - noise) is None


def test_negatives_of_volumes_are_found() -> None:
    volumes = np.stack([PHANTOMS["knee"](i, (16, 16, 16)) for i in range(20)])
    assert find_negatives(NAMES, volumes[:10], volumes[10:]) is None
    found = find_negatives(NAMES, volumes[:10], 1 - volumes[10:])
    assert found is not None and found.found == 10
