# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What encoders, retrievers and rerankers of others return, looked at before anything is built on it."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_memo.search.placed import Placed
from monai_memo.search.protocols import Scored
from monai_memo.search.runner import Runner

OURS = "monai_memo."


def _kind(part: object) -> str:
    """Its class, or the name of a function."""
    return getattr(part, "__name__", type(part).__name__)


def _got(found: object) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    return type(found).__name__


def checked_candidates(part: object, found: object, queries: int, images: int, runner: Runner) -> Tensor:
    """Candidates that a retriever gave, as int64.

    A card is not asked for the values that our own retrievers give: it would have to wait.

    Args:
        part: the retriever, which the message names.
        queries: rows that it has to give.
        images: of the gallery.

    Raises:
        ValueError: no ``(queries, k)`` whole numbers from -1 to ``images - 1``.
    """
    who = f"the retriever {_kind(part)}"
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != queries:
        raise ValueError(f"{who} must give a tensor of shape ({queries}, k), a row for each query, got {_got(found)}")
    if found.dtype.is_floating_point or found.dtype.is_complex or found.dtype == torch.bool:
        raise ValueError(f"{who} must give indices into the gallery as whole numbers (int64), got {_got(found)}")
    if found.numel() and not found.is_meta and not (runner.waits and type(part).__module__.startswith(OURS)):
        low, high = (int(one) for one in found.aminmax())
        if low < -1 or high >= images:
            raise ValueError(
                f"{who} must give indices from 0 to {images - 1} (the gallery has {images} images), or -1 to fill "
                f"rows up; got {low if low < -1 else high}"
            )
    return found.long()


def checked_places(part: object, found: Placed, queries: int, images: int, dims: int, runner: Runner) -> Placed:
    """What a retriever gave that knows where its candidates lie.

    Raises:
        ValueError: its candidates, or their transforms, do not have the form of ``Placed``.
    """
    candidates = checked_candidates(part, found.candidates, queries, images, runner)
    wanted = (*candidates.shape, dims, dims + 1)
    if tuple(found.transforms.shape) != wanted:
        raise ValueError(
            f"the retriever {_kind(part)} must give transforms of shape {wanted}, one for each candidate, "
            f"got {_got(found.transforms)}"
        )
    return found


def checked_scores(part: object, found: Scored, queries: int, refined: int, dims: int) -> Scored:
    """What a reranker gave.

    Raises:
        ValueError: its tensors do not have the shapes of ``Scored``; which one, and the shape that it needs.
    """
    bands = found.profiles.shape[-1] if found.profiles.ndim else 0
    shape = (queries, refined)
    for name, wanted in (
        ("candidates", shape), ("similarity", shape), ("transforms", (*shape, dims, dims + 1)),
        ("profiles", (*shape, bands)),
    ):  # fmt: skip
        if tuple(getattr(found, name).shape) != wanted:
            raise ValueError(
                f"the reranker {_kind(part)} must give {name} of shape {wanted} (queries, refined, ...), "
                f"got {_got(getattr(found, name))}"
            )
    return found


def checked_vectors(part: object, found: object, images: int) -> Tensor:
    """Embeddings that an encoder gave.

    Raises:
        ValueError: no ``(images, dim)``, or values that are no numbers, next to which nothing is found. On a graphics
            card values are not looked at: it would have to wait.
    """
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != images:
        raise ValueError(
            f"the encoder {_kind(part)} must give a tensor of shape ({images}, dim), a vector for each image, "
            f"got {_got(found)}"
        )
    if found.device.type == "cpu" and not torch.isfinite(found).all():
        raise ValueError(
            f"the encoder {_kind(part)} must give finite vectors, got NaN or infinity: look at images without any "
            "variation, and at divisions by a length of 0"
        )
    return found
