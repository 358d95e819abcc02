# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_memo.audit.sharpness import blur_warning, fine_detail, match_sharpness, partly_soft_warning, soft_part
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.prepared import PreparedCohort

CHEST = np.stack([chest_phantom(i, (32, 32)) for i in range(60)])
OTHERS = np.stack([chest_phantom(100 + i, (32, 32)) for i in range(60)])
KNEES = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(40)])


def blurred(images: np.ndarray, pixels: float) -> np.ndarray:
    return np.stack([gaussian_filter(image, (0, *[pixels] * (image.ndim - 1))) for image in images])


def test_blur_takes_fine_detail_away() -> None:
    shares = [np.median(fine_detail(blurred(CHEST, pixels))) for pixels in (0, 0.7, 1.5, 3)]
    assert (np.diff(shares) < 0).all()
    assert len(fine_detail(CHEST, most=7)) == 7
    assert fine_detail(np.zeros((2, 1, 8, 8))).tolist() == [0, 0]


@pytest.mark.parametrize("volumes", [False, True])
def test_only_soft_cohorts_are_matched_and_told_of(volumes: bool) -> None:
    real, ours = (KNEES[:20], KNEES[20:]) if volumes else (CHEST, OTHERS)
    assert match_sharpness(ours, real) is None
    assert match_sharpness(0.3 * ours, real) is None  # darker is not softer
    assert blur_warning(None, True) == []
    found = match_sharpness(blurred(ours, 2), real)
    assert found is not None and found.synthetic < found.heldout
    assert "softened to the same spectrum" in blur_warning(found, True)[0]
    assert "--match_sharpness" in blur_warning(found, False)[0]


def test_a_few_blurred_images_are_told_of() -> None:
    some = np.concatenate([blurred(OTHERS[: len(OTHERS) // 3], 2), OTHERS[len(OTHERS) // 3 :]])
    assert match_sharpness(some, CHEST) is None
    assert "less fine detail" in partly_soft_warning(some, CHEST)[0]
    assert partly_soft_warning(OTHERS, CHEST) == []


@pytest.mark.parametrize("volumes", [False, True])
@pytest.mark.parametrize("pixels", [1.0, 2.0])
def test_softened_images_are_as_soft_as_the_synthetic_ones(volumes: bool, pixels: float) -> None:
    real, ours = (KNEES[:20], KNEES[20:]) if volumes else (CHEST, OTHERS)
    soft = blurred(ours, pixels)
    softening = match_sharpness(soft, real)
    assert softening is not None
    result = softening(real.astype(np.float16))
    assert result.shape == real.shape and result.dtype == np.float16
    assert result.min() >= 0 and result.max() <= 1
    assert np.median(fine_detail(result)) == pytest.approx(np.median(fine_detail(soft)), rel=0.35)
    # They are still the same images: what is left is what blurring would have left.
    error = np.abs(result - blurred(real, pixels)).mean(), np.abs(real - blurred(real, pixels)).mean()
    assert error[0] < 0.5 * error[1]


def test_a_half_blurred_cohort_is_matched_by_half_softened_images() -> None:
    soft = np.concatenate([OTHERS[:30], blurred(OTHERS[30:], 2)])
    assert np.median(fine_detail(soft)) < np.quantile(fine_detail(CHEST), 0.25)
    softening = match_sharpness(soft, CHEST)
    assert softening is not None and len(softening.gains) == 4
    change = np.abs(softening(CHEST) - CHEST).mean(axis=(1, 2, 3))
    # The gains of the sharper half let everything pass, those of the softer half do not.
    assert max(softening.gains[0].mean(), softening.gains[1].mean()) < 0.5 * softening.gains[3].mean()
    assert np.sort(change)[:15].mean() < 0.3 * np.sort(change)[-15:].mean()


def test_small_cohorts_have_one_group_and_sharp_images_stay() -> None:
    softening = match_sharpness(blurred(OTHERS[:5], 2), CHEST[:12])
    assert softening is not None and softening.gains.shape[0] == 1 and len(softening.limits) == 0
    assert (softening.gains <= 1).all() and softening.gains[0, 0] == 1


def test_a_softened_cohort_has_a_hash_of_its_own() -> None:
    images = tuple(CohortImage(Path(str(i)), str(i), str(i)) for i in range(60))
    cohort = Cohort("heldout", images, "folder", patients_known=True)
    prepared = PreparedCohort(cohort, CHEST.astype(np.float16), (), (), "a" * 64)
    softening = match_sharpness(blurred(OTHERS, 2), CHEST)
    assert softening is not None
    soft = softening.cohort(prepared)
    assert soft.cohort is prepared.cohort and soft.content_sha256 != prepared.content_sha256
    assert softening.cohort(prepared).content_sha256 == soft.content_sha256


@pytest.mark.parametrize(("share", "found"), [(0.0, False), (0.1, True), (0.3, True)])
def test_soft_images_among_sharp_ones_are_picked_out(share: float, found: bool) -> None:
    images = np.stack([chest_phantom(number, (32, 32)) for number in range(160)])
    heldout, synthetic = images[:80], images[80:].copy()
    n_soft = round(share * len(synthetic))
    synthetic[:n_soft] = gaussian_filter(synthetic[:n_soft], (0, 0, 1.5, 1.5))
    assert match_sharpness(synthetic, heldout) is None
    part = soft_part(synthetic, heldout)
    assert (part is not None) == found
    if part is not None:
        assert part.which[:n_soft].all() and part.which[n_soft:].mean() < 0.15
        softened = fine_detail(part.softening(heldout))
        assert abs(np.median(softened) / np.median(fine_detail(synthetic[:n_soft])) - 1) < 0.35
        assert f"{int(part.which.sum())} of the synthetic images" in part.warning()


def test_images_that_are_soft_by_nature_do_not_sharpen_what_blurred_ones_are_judged_by() -> None:
    images = np.stack([chest_phantom(number, (32, 32)) for number in range(240)])
    heldout, synthetic = images[:80], images[80:].copy()
    synthetic[:20], synthetic[20:24] = blurred(synthetic[:20], 2), blurred(synthetic[20:24], 0.6)
    part = soft_part(synthetic, heldout)
    assert part is not None and part.which[:20].all() and part.which[20:24].sum() >= 2
    softened = fine_detail(part.softening(heldout))
    assert np.quantile(softened, 0.95) < 1.2 * fine_detail(synthetic[:20]).max()
