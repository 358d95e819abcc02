# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.registration.affine import coordinates, identity, warp
from monai_memo.registration.filters import local_contrast
from monai_memo.registration.gauss_newton import refine


def image(dims: int, length: int) -> Tensor:
    phantom = chest_phantom if dims == 2 else knee_phantom
    return torch.from_numpy(phantom(3, (length,) * dims))[None].float()


def turned(dims: int, degrees: float, zoom: float, shift: float) -> Tensor:
    theta, angle = identity(dims)[None].clone(), math.radians(degrees)
    theta[0, 0, 0] = theta[0, 1, 1] = math.cos(angle)
    theta[0, 0, 1], theta[0, 1, 0] = -math.sin(angle), math.sin(angle)
    theta[0, :, :dims] *= zoom
    theta[0, 0, dims] = shift
    return theta


@pytest.mark.parametrize(("dims", "length"), [(2, 64), (2, 24), (3, 32), (3, 20)])
def test_a_copy_that_was_moved_is_registered_to_a_fifth_of_a_pixel(dims: int, length: int) -> None:
    candidate, moved = image(dims, length), turned(dims, 4.0, 1.05, 0.06)
    query, inside = warp(candidate, moved)
    first = local_contrast(query, inside, 1.0, 4.0, 5.0)
    second = local_contrast(candidate, torch.ones_like(candidate), 1.0, 4.0, 5.0)
    found = refine(identity(dims)[None], first, second, steps=8)
    apart = [
        a - b for a, b in zip(coordinates(found, query.shape[2:]), coordinates(moved, query.shape[2:]), strict=True)
    ]
    distance = torch.stack(apart).norm(dim=0) * length / 2  # pixels
    assert float(distance.mean()) < 0.2


@pytest.mark.parametrize("shape", [(8, 6), (6, 8, 5)])
def test_coordinates_of_some_points_are_those_among_all(shape: tuple[int, ...]) -> None:
    theta = turned(len(shape), 10.0, 0.9, 0.2)
    some = (slice(None), *(slice(1, None, 2) for _ in shape))
    for every, one in zip(coordinates(theta, shape), coordinates(theta, shape, 2), strict=True):
        torch.testing.assert_close(every[some], one)
