# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest

from monai_memo.data.further_alterations import FURTHER
from monai_memo.data.ladder import Planted, altered, chosen_levels, kinds_of
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.errors import ConfigurationError

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(3)])
KNEE = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(3)])
RISING = {
    "margins": (0.1, 0.2), "white_margins": (0.1, 0.2), "letterbox": (0.1, 0.2), "bars": (0.1, 0.2),
    "crop": (0.1, 0.4), "crop_corner": (0.1, 0.4), "anisotropic": (0.05, 0.2), "shear": (0.05, 0.15),
    "perspective": (0.05, 0.15), "elastic": (0.01, 0.06), "speckle": (0.1, 0.8), "grid": (0.02, 0.13),
    "text": (2, 4), "blend": (0.2, 0.5), "boxes": (0.1, 0.6),
}  # fmt: skip


def changed(name: str, images: np.ndarray, strength: float = 0.0) -> np.ndarray:
    return FURTHER[name](images, np.random.default_rng(0), np.full(len(images), float(strength)))


@pytest.mark.parametrize("name", list(RISING))
@pytest.mark.parametrize("images", [CHEST, KNEE], ids=["2D", "3D"])
def test_more_strength_changes_more(name: str, images: np.ndarray) -> None:
    weak, strong = (changed(name, images, strength) for strength in RISING[name])
    assert weak.shape == images.shape and strong.min() >= 0 and strong.max() <= 1
    assert 0 < np.abs(weak - images).mean() < np.abs(strong - images).mean()


@pytest.mark.parametrize("images", [CHEST[..., :48], KNEE[..., :12]], ids=["2D", "3D"])
def test_every_kind_keeps_shape_type_and_range_of_oblong_images(images: np.ndarray) -> None:
    for level in chosen_levels(kinds_of(images.ndim - 2)):
        result = altered(images, level, seed=0)
        assert result.shape == images.shape and result.dtype == np.float32, level
        assert result.min() >= 0 and result.max() <= 1, level
        np.testing.assert_array_equal(result, altered(images, level, seed=0))


@pytest.mark.parametrize("name", ["tilted", "front_to_back", "reoriented"])
def test_what_needs_three_axes_refuses_pictures(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is an alteration of volumes"):
        changed(name, CHEST)
    assert name not in kinds_of(2) and name in kinds_of(3)


def test_tilted_volumes_turn_about_any_axis() -> None:
    ball = np.zeros((1, 1, 33, 33, 33), np.float32)
    ball[0, 0, 14:19, 14:19, 22:27] = 1  # 8 voxels from the centre, whose place is 16
    turned = FURTHER["tilted"](np.repeat(ball, 6, axis=0), np.random.default_rng(0), np.full(6, 30.0))
    places = np.stack([[np.average(axis, weights=one[0]) for axis in np.indices(ball.shape[2:])] for one in turned])
    assert np.linalg.norm(places - 16, axis=1) == pytest.approx(8, abs=0.2)
    moved = np.linalg.norm(places - [16, 16, 24], axis=1)
    assert moved.max() <= 2 * 8 * np.sin(np.radians(15)) + 0.2 and moved.max() > 2  # a chord of 30 degrees at most
    assert (np.abs(places - [16, 16, 24]) > 0.3).all(axis=1).any(), "none turned out of the planes of the axes"


def test_reoriented_volumes_hold_the_same_voxels_along_other_axes() -> None:
    many = np.repeat(KNEE[:1], 60, axis=0)
    results = {one.tobytes() for one in changed("reoriented", many)}
    ways = {
        np.ascontiguousarray(np.transpose(KNEE[0, 0], order)[::first, ::second, ::third]).tobytes()
        for order in itertools.permutations(range(3))
        for first, second, third in itertools.product((1, -1), repeat=3)
    }
    upright = {KNEE[0, 0].tobytes(), np.ascontiguousarray(KNEE[0, 0, ::-1]).tobytes()}
    assert len(ways) == 48 and results <= ways - upright and len(results) > 25
    np.testing.assert_array_equal(changed("front_to_back", KNEE), KNEE[:, :, :, ::-1])


def test_margins_hold_the_whole_image() -> None:
    white = changed("white_margins", np.full((1, 1, 40, 40), 0.5, np.float32), 0.1)[0, 0]
    assert (white[:4] == 1).all() and (white[:, 36:] == 1).all() and np.allclose(white[4:36, 4:36], 0.5)
    boxed = changed("letterbox", np.full((1, 1, 40, 40), 0.5, np.float32), 0.2)[0, 0]
    assert (boxed[:8] == 0).all() and (boxed[32:] == 0).all() and np.allclose(boxed[8:32], 0.5)


def test_crops_show_what_lay_in_the_middle_or_in_a_corner() -> None:
    ramp = np.tile(np.linspace(0, 1, 101, dtype=np.float32), (101, 1))[None, None]
    middle, corner = changed("crop", ramp, 0.4)[0, 0, 50], changed("crop_corner", ramp, 0.4)[0, 0, 50]
    assert middle[[0, -1]] == pytest.approx([0.2, 0.8], abs=0.01)
    low, high = corner[[0, -1]]
    assert high - low == pytest.approx(0.6, abs=0.01) and min(low, 1 - high) == pytest.approx(0, abs=0.01)


def test_axis_symmetries_are_exact() -> None:
    assert any(np.array_equal(changed("turn", CHEST, 90)[0, 0], np.rot90(CHEST[0, 0], k)) for k in (1, 3))
    np.testing.assert_array_equal(changed("turn", CHEST, 180)[0, 0], CHEST[0, 0, ::-1, ::-1])
    np.testing.assert_array_equal(changed("upside_down", CHEST), CHEST[:, :, ::-1])
    np.testing.assert_array_equal(changed("upside_down", KNEE), KNEE[..., ::-1])
    np.testing.assert_array_equal(changed("transposed", CHEST), CHEST.swapaxes(2, 3))
    np.testing.assert_allclose(changed("inverted", CHEST), 1 - CHEST)


def test_perspective_keeps_both_ends_in_the_picture_and_narrows_one() -> None:
    seen = changed("perspective", np.ones((1, 1, 100, 100), np.float32), 0.15)[0, 0]
    widths = {round(float(line.sum())) for line in (seen[1], seen[-2], seen[:, 1], seen[:, -2])}
    assert any(abs(width - 70) <= 2 for width in widths) and any(abs(width - 99) <= 2 for width in widths)


def test_a_blend_is_made_of_two_images_in_equal_parts() -> None:
    mixed = changed("blend", CHEST, 0.5)
    errors = np.abs(mixed[0] - (CHEST[0] + CHEST[1:]) / 2).max(axis=(1, 2, 3))
    assert errors.min() < 1e-6 < errors.max()


def test_parts_of_two_patients() -> None:
    first, second = np.zeros((1, 1, 20, 20), np.float32), np.ones((1, 1, 20, 20), np.float32)
    both = np.concatenate([first, second])
    assert changed("half_replaced", both).mean(axis=(1, 2, 3)).tolist() == [0.5, 0.5]
    assert changed("part_kept", both).mean(axis=(1, 2, 3)).tolist() == [0.75, 0.25]
    assert 0.5 <= changed("boxes", both, 0.5)[0].mean() < 0.65
    parts = np.kron(np.arange(4).reshape(2, 2) / 4, np.ones((10, 10)))[None, None].astype(np.float32)
    exchanged = changed("parts_exchanged", parts)
    assert sorted(exchanged[0, 0, ::10, ::10].ravel().tolist()) == [0, 0.25, 0.5, 0.75]
    assert (exchanged != parts).all()


@pytest.mark.parametrize("name", ["blend", "half_replaced", "part_kept", "boxes"])
def test_one_image_cannot_be_joined(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} needs at least two images"):
        changed(name, CHEST[:1], 0.5)


def test_draws_of_one_kind_do_not_move_those_of_another() -> None:
    alone = altered(CHEST, Planted("elastic", 0.06), 1)
    altered(CHEST, Planted("rescanned", 0.03), 1)
    np.testing.assert_array_equal(alone, altered(CHEST, Planted("elastic", 0.06), 1))
