# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Many images are read by processes: the same images in the same order, and nothing is left behind by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_memo.data import workers
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.prepared import prepare
from monai_memo.data.store import PixelStore
from monai_memo.data.workers import Block, Loaded, blocks_of
from monai_memo.data.writing import save_image
from monai_memo.errors import MemoError
from monai_memo.files import rows_at_once

SETTINGS = Preprocessing(2, (16, 16))
ALONE = os.getpid()


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    for number in range(30):
        save_image(tmp_path / "images" / f"{number:02d}.png", chest_phantom(number, (24, 24)))
    (tmp_path / "images" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return Cohort.from_source(tmp_path / "images", "training")


def other_process(preprocessing: Preprocessing, image: CohortImage) -> Loaded:
    assert os.getpid() != ALONE, "this image was to be read by another process"
    return workers.load(preprocessing, image)


def test_processes_give_what_one_thread_gives(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = prepare(cohort, SETTINGS, tmp_path / "one", workers=1, progress=False)
    monkeypatch.setattr(workers, "PROCESSES_FROM", 20)
    monkeypatch.setattr("monai_memo.data.prepared.load", other_process)
    many = prepare(cohort, SETTINGS, tmp_path / "many", workers=3, progress=False)
    assert [image.image_id for image in many.cohort.images] == [image.image_id for image in one.cohort.images]
    assert [item.image_id for item in many.skipped] == ["07.png"] and many.skipped == one.skipped
    assert many.content_sha256 == one.content_sha256
    assert many.pixels.tobytes() == one.pixels.tobytes() and len(many.pixels) == 29


def test_processes_do_not_touch_the_random_numbers_of_others(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PROCESSES_FROM", 2)
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    assert sum(len(block.remarks) for block in blocks_of(SETTINGS, cohort.images, 0, 8, 2, other_process)) == 30
    assert torch.rand(1) == wanted


def test_series_of_many_files_are_read_by_processes_though_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = []
    for number in range(4):
        parts = tuple(tmp_path / f"{number}-{part}.dcm" for part in range(5))
        images.append(CohortImage(tmp_path / str(number), str(number), str(number), files=parts))

    def process_of(preprocessing: Preprocessing, image: CohortImage) -> Loaded:
        return Loaded(None, str(os.getpid() != ALONE))

    monkeypatch.setattr(workers, "PROCESSES_FROM", 20)
    found = [remark for block in blocks_of(SETTINGS, images, 0, 8, 2, process_of) for _, remark in block.remarks]
    assert found == ["True"] * 4
    monkeypatch.setattr(workers, "PROCESSES_FROM", 21)
    found = [remark for block in blocks_of(SETTINGS, images, 0, 8, 2, process_of) for _, remark in block.remarks]
    assert found == ["False"] * 4


def test_a_process_that_the_system_ends_is_told_and_work_goes_on(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(preprocessing: Preprocessing, image: CohortImage) -> Loaded:
        if image.image_id == "20.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return workers.load(preprocessing, image)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "PROCESSES_FROM", 2)
        patch.setattr("monai_memo.data.prepared.load", killed)
        with pytest.raises(MemoError, match=r"ended by the system.*fewer --workers"):
            prepare(cohort, SETTINGS, tmp_path / "work", workers=2, progress=False)
    assert len(prepare(cohort, SETTINGS, tmp_path / "work", progress=False).pixels) == 29


@pytest.mark.skipif(sys.platform != "linux", reason="processes are used on Linux")
def test_a_killed_run_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time, os\n"
        "from pathlib import Path\n"
        "from monai_memo.data import workers\n"
        "from monai_memo.data.cohort import CohortImage\n"
        "from monai_memo.data.loading import Preprocessing\n"
        "from monai_memo.workspace.locking import FolderLock\n"
        "out = Path(sys.argv[1])\n"
        "def slow(preprocessing, image):\n"
        "    (out / str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
        "images = [CohortImage(out / str(i), str(i), str(i)) for i in range(600)]\n"
        "with FolderLock(out, 'audit'):\n"
        "    list(workers.blocks_of(Preprocessing(2, (16, 16)), images, 0, 8, 2, slow))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.time() + 60
    while len([path for path in tmp_path.iterdir() if path.name.isdecimal()]) < 2 and time.time() < deadline:
        time.sleep(0.05)
    readers = [int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()]
    assert len(readers) == 2 and process.pid not in readers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(
        [sys.executable, "-c", "import sys\nfrom monai_memo.workspace.locking import FolderLock\n"
         "FolderLock(sys.argv[1], 'audit').acquire().release()", str(tmp_path)],
        check=True,
    )  # fmt: skip
    while any(Path(f"/proc/{reader}").exists() for reader in readers) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{reader}").exists() for reader in readers)


def test_large_images_go_in_small_blocks() -> None:
    assert rows_at_once((1, 64, 64)) == 256
    assert rows_at_once((1, 512, 512)) == rows_at_once((1, 64, 64, 64)) == 32
    assert rows_at_once((1, 512, 512, 512)) == 1


def test_the_state_of_a_store_does_not_grow_with_the_images(tmp_path: Path) -> None:
    pixels = np.zeros((256, 1, 8, 8), dtype=np.float16)
    sizes = []
    for number in (1, 20):
        store = PixelStore(tmp_path, f"n{number}", "x", (1, 8, 8))
        for _ in range(number):
            store.append(Block(pixels, [(True, "converted from colour; turned by EXIF orientation")] * 256))
        store.save()
        assert len(store) == 256 * number and store.read().shape == (256 * number, 1, 8, 8)
        assert store.notes == {"converted from colour": 256 * number, "turned by EXIF orientation": 256 * number}
        sizes.append(store.state_path.stat().st_size)
    assert sizes[1] - sizes[0] < 20 * 120  # one hash for each block


def test_a_store_goes_on_where_its_state_was_last_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def block(value: float) -> Block:
        return Block(np.full((2, 1, 8, 8), value, dtype=np.float16), [(True, None), (False, "constant"), (True, None)])

    store = PixelStore(tmp_path, "training", "x", (1, 8, 8))
    store.append(block(0.25))
    monkeypatch.setattr("monai_memo.data.store.time.monotonic", lambda: -1.0)  # it is never time to write the state
    store.append(block(0.5))
    again = PixelStore(tmp_path, "training", "x", (1, 8, 8))
    assert again.seen == 3 and again.skipped == {1: "constant"}
    again.append(block(0.75))
    again.save()
    assert again.skipped == {1: "constant", 4: "constant"}
    np.testing.assert_array_equal(
        PixelStore(tmp_path, "training", "x", (1, 8, 8)).read()[:, 0, 0, 0], [0.25] * 2 + [0.75] * 2
    )
