# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_memo.registration import correlation as module
from monai_memo.registration.correlation import ShiftCorrelation


def by_fourier(correlation: ShiftCorrelation, images: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
    """The whole transform of each pair, of which the shifts within reach are cut out."""
    dims = len(correlation.shape)
    axes = tuple(range(1, dims + 1))

    def spectrum(values: torch.Tensor) -> torch.Tensor:
        tapered = values * correlation.taper(values.device)
        tapered = tapered - tapered.mean(dim=axes, keepdim=True)
        return torch.fft.rfftn(tapered / tapered.pow(2).sum(dim=axes, keepdim=True).sqrt(), dim=axes)

    product = spectrum(images)[:, None] * spectrum(views.flatten(0, 1)).conj()[None]
    full = torch.fft.irfftn(product, s=correlation.shape, dim=tuple(range(2, dims + 2)))
    for axis, offsets in enumerate(correlation.offsets):
        full = full.index_select(2 + axis, offsets % correlation.shape[axis])
    full = full.unflatten(1, views.shape[:2])
    return full.permute(1, *range(2 + dims, 3, -1), 2, 3, 0)


@pytest.mark.parametrize("shape", [(32, 32), (32, 20), (15, 32), (16, 16, 16), (10, 16, 12)])
def test_matrix_products_give_what_whole_transforms_give(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", {2: 99, 3: 99})
    correlation = ShiftCorrelation(shape, 0.16)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, *shape, generator=generator)
    views = torch.randn(2, 3, *shape, generator=generator)
    rows = correlation.rows(correlation.spectra(images))
    kernels = correlation.kernels(correlation.spectra(views.flatten(0, 1)).unflatten(0, (2, 3)))
    found = correlation(kernels, rows.movedim(0, -1))
    torch.testing.assert_close(found, by_fourier(correlation, images, views), atol=1e-6, rtol=1e-4)


def test_an_image_correlates_with_itself_where_it_lies() -> None:
    correlation = ShiftCorrelation((32, 32), 0.16)
    noise = torch.randn(1, 1, 36, 36, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(noise, 5, stride=1)[0]
    rows = correlation.rows(correlation.spectra(image))
    moved = torch.roll(image, (3, -2), dims=(1, 2))
    kernels = correlation.kernels(correlation.spectra(moved)[None])
    found = correlation(kernels, rows.movedim(0, -1))[0, :, 0, :, 0]  # (second axis, first axis)
    best = divmod(int(found.argmax()), found.shape[1])
    assert (int(correlation.offsets[0][best[1]]), int(correlation.offsets[1][best[0]])) == (-3, 2)
    assert float(found.max()) > 0.6
