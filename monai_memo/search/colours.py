# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Colour images are found and aligned in grey; whether they are the same image, their colours say as well.

Grey values agree in two slides of one structure with different stains. So a pair counts as far as its colours agree
where its grey values do: in places that were replaced, colours have nothing to say. They are compared by their
direction from grey, blurred: noise and compression change single pixels, a slight change of the colours all of them a
little, and a stronger saturation no direction. Where either image hardly has a colour, grey values decide alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.registration.affine import warp
from monai_memo.registration.filters import smooth, structured
from monai_memo.registration.lncc import combine, lncc_maps
from monai_memo.search.gallery import Gallery, as_tensor, grey
from monai_memo.search.matches import NOT_SCORED, Matches
from monai_memo.search.runner import Runner

VERSION = 1  # raise it when the same images come to give another result
AXES = ((0.7071, 0.0, -0.7071), (-0.4082, 0.8165, -0.4082))  # two directions across the axis of grey
BLUR = 1 / 32  # of the shortest axis
OTHER, SAME = 0.3, 0.7  # cosines between the colours of two images: below no copy, above as likely one as in grey
FAINT, PLAIN = 0.015, 0.03  # distance from grey, of the range: below it tells nothing, above all
AGREES, ANYWHERE = 0.5, 0.05  # local agreement from which a place counts in full, and how much any other one does
LARGEST = 1 - 1e-9
CHANNELS = 32  # tensors of the size of an image that a comparison holds at once


def colour_agreement(
    queries: Tensor, candidates: Tensor, thetas: Tensor, inverted: Tensor, where: Tensor | None = None
) -> Tensor:
    """How far the colours of aligned pairs agree: 1 as in copies, 0 where they are others.

    Args:
        queries, candidates: ``(pairs, 3, *spatial)`` in [0, 1].
        thetas: ``(pairs, dims, dims + 1)`` that bring the candidates to the queries, see ``registration.affine``.
        inverted: ``(pairs,)`` whether the query is a negative.
        where: ``(pairs, 1, *spatial)`` which places are compared; all by default.

    Returns:
        ``(pairs,)``.
    """
    negative = inverted.view(-1, *(1,) * (queries.ndim - 1))
    queries = torch.where(negative, 1 - queries, queries)
    first, second = grey(queries), grey(candidates)
    structure = structured(first)
    if where is not None:
        structure = structure * where
    maps, visible = lncc_maps(first, structure, second, thetas)
    alike = combine(maps.movedim(1, -1)).unsqueeze(1)
    weight = visible * (ANYWHERE + (alike / AGREES).clamp(0, 1))
    weight = weight / weight.flatten(1).sum(dim=1).clamp(min=1e-6).view(-1, *(1,) * (weight.ndim - 1))
    here, there = _blurred(_chroma(queries), visible), _blurred(_chroma(warp(candidates, thetas)[0]), visible)
    whole = _same(here, there, weight)
    axes = tuple(range(2, here.ndim))
    here = here - (here * weight).sum(dim=axes, keepdim=True)
    there = there - (there * weight).sum(dim=axes, keepdim=True)
    return torch.minimum(whole, _same(here, there, weight))  # of all colours, and of what differs from place to place


def _chroma(images: Tensor) -> Tensor:
    """``(pairs, 2, *spatial)``, 0 for grey."""
    axes = torch.tensor(AXES, device=images.device, dtype=images.dtype)
    return (axes @ images.flatten(2)).view(len(images), 2, *images.shape[2:])


def _blurred(chroma: Tensor, mask: Tensor) -> Tensor:
    sigma = max(1.0, BLUR * min(chroma.shape[2:]))
    return smooth(chroma * mask, sigma) / smooth(mask, sigma).clamp(min=1e-3)


def _same(here: Tensor, there: Tensor, weight: Tensor) -> Tensor:
    """``(pairs,)`` from the mean cosine; 1 where one of both is faint."""
    axes = tuple(range(1, here.ndim))
    product, first, second = ((weight * values).sum(dim=axes) for values in (here * there, here**2, there**2))
    cosine = product / (first * second).sqrt().clamp(min=1e-9)
    same = ((cosine - OTHER) / (SAME - OTHER)).clamp(0, 1)
    plain = ((torch.minimum(first, second).sqrt() - FAINT) / (PLAIN - FAINT)).clamp(0, 1)
    return 1 - plain * (1 - same)


def fainter(similarity: NDArray[np.floating], agreement: NDArray[np.floating]) -> NDArray[np.floating]:
    """Similarity by grey values as far as colours agree, on Fisher's scale; what is not above 0 stays."""
    scale = np.arctanh(np.clip(np.asarray(similarity, dtype=np.float64), 0, LARGEST)) * agreement
    lowered: NDArray[np.floating] = np.where((similarity > 0) & (agreement < 1), np.tanh(scale), similarity)
    return lowered.astype(similarity.dtype)


def in_colour(found: Matches, queries: Tensor, gallery: Gallery, runner: Runner) -> Matches:
    """Matches of colour images by their colours as well; those of grey images as they are.

    Args:
        queries: ``(n, channels, *spatial)``.
    """
    if queries.shape[1] != 3:
        return found
    n, r = found.candidates.shape
    agreement = np.ones(n * r, dtype=np.float64)
    pairs = np.flatnonzero(found.candidates.ravel() >= 0)
    if not len(pairs):
        return found
    which, device = found.candidates.ravel()[pairs], queries.device
    thetas = torch.from_numpy(found.transforms.reshape(n * r, *found.transforms.shape[2:])[pairs]).to(device)
    inverted = torch.from_numpy(found.inverted.ravel()[pairs]).to(device)
    rows = torch.from_numpy(pairs // r).to(device)
    for some in runner.blocks(len(pairs), runner.at_once(4 * CHANNELS * queries[0, 0].numel())):
        candidates = as_tensor(gallery.pixels[which[some]], device)
        agreement[pairs[some]] = colour_agreement(
            queries[rows[some]], candidates, thetas[some], inverted[some]
        ).cpu().numpy()  # fmt: skip
    each = agreement.reshape(n, r)
    none = found.candidates < 0

    def lowered(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(none, NOT_SCORED, fainter(values, each))

    return replace(
        found, similarity=lowered(found.similarity), whole_image=lowered(found.whole_image), lead=lowered(found.lead),
        profiles=fainter(found.profiles, each[:, :, None]).astype(np.float32),
    ).in_order()  # fmt: skip
