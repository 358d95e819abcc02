# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A run in a process of its own, forked from one that has imported everything: it can be killed within seconds."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

ENDED, FAILED = 0, 1


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: exit status; minus the signal that ended it.
        seconds: that it took.
        text: of stdout and stderr.
        timed_out: it was ended because it took too long.
        pid: of its process.
    """

    status: int
    seconds: float
    text: str
    timed_out: bool = False
    pid: int = 0


def run(
    job: Callable[[], None],
    kill_after: float | None = None,
    prepare: Callable[[], None] | None = None,
    limit: float = 600.0,
) -> Outcome:
    """Fork, run a job, and wait for its end.

    Args:
        job: to run; a ``MemoError`` ends it with status 2, as on the command line.
        kill_after: seconds until SIGKILL to the whole process group; None lets it end.
        prepare: run in the new process before the job (faults are set up there).
        limit: seconds after which it is killed as hanging.
    """
    reader, writer = os.pipe()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _in_child(job, prepare, reader, writer)
    os.close(writer)
    text, timed_out, status = bytearray(), False, None
    end = limit if kill_after is None else min(limit, kill_after)
    while status is None:
        left = end - (time.perf_counter() - start)
        if left <= 0:
            timed_out = kill_after is None or kill_after > limit
            _kill(child)
        if select.select([reader], [], [], max(0.0, min(0.02, left)))[0]:
            text += os.read(reader, 65_536)
        done, code = os.waitpid(child, os.WNOHANG if left > 0 else 0)
        if done:
            status = os.waitstatus_to_exitcode(code)
    _kill(child)  # what it has started, too
    while select.select([reader], [], [], 0)[0] and (more := os.read(reader, 65_536)):
        text += more
    os.close(reader)
    return Outcome(status, time.perf_counter() - start, text.decode("utf-8", "replace"), timed_out, child)


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(group, signal.SIGKILL)
        except ProcessLookupError:
            return


def _in_child(job: Callable[[], None], prepare: Callable[[], None] | None, reader: int, writer: int) -> None:
    from monai_memo.errors import MemoError
    from monai_memo.files import exhausted, quiet_threads

    status = FAILED
    try:
        os.setpgid(0, 0)
        os.close(reader)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        quiet_threads()
        faulthandler.disable()  # a crash is meant to be a crash
        if prepare is not None:
            prepare()
        job()
        status = ENDED
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else FAILED
    except MemoError as error:
        print(f"monai-memo: {error}", file=sys.stderr)
        status = 2
    except BaseException as error:
        message = exhausted(error)  # as the command line tells it
        if message is None:
            traceback.print_exc()
        else:
            print(f"monai-memo: {message}", file=sys.stderr)
            status = 2
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
