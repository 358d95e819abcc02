# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes of one run that ``torchrun`` has started: who leads, who has what, and how they end together.

They need no collectives of a backend, and so no process group: words go through the key-value store that ``torchrun``
keeps anyway, arrays through sealed files in the working folder of the run, which all of them see. Nothing that is
waited for has a time limit.

The store outlives a killed rank, and with it what the ranks before a restart have said there: process groups that are
made after one find the addresses of dead processes ("Connection refused"). So rank 0 draws a new name for every
meeting, and takes in who answers to it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.errors import ConfigurationError, MemoError, OutputError
from monai_memo.files import exhausted
from monai_memo.sealing import fingerprint, is_sealed, write_sealed
from monai_memo.workspace.torchrun import rank_of_torchrun, world_of_torchrun

if TYPE_CHECKING:
    from torch.distributed import Store

FOLDER = "ranks"  # in the working folder
SHORTEST, LONGEST = 0.001, 0.05  # seconds between two looks at the store
PATIENCE = 60.0  # seconds that the last words of rank 0, or a file on its way through a network, are waited for
Arrays = Mapping[str, NDArray[np.generic]]

logger = logging.getLogger(__name__)
_store: list[Store] = []  # of this process: a second run takes the same one


class RankError(MemoError):
    """Another rank cannot go on; the message is what it said."""


class Team:
    """The ranks of one run. All of them make it, in the same order, and enter it as a context.

    What leaves the context as an error ends all ranks: rank 0 goes on raising it, and the others leave their process
    silently, with the same exit status and only after rank 0, so that nothing hides its message.

    Args:
        store: that all ranks see, with keys of this run only.
        rank, world: this process' number, and how many there are.
    """

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self.rank, self.world, self._store = rank, world, store
        self._folder: Path | None = None
        self._heard, self._gathered, self._shared = 0, 0, 0

    @classmethod
    def of_torchrun(cls) -> Team | None:
        """The team of this process; None where it runs alone.

        Raises:
            ConfigurationError: several processes that do not know where to meet.
        """
        world = world_of_torchrun()
        if world < 2:
            return None
        from torch.distributed import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if not _store:
            try:
                _store.append(next(iter(rendezvous("env://", timeout=timedelta(hours=1))))[0])
            except (ValueError, StopIteration) as error:
                raise ConfigurationError(
                    f"WORLD_SIZE is {world}, but the processes do not know where to meet ({error}): start them with "
                    "torchrun, or leave WORLD_SIZE unset"
                ) from error
        store, rank = PrefixStore("monai_memo", _store[0]), rank_of_torchrun()
        return cls(PrefixStore(_meeting(store, rank, world), store), rank, world)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes results and speaks."""
        return self.rank == 0

    @property
    def shard(self) -> tuple[int, int]:
        """For a ``Runner``."""
        return self.rank, self.world

    @property
    def folder(self) -> Path:
        """For what the ranks hand one another."""
        if self._folder is None:
            raise RuntimeError("rank 0 has not said yet where the ranks meet")
        return self._folder

    def meet_in(self, work: Path) -> None:
        """Rank 0 says in which working folder the ranks meet; what a killed run left there goes."""
        self._folder = (work / FOLDER).absolute()
        shutil.rmtree(self._folder, ignore_errors=True)
        self.tell({"do": "meet", "folder": str(self._folder)})

    def tell(self, words: Mapping[str, Any]) -> None:
        """Rank 0 says something to all others."""
        self._heard += 1
        self._store.set(f"words/{self._heard}", json.dumps(words))

    def hear(self) -> dict[str, Any]:
        """What rank 0 says next, however long it takes."""
        self._heard += 1
        self._wait([f"words/{self._heard}"])
        words: dict[str, Any] = json.loads(self._store.get(f"words/{self._heard}"))
        if words.get("do") == "meet":
            self._folder = Path(words["folder"])
            return self.hear()
        return words

    def gather(self, arrays: Arrays) -> list[dict[str, NDArray[Any]]]:
        """Arrays of all ranks, in their order. All ranks call it, and it waits for all of them."""
        self._gathered += 1
        step = self._gathered
        write_sealed(self._file(step, self.rank), partial(_save, dict(arrays)), self._identity(step, self.rank))
        self._store.set(f"have/{step}/{self.rank}", "1")
        self._wait([f"have/{step}/{rank}" for rank in range(self.world)])
        # All have come this far, so that everybody has read what was handed round before.
        self._file(step - 1, self.rank).unlink(missing_ok=True)
        return [self._read(self._file(step, rank), self._identity(step, rank)) for rank in range(self.world)]

    def share(self, array: NDArray[np.generic] | None) -> dict[str, Any] | None:
        """Words of rank 0 by which the others find an array; a memory-mapped file is not copied."""
        if array is None:
            return None
        if (
            isinstance(array, np.memmap)
            and array.flags.c_contiguous
            and array.filename is not None
            and os.path.getsize(array.filename) == array.nbytes
        ):
            path = Path(array.filename).absolute()
            return {"map": str(path), "dtype": array.dtype.str, "shape": list(array.shape)}
        self._shared += 1
        path = self.folder / f"shared-{self._shared}.npz"
        write_sealed(path, partial(_save, {"array": np.asarray(array)}), fingerprint("shared", self._shared))
        return {"file": str(path), "number": self._shared}

    def take(self, words: Mapping[str, Any] | None) -> NDArray[Any] | None:
        """The array that ``share`` spoke of."""
        if words is None:
            return None
        if "map" in words:
            return np.memmap(words["map"], dtype=np.dtype(words["dtype"]), mode="r", shape=tuple(words["shape"]))
        return self._read(Path(words["file"]), fingerprint("shared", words["number"]))["array"]

    def forget(self, words: Mapping[str, Any] | None) -> None:
        """Rank 0 removes what it has shared, once all have done with it."""
        if words is not None and "file" in words:
            Path(words["file"]).unlink(missing_ok=True)

    def check(self) -> None:
        """Look whether another rank has failed; long work does so now and then.

        Raises:
            RankError: it has.
        """
        try:
            failed = self._store.check(["failed"])
        except RuntimeError as error:
            raise RankError("the process that started the ranks has ended: run the same command again") from error
        if failed:
            found = json.loads(self._store.get("failed"))
            raise RankError(found["message"], found["plain"])

    def _wait(self, keys: list[str]) -> None:
        pause = SHORTEST
        while True:
            with suppress(RuntimeError):  # the next line tells
                if self._store.check(keys):
                    return
            self.check()
            time.sleep(pause)
            pause = min(1.2 * pause, LONGEST)

    def _file(self, step: int, rank: int) -> Path:
        return self.folder / f"gathered-{step}-{rank}.npz"

    def _identity(self, step: int, rank: int) -> str:
        return fingerprint("gathered", [step, rank, self.world])

    def _read(self, path: Path, identity: str) -> dict[str, NDArray[Any]]:
        end = time.monotonic() + PATIENCE
        while not path.is_file() and time.monotonic() < end:  # network file systems show new files late
            time.sleep(LONGEST)
        if not is_sealed(path, identity):
            raise OutputError(
                f"rank {self.rank} of {self.world} does not find {path}, or not whole. All ranks have to see the "
                "same output folder: on several machines name one that they share with --out.",
                f"rank {self.rank} of {self.world} does not find what another rank wrote. All ranks have to see the "
                "same output folder: on several machines name one that they share with --out.",
            )
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, Exception):
            return  # who interrupts one rank, or torchrun when one has died, ends all of them
        with suppress(RuntimeError):  # the store may have gone with the machine that kept it
            self._fail(error)
        if not self.leads:
            with suppress(RuntimeError):
                self._wait_for_last_words()
            sys.stderr.flush()
            raise SystemExit(self._status(error))

    def _fail(self, error: BaseException) -> None:
        message, plain = _told(error)
        if not self.leads and not isinstance(error, RankError):
            message = f"rank {self.rank} of {self.world}: {message}"
            plain = f"rank {self.rank} of {self.world}: {plain}"
        words = {"message": message, "plain": plain, "status": _status_of(error)}
        self._store.compare_set("failed", "", json.dumps(words))  # the first one is the one that is told
        if self.leads:
            self._store.set("ending", "1")
            atexit.register(self._last_words)  # after whatever prints the message

    def _status(self, error: BaseException) -> int:
        try:
            return int(json.loads(self._store.get("failed"))["status"])
        except (RuntimeError, ValueError, KeyError):
            return _status_of(error)

    def _last_words(self) -> None:
        with suppress(RuntimeError):
            self._store.set("over", "1")

    def _wait_for_last_words(self) -> None:
        """A rank that ends makes ``torchrun`` end the others, and rank 0 has a message to print first."""
        end = None
        while not self._store.check(["over"]) and (end is None or time.monotonic() < end):
            if end is None and self._store.check(["ending"]):
                end = time.monotonic() + PATIENCE
            time.sleep(LONGEST)

    def close(self) -> None:
        """All ranks have done; rank 0 removes what they handed one another."""
        self.gather({})
        if self.leads:
            self._wait([f"gone/{rank}" for rank in range(1, self.world)])
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self._store.set(f"gone/{self.rank}", "1")


def _meeting(store: Store, rank: int, world: int) -> str:
    """A name that all ranks of this start agree on, whatever those of an earlier one have left in the store."""
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set("call", mine)
        answers = [f"answer/{mine}/{other}" for other in range(1, world)]
        while not store.check(answers):
            time.sleep(LONGEST)
        store.set(f"met/{mine}", ",".join(store.get(answer).decode() for answer in answers))
        return mine
    while True:
        if store.check(["call"]):
            name = store.get("call").decode()
            store.set(f"answer/{name}/{rank}", mine)
            # An old call has been met by others than us.
            if store.check([f"met/{name}"]) and mine in store.get(f"met/{name}").decode().split(","):
                return name
        time.sleep(LONGEST)


def _save(arrays: dict[str, NDArray[np.generic]], path: Path) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _told(error: BaseException) -> tuple[str, str]:
    """What is said of an error, with and without names."""
    if isinstance(error, MemoError):
        return str(error), error.plain or f"refused ({type(error).__name__})"
    known = exhausted(error)
    plain = f"ended with {type(error).__name__}"
    if known is not None:
        return known, plain
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = "" if last is None else f" ({Path(last.tb_frame.f_code.co_filename).name}, line {last.tb_lineno})"
    return f"{plain}: {error}{place}", f"{plain}{place}"


def _status_of(error: BaseException) -> int:
    """As ``monai-memo`` ends: 2 refused, 1 otherwise."""
    return 2 if isinstance(error, MemoError) or exhausted(error) is not None else 1
