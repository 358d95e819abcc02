# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.registration.affine import sampling_grid, warp
from monai_memo.registration.coarse import CoarseRegistration
from monai_memo.registration.filters import band, local_contrast, octaves, smooth, structured
from monai_memo.registration.gauss_newton import refine


def placement(degrees: float, zoom: float, shift: tuple[float, float]) -> torch.Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[[zoom * cosine, -zoom * sine, shift[0]], [zoom * sine, zoom * cosine, shift[1]]]])


def test_an_oblong_image_is_turned_and_not_sheared() -> None:
    grid = sampling_grid(placement(90, 1.0, (0, 0)), (4, 8))
    # A quarter turn takes the middle of the right edge half a width down: twice the height of the image.
    assert grid[0, 2, 7, 1] > 1.5 and abs(float(grid[0, 2, 7, 0])) < 0.2


def test_smoothing_keeps_the_mean_and_masks_have_no_edges() -> None:
    image = torch.rand(2, 1, 32, 24)
    assert float(smooth(torch.ones(1, 1, 33, 33), 2.0)[0, 0, 16, 16]) == pytest.approx(1, abs=1e-3)
    mask = torch.ones_like(image)
    mask[:, :, 8:20] = 0
    assert float(band(torch.full_like(image, 0.7), mask, 1.0, 2.0).abs().max()) < 1e-5
    assert octaves((32, 32, 32)) == [(0.5, 1.0), (1.0, 2.0)]


def test_erased_areas_are_hidden_and_pictures_are_not() -> None:
    image = torch.from_numpy(chest_phantom(0))[None] + 0.01 * torch.randn(1, 1, 64, 64)
    assert float(structured(image).mean()) > 0.99
    image[..., 10:30, 10:30] = 0
    hidden = structured(image) == 0
    assert bool(hidden[..., 10:30, 10:30].all()) and float(hidden.float().mean()) < 0.14


def test_a_rim_of_one_grey_value_is_hidden_however_thin() -> None:
    image = torch.from_numpy(chest_phantom(0))[None] + 0.01 * torch.randn(1, 1, 64, 64)
    image[..., 0] = image[..., -2:, :] = 0.2
    hidden = (structured(image) == 0)[0, 0]
    assert bool(hidden[:, :2].all()) and bool(hidden[-3:].all())  # one further in, where resizing mixes
    assert not bool(hidden[:-3, 2:].any())


def coarse(query: torch.Tensor, mask: torch.Tensor, images: torch.Tensor, best: int) -> torch.Tensor:
    """The best transforms ``(k, best, dims, dims + 1)`` of one query against images."""
    registration = CoarseRegistration(images.shape[2:])
    rows = registration.rows(registration.features(images, torch.ones_like(images)))
    return registration(registration.features(query, mask), rows[None], best)[0]


def aligned_error(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Coarse search and refinement of a warped image; largest error of a corner in units of half the length."""
    shape = images.shape[2:]
    query, inside = warp(images, truth)
    query = query * inside
    mask = structured(query)
    found = coarse(query, mask, images, 2)
    first = local_contrast(query, mask, 1, 4, 5)
    second = local_contrast(images, torch.ones_like(images), 1, 4, 5)
    refined = refine(found[0, :1], first, second, 8)
    corners = sampling_grid(refined, shape) - sampling_grid(truth, shape)
    return float(corners.abs().max())


@pytest.mark.parametrize(
    ("degrees", "zoom", "shift"), [(17, 1.0, (0.0, 0.0)), (-8, 1.12, (0.1, -0.15)), (0, 0.88, (0.2, 0.2))]
)
def test_the_placement_is_found_to_the_pixel(degrees: float, zoom: float, shift: tuple[float, float]) -> None:
    image = torch.from_numpy(chest_phantom(3))[None]
    assert aligned_error(image, placement(degrees, zoom, shift)) < 1.5 * 2 / 64


def test_a_mirror_image_is_found() -> None:
    image = torch.from_numpy(chest_phantom(3))[None]
    truth = placement(0, 1.0, (0, 0))
    truth[:, 0, 0] = -1
    assert aligned_error(image, truth) < 2 / 64


def test_the_coarse_search_sees_parts_of_a_coarse_pixel() -> None:
    image = torch.from_numpy(chest_phantom(3))[None]
    truth = placement(0, 1.0, (0.5 * 2 / 32, -0.4 * 2 / 32))  # of the 32 coarse pixels
    query, _ = warp(image, truth)
    found = coarse(query, torch.ones_like(image), image, 1)
    assert float((found[0, 0] - truth[0]).abs().max()) < 0.2 * 2 / 32


def test_volumes_are_aligned() -> None:
    volume = torch.from_numpy(np.stack([knee_phantom(1, (32, 32, 32))]))
    truth = torch.cat([torch.eye(3), torch.tensor([[0.1], [0.0], [-0.1]])], dim=1)[None]
    assert aligned_error(volume, truth) < 2 * 2 / 32
