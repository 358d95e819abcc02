# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How far long work is: a bar on a terminal, a line now and then where there is none, as in a batch system's log.

Lines look like ``search: 1,200 of 10,000, 35 a second, about 4 min left``. The first comes after a few seconds, others
at least every 30 s, the last at the end; work of a few seconds prints none. A thread of its own prints while a single
step takes long; it ends with the work.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

FIRST, EVERY = 5.0, 24.0  # seconds until the first line, and between two
HEARTBEAT = 28.0  # of work that nothing is counted of: what is inside it speaks first
Item = TypeVar("Item")


def is_first_rank() -> bool:
    """Whether this is the process that speaks, among those that work together."""
    distributed = getattr(sys.modules.get("torch"), "distributed", None)  # not loaded for this
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    return os.environ.get("RANK", "0") == "0"


def time_text(seconds: float) -> str:
    """A duration in words, as coarse as an estimate is.

    Example:
        >>> [time_text(s) for s in (0.2, 42, 250, 3900, 200_000)]
        ['1 s', '42 s', '4 min', '1 h 5 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def rate_text(per_second: float) -> str:
    """How fast items are done.

    Example:
        >>> [rate_text(r) for r in (1234.0, 4.21, 0.25, 0.001)]
        ['1,234 a second', '4.2 a second', '15 a minute', '3.6 an hour']
    """
    units = ((1, "a second"), (60, "a minute"), (3600, "an hour"))
    length, name = next((unit for unit in units if per_second * unit[0] >= 1), units[-1])
    rate = per_second * length
    return f"{rate:,.0f} {name}" if rate >= 10 else f"{rate:.2g} {name}"


class _LastWords:
    """When anything was said last: of nested work, what is outside keeps quiet while what is inside speaks."""

    time = -math.inf


class Progress:
    """Follows one piece of work, to be used in a ``with`` statement.

    Args:
        total: how many items there are; None where that is unknown, or where it is one step.
        what: the work, in a word or two. No names of files or patients: lines stand in logs that are shared.
        done: items that were done before, which do not count for the rate.
        shown: whether anything is shown at all.
        first, every: seconds until the first line and between two; of one step the first comes late as well.
        clock: gives the time in seconds.

    Example:
        >>> with Progress(3, "search", shown=False) as progress:
        ...     for _ in range(3):
        ...         progress.update()
        >>> progress.done
        3
    """

    def __init__(
        self,
        total: int | None,
        what: str,
        done: int = 0,
        shown: bool = True,
        first: float | None = None,
        every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.what, self.done = total, what, done
        self.clock = clock
        self.every = every if every is not None else EVERY if total is not None else HEARTBEAT
        first = first if first is not None else FIRST if total is not None else self.every
        self.begin = self.latest = clock()
        self._before, self._next, self._note = done, self.begin + first, ""
        self._said = False
        self._bar: Any = None
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        finished = total is not None and done >= total
        self._speaks = shown and not finished and is_first_rank()
        if self._speaks and _on_terminal():
            self._bar = None if total is None else _terminal_bar(total, done, what)
            self._speaks = False
        if self._speaks:
            self._thread = threading.Thread(target=self._watch, args=(first,), name="progress", daemon=True)
            self._thread.start()

    def update(self, number: int = 1) -> None:
        """So many more items are done."""
        self.done += number
        self.latest = self.clock()
        if self._bar is not None:
            self._bar.update(number)
        if self._speaks and self.latest >= self._next:
            self._say(lambda now: now >= self._next)

    def note(self, text: str) -> None:
        """A value to show beside, such as a loss."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def line(self, ended: bool = False) -> str:
        """What is to be said now, or at the end."""
        now, done = self.clock(), self.done
        further, spent = done - self._before, self.latest - self.begin
        if self.total is None:
            parts = [f"{self.what}: {done:,} done" if done else f"{self.what}: going on"]
        else:
            parts = [f"{self.what}: {done:,} of {self.total:,}"]
        if further > 0 and spent > 0:
            parts.append(rate_text(further / spent))
        if not ended and self.total is not None and further > 0 and spent > 0:
            # What the step at hand has taken so far counts.
            parts.append(f"about {time_text((self.total - done) * spent / further - (now - self.latest))} left")
        elif ended and self.total is not None and done >= self.total:
            parts.append(f"done in {time_text(now - self.begin)}")
        else:
            parts.append(f"{'ended after' if ended else 'for'} {time_text(now - self.begin)}")
        return ", ".join([*parts, *filter(None, [self._note])])

    def close(self) -> None:
        """The work has ended, be it by an error."""
        self._end.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None
        if self._bar is not None:
            self._bar.close()
        if self._speaks and self._said and self.total is not None:
            _LastWords.time = time.monotonic()
            logger.info("%s", self.line(ended=True))
        self._speaks = False

    def _say(self, due: Callable[[float], bool]) -> None:
        with self._lock:
            now = self.clock()
            if self._end.is_set() or not due(now):  # the other thread was quicker
                return
            self._next, self._said = now + self.every, True
            _LastWords.time = time.monotonic()
        logger.info("%s", self.line())

    def _watch(self, first: float) -> None:
        wait = first
        while not self._end.wait(wait):
            # Something inside this work, or this work itself, may have spoken since.
            self._say(lambda _: self._silence() >= self.every)
            wait = max(0.001, self.every - self._silence())

    def _silence(self) -> float:
        return time.monotonic() - _LastWords.time

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def following(items: Iterable[Item], what: str, total: int | None = None, shown: bool = True) -> Iterator[Item]:
    """The items, one by one, with progress shown.

    Args:
        total: how many there are, where ``len`` does not tell.

    Example:
        >>> list(following("abc", "letters", shown=False))
        ['a', 'b', 'c']
    """
    number = len(items) if total is None and isinstance(items, Sized) else total
    with Progress(number, what, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _terminal_bar(total: int, done: int, what: str) -> Any:
    from tqdm import tqdm  # not for the lines, and not for help

    return tqdm(total=total, initial=done, desc=what)
