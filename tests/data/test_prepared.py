# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data import prepared as module
from monai_memo.data import store
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.prepared import prepare
from monai_memo.data.workers import Loaded
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, OutputError

SETTINGS = Preprocessing(2, (16, 16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        save_image(tmp_path / "images" / f"{number:02d}.png", chest_phantom(number, (24, 24)))
    return tmp_path / "images"


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loaded: list[str] = []
    original = module.load

    def counting(preprocessing: Preprocessing, image: CohortImage) -> Loaded:
        loaded.append(image.image_id)
        return original(preprocessing, image)

    monkeypatch.setattr(module, "load", counting)
    return loaded


def test_bad_images_are_skipped_named_and_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "03.png").write_bytes((folder / "03.png").read_bytes()[:100])
    np.save(folder / "zz.npy", np.full((16, 16), np.nan))
    found = prepare(Cohort.from_source(folder, "training"), SETTINGS, tmp_path / "work", progress=False)
    reasons = {item.image_id: item.reason for item in found.skipped}
    assert reasons == {"03.png": "truncated: the file ends before its image does", "zz.npy": "contains NaN or infinity"}
    assert len(found.cohort) == 11 and found.pixels.shape == (11, 1, 16, 16)
    for position, image in enumerate(found.cohort.images):
        np.testing.assert_allclose(found.pixels[position], SETTINGS(image.path), atol=1e-3)


def test_a_cohort_that_fails_for_one_reason_says_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    for number in range(7):
        np.save(tmp_path / "images" / f"{number}.npy", np.full((16, 16), np.nan if number < 5 else 1.0))
    cohort = Cohort.from_source(tmp_path / "images", "synthetic")
    with pytest.raises(CohortError) as error:
        prepare(cohort, SETTINGS, tmp_path / "work", progress=False)
    none = "none of the 7 images of the synthetic cohort can be used: "
    assert str(error.value) == f"{none}contains NaN or infinity (5, for example 0.npy); constant (2, for example 5.npy)"
    assert error.value.plain == f"{none}contains NaN or infinity (5); constant (2)"  # of a redacted run
    np.save(tmp_path / "images" / "8.npy", np.eye(16))
    prepare(Cohort.from_source(tmp_path / "images", "synthetic"), SETTINGS, tmp_path / "work", progress=False)
    assert caplog.messages == [
        "7 images of the synthetic cohort are skipped: contains NaN or infinity (5, for example 0.npy); constant (2, "
        "for example 5.npy)"
    ]


def test_finished_work_is_not_repeated_and_changed_work_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = Cohort.from_source(folder, "training")
    first = prepare(cohort, SETTINGS, tmp_path / "work", progress=False)
    loaded = count_loads(monkeypatch)
    again = prepare(cohort, SETTINGS, tmp_path / "work", progress=False)
    assert loaded == [] and again.content_sha256 == first.content_sha256
    prepare(cohort, SETTINGS.resized(8), tmp_path / "work", progress=False)
    assert len(loaded) == 12
    save_image(folder / "05.png", chest_phantom(99, (24, 24)))
    changed = prepare(Cohort.from_source(folder, "training"), SETTINGS, tmp_path / "work", progress=False)
    assert len(loaded) == 24 and changed.content_sha256 != first.content_sha256


def test_interrupted_work_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    cohort = Cohort.from_source(folder, "training")
    whole = prepare(cohort, SETTINGS, tmp_path / "whole", progress=False)
    original = module.load

    def failing(preprocessing: Preprocessing, image: CohortImage) -> Loaded:
        if image.image_id == "09.png":
            raise KeyboardInterrupt
        return original(preprocessing, image)

    monkeypatch.setattr(module, "load", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(cohort, SETTINGS, tmp_path / "work", progress=False)
    monkeypatch.setattr(module, "load", original)
    loaded = count_loads(monkeypatch)
    found = prepare(cohort, SETTINGS, tmp_path / "work", progress=False)
    assert sorted(loaded) == ["08.png", "09.png", "10.png", "11.png"]
    np.testing.assert_array_equal(found.pixels, whole.pixels)
    assert found.content_sha256 == whole.content_sha256


def test_killed_work_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys, time\n"
        "from monai_memo.data import prepared as m\n"
        "from monai_memo.data.cohort import Cohort\n"
        "from monai_memo.data.loading import Preprocessing\n"
        "m.BLOCK = 2\n"
        "load = m.load\n"
        "def slow(p, image):\n"
        "    time.sleep(0.3 if image.image_id >= '04' else 0)\n"
        "    return load(p, image)\n"
        "m.load = slow\n"
        "m.prepare(Cohort.from_source(sys.argv[1], 'training'), Preprocessing(2, (16, 16)), sys.argv[2], 1, False)\n"
    )
    work = tmp_path / "work"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder), str(work)])
    deadline = time.time() + 60
    while not (work / "training.json").exists() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    loaded = count_loads(monkeypatch)
    found = prepare(Cohort.from_source(folder, "training"), SETTINGS, work, progress=False)
    assert 0 < len(loaded) < 12
    np.testing.assert_allclose(found.pixels[0], SETTINGS(folder / "00.png"), atol=1e-3)
    assert found.pixels.shape[0] == 12


def test_nothing_usable_and_nowhere_to_write_are_named(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "bad").mkdir()
    np.save(tmp_path / "bad" / "x.npy", np.zeros((16, 16)))
    with pytest.raises(CohortError, match=r"none of the 1 images .*: constant \(x\.npy\)"):
        prepare(Cohort.from_source(tmp_path / "bad", "training"), SETTINGS, tmp_path / "work", progress=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        prepare(Cohort.from_source(folder, "training"), SETTINGS, tmp_path / "file" / "work", progress=False)


def test_a_full_disk_is_named_and_the_run_can_go_on(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "training.f16").symlink_to("/dev/full")  # every write to it fails with ENOSPC
    cohort = Cohort.from_source(folder, "training")
    with pytest.raises(OutputError, match=r"training\.f16: No space left on device.*Free some space"):
        prepare(cohort, SETTINGS, work, progress=False)
    (work / "training.f16").unlink()
    assert prepare(cohort, SETTINGS, work, progress=False).pixels.shape == (12, 1, 16, 16)


def test_a_kill_while_a_cache_is_replaced_does_not_mix_two_preprocessings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort, work = Cohort.from_source(folder, "training"), tmp_path / "work"
    first = prepare(cohort, SETTINGS, work, progress=False)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_sealed_json", killed)  # pixels of the larger size are written, their state is not
        with pytest.raises(KeyboardInterrupt):
            prepare(cohort, SETTINGS.resized(32), work, progress=False)
    again = prepare(cohort, SETTINGS, work, progress=False)
    assert again.content_sha256 == first.content_sha256
    np.testing.assert_allclose(again.pixels[3], SETTINGS(folder / "03.png"), atol=1e-3)


def test_an_overwritten_slice_of_a_series_is_noticed(tmp_path: Path) -> None:
    scan = tmp_path / "scan"
    scan.mkdir()
    (scan / "1.dcm").write_bytes(b"one")
    image = CohortImage(scan, "scan", "scan")
    cohort = Cohort("training", (image,), "x", False)
    before = module._fingerprint(cohort, SETTINGS)
    (scan / "1.dcm").write_bytes(b"three")
    assert module._fingerprint(cohort, SETTINGS) != before
