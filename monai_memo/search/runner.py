# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How work is done: where, in blocks of which size, which share of it, and with how much said about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.progress import Progress
from monai_memo.workspace.team import Team

CPU = torch.device("cpu")
AT_HAND = 3 * 2**20  # bytes that a processor keeps near: larger blocks wait for memory
AHEAD = 1  # blocks that the processor works on while a card works on an earlier one; three took longer, measured
LARGE_CARD = 30 * 2**30  # bytes
SHARE_OF_FREE = 0.25  # of a graphics card's free memory, for one step
SHARED_FROM = 4  # blocks of images for each process: fewer are made sooner than handed round
Made = TypeVar("Made")


def _memory_of(device: torch.device) -> int:
    """Bytes of a card, 0 if it is none that can be asked."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory)


@dataclass(frozen=True)
class Runner:
    """Device, blocks, shard, folder for what is done, seed and progress of a long computation.

    .. versionadded:: 0.2.0

    Attributes:
        device: where tensors live and networks run.
        block: queries that go through a search together; by default 16 on the CPU, 64 on a graphics card, 256 on one
            of 30 GiB and more.
        memory: bytes that one step may take; by default what a processor keeps at hand, or a share of what is free on
            the card when the runner is made.
        shard: this process' number, and how many processes share the queries.
        team: those processes, where they wait for one another and put their shares together; without it a search
            gives this process' share only.
        folder: for what a search derives from large galleries, which is then mapped from there and may be larger than
            memory; None keeps everything in memory.
        seed: of every random choice.
        progress: show a bar, or lines where there is no terminal.
    """

    device: torch.device = CPU
    block: int | None = None
    memory: int | None = None
    shard: tuple[int, int] = (0, 1)
    folder: Path | None = None
    seed: int = 0
    progress: bool = False
    team: Team | None = None

    def __post_init__(self) -> None:
        if self.team is not None:
            object.__setattr__(self, "shard", self.team.shard)

    @classmethod
    def on(cls, device: str | torch.device, **settings: object) -> Runner:
        """A runner on a device given by its name."""
        return replace(cls(device=torch.device(device)), **settings)  # type: ignore[arg-type]

    @property
    def queries_at_once(self) -> int:
        """Size of a block of queries."""
        if self.block is not None or self.device.type == "cpu":
            return self.block or 16
        return 256 if _memory_of(self.device) >= LARGE_CARD else 64

    def at_once(self, bytes_each: int) -> int:
        """How many items of this size one step takes."""
        return max(1, self._memory() // max(1, bytes_each))

    def _memory(self) -> int:
        if self.memory is not None:
            return self.memory
        if self.device.type == "cuda" and torch.cuda.is_available():
            return int(SHARE_OF_FREE * torch.cuda.mem_get_info(self.device)[0])
        return AT_HAND if self.device.type == "cpu" else 2**30

    @property
    def waits(self) -> bool:
        """Whether asking a tensor for its values makes a card wait; then shapes stay as they are."""
        return self.device.type != "cpu"

    def blocks(self, count: int, of: int | None = None) -> Iterator[slice]:
        """Slices of a range, in order."""
        size = of or self.queries_at_once
        for start in range(0, count, size):
            yield slice(start, min(start + size, count))

    def ahead(self, make: Callable[[slice], Made], parts: Iterable[slice]) -> Iterator[tuple[slice, Made]]:
        """Each part with what the processor makes of it; while a card works on one, the next ones are made.

        Args:
            make: works on the processor alone, for several parts at a time.
            parts: in order.
        """
        if not self.waits:
            yield from ((rows, make(rows)) for rows in parts)
            return
        with ThreadPoolExecutor(AHEAD) as pool:
            pending: deque[tuple[slice, Future[Made]]] = deque()
            try:
                for rows in parts:
                    pending.append((rows, pool.submit(make, rows)))
                    if len(pending) > AHEAD:
                        first, made = pending.popleft()
                        yield first, made.result()
                while pending:
                    first, made = pending.popleft()
                    yield first, made.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # an error must not wait for what nobody will ask for

    def mine(self, count: int, done: int = 0) -> slice:
        """This process' share of a number of queries: consecutive ones, of nearly equal number.

        Shares consist of whole blocks, the same ones as in one process: a matrix product of other rows can differ in
        the last bit.

        Args:
            done: queries at the beginning that need not be shared out.
        """
        rank, world = self.shard
        size = self.queries_at_once
        first, last = done // size, -(-count // size)
        start, stop = (size * (first + (last - first) * part // world) for part in (rank, rank + 1))
        return slice(min(max(start, done), count), min(max(stop, done), count))

    def my_blocks(self, count: int) -> list[slice]:
        """The blocks of this process' share, or all where it is alone."""
        mine = slice(0, count) if self.team is None else self.mine(count)
        return [rows for rows in self.blocks(count) if mine.start <= rows.start < mine.stop]

    def part_of(self, items: Sequence[Made]) -> list[Made]:
        """What this process makes of something that all of them need: consecutive items, or all where it is alone.

        On graphics cards each makes everything, which takes less time there than to hand it round.
        """
        if self.team is None or self.device.type != "cpu" or len(items) < SHARED_FROM * self.shard[1]:
            return list(items)
        rank, world = self.shard
        return list(items[len(items) * rank // world : len(items) * (rank + 1) // world])

    @property
    def leads(self) -> bool:
        """Whether this process does what one alone has to do."""
        return self.team is None or self.shard[0] == 0

    def together(self, arrays: Mapping[str, NDArray[np.generic]]) -> list[Mapping[str, NDArray[np.generic]]]:
        """Arrays of all processes, in the order of their shares; all of them call it."""
        return [arrays] if self.team is None else list(self.team.gather(arrays))

    def check(self) -> None:
        """Stop where another process cannot go on."""
        if self.team is not None:
            self.team.check()

    def bar(self, total: int, what: str, done: int = 0) -> Progress:
        """A progress bar or lines, silent if the runner is; only the first of several processes speaks."""
        return Progress(total, what, done, self.progress and self.shard[0] == 0)
