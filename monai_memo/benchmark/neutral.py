# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A small network that took no part: features to judge samples by, and classifiers that show what samples are good for.

No weights are downloaded. The network of the features is trained on patients whom no generator, detector, shield or
threshold knows, to tell what is in an image (its label, where there are some) and what was done to it: nothing, detail
lost, noise, or a blend with another patient. So it sees content and detail; a detector of copies is trained *not* to
see what was done to an image, and would let noise pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from monai_memo.progress import following
from monai_memo.sealing import fingerprint, is_sealed, load_torch, save_torch, write_sealed
from monai_memo.statistics.intervals import Interval, percentile_interval

Pixels = NDArray[np.floating]
WIDTHS, GROUPS = (16, 32, 64, 64), 8
BATCH, RATE = 32, 1e-3
ALTERATIONS = ("none", "detail lost", "noise", "blend")
FEATURE_STEPS, CLASSIFIER_STEPS, TEACHER_STEPS = 1500, 400, 1200


class SmallNetwork(nn.Module):
    """Four strided convolutions and a mean over the image.

    Args:
        spatial_dims, channels: of the images.
        outputs: numbers at the end.
    """

    def __init__(self, spatial_dims: int, channels: int, outputs: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        layers: list[nn.Module] = []
        before = channels
        for width in WIDTHS:
            layers += [convolution(before, width, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, width), nn.SiLU()]
            before = width
        self.body, self.head = nn.Sequential(*layers), nn.Linear(before, outputs)

    def features(self, images: Tensor) -> Tensor:
        """``(n, 64)``."""
        return torch.as_tensor(self.body(images).flatten(2).mean(dim=2))

    def forward(self, images: Tensor) -> Tensor:
        """``(n, outputs)``."""
        return torch.as_tensor(self.head(self.features(images)))


def _tensor(images: Pixels) -> Tensor:
    return torch.from_numpy(np.asarray(images, dtype=np.float32)) - 0.5


def altered(images: Tensor, kinds: Tensor, draws: torch.Generator) -> Tensor:
    """Images with one of ``ALTERATIONS`` each."""
    n, one = len(images), (-1, *(1,) * (images.ndim - 1))
    mode = {4: "bilinear", 5: "trilinear"}[images.ndim]
    factor = float(0.35 + 0.3 * torch.rand((), generator=draws))
    small = functional.interpolate(images, scale_factor=factor, mode=mode, antialias=images.ndim == 4)
    soft = functional.interpolate(small, size=images.shape[2:], mode=mode)
    level = (0.02 + 0.13 * torch.rand(n, generator=draws)).view(one)
    noisy = images + level * torch.randn(images.shape, generator=draws)
    blend = 0.5 * (images + images.roll(1, dims=0))
    versions = torch.stack([images, soft, noisy, blend])
    return versions[kinds, torch.arange(n)]


def _flipped(images: Tensor, draws: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=draws) < 0.5
    return torch.where(mirrored.view(-1, *(1,) * (images.ndim - 1)), images.flip(-1), images)


@dataclass(frozen=True)
class Features:
    """Features of images, each of mean 0 and variance 1 over the images that the network was trained on."""

    network: SmallNetwork
    mean: Tensor
    deviation: Tensor

    def __call__(self, images: Pixels) -> NDArray[np.float64]:
        """``(n, 64)``."""
        found = (_in_blocks(self.network.features, images) - self.mean) / self.deviation
        return found.double().numpy()


@torch.no_grad()
def _in_blocks(function: object, images: Pixels, block: int = 128) -> Tensor:
    assert callable(function)
    parts = [function(_tensor(images[start : start + block])) for start in range(0, len(images), block)]
    return torch.cat(parts)


def _descend(
    network: nn.Module, n: int, loss_of: Callable[[Tensor, torch.Generator], Tensor], steps: Iterable[int], seed: int
) -> None:
    """Train a network, by the loss of some of ``n`` images with random draws."""
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    for step in steps:
        draws = torch.Generator().manual_seed(seed * 1_000_003 + int(step))
        loss = loss_of(torch.randint(n, (BATCH,), generator=draws), draws)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def train_features(
    pixels: Pixels,
    labels: NDArray[np.integer] | None,
    path: Path,
    seed: int = 0,
    steps: int | None = None,
    progress: bool = True,
) -> Features:
    """Train the network of the features, or read it where the same was trained before.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1], of patients who took no part.
        labels: ``(n,)`` from 0, or None.
        path: of its file.
        seed: of weights and draws.
        steps: of 32 images; by default ``FEATURE_STEPS``.
        progress: show a bar.
    """
    steps = steps or FEATURE_STEPS
    classes = 0 if labels is None else int(labels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallNetwork(pixels.ndim - 2, pixels.shape[1], len(ALTERATIONS) + classes)
    arrays = [pixels] if labels is None else [pixels, labels]
    identity = fingerprint("features", [seed, steps, network, list(ALTERATIONS)], arrays)
    if is_sealed(path, identity):
        network.load_state_dict(load_torch(path)["network"])
    else:
        images = _tensor(pixels)
        targets = None if labels is None else torch.from_numpy(np.asarray(labels, dtype=np.int64))

        def loss_of(rows: Tensor, draws: torch.Generator) -> Tensor:
            kinds = torch.randint(len(ALTERATIONS), (BATCH,), generator=draws)
            found = network(altered(_flipped(images[rows], draws), kinds, draws))
            loss = functional.cross_entropy(found[:, : len(ALTERATIONS)], kinds)
            if targets is None:
                return loss
            whole = kinds != ALTERATIONS.index("blend")  # a blend has two labels
            return loss + functional.cross_entropy(found[whole, len(ALTERATIONS) :], targets[rows][whole])

        _descend(network, len(images), loss_of, following(range(steps), "train features", shown=progress), seed)
        write_sealed(path, lambda temporary: save_torch(temporary, {"network": network.state_dict()}), identity)
    network.eval()
    found = _in_blocks(network.features, pixels)
    return Features(network, found.mean(dim=0), found.std(dim=0).clamp_min(1e-6))


@dataclass(frozen=True)
class Classifier:
    """Says how probable the positive class is."""

    network: SmallNetwork

    def __call__(self, images: Pixels) -> NDArray[np.float64]:
        """``(n,)`` from 0 to 1."""
        return _in_blocks(self.network, images)[:, 0].sigmoid().double().numpy()


def train_classifier(pixels: Pixels, positive: NDArray[np.bool_], seed: int, steps: int | None = None) -> Classifier:
    """A classifier of two classes, both of the same weight however many images each has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallNetwork(pixels.ndim - 2, pixels.shape[1], 1)
    images, targets = _tensor(pixels), torch.from_numpy(np.asarray(positive, dtype=np.float32))
    share = float(targets.mean())
    weights = torch.where(targets > 0, 0.5 / max(share, 1e-6), 0.5 / max(1 - share, 1e-6))

    def loss_of(rows: Tensor, draws: torch.Generator) -> Tensor:
        found = network(_flipped(images[rows], draws))[:, 0]
        return functional.binary_cross_entropy_with_logits(found, targets[rows], weight=weights[rows])

    _descend(network, len(images), loss_of, range(steps or CLASSIFIER_STEPS), seed)
    return Classifier(network.eval())


@dataclass(frozen=True)
class Usefulness:
    """What a classifier is worth on real patients, with intervals over patients."""

    balanced_accuracy: Interval
    auc: Interval


def usefulness(
    probabilities: NDArray[np.floating],
    positive: NDArray[np.bool_],
    patients: NDArray[np.integer],
    n_bootstrap: int = 500,
    seed: int = 0,
) -> Usefulness:
    """Balanced accuracy at 0.5, and area under the ROC curve.

    Args:
        probabilities, positive: ``(n,)`` of each image.
        patients: ``(n,)`` whom it is of; they are resampled as wholes.
    """
    rng = np.random.default_rng([seed, 37])
    codes = np.unique(patients, return_inverse=True)[1]
    called = probabilities > 0.5

    def both(rows: NDArray[np.integer]) -> tuple[float, float]:
        return (
            float(balanced_accuracy_score(positive[rows], called[rows])),
            float(roc_auc_score(positive[rows], probabilities[rows])),
        )

    owned = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    draws: list[tuple[float, float]] = []
    while len(draws) < n_bootstrap:
        rows = np.concatenate([owned[i] for i in rng.integers(len(owned), size=len(owned))])
        if 0 < positive[rows].sum() < len(rows):
            draws.append(both(rows))
    values, spread = both(np.arange(len(codes))), np.asarray(draws)
    return Usefulness(*(percentile_interval(values[i], spread[:, i], 0.95) for i in range(2)))
