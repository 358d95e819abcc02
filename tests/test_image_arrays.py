# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images in memory: what they are taken for is said, and what could be two things is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monai_memo.errors import ConfigurationError
from monai_memo.image_arrays import take_images

RNG = np.random.default_rng(0)
GREY = RNG.random((5, 12, 10)).astype(np.float32)
COLOUR = RNG.random((5, 12, 10, 3)).astype(np.float32)
VOLUMES = RNG.random((2, 6, 8, 7)).astype(np.float32)
SPOILT = np.where(np.arange(5) == 2, np.nan, 1.0)[:, None, None] * GREY
BYTES = np.round(GREY * 255).astype(np.uint8)


def signed(images: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(images) * 2 - 1).requires_grad_()


FORMS: dict[str, tuple[Any, np.ndarray, str]] = {
    "one grey image": (GREY[0], GREY[:1, None], "1 image of 12 x 10 pixels in grey, from one array (H, W)"),
    "channel first": (GREY[:1], GREY[:1, None], "1 image of 12 x 10 pixels in grey"),
    "one in colour": (COLOUR[0], COLOUR[:1].transpose(0, 3, 1, 2), "1 image of 12 x 10 pixels in colour"),
    "a stack": (GREY, GREY[:, None], "5 images of 12 x 10 pixels in grey, from one array (N, H, W)"),
    "a batch": (GREY[:, None], GREY[:, None], "from one array (N, C, H, W)"),
    "channels last": (GREY[..., None], GREY[:, None], "from one array (N, H, W, C)"),
    "colours last": (COLOUR, COLOUR.transpose(0, 3, 1, 2), "5 images of 12 x 10 pixels in colour"),
    "colours first": (COLOUR.transpose(0, 3, 1, 2), COLOUR.transpose(0, 3, 1, 2), "array (N, C, H, W)"),
    "a tensor with gradients": (signed(GREY[:, None]), GREY[:, None], "values in [-1, 1] (float32)"),
    "half precision": (torch.from_numpy(GREY).bfloat16(), GREY[:, None], "values in [0, 1]"),
    "bytes": (BYTES, GREY[:, None], "values 0 to 255 (uint8)"),
    "pictures": ([Image.fromarray(item) for item in BYTES], GREY[:, None], "a sequence of (H, W), values 0 to 255"),
    "one picture": (Image.fromarray(BYTES[0]), GREY[:1, None], "1 image of 12 x 10 pixels"),
    "a list of tensors": (list(torch.from_numpy(GREY[:, None])), GREY[:, None], "5 images"),
    "a list of batches": ([GREY[:2, None], GREY[2:, None]], GREY[:, None], "5 images"),
    "lists of numbers": (GREY[0].tolist(), GREY[:1, None], "from one array (H, W)"),
    "volumes": (VOLUMES, VOLUMES[:, None], "2 images of 6 x 8 x 7 voxels in grey, from one array (N, X, Y, Z)"),
    "volumes with a channel": (VOLUMES[:, None], VOLUMES[:, None], "from one array (N, C, X, Y, Z)"),
    "a list of volumes": (list(VOLUMES), VOLUMES[:, None], "2 images of 6 x 8 x 7 voxels"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_pixels_and_says_what_it_was_taken_for(form: str) -> None:
    images, wanted, words = FORMS[form]
    taken = take_images(images)
    pixels = taken.in_unit_range()
    assert pixels.dtype == np.float32 and pixels.shape == wanted.shape
    np.testing.assert_allclose(pixels, wanted, atol=0.005)
    assert words in taken.sentence


def test_colours_of_pictures_are_kept_and_transparency_is_left_out() -> None:
    rgba = np.concatenate([np.round(COLOUR[0] * 255), np.full((12, 10, 1), 9)], axis=-1).astype(np.uint8)
    taken = take_images([Image.fromarray(rgba)])
    np.testing.assert_array_equal(taken.arrays[0], rgba[..., :3].transpose(2, 0, 1))
    assert "in colour, transparency left out" in taken.sentence
    palette = Image.fromarray(rgba[..., :3]).convert("P")
    assert take_images(palette).arrays[0].shape == (3, 12, 10)


def test_other_intensities_stay_as_they_are() -> None:
    hounsfield = (GREY * 3000 - 1000).astype(np.int16)
    taken = take_images(hounsfield)
    np.testing.assert_array_equal(taken.in_unit_range()[:, 0], hounsfield)
    assert re.search(r"values from -\d+ to \d+ \(int16\), scaled image by image", taken.sentence)


WRONG: dict[str, tuple[Any, str]] = {
    "embeddings of nobody": (np.zeros((0, 128)), r"got the shape \(0, 128\), where \(H, W\), \(H, W, C\).*is expected"),
    "no images": (np.zeros((0, 1, 9, 9)), "none were given"),
    "two channels": (np.zeros((5, 2, 12, 10)), r"got the shape \(5, 2, 12, 10\)"),
    "one axis": (np.zeros(9), r"got the shape \(9,\)"),
    "grey or colour": (GREY[:3], r"the shape \(3, 12, 10\) may be 3 grey images or one image.*give \(3, 1, 12, 10\)"),
    "several sizes": ([GREY[0], GREY[0, :8, :8]], r"have 2 shapes.*\(1, 12, 10\) \(1, for example number 0\)"),
    "grey and colour": ([GREY[0], COLOUR[0]], r"have 2 shapes.*\(3, 12, 10\)"),
    "2D and 3D": ([GREY[0], VOLUMES[0]], r"number 1 has the shape \(6, 8, 7\)"),
    "NaN": (SPOILT, r"1 of 5 hold NaN.*number 2 of the shape \(1, 12, 10\)"),
    "bytes and fractions": ([GREY[0], BYTES[0]], "some hold bytes"),
    "text": (np.array([["a"] * 9] * 9), r"holds <U1 in the shape \(9, 9\)"),
    "complex numbers": (GREY + 1j, "holds complex"),
    "a path": ("images", "got 'images', a text or path"),
    "nothing": (None, "got NoneType"),
    "ragged lists": ([[0.1, 0.2], [0.3]], "the lists are of several lengths"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_no_images_or_two_things_is_refused_with_its_shape(fault: str) -> None:
    images, words = WRONG[fault]
    with pytest.raises(ConfigurationError, match=f"^training images.*{words}"):
        take_images(images, "training images")


def test_what_is_known_beforehand_settles_what_the_shape_leaves_open() -> None:
    three = take_images(GREY[:3], count=3)
    assert len(three) == 3 and three.arrays[0].shape == (1, 12, 10)
    volume = take_images(GREY, dims=3)
    assert len(volume) == 1 and volume.arrays[0].shape == (1, 5, 12, 10)
    with pytest.raises(ConfigurationError, match=r"got the shape \(2, 6, 8, 7\), where \(H, W\)"):
        take_images(VOLUMES, dims=2)
    with pytest.raises(ConfigurationError, match=r"got the shape \(5, 12, 10\) for 4 images"):
        take_images(GREY, count=4)
    broken = take_images(GREY * np.nan, strict=False)
    assert len(broken) == 5 and "that are no numbers" in broken.sentence
