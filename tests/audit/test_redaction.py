# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Markers are planted wherever a patient's name can stand, and looked for in everything that a redacted run leaves."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image, PngImagePlugin
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from monai_memo.audit.audit import Audit
from monai_memo.detector.detector import Detector, known_summary
from monai_memo.errors import UnusableImageError
from monai_memo.redaction import LEFT_OUT, names_hidden
from tests.audit.small import SIZE, picture, settings, untrained, write_cohorts

MARK = "Zorgmarke"  # every marker begins with it


def write_dicom(path: Path, number: int, patient: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = pydicom.Dataset()
    image.file_meta = meta
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.SeriesInstanceUID, image.StudyInstanceUID, image.Modality = generate_uid(), generate_uid(), "CR"
    image.PatientID, image.PatientName, image.StudyDescription = patient, f"{patient}^A", f"{patient} story"
    image.Rows, image.Columns = SIZE
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = np.asarray(picture(number)).tobytes()
    image.save_as(path, enforce_file_format=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three cohorts full of markers, in a folder with one in its name."""
    root = tmp_path / f"{MARK}clinic"
    for name, first, count in (("train", 0, 12), ("heldout", 100, 24), ("synthetic", 200, 8)):
        folder = root / f"{MARK}{name}" / f"{MARK}deep"
        folder.mkdir(parents=True)
        for number in range(count):
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", f"{MARK}text")
            picture(first + number).save(folder / f"{MARK}{name}{number}.png", pnginfo=text)
        exif = Image.Exif()
        exif[0x010E] = f"{MARK}exif"
        picture(first + 50).save(folder / f"{MARK}{name}exif.jpg", exif=exif)
        write_dicom(folder / f"{MARK}{name}.dcm", first + 51, f"{MARK}patient{name}")
        (folder / f"{MARK}broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + MARK.encode() * 9)
        (folder / f"{MARK}broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + MARK.encode() * 9)
        (folder / f"{MARK}broken.nrrd").write_bytes(b"NRRD0004\n" + MARK.encode() * 9)
        (folder / f"notes.{MARK}ending").write_text(MARK)
    copied = root / f"{MARK}train" / f"{MARK}deep" / f"{MARK}train3.png"
    (root / f"{MARK}synthetic" / f"{MARK}verbatim.png").write_bytes(copied.read_bytes())
    rows = [["image", "patient_id", f"{MARK}column"]]
    for path in sorted((root / f"{MARK}train").rglob("*")):
        if path.suffix in (".png", ".jpg", ".dcm", ".nrrd"):
            rows.append([str(path.relative_to(root)), f"{MARK}id{len(rows)}", f"{MARK}value"])
    with open(root / f"{MARK}train.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    summary = {f"{MARK}key": 1, "validation_loss": f"{MARK}loss", "fine_tuned": {"from": MARK, "epochs": 2}}
    untrained(root / "detector.pt", **summary)
    record = torch.load(root / "detector.pt", weights_only=True)
    record["versions"] = {"monai": f"1.0 {MARK}", f"{MARK}package": "1.0", "torch": "2.3.1+cpu"}
    torch.save({**record, f"{MARK}extra": MARK}, root / "detector.pt")
    return root


def run(root: Path, *options: str, redacted: bool = True) -> tuple[Path, subprocess.CompletedProcess[bytes]]:
    out = root / f"{MARK}results" / "out"
    (root / f"{MARK}here").mkdir(exist_ok=True)
    given = {
        "train": root / f"{MARK}train.csv", "heldout": root / f"{MARK}heldout", "synthetic": root / f"{MARK}synthetic",
        "out": out, "detector": root / "detector.pt", "n_bootstrap": 100, "planted": 4, "limit_copies": 0,
        "verification": False, "gallery": 2, "device": "cpu",
    }  # fmt: skip
    given = {name: value for name, value in given.items() if not any(o.startswith(f"--{name}=") for o in options)}
    command = [sys.executable, "-m", "monai_memo", "audit", *(f"--{name}={value}" for name, value in given.items())]
    command += [*options, *(["--redacted"] if redacted else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, cwd=root / f"{MARK}here", env=environment, capture_output=True, timeout=300)
    return out, ended


def everything(out: Path) -> Iterator[tuple[str, bytes]]:
    """Every name and content below a folder, those within archives and compressed parts of PNG files too."""
    for path in out.rglob("*"):
        yield "a name", str(path.relative_to(out)).encode()
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield path.name, content
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for item in archive.infolist():
                    yield f"{path.name}: {item.filename}", item.filename.encode() + item.comment + archive.read(item)
        if content.startswith(b"\x1f\x8b"):
            yield f"{path.name}, unpacked", gzip.decompress(content)
        if path.suffix == ".png":
            yield f"{path.name}: metadata", repr(Image.open(path).info).encode()


def test_no_marker_is_left_by_a_redacted_run(place: Path) -> None:
    out, ended = run(place, "--allow_overlap")
    assert ended.returncode == 3, ended.stderr[-3000:]
    assert b"3 images of the training cohort are skipped" in ended.stderr or b"skipped" in ended.stdout
    assert b"N_copies" in ended.stdout and b"report.html, in the folder of --out" in ended.stdout
    looked_at = 0
    for name, content in [*everything(out), ("stdout", ended.stdout), ("stderr", ended.stderr)]:
        assert MARK.lower().encode() not in content.lower(), name
        assert str(place.parent).encode() not in content, name
        looked_at += 1
    assert looked_at > 10
    names = {path.name for path in out.iterdir()}
    assert names == {"audit.json", "detector.pt", "figures", "matches.csv", "report.html", ".monai_memo.json"}
    loaded = Detector.load(out / "detector.pt")
    assert loaded.training_summary == {"epochs": 1, "fine_tuned": {"epochs": 2}}
    assert loaded.versions == {"torch": "2.3.1+cpu"}
    before = dict(everything(out))
    unredacted = run(place, "--allow_overlap", redacted=False)[1]
    assert unredacted.returncode == 2 and b"the redacted result of monai-memo audit is there" in unredacted.stderr
    assert dict(everything(out)) == before
    refused = run(place)[1]  # the cohorts overlap
    shutil.rmtree(out)
    unredacted = run(place, "--allow_overlap", redacted=False)[1]
    assert unredacted.returncode == 3 and MARK.encode() in unredacted.stderr + unredacted.stdout
    again = run(place, "--allow_overlap")[1]
    assert again.returncode == 2 and b"it holds the unredacted result of monai-memo audit" in again.stderr
    assert b"3 byte-identical images in both the training and the heldout cohort." in refused.stderr
    for ended in (refused, again):
        assert ended.returncode == 2 and MARK.encode() not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    "option",
    [f"--train={MARK}nowhere", f"--patient_pattern={MARK}x", *(
        pytest.param(option, marks=pytest.mark.slow)
        for option in (f"--patient_pattern={MARK}(", f"--heldout={MARK}.csv", f"--detector={MARK}.pt")
    )],
)  # fmt: skip
def test_a_refused_redacted_run_names_nothing(place: Path, option: str) -> None:
    (place / f"{MARK}here").mkdir()
    (place / f"{MARK}here" / f"{MARK}.csv").write_text(f"{MARK}column\n{MARK}\n")
    out, ended = run(place, option)
    assert ended.returncode == 2, ended.stderr
    kinds = {
        "--train": b"--train: no such file or folder",
        f"--patient_pattern={MARK}x": b"--patient_pattern: finds no patient",
        "--detector": b"--detector: no such file",
    }  # fmt: skip
    for words in [words for start, words in kinds.items() if option.startswith(start)]:
        assert words in ended.stderr, ended.stderr
    assert ended.stderr and MARK.encode() not in ended.stderr + ended.stdout
    assert not out.exists() or not any(out.iterdir())


def test_an_interrupted_redacted_run_says_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cohorts = write_cohorts(tmp_path / f"{MARK}images")
    given = settings(cohorts, tmp_path / "out", untrained(tmp_path / "detector.pt"), redacted=True)
    with monkeypatch.context() as patch:
        patch.setattr("monai_memo.audit.inputs.compare_cohorts", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            Audit(**given).run()
    said = "holds images of patients, so that the run can go on. The same command removes it"
    assert said in caplog.text and MARK not in caplog.text
    work = tmp_path / "out" / ".monai_memo_work"
    assert any((work / "pixels").rglob("*")) and work.stat().st_mode & 0o077 == 0
    caplog.clear()
    Audit(**given).run()
    assert not work.exists() and said not in caplog.text


def test_no_marker_is_left_by_a_redacted_run_that_meets_others_and_damage(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """An earlier training, damaged pixels, embeddings, checkpoints and marker of it: each is told without a path."""
    caplog.set_level(logging.INFO)
    out = place / f"{MARK}results" / "out"
    work = out / ".monai_memo_work"
    given = {
        "train": place / f"{MARK}train.csv", "heldout": place / f"{MARK}heldout",
        "synthetic": place / f"{MARK}synthetic", "out": out, "epochs": 1, "size": 16, "n_bootstrap": 100, "planted": 0,
        "limit_copies": 0, "verification": False, "gallery": 1, "device": "cpu", "allow_overlap": True,
        "redacted": True,
    }  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("monai_memo.audit.searching.compare", _interrupted)
        Audit(**given, seed=0).run()
    (work / "pixels" / "training.json").write_text("{}")
    (work / "pixels" / "heldout.f16").write_bytes(b"x")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("monai_memo.audit.searching.compare", _interrupted)
        Audit(**given, seed=1).run()
    (work / "training" / "run.json").write_text("{")
    for path in [*(work / "training").glob("*.pt"), *(work / "embeddings").glob("*.npy")]:
        path.write_bytes(path.read_bytes()[:-9])
    Audit(**given, seed=1).run()
    for words in (
        "holds another training: starting anew",
        "is damaged or of an earlier version: it is made again",
        "is damaged: its images are read again",
        "of which nothing whole is left: it begins anew",
    ):
        assert words in caplog.text, words
    shown = caplog.text + "".join(capfd.readouterr())
    for name, content in [*everything(out), ("the screen", shown.encode())]:
        assert MARK.lower().encode() not in content.lower() and str(place.parent).encode() not in content, name


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_summaries_hold_known_numbers_only() -> None:
    good = {"epochs": 3, "validation_loss": None, "mixed_precision": True, "started_from": "ab" * 32}
    assert (
        known_summary({**good, "note": "x", "images": "ten", "from": "somebody", "learning_rate": float("nan")}) == good
    )


def test_a_detector_keeps_no_words(tmp_path: Path) -> None:
    detector = Detector.load(untrained(tmp_path / "d.pt"))
    named = Detector(detector.network, replace(detector.recipe, name=MARK), detector.preprocessing, 0, {})
    assert named.without_free_text().recipe.name == "custom"
    odd = Detector(detector.network, detector.recipe, replace(detector.preprocessing, orientation="RAS"), 0, {})
    assert odd.without_free_text().sha256 == detector.sha256


def test_paths_in_messages_are_hidden_however_they_come(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    ours = logging.getLogger("monai_memo.anything")
    folder, name = tmp_path / f"{MARK}s files", f"{MARK} anna.png"
    with caplog.at_level(logging.INFO), names_hidden(True, [str(folder), f"{MARK}cohort", "train", "."]):
        ours.warning("%s is damaged", folder / name)
        ours.warning("%(file)s is damaged", {"file": folder / name})
        ours.warning("%s are damaged", [folder / name])
        ours.warning(f"{folder / name} is damaged")
        ours.warning("%s is damaged", f"{MARK}cohort/{name}")
        ours.warning("%s is damaged", f"train/{name}")
        ours.warning("left out: %s", UnusableImageError(folder / name, "unreadable"))
        ours.warning("left out: %s", ValueError(name))
        ours.warning("%d of %s", name, name)
        ours.info("train detector ...")
        ours.info("3/4 of the copies and/or twins")
        warnings.warn(f"{folder / name} is odd", stacklevel=1)
        thread = threading.Thread(target=lambda: (folder / name).read_text())
        thread.start()
        thread.join()
    shown = caplog.text + "".join(capfd.readouterr())
    assert MARK not in shown and str(tmp_path) not in shown
    assert [record.getMessage() for record in caplog.records] == [
        "(a file or folder) is damaged", "(a file or folder) is damaged", "['(a file or folder)'] are damaged",
        *[LEFT_OUT] * 3, "left out: an image cannot be used: unreadable", "left out: ValueError", LEFT_OUT,
        "train detector ...", "3/4 of the copies and/or twins",
    ]  # fmt: skip
    assert "FileNotFoundError in the background of this redacted run" in shown
