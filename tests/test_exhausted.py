# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A full disk and a memory limit end a command with a message."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest

from monai_memo import __main__ as command_line
from monai_memo.files import exhausted, quiet_threads


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['a']"), "TMPDIR"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "--batch_size",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
    ],
)
def test_a_full_disk_or_memory_is_a_message_and_no_traceback(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(command_line, "settings_of", fail)
    with pytest.raises(SystemExit) as ended:
        command_line.main(["audit"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told and "run the same command again" in " ".join(told.split())


def test_a_thread_does_not_print_what_the_command_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: seen.append(str(arguments.exc_value)))
    quiet_threads()

    def fail(error: Exception) -> None:
        raise error

    for error in (OSError(errno.ENOSPC, "No space left on device"), ValueError("another")):
        thread = threading.Thread(target=fail, args=(error,))
        thread.start()
        thread.join()
    assert seen == ["another"]


def test_other_errors_are_not_hidden() -> None:
    assert exhausted(RuntimeError("shape mismatch")) is None and exhausted(OSError(errno.EACCES, "denied")) is None
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("wrapped") from error
    except RuntimeError as error:
        assert "disk is full" in str(exhausted(error))
