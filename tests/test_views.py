# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.views import Views

CHEST = torch.from_numpy(np.stack([chest_phantom(i, (32, 32)) for i in range(6)]))
KNEE = torch.from_numpy(np.stack([knee_phantom(i, (16, 16, 16)) for i in range(4)]))
NOTHING = Views(p_rotation=0.0, p_flip=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("views", [Views.paper(), Views.default()], ids=["paper", "default"])
@pytest.mark.parametrize("images", [CHEST, KNEE], ids=["2D", "3D"])
def test_views_keep_shape_and_range_and_depend_on_the_generator_alone(views: Views, images: torch.Tensor) -> None:
    found = views(images, generator())
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1
    assert torch.isfinite(found).all() and not torch.equal(found, images)
    torch.manual_seed(99)
    assert torch.equal(found, views(images, generator()))
    assert not torch.equal(found, views(images, generator(1)))


def test_no_view_is_the_image_itself() -> None:
    assert torch.equal(NOTHING(CHEST, generator()), CHEST)


@pytest.mark.parametrize(("images", "axis"), [(CHEST, 3), (KNEE, 2)], ids=["2D", "3D"])
def test_flip_is_left_right(images: torch.Tensor, axis: int) -> None:
    found = replace(NOTHING, p_flip=1.0)(images, generator())
    assert torch.allclose(found, images.flip(axis), atol=1e-4)


@pytest.mark.parametrize("images", [CHEST, KNEE], ids=["2D", "3D"])
def test_rotation_stays_within_its_degrees(images: torch.Tensor) -> None:
    small = replace(NOTHING, rotation=2.0, p_rotation=1.0)(images, generator())
    large = replace(NOTHING, rotation=60.0, p_rotation=1.0)(images, generator())
    assert (small - images).abs().mean() < 0.5 * (large - images).abs().mean()


def spreads(image: torch.Tensor) -> np.ndarray:
    """Variances along the principal axes, in pixels: a rotation keeps them, a shear does not."""
    places = np.stack(np.meshgrid(*(np.arange(length) for length in image.shape), indexing="ij"), axis=-1)
    cloud, weight = places.reshape(-1, image.ndim).astype(float), image.numpy().ravel().astype(float)
    return np.linalg.eigvalsh(np.cov(cloud.T, aweights=weight, ddof=0))


@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (24, 48, 48)], ids=str)
def test_oblong_images_are_turned_and_not_sheared(shape: tuple[int, ...]) -> None:
    axes = np.meshgrid(*(np.arange(length) - (length - 1) / 2 for length in shape), indexing="ij")
    widths = np.linspace(1.5, 4.0, len(shape))
    blob = np.exp(-0.5 * sum((axis / width) ** 2 for axis, width in zip(axes, widths, strict=True)))
    images = torch.from_numpy(blob.astype(np.float32)).repeat(8, 1, *(1 for _ in shape))
    found = replace(NOTHING, rotation=40.0, p_rotation=1.0)(images, generator())
    assert not torch.allclose(found, images, atol=0.1)
    for image in found:
        # Interpolation widens the blob a little, by up to a quarter of a square pixel.
        np.testing.assert_allclose(spreads(image[0]), widths**2, atol=0.35)


def test_regions_are_erased_or_replaced_up_to_their_share() -> None:
    images = torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32).repeat(64, 1, 1, 1)
    changed = (replace(NOTHING, region=0.25, p_erase=1.0)(images, generator()) != images).float().mean(dim=(1, 2, 3))
    assert changed.min() > 0.02 and changed.max() < 0.36
    pair = torch.cat([torch.zeros(8, 1, 32, 32), torch.ones(8, 1, 32, 32)])
    replaced = replace(NOTHING, region=0.25, p_replace=1.0)(pair, generator())
    assert ((replaced != pair).float().mean(dim=(1, 2, 3)) > 0).any()
    assert set(replaced.unique().tolist()) == {0.0, 1.0}


def test_blur_smooths_and_noise_roughens() -> None:
    def roughness(images: torch.Tensor) -> torch.Tensor:
        return images.diff(dim=-1).abs().mean()

    assert roughness(replace(NOTHING, blur=4.0, p_blur=1.0)(CHEST, generator())) < roughness(CHEST)
    assert roughness(replace(NOTHING, noise=0.1, p_noise=1.0)(CHEST, generator())) > roughness(CHEST)
    flat = torch.full((2, 1, 16, 16, 16), 0.7)
    assert torch.allclose(replace(NOTHING, blur=4.0, p_blur=1.0)(flat, generator()), flat, atol=1e-5)


def test_description_names_what_is_done() -> None:
    assert "rotation of up to 5 degrees" in Views.paper().describe() and "flip" in Views.paper().describe()
    assert "blur" not in Views.paper().describe() and "blurring" in Views.default().describe()
    assert "no change at all" in NOTHING.describe()
    assert Views.from_dict(Views.default().to_dict()) == Views.default()
    with pytest.raises(ValueError, match="images must have shape"):
        Views.paper()(torch.zeros(3, 3))
