# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_memo.__main__ import FINISHED, REFUSED, SKIPPED, main
from monai_memo.audit.inspection import NOTHING_FOUND, SHOWN_NAMES, Inspection
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, ConfigurationError


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["inspect", *(str(argument) for argument in arguments), "--noprogress"])
    return int(end.value.code or 0)


def looked_at(**arguments: object) -> Inspection:
    inspection = Inspection(**{"progress": False, **arguments})
    inspection.read()
    inspection.compare()
    return inspection


def subjects(inspection: Inspection) -> list[str]:
    return [finding.subject for finding in inspection.findings if finding.serious]


def row(inspection: Inspection, label: str) -> list[str]:
    return dict(inspection.rows())[label]


def test_cohorts_that_match_give_a_table_a_page_and_no_warning(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = ["--train", demo_folder / "training", "--heldout", demo_folder / "heldout"]
    for number in range(30):
        save_image(tmp_path / "s" / f"{number}.png", chest_phantom(5000 + number, (32, 32)))
    assert run(*sources, "--synthetic", tmp_path / "s", "--out", tmp_path / "look.html") == FINISHED
    shown = capsys.readouterr().out
    assert "warning" not in shown and NOTHING_FOUND in shown and str(tmp_path / "look.html") in shown
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.splitlines() if line[:1].isalpha()}
    assert lines["images"] == "60 40 30" and lines["formats"] == "PNG PNG PNG" and lines["sizes"].count("32 x 32") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["look.html", "s"]


def test_the_page_is_one_file_without_scripts_or_requests(demo_folder: Path, tmp_path: Path) -> None:
    inspection = looked_at(
        train=demo_folder / "training", synthetic=demo_folder / "synthetic", out=tmp_path / "folder", size=32
    )
    page = inspection.write().read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|iframe|object)\b|url\(|https?://", page)
    assert len(re.findall(r"<img ", page)) == 5 and page.count("data:image/png;base64,") == 5
    assert "@media (prefers-color-scheme: dark)" in page and "@media print" in page
    assert page.index("must not be shared") < page.index("mean image") < page.index("What was read")
    record = json.loads((tmp_path / "folder" / "inspection.json").read_text())
    assert record["cohorts"]["training"]["format"] == {"PNG": 60}
    assert record["cohorts"]["training"]["shape"] == {"32 x 32": 60}
    assert record["cohorts"]["synthetic"]["intensities"]["images"] == 30
    assert (tmp_path / "folder" / "contact_sheet.png").exists()


def test_formats_sizes_and_colours_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    folder.mkdir()
    for number in range(6):
        image = (chest_phantom(number, (40, 32))[0] * 255).astype(np.uint8)
        picture = Image.fromarray(image)
        if number == 5:
            picture = picture.convert("RGB")
        picture.save(folder / f"{number}.{'png' if number < 4 else 'jpg'}")
    np.save(folder / "array.npy", chest_phantom(9, (24, 24))[0])
    inspection = looked_at(train=folder)
    assert row(inspection, "formats") == ["PNG 4, JPEG 2, npy 1"]
    assert row(inspection, "sizes") == ["40 x 32: 6, 24 x 24: 1"]
    assert row(inspection, "channels") == ["grey 6, colour 1"]
    assert row(inspection, "data types") == ["uint8 6, float32 1"]
    assert row(inspection, "patients") == ["not known: every image counts as one"]


def volumes(folder: Path, start: int, affine: np.ndarray | None, number: int = 6) -> Path:
    folder.mkdir()
    for place in range(number):
        volume = knee_phantom(start + place, (16, 16, 16))[0]
        image = nibabel.Nifti1Image(volume.astype(np.float32), affine)
        if affine is None:
            image.header.set_sform(None, 0)
            image.header.set_qform(None, 0)
        nibabel.save(image, folder / f"{place}.nii.gz")
    return folder


def test_volumes_tell_orientation_and_spacing(tmp_path: Path) -> None:
    training = volumes(tmp_path / "t", 0, np.diag([-2.0, -2.0, 3.0, 1.0]))
    synthetic = volumes(tmp_path / "s", 100, None)
    inspection = looked_at(train=training, synthetic=synthetic)
    assert row(inspection, "orientations") == ["LPS", "not said"]
    assert row(inspection, "spacings (mm)")[0] == "2 x 2 x 3"
    told = next(finding.sentence for finding in inspection.findings if finding.subject == "orientation")
    assert told.startswith("The training volumes state their orientation (LPS), the synthetic volumes do not")
    inspection.out = tmp_path / "x.html"
    page = inspection.write().read_text(encoding="utf-8")
    assert page.count('class="plane"') == 6 and re.search(
        r'<span class="top">S</span>.*<span class="right">A</span>', page
    )


def test_other_proportions_fields_of_view_and_sizes_are_told(tmp_path: Path) -> None:
    def pictures(name: str, shape: tuple[int, int]) -> Path:
        for number in range(5):
            save_image(tmp_path / name / f"{number}.png", chest_phantom(number, shape))
        return tmp_path / name

    square, wide, large = pictures("square", (32, 32)), pictures("wide", (32, 48)), pictures("large", (96, 96))
    assert "proportions" in subjects(looked_at(train=square, synthetic=wide))
    findings = looked_at(train=square, synthetic=large).findings
    assert any(item.subject == "sizes" and not item.serious for item in findings)
    one = volumes(tmp_path / "one", 0, np.diag([1.0, 1.0, 1.0, 1.0]))
    other = volumes(tmp_path / "other", 50, np.diag([1.0, 1.0, 2.0, 1.0]))
    assert "field of view" in subjects(looked_at(train=one, synthetic=other))


def test_overlap_repeats_and_patients_are_told(tmp_path: Path) -> None:
    for number in range(4):
        for take in "ab"[: 1 + number % 2]:
            save_image(tmp_path / "t" / f"p{number}_{take}.png", chest_phantom(10 * number + ord(take), (32, 32)))
    shutil.copytree(tmp_path / "t", tmp_path / "s")
    shutil.copy(tmp_path / "t" / "p0_a.png", tmp_path / "t" / "p9_a.png")
    inspection = looked_at(train=tmp_path / "t", synthetic=tmp_path / "s", patient_pattern=r"^p\d")
    assert row(inspection, "patients") == ["5, 1 to 2 images each, half 1, from the pattern", "-"]
    assert row(inspection, "repeats") == ["1 byte-identical", "none"]
    overlap = next(finding.sentence for finding in inspection.findings if finding.subject == "overlap")
    assert "6 byte-identical images in both the training and the synthetic cohort" in overlap


def test_images_in_another_orientation_are_told_with_the_remedy(tmp_path: Path) -> None:
    for number in range(30):
        save_image(tmp_path / "t" / f"{number}.png", chest_phantom(number, (32, 32)))
        save_image(tmp_path / "s" / f"{number}.png", chest_phantom(100 + number, (32, 32)).swapaxes(1, 2))
    inspection = looked_at(train=tmp_path / "t", synthetic=tmp_path / "s")
    told = [finding.sentence for finding in inspection.findings if finding.subject == "orientation"]
    assert len(told) == 1 and "--orientation transpose" in told[0]
    assert subjects(looked_at(train=tmp_path / "t", synthetic=tmp_path / "s", orientation="transpose")) == []


def test_copies_in_the_samples_are_told_by_name_with_their_originals(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(demo_folder / "truth.csv", newline="", encoding="utf-8") as stream:
        truth = {row["synthetic"]: row["copied_from"] for row in csv.DictReader(stream)}
    sources = ["--train", demo_folder / "training", "--synthetic", demo_folder / "synthetic"]
    assert run(*sources, "--out", tmp_path / "look") == FINISHED
    (found,) = json.loads((tmp_path / "look" / "inspection.json").read_text())["findings"]
    assert found["subject"] == "possible copies" and found["serious"]
    n = len(found["names"])
    assert n > SHOWN_NAMES and found["sentence"].startswith(
        f"{n} of 30 synthetic images are near twins of training images, so possible copies. Run monai-memo audit: "
    )
    for text in found["names"]:
        name, twin = re.fullmatch(r"(.+) \(like (.+)\)", text).groups()  # type: ignore[union-attr]
        assert truth[name] == twin
    shown = capsys.readouterr().out
    assert f"{found['names'][4]} and {n - SHOWN_NAMES} more" in shown and found["names"][5] not in shown
    page = (tmp_path / "look" / "inspection.html").read_text(encoding="utf-8")
    assert all(f"<li>{text}</li>" in page for text in found["names"])


def test_held_out_images_of_training_patients_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(24):
        image = chest_phantom(number, (32, 32))
        save_image(tmp_path / "t" / f"{number}.png", image)
        other = (
            image + 0.02 * rng.standard_normal(image.shape) if number == 3 else chest_phantom(500 + number, (32, 32))
        )
        save_image(tmp_path / "h" / f"h{number}.png", np.clip(other, 0, 1).astype(np.float32))
    (finding,) = looked_at(train=tmp_path / "t", heldout=tmp_path / "h").findings
    assert (finding.subject, finding.names) == ("patients", ("h3.png (like 3.png)",))
    assert finding.sentence == (
        "1 of 24 held-out images is a near twin of a training image, so perhaps of the same patient. If so, take them "
        "out of one cohort: held-out images have to be of other patients."
    )


def test_files_that_are_turned_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        save_image(tmp_path / "t" / f"{number}.png", chest_phantom(number, (32, 32)))
        image = chest_phantom(100 + number, (32, 32))
        save_image(tmp_path / "s" / f"s{number:02d}.png", image[:, ::-1].copy() if number < 8 else image)
    assert run("--train", tmp_path / "t", "--synthetic", tmp_path / "s", "--out", tmp_path / "look") == FINISHED
    (found,) = json.loads((tmp_path / "look" / "inspection.json").read_text())["findings"]
    assert found["subject"] == "orientation" and found["names"] == [f"s{number:02d}.png" for number in range(8)]
    assert "8 of 40 synthetic images fit the training images clearly better" in found["sentence"]
    assert "mean" not in found["sentence"]  # of a part of the images the mean of all says nothing
    assert "         s00.png, s01.png, s02.png, s03.png, s04.png and 3 more\n" in capsys.readouterr().out
    page = (tmp_path / "look" / "inspection.html").read_text(encoding="utf-8")
    assert all(f"<li>s0{number}.png</li>" in page for number in range(8)) and "<li>s08.png</li>" not in page


def test_negatives_and_windows_are_told_in_words(tmp_path: Path) -> None:
    for number in range(12):
        image = chest_phantom(number, (32, 32))
        save_image(tmp_path / "t" / f"{number}.png", image)
        save_image(tmp_path / "s" / f"{number}.png", 1 - chest_phantom(100 + number, (32, 32)))
        save_image(tmp_path / "w" / f"{number}.png", ((chest_phantom(200 + number, (32, 32)) - 0.35) / 0.3).clip(0, 1))
    assert subjects(looked_at(train=tmp_path / "t", synthetic=tmp_path / "s")) == ["negatives"]
    assert "window" in subjects(looked_at(train=tmp_path / "t", synthetic=tmp_path / "w"))


def test_the_printed_window_works_when_it_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, start in (("t", 0), ("s", 100)):
        (tmp_path / name).mkdir()
        for number in range(20):
            values = np.kron(chest_phantom(start + number, (32, 32))[0], np.ones((2, 2))) * 2000 - 1000
            values += rng.normal(0, 15, values.shape)
            np.save(tmp_path / name / f"{number}.npy", values if name == "t" else np.clip(values, -300, 300))
    arguments = ["--train", tmp_path / "t", "--synthetic", tmp_path / "s", "--out", tmp_path / "x.html"]
    assert run(*arguments) == FINISHED
    found = re.search(r"try (--window=(-?[\d.]+),(-?[\d.]+))", capsys.readouterr().out)
    assert found is not None
    assert abs(float(found[2]) + 300) < 60 and abs(float(found[3]) - 300) < 60
    command = [sys.executable, "-m", "monai_memo", "inspect", *map(str, arguments), "--noprogress", found[1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == FINISHED and "look windowed" not in done.stdout, done.stderr
    assert f"clipped to the window {found[2]} to {found[3]}" in done.stdout


def test_skipped_files_are_named_and_end_in_status_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        save_image(tmp_path / "t" / f"{number}.png", chest_phantom(number, (32, 32)))
    (tmp_path / "t" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    np.save(tmp_path / "t" / "infinite.npy", np.full((32, 32), np.inf))
    assert run("--train", tmp_path / "t", "--out", tmp_path / "x.html") == SKIPPED
    page, shown = (tmp_path / "x.html").read_text(encoding="utf-8"), capsys.readouterr().out
    assert "damaged.png (" in page and "infinite.npy (contains NaN or infinity)" in page
    assert re.search(r"left out +1: ", shown) and "warning: 2 files or images of the training cohort cannot be" in shown
    assert "infinite.npy (contains NaN or infinity)" in shown
    assert shown.endswith("exit status 3: finished, but images were skipped\n")


def test_a_dangling_link_is_a_warning_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        save_image(tmp_path / "t" / f"{number}.png", chest_phantom(number, (32, 32)))
    (tmp_path / "t" / "gone.png").symlink_to("nowhere.png")
    assert run("--train", tmp_path / "t", "--out", tmp_path / "look") == SKIPPED
    (found,) = json.loads((tmp_path / "look" / "inspection.json").read_text())["findings"]
    assert (found["subject"], found["serious"], found["names"]) == ("left out", True, ["gone.png"])
    assert "1 file or image of the training cohort cannot be used: a link to" in found["sentence"]
    assert found["sentence"].endswith("fetch the data first). Copies of it are not found.")
    assert f"warning: {found['sentence']}\n         gone.png\n" in capsys.readouterr().out
    assert "<li>gone.png</li>" in (tmp_path / "look" / "inspection.html").read_text(encoding="utf-8")


def test_files_that_were_not_looked_at_are_told(tmp_path: Path) -> None:
    for number in range(4):
        save_image(tmp_path / "t" / f"{number}.png", chest_phantom(number, (32, 32)))
    (tmp_path / "t" / "slide.svs").write_bytes(b"x")
    inspection = looked_at(train=tmp_path / "t")
    inspection.out = tmp_path / "x.html"
    for shown in (f"{inspection.table()}\n{inspection.findings_text()}", inspection.write().read_text("utf-8")):
        assert (
            shown.count("1 file was not looked at: 1 .svs (not a format that is read: .svs; if these are images, ") == 1
        )
        assert shown.count(".svs") == 2 and "such as PNG, TIFF, npy, NIfTI or DICOM" in shown


def test_mixed_dimensions_are_refused_after_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save_image(tmp_path / "t" / f"{number}.png", chest_phantom(number, (32, 32)))
    volumes(tmp_path / "s", 0, np.eye(4), 3)
    assert run("--train", tmp_path / "t", "--synthetic", tmp_path / "s", "--out", tmp_path / "x.html") == REFUSED
    captured = capsys.readouterr()
    assert re.search(r"dimensions +2D +3D", captured.out) and "2D and 3D images are mixed" in captured.err
    assert not (tmp_path / "x.html").exists()


def test_a_cohort_is_needed_and_has_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name at least one cohort: train, heldout or synthetic"):
        Inspection()
    with pytest.raises(ConfigurationError, match="sample must be a whole number from 1 to 1000000, got 0"):
        Inspection(train="x", sample=0)
    with pytest.raises(CohortError, match="does not exist"):
        Inspection(train=str(tmp_path / "nothing"), progress=False).read()


def test_the_sample_is_taken_by_seed(demo_folder: Path, tmp_path: Path) -> None:
    pages = [
        looked_at(train=demo_folder / "training", out=tmp_path / f"{number}.html", sample=20, seed=seed).write()
        for number, seed in enumerate((1, 1, 2))
    ]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert texts[0] == texts[1] != texts[2] and "pixels of 20 of each cohort by chance" in texts[0]
