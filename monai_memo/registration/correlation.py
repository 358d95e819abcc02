# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Correlation of many images with many views under small shifts, as matrix products.

A Fourier transform for each pair gives all shifts, of which only those within reach count, and spends its time on
copies. Here the views are folded into a partial inverse transform that gives the shifts within reach alone, so that a
whole gallery takes a few matrix products. Frequencies above ``KEPT`` hold two hundredths of what band-passed images
show, and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

KEPT = {2: 8, 3: 6}  # cycles per length of the image, along each axis


class ShiftCorrelation:
    """Correlation under all shifts within reach, for images of one shape.

    Args:
        shape: of the (small) images.
        reach: largest shift along each axis, as a share of its length.
    """

    def __init__(self, shape: Sequence[int], reach: float) -> None:
        self.shape, self.dims, self.reach = tuple(shape), len(shape), reach
        kept = KEPT[self.dims]
        self.offsets = [torch.arange(-round(reach * length), round(reach * length) + 1) for length in shape]
        self.frequencies = []
        for axis, length in enumerate(shape):
            # In the order of a Fourier transform; of the last axis half is enough, since images are real.
            whole = (
                range(length // 2 + 1)
                if axis == self.dims - 1
                else [*range((length + 1) // 2), *range(-(length // 2), 0)]
            )
            self.frequencies.append([one for one in whole if abs(one) <= kept])

    def taper(self, device: torch.device) -> Tensor:
        """``(*shape)`` weights that fall off to the ends of the image."""
        return _taper(self.shape, device)

    def spectra(self, images: Tensor) -> Tensor:
        """Kept frequencies of images, tapered, of mean 0 and length 1.

        Args:
            images: ``(batch, *shape)``.

        Returns:
            ``(batch, *frequencies)`` complex.
        """
        axes = tuple(range(1, self.dims + 1))
        tapered = images * self.taper(images.device)
        tapered = tapered - tapered.mean(dim=axes, keepdim=True)
        standard = tapered / tapered.pow(2).sum(dim=axes, keepdim=True).sqrt().clamp(min=1e-6)
        spectra: Tensor = torch.fft.rfftn(standard, dim=axes)
        for axis, kept in enumerate(self.frequencies):
            chosen = _numbers(tuple(one % self.shape[axis] for one in kept), images.device)
            spectra = spectra.index_select(axis + 1, chosen)
        return spectra

    def rows(self, spectra: Tensor) -> Tensor:
        """Spectra of images as real numbers: ``(n, *f)`` to ``(n, f_d, ..., f_2, 2 f_1)``.

        Frequencies of the last axis come first, those of the first axis last, real and imaginary parts one after the
        other. ``rows(...).movedim(0, -1)`` are the columns that views are multiplied with.
        """
        parts = torch.view_as_real(spectra)  # (n, f_1, ..., f_d, 2)
        order = list(range(self.dims, 1, -1))  # f_d ... f_2
        return parts.permute(0, *order, self.dims + 1, 1).flatten(-2, -1).contiguous()

    def kernels(self, spectra: Tensor) -> Tensor:
        """Views with the first axis' inverse transform folded in.

        Args:
            spectra: ``(batch, v, *f)`` of the views of each query.

        Returns:
            ``(batch, f_d, ..., f_2, 2 v s_1, 2 f_1)``: rows are real then imaginary parts.
        """
        phase = self._phase(0, spectra.device)  # (s_1, f_1)
        turned = spectra.conj().movedim(2, -1).flatten(2, -2) if self.dims > 1 else spectra.conj()
        batch, views = spectra.shape[:2]
        middle = spectra.shape[3:]
        turned = turned.reshape(batch, views, *middle, 1, -1) * phase  # (batch, v, f_2, ..., f_d, s_1, f_1)
        order = [2 + axis for axis in reversed(range(len(middle)))]
        turned = turned.permute(0, *order, 1, turned.ndim - 2, turned.ndim - 1)  # (batch, f_d, ..., f_2, v, s_1, f_1)
        real, imaginary = torch.view_as_real(turned.flatten(-3, -2)).unbind(-1)
        kernels = real.new_empty(*real.shape[:-2], 2, real.shape[-2], 2, real.shape[-1])
        kernels[..., 0, :, 0, :], kernels[..., 0, :, 1, :] = real, -imaginary
        kernels[..., 1, :, 0, :], kernels[..., 1, :, 1, :] = imaginary, real
        return kernels.flatten(-2).flatten(-3, -2)

    def __call__(self, kernels: Tensor, columns: Tensor) -> Tensor:
        """Correlation of views with images under every shift within reach.

        Args:
            kernels: ``(batch, f_d, ..., f_2, 2 v s_1, 2 f_1)``.
            columns: ``(batch or nothing, f_d, ..., f_2, 2 f_1, n)``.

        Returns:
            ``(batch, s_d, ..., s_2, v, s_1, n)``.
        """
        result = kernels @ columns  # (batch, f_d, ..., f_2, 2 v s_1, n)
        batch, n = len(kernels), columns.shape[-1]
        first = len(self.offsets[0])
        middle = [len(kept) for kept in self.frequencies[:0:-1]]  # f_d ... f_2
        rest = result.shape[-2] // 2 * n
        result = result.reshape(batch, *middle, 2, rest)
        done: list[int] = []
        for axis in range(1, self.dims):
            matrix = self._inverse(axis, kernels.device)
            kept, shifts = len(self.frequencies[axis]), len(self.offsets[axis])
            outer = middle[: self.dims - 1 - axis]
            result = matrix @ result.reshape(batch, *outer, 2 * kept, rest)
            if axis < self.dims - 1:
                result = result.reshape(batch, *outer, 2, shifts * rest)
            rest *= shifts
            done.insert(0, shifts)
        return result.reshape(batch, *done, -1, first, n)

    def _phase(self, axis: int, device: torch.device) -> Tensor:
        most = round(self.reach * self.shape[axis])
        return _phase(self.shape[axis], most, tuple(self.frequencies[axis]), device)

    def _inverse(self, axis: int, device: torch.device) -> Tensor:
        most = round(self.reach * self.shape[axis])
        return _inverse(self.shape, axis, most, tuple(self.frequencies[axis]), device)


@lru_cache(maxsize=64)
def _taper(shape: tuple[int, ...], device: torch.device) -> Tensor:
    result = torch.ones(shape, device=device)
    for axis, length in enumerate(shape):
        position = (torch.arange(length, device=device) + 0.5) * 2 / length - 1
        result = result * (1 - position.abs() ** 6).view(
            [length if axis == other else 1 for other in range(len(shape))]
        )
    return result


@lru_cache(maxsize=64)
def _phase(length: int, most: int, frequencies: tuple[int, ...], device: torch.device) -> Tensor:
    angle = torch.outer(
        torch.arange(-most, most + 1, dtype=torch.float64), torch.tensor(frequencies, dtype=torch.float64)
    )
    return torch.exp(2j * math.pi * angle / length).to(torch.complex64).to(device)


@lru_cache(maxsize=64)
def _numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Brought to a device once: a card would wait for each copy."""
    return torch.tensor(values).to(device)


@lru_cache(maxsize=64)
def _inverse(
    shape: tuple[int, ...], axis: int, most: int, frequencies: tuple[int, ...], device: torch.device
) -> Tensor:
    """Real matrix of the inverse transform along a further axis; the last one sums up to real numbers."""
    length = shape[axis]
    phase = _phase(length, most, frequencies, device)  # columns below: each frequency's real, then its imaginary part
    if axis < len(shape) - 1:
        real = torch.stack([phase.real, -phase.imag], dim=2).flatten(1)
        imaginary = torch.stack([phase.imag, phase.real], dim=2).flatten(1)
        return torch.cat([real, imaginary])
    kept = _numbers(frequencies, device)
    # Half of the spectrum is stored: all but the frequencies that are their own mirror image count twice.
    twice = torch.where((kept == 0) | (2 * kept == length), 1.0, 2.0) / math.prod(shape)
    return torch.stack([phase.real * twice, -phase.imag * twice], dim=2).flatten(1)
