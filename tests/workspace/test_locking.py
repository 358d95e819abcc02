# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_memo.errors import OutputError
from monai_memo.workspace.locking import LOCK, FolderLock, hold, let_go
from monai_memo.workspace.output_folder import OutputFolder

HOLD = "import sys, time; from monai_memo.workspace.locking import FolderLock; "
HOLD += "lock = FolderLock(sys.argv[1], 'audit').acquire(); print('held', flush=True); time.sleep(60)"


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_run_is_refused_with_process_and_start_of_the_first(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(OutputError) as refused, OutputFolder(tmp_path, "train-detector"):
            pass
        text = str(refused.value)
        assert f"process {process.pid} (monai-memo audit), started 20" in text and "another folder with --out" in text
        assert re.search(r"started \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", text)
        assert refused.value.plain is not None and str(tmp_path) not in refused.value.plain
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_dead_process_blocks_nobody(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK).exists()
    with FolderLock(tmp_path, "audit"):
        pass
    assert not (tmp_path / LOCK).exists()


def test_two_runs_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "audit") as output:
        output.staging()
        with pytest.raises(OutputError, match=f"process {os.getpid()} "), OutputFolder(tmp_path, "audit"):
            pass
        assert (output.work / "output").is_dir()  # the refused one has not cleaned up after the other
    with OutputFolder(tmp_path, "audit"):
        pass


def test_never_two_hold_at_once(tmp_path: Path) -> None:
    """Many processes take turns; each writes when it comes and goes."""
    code = """
import os, sys, time
from monai_memo.errors import OutputError
from monai_memo.workspace.locking import FolderLock
done = 0
while done < 15:
    try:
        with FolderLock(sys.argv[1], "x"):
            inside = os.open(sys.argv[1] + "/inside", os.O_CREAT | os.O_EXCL)
            time.sleep(0.001)
            os.unlink(sys.argv[1] + "/inside")
            os.close(inside)
            done += 1
    except OutputError:
        time.sleep(0.002)
"""
    code = code.replace(
        "import os, sys", "import monai_memo.workspace.locking as m; m.READ_SECONDS = 0\nimport os, sys", 1
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]


def test_a_held_folder_is_free_for_its_own_process_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "training"
    code = f"from monai_memo.workspace.locking import hold; hold({str(folder)!r}, 'training')"
    hold(folder, "training")
    hold(folder, "training")
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode == 1 and f"is in use: process {os.getpid()}" in other.stderr
    environment = {**os.environ, "RANK": "1"}  # the second process of one distributed training
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
    let_go(folder)
    let_go(folder)
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    time.sleep(0)
