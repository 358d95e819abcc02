# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The images that queries are looked up among."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.files import release, writing_into
from monai_memo.progress import Progress
from monai_memo.sealing import require_space
from monai_memo.search.runner import Runner

if TYPE_CHECKING:
    from monai_memo.search.keypoint_index import KeypointIndex

MAPPED_FROM = 2**28  # bytes
FINITE_AT_ONCE = 1024  # images
BEYOND = 0.1  # of the range: decoders overshoot
INDEX_FROM = 10_000  # images whose index of keypoints takes minutes: that of a gallery which they begin will do
SHARE_OF_CARD = 0.25  # of its free memory that a gallery may take


def grey(images: Tensor) -> Tensor:
    """``(n, channels, *spatial)`` to ``(n, 1, *spatial)``."""
    return images if images.shape[1] == 1 else images.mean(dim=1, keepdim=True)


def as_tensor(pixels: NDArray[np.floating], device: torch.device) -> Tensor:
    """Pixels of an array, which may be memory-mapped or of half precision, as float32 on a device."""
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32)).to(device)


def require_finite(values: NDArray[np.floating], what: str) -> None:
    """Refuse a value that is not a number: it would make those of all others none.

    Raises:
        ValueError: which row it is in.
    """
    for start in range(0, len(values), FINITE_AT_ONCE):
        block = values[start : start + FINITE_AT_ONCE]
        finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if not finite.all():
            raise ValueError(f"{what} must be finite, number {start + int(np.argmin(finite))} is not")


def require_images(pixels: NDArray[np.floating], what: str) -> None:
    """Refuse what is no image with values in [0, 1]: bytes beside such images would match nothing.

    Raises:
        ValueError: which image has values of another range or none, and what to do.
    """
    require_finite(pixels, what)
    for start in range(0, len(pixels), FINITE_AT_ONCE):
        block = pixels[start : start + FINITE_AT_ONCE]
        low, high = (ends(block.reshape(len(block), -1), axis=1) for ends in (np.min, np.max))
        beyond = (low < -BEYOND) | (high > 1 + BEYOND)
        if beyond.any():
            at = int(np.argmax(beyond))
            scale = ", divide bytes by 255" if pixels.dtype == np.uint8 else ""
            raise ValueError(
                f"{what} must have values in [0, 1], number {start + at} has values from {low[at]:g} to {high[at]:g} "
                f"({pixels.dtype}): scale all of them alike{scale}"
            )


def patient_numbers(patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Patients as an array of whole numbers, of whatever size.

    Raises:
        ValueError: names or other things in place of numbers.
    """
    numbers = np.asarray(patients)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"patients must be whole numbers, one for each image, got {numbers.dtype} of shape {numbers.shape}; "
            "Gallery.of takes patients by their ids"
        )
    return numbers.astype(np.int64, copy=False)


@dataclass
class Gallery:
    """Training images with their patients.

    .. versionadded:: 0.2.0

    Attributes:
        pixels: ``(n, channels, *spatial)`` in [0, 1], may be memory-mapped; read in blocks.
        patients: ``(n,)`` a number for each image's patient; without them every image is taken for a patient.
        embeddings: ``(n, dim)`` by the encoder of the first ``EmbeddingRetriever``, if they are at hand.
    """

    pixels: NDArray[np.floating]
    patients: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    embeddings: NDArray[np.float32] | None = None
    derived: dict[str, Tensor] = field(default_factory=dict, repr=False)  # what several parts of a search need
    keypoints: KeypointIndex | None = field(default=None, repr=False)
    knows: bool = False  # what was found in a larger gallery
    _resident: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (4, 5):
            raise ValueError(
                f"a gallery needs images of shape (n, channels, *spatial) in 2D or 3D, got {self.pixels.shape}"
            )
        if len(self.pixels) == 0:
            raise ValueError("a gallery needs at least one image")
        require_images(self.pixels, "images of a gallery")
        if len(self.patients) == 0:
            self.patients = np.arange(len(self.pixels))
        self.patients = patient_numbers(self.patients)
        for name, values in (("patients", self.patients), ("embeddings", self.embeddings)):
            if values is not None and len(values) != len(self.pixels):
                raise ValueError(f"{name} must be as many as the images, {len(self.pixels)}, got {len(values)}")
        if self.embeddings is not None:  # one that is no number would be nearest to every query
            require_finite(self.embeddings, "embeddings of a gallery")

    @classmethod
    def of(
        cls,
        pixels: NDArray[np.floating],
        patient_ids: Sequence[str] | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Gallery:
        """A gallery whose patients are known by their ids."""
        codes = np.arange(len(pixels)) if patient_ids is None else np.unique(patient_ids, return_inverse=True)[1]
        return cls(pixels, codes.astype(np.int64), embeddings)

    def without_embeddings(self) -> Gallery:
        """The same images, for another encoder."""
        return Gallery(self.pixels, self.patients, None, self.derived, self.keypoints, self.knows, self._resident)

    def knowing(self, larger: Gallery) -> Gallery:
        """The same images, with what a search in a larger gallery, whose first images they are, has found of each."""
        self.derived |= {name: rows[: len(self)] for name, rows in larger.derived.items()}
        if larger.keypoints is not None and len(self) > INDEX_FROM:
            self.keypoints = larger.keypoints.first(len(self))
        self.knows = True
        return self

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return tuple(self.pixels.shape[2:])

    def blocks(self, runner: Runner, size: int = 256) -> list[slice]:
        """In which all images are read."""
        return list(runner.blocks(len(self), size))

    def derive(self, name: str, make: Callable[[Tensor], Tensor], runner: Runner) -> Tensor:
        """Something of every image, one after the other.

        What takes more than ``MAPPED_FROM`` bytes lies in a mapped file of the runner's folder, if it has one and works
        on the CPU: the system keeps in memory what is used, processes of one machine have it there once, and a gallery
        may be larger than memory. Several processes share the images out.

        Args:
            name: of the file.
            make: of a block of images ``(n, channels, *spatial)``.
        """
        blocks = self.blocks(runner)
        first = make(self.block(blocks[0], runner))
        count = len(self) * first[0].numel() * first.element_size()
        mine = runner.part_of(blocks)
        if runner.folder is None or runner.device.type != "cpu" or count <= MAPPED_FROM:
            with runner.bar(sum(rows.stop - rows.start for rows in mine), name) as bar:
                own = [self._made(rows, first, make, runner, bar) for rows in mine]
            if len(mine) == len(blocks):
                return torch.cat(own)
            here = {"rows": torch.cat(own).numpy()}
            return torch.cat([torch.from_numpy(part["rows"]) for part in runner.together(here)])
        path = Path(runner.folder) / f"{name}.mapped"
        if runner.leads:
            require_space(path, count, "the search")
            path.unlink(missing_ok=True)  # an earlier search in this folder goes on with its own file
            with writing_into(path, count):
                pass
        runner.together({})
        with writing_into(path) as stream, runner.bar(sum(rows.stop - rows.start for rows in mine), name) as bar:
            stream.seek(count // len(self) * mine[0].start)
            for rows in mine:
                stream.write(self._made(rows, first, make, runner, bar).contiguous().numpy().data)
                release(self.pixels)
                runner.check()
        runner.together({})
        # Copy on write: nothing here writes, and torch wants memory that could be written.
        mapped = np.memmap(path, dtype=first[:0].numpy().dtype, mode="c", shape=(len(self), *first.shape[1:]))
        return torch.from_numpy(mapped)

    def _made(
        self, rows: slice, first: Tensor, make: Callable[[Tensor], Tensor], runner: Runner, bar: Progress
    ) -> Tensor:
        """Of one block; the first one was made before."""
        result = first if rows.start == 0 else make(self.block(rows, runner))
        bar.update(rows.stop - rows.start)
        return result

    def block(self, rows: slice, runner: Runner) -> Tensor:
        """``(n, channels, *spatial)`` float32 on the device."""
        return as_tensor(self.pixels[rows], runner.device)

    def reside(self, runner: Runner) -> None:
        """Bring the grey images to the device once, if they fit there; on the CPU they stay where they are."""
        if runner.device.type == "cpu":
            self._resident = None
            return
        free = torch.cuda.mem_get_info(runner.device)[0] if torch.cuda.is_available() else 2**40
        needed = 4 * len(self) * int(np.prod(self.shape))
        if needed <= SHARE_OF_CARD * free:
            self._resident = torch.cat([grey(self.block(rows, runner)) for rows in self.blocks(runner)])

    def images(self, chosen: Tensor, runner: Runner) -> Tensor:
        """Chosen images in grey, ``(n, 1, *spatial)`` float32 on the device.

        Args:
            chosen: ``(n,)`` indices.
        """
        if self._resident is not None and self._resident.device == chosen.device:
            return self._resident[chosen]
        return grey(as_tensor(self.pixels[chosen.cpu().numpy()], runner.device))
