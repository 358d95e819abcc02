# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_memo.audit.audit import Audit
from monai_memo.audit.evidence import compare_files, compare_match
from monai_memo.audit.result import AuditResult
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.errors import (
    CalibrationError,
    CohortError,
    CohortOverlapError,
    ConfigurationError,
    DetectorError,
    OutputError,
)
from monai_memo.workspace.place import WORK


def arguments(folder: Path, out: Path, **further: Any) -> dict[str, Any]:
    return {
        "train": str(folder / "training"),
        "heldout": str(folder / "heldout"),
        "synthetic": str(folder / "synthetic"),
        "out": str(out),
        "n_bootstrap": 200,
        "planted": 20,
        "limit_copies": 0,
        "gallery": 4,
        "progress": False,
        "size": 32,
        **further,
    }


@pytest.fixture(scope="module")
def finished(
    demo_folder: Path, detector_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, AuditResult]:
    out = tmp_path_factory.mktemp("audit")
    return out, Audit(**arguments(demo_folder, out, detector=str(detector_file), limit_copies=3)).run()


def test_blurred_images_of_unseen_patients_are_no_copies(
    demo_folder: Path, detector_file: Path, tmp_path: Path
) -> None:
    for number in range(60):
        image = gaussian_filter(chest_phantom(500_000 + number, (32, 32)), (0, 2, 2))
        save_image(tmp_path / "blurred" / f"{number:02d}.png", image)
    settings = {"synthetic": str(tmp_path / "blurred"), "detector": str(detector_file), "planted": 40}
    results = {
        matched: Audit(
            **arguments(
                demo_folder,
                tmp_path / str(matched),
                **settings,
                match_sharpness=matched,
                redacted=matched,
                reference=matched,  # without what these images show among unseen patients, which raises tau as well
            )
        ).run()
        for matched in (True, False)
    }
    assert results[False].n_copies.value > 20  # blur alone, by a threshold of sharp images
    assert results[True].n_copies.value <= 10 and results[True].excess_copies.low <= 0
    assert results[False].calibration["sharpness"] is None
    sharpness = results[True].calibration["sharpness"]
    assert sharpness["synthetic"] < sharpness["heldout"]
    assert sharpness["sentence"] in (tmp_path / "True" / "report.html").read_text(encoding="utf-8")
    assert any("softened" in text for text in results[True].warnings)
    assert any("--match_sharpness" in text for text in results[False].warnings)
    # Copies that are as soft as the synthetic images are still found.
    assert results[True].sensitivity is not None and results[True].sensitivity["rate"].value > 0.7
    assert results[True].cohorts["heldout"].content_sha256 == results[False].cohorts["heldout"].content_sha256


def test_output_is_complete_and_consistent(finished: tuple[Path, AuditResult]) -> None:
    out, result = finished
    assert sorted(path.name for path in out.iterdir()) == [
        ".monai_memo.json", "audit.json", "detector.pt", "figures", "matches.csv", "pairs", "partial.csv",
        "report.html",
    ]  # fmt: skip
    record = json.loads((out / "audit.json").read_text())
    for name in ("n_copies", "n_mem", "tau"):
        assert record[name]["low"] <= record[name]["value"] <= record[name]["high"]
    assert (record["n_train"], record["n_heldout"], record["n_synthetic"]) == (60, 40, 30)
    with open(out / "matches.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "synthetic", "nearest_training", "similarity", "tau", "copy", "p_value", "listed", "same_image",
        "look_alikes",
        "agrees", "as_found", "pair", "page",
    ]  # fmt: skip
    assert len(rows) == 30
    called = [row for row in rows if row["copy"] == "true"]
    assert len(called) == record["n_copies"]["value"]
    assert all(float(row["similarity"]) > record["tau"]["value"] for row in called)
    assert AuditResult.from_json((out / "audit.json").read_text()).n_copies == result.n_copies


def test_matches_of_a_finished_audit_can_be_compared_again(
    finished: tuple[Path, AuditResult], demo_folder: Path
) -> None:
    out, result = finished
    match = result.matches[0]
    pair = compare_match(out, match.synthetic)
    assert pair.aligned.shape == (1, 224, 224) and pair.similarity > result.tau.value
    other = next(row.nearest_training for row in result.matches if row.nearest_training != match.nearest_training)
    assert compare_match(out, match.synthetic, other).similarity < pair.similarity
    files = demo_folder / "synthetic" / match.synthetic, demo_folder / "training" / match.nearest_training
    again = compare_files(*files, Detector.load(out / "detector.pt").preprocessing)
    np.testing.assert_array_equal(again.agreement, pair.agreement)
    with pytest.raises(CohortError, match=r"no image 'nobody\.png' in the synthetic cohort"):
        compare_match(out, "nobody.png")


def test_limit_of_detection_is_in_the_record(finished: tuple[Path, AuditResult]) -> None:
    limits = finished[1].detection_limit
    assert limits is not None and limits["copies"] == 3
    by_kind = {row["kind"]: row for row in limits["limits"]}
    assert by_kind["jpeg"]["missed_from"] is None and set(by_kind["rotation"]["found"]) >= {"5", "10", "20"}


def test_planted_copies_are_found_and_attributed(finished: tuple[Path, AuditResult], demo_folder: Path) -> None:
    _, result = finished
    with open(demo_folder / "truth.csv", newline="") as stream:
        truth = {row["synthetic"]: row["copied_from"] for row in csv.DictReader(stream)}
    copied = [match for match in result.matches if truth[match.synthetic]]
    assert len(copied) == 12
    assert result.n_copies.low <= 12 <= result.n_copies.high
    right = [match for match in copied if match.nearest_training == truth[match.synthetic]]
    assert len(right) >= 8
    called = [match for match in result.matches if match.copy]
    assert np.mean([bool(truth[match.synthetic]) for match in called]) > 0.6
    assert result.verdict["level"] == "copies_found"


def test_same_command_twice_gives_the_same_result(demo_folder: Path, tmp_path: Path) -> None:
    records = []
    for _ in range(2):
        Audit(**arguments(demo_folder, tmp_path / "out", epochs=2)).run()
        record = json.loads((tmp_path / "out" / "audit.json").read_text())
        record.pop("timing")
        records.append((record, (tmp_path / "out" / "matches.csv").read_text()))
    assert records[0] == records[1]


def test_volumes(demo_folder_3d: Path, detector_file_3d: Path, tmp_path: Path) -> None:
    result = Audit(**arguments(demo_folder_3d, tmp_path, detector=str(detector_file_3d), size=16, parts=False)).run()
    assert result.detector["spatial_dims"] == 3 and result.n_train == 24
    page = (tmp_path / "report.html").read_text()
    pairs = page.count("<article")
    columns = 4 if result.verification else 3
    # Charts, contact sheet, and of each pair three planes where it agrees and three where it differs.
    assert pairs > 4 and page.count("data:image/png") == 3 + 12 + 6 * columns * pairs


def test_paper_calibration_is_carried_through(demo_folder: Path, detector_file: Path, tmp_path: Path) -> None:
    result = Audit(
        **arguments(demo_folder, tmp_path, detector=str(detector_file), calibration="paper", planted=0, gallery=0)
    ).run()
    assert result.tau == result.tau_memorized and result.sensitivity is None
    assert result.tau.value == pytest.approx(np.quantile(result.distributions["training_to_heldout"], 0.95), abs=1e-5)
    assert (
        "With nothing memorized" in result.calibration["explanation"]
        or "with nothing memorized" in result.calibration["explanation"]
    )


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_bad_images_are_skipped_named_and_counted(demo_folder: Path, detector_file: Path, tmp_path: Path) -> None:
    folder = copy_of(demo_folder, tmp_path / "in")
    victim = next((folder / "training").iterdir())
    victim.write_bytes(victim.read_bytes()[:200])
    np.save(folder / "synthetic" / "nan.npy", np.full((32, 32), np.nan))
    np.save(folder / "heldout" / "flat.npy", np.ones((32, 32)))
    result = Audit(**arguments(folder, tmp_path / "out", detector=str(detector_file))).run()
    skipped = {name: [item["reason"] for item in summary.skipped] for name, summary in result.cohorts.items()}
    truncated = "truncated: the file ends before its image does"
    assert skipped == {"training": [truncated], "heldout": ["constant"], "synthetic": ["contains NaN or infinity"]}
    assert (result.n_train, result.n_heldout, result.n_synthetic) == (59, 40, 30)
    report = (tmp_path / "out" / "report.html").read_text()
    assert victim.name in report and "nan.npy" in report


@pytest.mark.slow  # tests/data holds it for each kind of damage
def test_corrupt_volume_is_skipped(demo_folder_3d: Path, detector_file_3d: Path, tmp_path: Path) -> None:
    folder = copy_of(demo_folder_3d, tmp_path / "in")
    nibabel.save(
        nibabel.Nifti1Image(knee_phantom(999, (16, 16, 16))[0], np.eye(4)), folder / "synthetic" / "bad.nii.gz"
    )
    bad = folder / "synthetic" / "bad.nii.gz"
    bad.write_bytes(bad.read_bytes()[:2000])
    result = Audit(**arguments(folder, tmp_path / "out", detector=str(detector_file_3d), size=16)).run()
    reason = "truncated: the file ends before its image does"
    assert result.cohorts["synthetic"].skipped == [{"image": "bad.nii.gz", "reason": reason}]


def test_colour_among_grey_is_converted_and_counted(demo_folder: Path, detector_file: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = copy_of(demo_folder, tmp_path / "in")
    victim = sorted((folder / "synthetic").iterdir())[0]
    Image.open(victim).convert("RGB").save(victim)
    result = Audit(**arguments(folder, tmp_path / "out", detector=str(detector_file))).run()
    assert result.cohorts["synthetic"].notes == ["1 image converted from colour"]


def test_refusals_name_the_reason(demo_folder: Path, demo_folder_3d: Path, detector_file: Path, tmp_path: Path) -> None:
    ready = {"detector": str(detector_file)}
    with pytest.raises(CohortError, match="the training cohort does not exist"):
        Audit(**{**arguments(demo_folder, tmp_path / "o", **ready), "train": str(tmp_path / "none")}).run()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match="no images in the heldout folder"):
        Audit(**{**arguments(demo_folder, tmp_path / "o", **ready), "heldout": str(tmp_path / "empty")}).run()
    with pytest.raises(CohortError, match="2D and 3D images are mixed"):
        Audit(**{**arguments(demo_folder, tmp_path / "o"), "synthetic": str(demo_folder_3d / "synthetic")}).run()
    with pytest.raises(DetectorError, match="for 2D images, the cohort has 3D"):
        Audit(**arguments(demo_folder_3d, tmp_path / "o", **ready)).run()
    with pytest.raises(ConfigurationError, match="calibration must be one of size_matched, paper, got 'exact'"):
        Audit(**arguments(demo_folder, tmp_path / "o", calibration="exact"))
    with pytest.raises(ConfigurationError, match=r"quantile must be a number from 0\.5 to 0\.9999, got 95"):
        Audit(**arguments(demo_folder, tmp_path / "o", quantile=95))


@pytest.mark.parametrize("cohort", ["training", "heldout", "synthetic"])
def test_cohorts_of_one_image(demo_folder: Path, detector_file: Path, tmp_path: Path, cohort: str) -> None:
    folder = copy_of(demo_folder, tmp_path / "in")
    for path in sorted((folder / cohort).iterdir())[1:]:
        path.unlink()
    audit = Audit(**arguments(folder, tmp_path / "out", detector=str(detector_file)))
    if cohort == "training":
        with pytest.raises(CohortError, match="1 usable image; an audit needs at least 2"):
            audit.run()
    elif cohort == "heldout":
        with pytest.raises(CalibrationError, match="1 held-out patient cannot support"):
            audit.run()
    else:
        result = audit.run()
        assert result.n_synthetic == 1 and result.n_copies.high == pytest.approx(1.0, abs=0.06)
        assert result.verdict["level"] != "no_excess"


def test_overlap_is_refused_and_can_be_allowed(demo_folder: Path, detector_file: Path, tmp_path: Path) -> None:
    folder = copy_of(demo_folder, tmp_path / "in")
    original = sorted((folder / "training").iterdir())[0]
    shutil.copy(original, folder / "synthetic" / "verbatim.png")
    ready = arguments(folder, tmp_path / "out", detector=str(detector_file))
    with pytest.raises(CohortOverlapError, match=rf"{original.name} = verbatim\.png"):
        Audit(**ready).run()
    result = Audit(**ready, allow_overlap=True).run()
    assert any("byte-identical" in text for text in result.warnings)
    verbatim = next(match for match in result.matches if match.synthetic == "verbatim.png")
    assert verbatim.copy and verbatim.nearest_training == original.name and verbatim.similarity > 0.99


def test_full_disk_leaves_the_earlier_result(
    finished: tuple[Path, AuditResult],
    demo_folder: Path,
    detector_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = copy_of(finished[0], tmp_path / "out")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    from monai_memo.audit import report

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "write_figure", full)
    with pytest.raises(OutputError, match=r"No space left on device.*Earlier results there are unchanged"):
        Audit(**arguments(demo_folder, out, detector=str(detector_file), seed=9)).run()
    assert {path: path.read_bytes() for path in before} == before


def test_unwritable_output_is_found_before_any_work(demo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Name a writable folder"):
        Audit(**arguments(demo_folder, tmp_path / "file" / "out")).run()


def test_redacted_output_names_nobody(demo_folder: Path, detector_file: Path, tmp_path: Path) -> None:
    folder = copy_of(demo_folder, tmp_path / "secretplace")
    names = []
    for cohort in ("training", "heldout", "synthetic"):
        for number, path in enumerate(sorted((folder / cohort).iterdir())):
            new = path.with_name(f"sentinel{cohort}{number}.png")
            path.rename(new)
            names.append(new.name)
    broken = folder / "training" / "sentineltraining0.png"
    broken.write_bytes(b"x")
    shutil.copy(folder / "training" / "sentineltraining1.png", folder / "synthetic" / "sentinelcopy.png")
    out = tmp_path / "out"
    Audit(
        **arguments(
            folder, out, detector=str(detector_file), redacted=True, allow_overlap=True, patient_pattern=r"sentinel\w+"
        )
    ).run()
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"sentinel" not in content, path
            assert b"secretplace" not in content, path
            assert str(tmp_path).encode() not in content, path
    report = (out / "report.html").read_text()
    assert report.count("data:image/png") == 3  # the figures of numbers, no gallery and no contact sheet
    assert "side by side" not in report and not (out / "figures" / "contact_sheet.png").exists()
    assert not (out / WORK).exists()
    with open(out / "matches.csv", newline="") as stream:
        assert next(csv.DictReader(stream))["synthetic"] == "synthetic 1"


SLOWED = """
import signal
# A shell that runs the tests in the background makes them, and what they start, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
import runpy, sys, time
from monai_memo.detector.pairs import ViewPairs
from monai_memo.networks.copy_detector import CopyDetector
original = OWNER.NAME
def slowed(*values, **named):
    time.sleep(0.15)
    return original(*values, **named)
OWNER.NAME = slowed
sys.argv = ["monai-memo", *sys.argv[1:]]
runpy.run_module("monai_memo", run_name="__main__")
"""


@pytest.mark.parametrize(("moment", "how"), [
    pytest.param("training", signal.SIGKILL, id="kill-training"),
    pytest.param("embedding", signal.SIGINT, id="ctrl-c-embedding", marks=pytest.mark.slow),
    pytest.param("embedding", signal.SIGKILL, id="kill-embedding", marks=pytest.mark.slow),
    pytest.param("training", signal.SIGINT, id="ctrl-c-training", marks=pytest.mark.slow),
])  # fmt: skip
def test_interrupted_audit_goes_on_and_gives_the_same_result(
    demo_folder: Path, tmp_path: Path, moment: str, how: signal.Signals
) -> None:
    quick: dict[str, Any] = {"epochs": 6, "keep_work": True, "limit_copies": 0, "parts": False}

    def command(out: Path) -> list[str]:
        options = [f"--{key}={value}" for key, value in arguments(demo_folder, out, **quick).items()]
        return [sys.executable, "-m", "monai_memo", "audit", *options]

    # Slow the moment down, so that the signal meets it; the slowed code is the real one.
    owner, name = ("ViewPairs", "__call__") if moment == "training" else ("CopyDetector", "embed")
    slow = tmp_path / "slow.py"
    slow.write_text(SLOWED.replace("OWNER", owner).replace("NAME", name))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(slow), *command(out)[3:]], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    marker = out / WORK / ("training" if moment == "training" else "embeddings")
    pattern = "checkpoint*.pt" if moment == "training" else "*.npy"
    deadline = time.time() + 120
    while not list(marker.glob(pattern)) and time.time() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), errors[-2000:]
    if how == signal.SIGINT:
        assert "Run the same command again to continue" in errors
    assert not (out / "audit.json").exists()
    again = subprocess.run(command(out), capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr[-2000:]
    if moment == "training":
        assert "training goes on after epoch" in again.stderr
    Audit(**arguments(demo_folder, tmp_path / "whole", **quick)).run()
    found, whole = (json.loads((folder / "audit.json").read_text()) for folder in (out, tmp_path / "whole"))
    for record in (found, whole):
        record.pop("timing")
        record["configuration"].pop("out")
    assert found == whole
