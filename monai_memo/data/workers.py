# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Read and preprocess many images at once: a few by threads, many by processes.

Small pictures keep Python busy, which one process does on one core only. Processes are those of PyTorch's data loader:
it keeps the order, holds a few blocks ready and no more, and notices a process that died.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from monai_memo.data.cohort import CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.errors import MemoError, UnusableImageError

PROCESSES_FROM = 512  # files: with fewer, starting processes costs more than it saves
AHEAD = 2  # blocks that each process holds ready
SHARES = 4  # blocks for each process, at least
PARENT_DIED = 1  # PR_SET_PDEATHSIG of Linux


class Loaded(NamedTuple):
    """One image after preprocessing.

    Attributes:
        array: ``(channels, *size)`` in [0, 1]; None for an image that cannot be used.
        remark: why it cannot be used, or what was done to it that is worth counting; None if nothing was.
    """

    array: NDArray[np.floating] | None
    remark: str | None


class Block(NamedTuple):
    """Neighbouring images of a cohort after preprocessing.

    Attributes:
        pixels: ``(usable, channels, *size)`` float16.
        remarks: of each image: whether it can be used, and ``Loaded.remark``.
    """

    pixels: NDArray[np.float16]
    remarks: list[tuple[bool, str | None]]


def load(preprocessing: Preprocessing, image: CohortImage) -> Loaded:
    """Read and preprocess one image; what is wrong with it is a remark and no error."""
    try:
        return Loaded(*preprocessing.load(image))
    except UnusableImageError as error:
        return Loaded(None, error.reason)


def cores() -> int:
    """Cores that this process may use: a batch system can have given it some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Blocks(Dataset[Block]):
    """Item ``i`` is the ``i``-th block of images."""

    preprocessing: Preprocessing
    images: Sequence[CohortImage]
    start: int
    rows: int
    load: Callable[[Preprocessing, CohortImage], Loaded]

    def __len__(self) -> int:
        return -(-(len(self.images) - self.start) // self.rows)

    def positions(self, number: int) -> range:
        first = self.start + number * self.rows
        return range(first, min(first + self.rows, len(self.images)))

    def packed(self, found: Sequence[Loaded]) -> Block:
        shape = (self.preprocessing.channels, *self.preprocessing.size)
        arrays = [item.array for item in found if item.array is not None]
        pixels = np.empty((len(arrays), *shape), dtype=np.float16)
        for place, array in enumerate(arrays):
            pixels[place] = array
        return Block(pixels, [(item.array is not None, item.remark) for item in found])

    def one(self, position: int) -> Loaded:
        return self.load(self.preprocessing, self.images[position])

    def __getitem__(self, number: int) -> Block:
        return self.packed([self.one(position) for position in self.positions(number)])


def may_fork() -> bool:
    """Whether processes can be started that know what this one knows.

    Other ways to start them run the user's script again, and macOS forbids this one.
    """
    return sys.platform == "linux" and not current_process().daemon


def _end_with(parent: int, _: int) -> None:
    """Runs first in every process: a process whose parent was killed must not hold the output folder's lock."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def _as_it_is(block: Any) -> Any:
    return block


def blocks_of(
    preprocessing: Preprocessing,
    images: Sequence[CohortImage],
    start: int,
    rows: int,
    workers: int | None = None,
    load: Callable[[Preprocessing, CohortImage], Loaded] = load,
) -> Iterator[Block]:
    """The images from ``start`` on, in order, in blocks of ``rows`` images.

    Memory does not grow with the number of images.

    Args:
        workers: threads or processes; by default one per core.
        load: reads one image.

    Raises:
        MemoError: the system ended a process.
    """
    workers, left = workers or cores(), len(images) - start
    by_processes = workers > 1 and may_fork() and (left >= PROCESSES_FROM or _n_files(images[start:]) >= PROCESSES_FROM)
    if by_processes:
        rows = min(rows, -(-left // (SHARES * workers)))  # the last ones shall not wait for a single process
    blocks = _Blocks(preprocessing, images, start, rows, load)
    if by_processes:
        yield from _by_processes(blocks, min(workers, len(blocks)))
    elif workers == 1:
        yield from (blocks[number] for number in range(len(blocks)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            for number in range(len(blocks)):
                yield blocks.packed(list(pool.map(blocks.one, blocks.positions(number))))


def _n_files(images: Sequence[CohortImage]) -> int:
    return sum(len(image.parts) for image in images)


def _by_processes(blocks: _Blocks, workers: int) -> Iterator[Block]:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # more processes than cores, if asked for
        loader: DataLoader[Block] = DataLoader(
            blocks,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            prefetch_factor=AHEAD,
            multiprocessing_context="fork",
            worker_init_fn=partial(_end_with, os.getpid()),
            generator=torch.Generator(),  # the loader draws a seed: not from the generator that everybody shares
        )
        found = iter(loader)
    try:
        yield from found
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise MemoError(
            "a process that reads images was ended by the system, probably for want of memory. What was read before "
            "is kept: run the same command again with fewer --workers, it continues where it stopped."
        ) from error
