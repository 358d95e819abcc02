# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The performance command: that it measures what it says, on a few phantoms. No time is asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_memo.benchmark.fastdup_peer import Fastdup
from monai_memo.benchmark.peers import FlatPixels, PhaseCorrelation
from monai_memo.benchmark.performance import filled, main, read_images
from monai_memo.benchmark.sizes import compare_sizes, shrunk
from monai_memo.data.phantoms import chest_phantom
from monai_memo.errors import ConfigurationError

CHESTS = np.stack([chest_phantom(i, (32, 32)) for i in range(12)])


def rows_of(out: Path, part: str) -> list[dict[str, object]]:
    record = json.loads((out / f"performance_{part}.json").read_text(encoding="utf-8"))
    assert record["software"] and record["arguments"]["part"] == part
    rows: list[dict[str, object]] = record["rows"]
    return rows


def test_queries_are_timed_in_a_process_of_their_own(tmp_path: Path) -> None:
    small = ["--size", "32", "--gallery", "24", "--real", "12", "--queries", "4", "--rounds", "1"]
    main(["--part", "query", "--out", str(tmp_path), *small])
    row = rows_of(tmp_path, "query")[0]
    assert row["gallery"] == 24 and isinstance(row["ms_now"], float) and row["ms_now"] > 0


def test_recall_and_device_count_what_they_looked_at(tmp_path: Path) -> None:
    small = ["--size", "32", "--gallery", "40", "--real", "12", "--queries", "8"]
    main(["--part", "recall", "--out", str(tmp_path), *small])
    row = rows_of(tmp_path, "recall")[0]
    assert row["copies"] == 8 and row["kept"] == row["exact"] == row["coarse"] == 8  # the pool holds all forty
    main(["--part", "device", "--out", str(tmp_path), "--device", "cpu", *small])
    assert rows_of(tmp_path, "device")[0]["queries"] == 8


def test_galleries_are_filled_up_with_blends_of_two() -> None:
    gallery = filled(CHESTS, 30)
    assert gallery.shape == (30, 1, 32, 32) and gallery.dtype == np.float16
    np.testing.assert_allclose(gallery[:12], CHESTS, atol=1e-3)
    assert len(np.unique(gallery.reshape(30, -1), axis=0)) == 30


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", CHESTS)
    with pytest.raises(SystemExit, match=r"must be \(n, 1, 64, 64\), got \(12, 1, 32, 32\)"):
        read_images(str(tmp_path / "images.npy"), 2, 64, 4)


FAKE = """
import csv
from pathlib import Path
import numpy as np
from PIL import Image
def run(input_dir, work_dir, nearest_neighbors_k, **rest):
    files = sorted(Path(input_dir).rglob("*.png"))
    values = np.stack([np.asarray(Image.open(one), dtype=float).ravel() for one in files])
    Path(work_dir).mkdir()
    with open(Path(work_dir) / "similarity.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["from", "to", "distance"])
        for one, file in enumerate(files):
            errors = ((values - values[one]) ** 2).sum(axis=1)
            for other in [row for row in np.argsort(errors) if row != one][:nearest_neighbors_k]:
                names = [entry.relative_to(Path(input_dir).parent) for entry in (file, files[other])]
                rows.writerow([*names, 1 / (1 + errors[other])])
"""


def test_fastdup_is_asked_in_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fastdup.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    method = Fastdup(CHESTS, sys.executable, tmp_path / "files")
    similarity, nearest = method(CHESTS[3:5])
    assert nearest.tolist() == [3, 4] and similarity.tolist() == [1, 1]
    (tmp_path / "fastdup.py").write_text("raise SystemExit('no licence')")
    with pytest.raises(ConfigurationError, match="no licence"):
        method(CHESTS[3:5])


def test_peers_find_what_they_are_made_for() -> None:
    moved = np.roll(CHESTS[3:5], (3, -2), axis=(2, 3))
    assert PhaseCorrelation(CHESTS)(moved)[1].tolist() == [3, 4]
    assert FlatPixels(CHESTS)(CHESTS[3:5, ..., ::-1])[1].tolist() == [3, 4]


def test_whole_audits_are_timed_from_files(tmp_path: Path, detector_file: Path) -> None:
    small = ["--size", "32", "--gallery", "30", "--real", "12", "--queries", "48", "--detector", str(detector_file)]
    quick = ["--options", "limit_copies=0", "planted=0", "n_bootstrap=100", "verification=False"]
    main(["--part", "audit", "--out", str(tmp_path), *small, *quick])
    row = rows_of(tmp_path, "audit")[0]
    written = {name: len(list((tmp_path / "cohorts-30" / name).rglob("*.png"))) for name in ("train", "heldout")}
    assert row["ranks"] == 1 and written == {"train": 30, "heldout": 24}
    assert isinstance(row["steps"], dict) and 0 < row["steps"]["search and verify"] < row["seconds"]  # type: ignore[operator]


def test_audits_need_a_detector(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--part", "audit", "--out", str(tmp_path)])


def test_sizes_are_compared_on_the_same_copies(tmp_path: Path) -> None:
    large = np.stack([chest_phantom(i, (64, 64)) for i in range(20)])
    rows = compare_sizes(large[:12], large[12:], (16, 32), 2, ["flip", "noise"])
    assert [row["size"] for row in rows] == [16, 32] and rows[1]["kinds"]["flip"] == 1.0
    assert all(row["copies"] == 2 * 5 and row["unseen"] == 8 and row["ms"] > 0 for row in rows)
    assert shrunk(large[:2], 16).shape == (2, 1, 16, 16)
    np.testing.assert_allclose(shrunk(large[:2], 16).mean(), large[:2].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--part query --queries 0", "--queries must be 1 or more, got 0"),
        ("--part query --gallery 10 -3", "--gallery must be 2 or more, got -3"),
        ("--part query --rounds 0", "--rounds must be 1 or more"),
        ("--part device --size 2", "--size must be 16 or more, got 2"),
        ("--part recall --gallery 5 --queries 6", "--queries 6 copies cannot be chosen among --gallery 5 images"),
        ("--part sizes --sizes 128 --size 64", "--sizes must not exceed --size"),
        ("--part audit --detector nowhere.pt", "--detector nowhere.pt is no file"),
        ("--part query --before nowhere", "--before nowhere is no checkout"),
        ("--part peers --images nowhere.npy", "--images nowhere.npy is no file"),
        ("--part device --device toaster", "--device toaster cannot be used"),
    ],
)
def test_arguments_without_sense_are_refused_with_their_name(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.npy").write_text("no array")
    np.savez(tmp_path / "several.npz", CHESTS, CHESTS)
    for name, words in (("images.npy", "no .npy file that can be read"), ("several.npz", "must be one array")):
        with pytest.raises(SystemExit, match=words):
            read_images(str(tmp_path / name), 2, 32, 4)
