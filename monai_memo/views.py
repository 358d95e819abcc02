# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Views: what counts as the same image.

The detector learns that an image and its views belong together. Its invariances therefore define what a copy is: with a
flip among the views, mirrored anatomy is a copy. ``Views.describe`` says so in the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Views:
    """Random views of a batch of images, every image with its own draw.

    All strengths are upper ends of a uniform draw; all ``p_`` are probabilities.

    Attributes:
        rotation: degrees on the grid of pixels or voxels, either way; in 3D about a random axis.
        p_rotation: of a rotation.
        zoom: share, in or out.
        shift: share of the image's length, along each axis.
        p_affine: of zoom and of shift, each.
        p_flip: of a mirror image (left and right: last axis in 2D, first axis in 3D).
        gamma: natural logarithm of the exponent.
        contrast: share, more or less, about mid-grey.
        p_intensity: of gamma and of contrast, each.
        blur: standard deviation in hundredths of the image's length.
        p_blur: of blurring.
        noise: standard deviation, for intensities in [0, 1].
        p_noise: of noise.
        region: largest share of the image that is erased or replaced.
        p_erase: of a box filled with one grey value.
        p_replace: of a box filled with the same box of another image of the batch.
    """

    rotation: float = 5.0
    p_rotation: float = 0.5
    zoom: float = 0.0
    shift: float = 0.0
    p_affine: float = 0.0
    p_flip: float = 0.5
    gamma: float = 0.0
    contrast: float = 0.0
    p_intensity: float = 0.0
    blur: float = 0.0
    p_blur: float = 0.0
    noise: float = 0.0
    p_noise: float = 0.0
    region: float = 0.0
    p_erase: float = 0.0
    p_replace: float = 0.0

    @classmethod
    def paper(cls) -> Views:
        """Dar et al., arXiv 2402.01054, Methods: rotation within 5 degrees and one flip, each with probability 0.5."""
        return cls()

    @classmethod
    def default(cls) -> Views:
        """Broader: what generators and post-processing do to an image without making it another patient's."""
        return cls(
            rotation=15.0, p_rotation=0.8, zoom=0.18, shift=0.08, p_affine=0.8, p_flip=0.5, gamma=0.5, contrast=0.3,
            p_intensity=0.6, blur=2.5, p_blur=0.5, noise=0.08, p_noise=0.5, region=0.28, p_erase=0.25, p_replace=0.25,
        )  # fmt: skip

    @classmethod
    def other(cls) -> Views:
        """Of a second detector, which is to miss other copies than the first."""
        return cls(
            rotation=25.0, p_rotation=0.6, zoom=0.1, shift=0.12, p_affine=0.9, p_flip=0.5, gamma=0.8, contrast=0.45,
            p_intensity=0.8, blur=1.5, p_blur=0.3, noise=0.04, p_noise=0.3, region=0.35, p_erase=0.1, p_replace=0.45,
        )  # fmt: skip

    def to_dict(self) -> dict[str, float]:
        """Plain types, for JSON and for the detector file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Views:
        """Inverse of ``to_dict``."""
        return cls(**record)

    def describe(self) -> str:
        """One sentence for the report."""
        parts = []
        if self.p_flip:
            parts.append("a left-right flip")
        if self.p_rotation:
            parts.append(f"a rotation of up to {self.rotation:g} degrees")
        if self.p_affine:
            parts.append(f"zooming by up to {100 * self.zoom:g} % and shifting by up to {100 * self.shift:g} %")
        if self.p_intensity:
            parts.append("a change of brightness curve or contrast")
        if self.p_blur:
            parts.append("blurring")
        if self.p_noise:
            parts.append(f"noise of up to {100 * self.noise:g} % of the intensity range")
        if self.p_erase or self.p_replace:
            parts.append(f"erasing or replacing up to {100 * self.region:g} % of the image")
        listed = ", ".join(parts[:-1]) + " or " + parts[-1] if len(parts) > 1 else "".join(parts) or "no change at all"
        return f"Two images count as the same if one becomes the other by {listed}, also in combination."

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One view of each image.

        Args:
            images: ``(batch, channels, *spatial)``, 2D or 3D, in [0, 1].
            generator: on the CPU; decides all draws, so that they are the same on every device.

        Returns:
            Same shape, in [0, 1].
        """
        if images.ndim not in (4, 5):
            raise ValueError(
                f"images must have shape (batch, channels, *spatial) in 2D or 3D, got {tuple(images.shape)}"
            )
        draw = _Draw(len(images), images.ndim - 2, images.device, generator)
        images = self._affine(images, draw)
        if self.p_intensity:
            exponent = torch.exp(draw.uniform(-self.gamma, self.gamma) * draw.chosen(self.p_intensity))
            images = images.clamp(1e-4, 1) ** draw.wide(exponent)
            factor = 1 + draw.uniform(-self.contrast, self.contrast) * draw.chosen(self.p_intensity)
            images = (images - 0.5) * draw.wide(factor) + 0.5
        if self.p_erase or self.p_replace:
            images = self._regions(images, draw)
        if self.p_blur:
            images = self._blurred(images, draw)
        if self.p_noise:
            sd = draw.uniform(0, self.noise) * draw.chosen(self.p_noise)
            images = images + draw.normal(images.shape) * draw.wide(sd)
        return images.clamp(0, 1)

    def _affine(self, images: Tensor, draw: _Draw) -> Tensor:
        if not (self.p_rotation or self.p_affine or self.p_flip):
            return images
        dims = draw.dims
        angle = draw.uniform(-self.rotation, self.rotation) * draw.chosen(self.p_rotation) * math.pi / 180
        # affine_grid measures every axis from -1 to 1: without the lengths, oblong images would be sheared, not turned.
        lengths = torch.tensor(images.shape[:1:-1], dtype=torch.float32, device=images.device)
        turn = _rotation(angle, draw) * (lengths.view(1, -1) / lengths.view(-1, 1))
        scale = 1 / (1 + draw.uniform(-self.zoom, self.zoom) * draw.chosen(self.p_affine))
        matrix = turn * scale.view(-1, 1, 1)
        # affine_grid counts axes backwards: its first coordinate is the last axis of the tensor.
        mirrored = 0 if dims == 2 else 2
        flip = torch.ones(len(images), dims, device=images.device)
        flip[:, mirrored] = 1 - 2 * draw.chosen(self.p_flip)
        matrix = matrix * flip.unsqueeze(1)
        moves = draw.chosen(self.p_affine)
        shift = torch.stack([2 * draw.uniform(-self.shift, self.shift) * moves for _ in range(dims)], dim=1)
        theta = torch.cat([matrix, shift.unsqueeze(2)], dim=2)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def _regions(self, images: Tensor, draw: _Draw) -> Tensor:
        """A box of random place, size and proportions: erased, replaced, or left alone."""
        area = draw.uniform(0.05, self.region)
        inside = torch.ones(len(images), 1, *(1 for _ in range(draw.dims)), device=images.device, dtype=torch.bool)
        for axis in range(draw.dims):
            length = images.shape[2 + axis]
            extent = (area ** (1 / draw.dims) * torch.exp(draw.uniform(-0.25, 0.25))).clamp(max=0.9) * length
            start = draw.uniform(0, 1) * (length - extent)
            position = torch.arange(length, device=images.device).view(1, -1)
            along = (position >= start.view(-1, 1)) & (position < (start + extent).view(-1, 1))
            shape = [len(images), 1] + [length if axis == other else 1 for other in range(draw.dims)]
            inside = inside & along.view(shape)
        fate = draw.uniform(0, 1)
        erased, replaced = fate < self.p_erase, (fate >= self.p_erase) & (fate < self.p_erase + self.p_replace)
        grey = draw.wide(draw.uniform(0, 1)).expand_as(images)
        others = images[draw.permutation()]
        images = torch.where(inside & draw.wide(erased), grey, images)
        return torch.where(inside & draw.wide(replaced), others, images)

    def _blurred(self, images: Tensor, draw: _Draw) -> Tensor:
        chosen = draw.wide(draw.chosen(self.p_blur) > 0)
        result = images
        sd = draw.uniform(0.2, self.blur) / 100
        for axis in range(draw.dims):
            length = images.shape[2 + axis]
            radius = max(1, math.ceil(2.5 * self.blur / 100 * length))
            offsets = torch.arange(-radius, radius + 1, device=images.device).view(1, -1)
            kernel = torch.exp(-0.5 * (offsets / (sd * length).view(-1, 1).clamp(min=1e-3)) ** 2)
            kernel = kernel / kernel.sum(dim=1, keepdim=True)
            channels = images.shape[1]
            shape = [len(images) * channels, 1] + [-1 if axis == other else 1 for other in range(draw.dims)]
            weight = kernel.repeat_interleave(channels, dim=0).view(shape)
            flat = result.reshape(1, -1, *images.shape[2:])
            pad = [0, 0] * (draw.dims - 1 - axis) + [radius, radius] + [0, 0] * axis
            convolve = functional.conv2d if draw.dims == 2 else functional.conv3d
            flat = convolve(functional.pad(flat, pad, mode="replicate"), weight, groups=flat.shape[1])
            result = flat.reshape(images.shape)
        return torch.where(chosen, result, images)


class _Draw:
    """Random numbers for one batch, drawn on the CPU from one generator."""

    def __init__(self, batch: int, dims: int, device: torch.device, generator: torch.Generator | None) -> None:
        self.batch, self.dims, self.device, self.generator = batch, dims, device, generator

    def uniform(self, low: float, high: float) -> Tensor:
        return (torch.rand(self.batch, generator=self.generator) * (high - low) + low).to(self.device)

    def chosen(self, probability: float) -> Tensor:
        return (torch.rand(self.batch, generator=self.generator) < probability).float().to(self.device)

    def normal(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)

    def permutation(self) -> Tensor:
        return torch.randperm(self.batch, generator=self.generator).to(self.device)

    def wide(self, values: Tensor) -> Tensor:
        """``(batch,)`` to ``(batch, 1, 1, ...)``."""
        return values.view(-1, *(1 for _ in range(self.dims + 1)))


def _rotation(angle: Tensor, draw: _Draw) -> Tensor:
    """``(batch, dims, dims)`` rotation matrices; in 3D about random axes (Rodrigues' formula)."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    if draw.dims == 2:
        return torch.stack([torch.stack([cosine, -sine], dim=1), torch.stack([sine, cosine], dim=1)], dim=1)
    axis = functional.normalize(draw.normal((draw.batch, 3)), dim=1)
    cross = torch.zeros(draw.batch, 3, 3, device=angle.device)
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross = cross - cross.transpose(1, 2)
    identity = torch.eye(3, device=angle.device).expand_as(cross)
    return identity + sine.view(-1, 1, 1) * cross + (1 - cosine).view(-1, 1, 1) * (cross @ cross)
