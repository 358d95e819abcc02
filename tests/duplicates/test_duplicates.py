# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.duplicates.before_training import sources
from monai_memo.duplicates.duplicates import Duplicates, Found
from monai_memo.duplicates.finding import pixel_hash
from monai_memo.duplicates.grouping import EQUAL, NEAR, OTHER_SPLIT
from monai_memo.errors import ConfigurationError, OutputError
from tests.data.test_cohort import dicom

SHAPE = (48, 48)


def picture(number: int) -> np.ndarray:
    return (chest_phantom(number, SHAPE)[0] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training and 12 held-out patients, with one equal image, two near ones, and a patient in both."""
    root = tmp_path_factory.mktemp("cohorts")
    for name, first, count in (("train", 0, 30), ("heldout", 100, 12)):
        (root / name).mkdir()
        for number in range(count):
            folder = root / name / f"{name}{number:02d}"
            folder.mkdir()
            Image.fromarray(picture(first + number)).save(folder / "image.png")
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "another file")
    (root / "train" / "zagain").mkdir()
    Image.fromarray(picture(3)).save(root / "train" / "zagain" / "again.png", pnginfo=words)
    (root / "train" / "zturned").mkdir()
    Image.fromarray(picture(5)).rotate(4, fillcolor=0).save(root / "train" / "zturned" / "turned.png")
    noisy = picture(7)[:, ::-1] + np.random.default_rng(0).normal(0, 6, SHAPE)
    (root / "heldout" / "znoisy").mkdir()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / "heldout" / "znoisy" / "noisy.png")
    (root / "heldout" / "train09").mkdir()
    Image.fromarray(picture(500)).save(root / "heldout" / "train09" / "second_visit.png")
    (root / "heldout" / "broken").mkdir()
    (root / "heldout" / "broken" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return root


def options(root: Path, out: Path) -> dict[str, object]:
    cohorts = {name: str(root / name) for name in ("train", "heldout")}
    return {**cohorts, "out": str(out), "patient_pattern": "^[^/]+", "progress": False, "workers": 1, "size": 48}


@pytest.fixture(scope="module")
def found(cohorts: Path) -> Found:
    return Duplicates(**options(cohorts, cohorts / "out")).run()


def names(found: Found) -> list[tuple[str, set[str]]]:
    return [(group.kind, {found.members[place].image_id for place in group.members}) for group in found.groups]


def test_equal_near_and_mirrored_images_are_found_within_and_between_cohorts(found: Found) -> None:
    groups = names(found)
    assert (EQUAL, {"train03/image.png", "zagain/again.png"}) in groups
    assert (NEAR, {"train05/image.png", "zturned/turned.png"}) in groups
    assert (NEAR, {"train07/image.png", "znoisy/noisy.png"}) in groups
    assert len(groups) <= 4, "ordinary images pass by chance rarely"


def test_a_patient_in_two_splits_is_told_and_left_out_of_the_later_one(found: Found) -> None:
    assert found.shared_patients == 1
    left_out = {found.members[place].image_id: reason for place, reason in found.left_out.items()}
    assert left_out["train09/second_visit.png"] == OTHER_SPLIT
    assert "1 patient stands in more than one of the real cohorts by id" in found.sentences()


def test_the_cleaned_tables_keep_one_image_of_each_group_and_are_cohorts(found: Found, cohorts: Path) -> None:
    train = Cohort.from_source(cohorts / "out" / "clean_train.csv", "training")
    heldout = Cohort.from_source(cohorts / "out" / "clean_heldout.csv", "heldout")
    files = {image.path.parent.name for image in (*train.images, *heldout.images)}
    assert {"train03", "train05", "train07"} <= files
    assert not files & {"zagain", "zturned", "znoisy", "broken"}
    assert len(train) + len(heldout) == len(found.members) - len(found.left_out)
    assert not set(train.patient_ids) & set(heldout.patient_ids)
    assert "train04" in set(train.patient_ids)


def test_the_page_and_the_record_say_how_the_threshold_came_about(found: Found, cohorts: Path) -> None:
    page = (cohorts / "out" / "duplicates.html").read_text()
    assert page.count("data:image/png;base64,") == len(found.groups)
    assert "99 % of these images stay below the threshold" in page and "http" not in page.replace("http-equiv", "")
    record = json.loads((cohorts / "out" / "duplicates.json").read_text())
    assert record["groups"] == len(found.groups) and 0 < record["threshold"] < 1
    with open(cohorts / "out" / "groups.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(row["kept"] == "true" for row in rows) == len(found.groups)
    assert [item.image_id for item in found.skipped] == ["broken/broken.png"]


def test_equal_pixels_alone_need_no_search(cohorts: Path, tmp_path: Path) -> None:
    found = Duplicates(**options(cohorts, tmp_path / "out"), near=False).run()
    assert names(found) == [(EQUAL, {"train03/image.png", "zagain/again.png"})]
    assert found.near is None and "equal pixels" in found.calibration()


def test_pixels_are_compared_and_not_files(tmp_path: Path) -> None:
    array = picture(1)
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array).save(tmp_path / "b.bmp")
    Image.fromarray(array[:, ::-1]).save(tmp_path / "c.png")
    images = Cohort.from_source(tmp_path, "training").images
    hashes = [pixel_hash(image) for image in images]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_run_without_a_cohort_or_into_one_is_refused(cohorts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name at least one cohort"):
        Duplicates(out=str(tmp_path / "out"))
    with pytest.raises((ConfigurationError, OutputError), match="lies in the folder of --train"):
        Duplicates(**options(cohorts, cohorts / "train" / "out")).run()


def test_equal_file_names_in_two_cleaned_cohorts_are_no_shared_patients(tmp_path: Path) -> None:
    for name, first in (("train", 0), ("heldout", 100)):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(picture(first + number)).save(tmp_path / name / f"{number}.png")
    given = {name: str(tmp_path / name) for name in ("train", "heldout")}
    found = Duplicates(**given, out=str(tmp_path / "out"), progress=False, workers=1).run()
    assert "look at the page" not in found.calibration()
    assert found.sentences() == ["no equal images among 6 images"], "near ones were not looked for: too few"
    cleaned = [Cohort.from_source(tmp_path / "out" / f"clean_{name}.csv", name) for name in given]
    assert [len(cohort) for cohort in cleaned] == [3, 3]
    assert not any(cohort.patients_known for cohort in cleaned)
    assert not set(cleaned[0].patient_ids) & set(cleaned[1].patient_ids)


def test_nobody_is_sent_to_look_at_a_page_without_groups(found: Found) -> None:
    assert "look at the page before anything is thrown away" in found.calibration()
    assert "look at the page" not in replace(found, groups=()).calibration()
    words = replace(found, groups=found.groups[:1], shared_patients=2, left_out={}).sentences()
    assert words[0].startswith("1 group (1 ") and "2 patients stand in more than one" in words[-1]


def test_cleaned_tables_keep_all_columns_and_name_one_patient_by_one_id(tmp_path: Path) -> None:
    rows = ["image,patient_id,sex,note"]
    for number in range(6):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        rows.append(f'{number}.png,p{number},F,"visit, {number}"')
    Image.fromarray(picture(2)).save(tmp_path / "again.png")
    Image.fromarray(picture(50)).save(tmp_path / "other.png")
    rows += ["again.png,zoe,F,again", "other.png,zoe,M,other"]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    given = {"out": str(tmp_path / "out"), "near": False, "progress": False, "workers": 1}
    found = Duplicates(train=str(tmp_path / "train.csv"), **given).run()
    with open(tmp_path / "out" / "clean_train.csv", newline="") as stream:
        cleaned = {Path(row["image"]).name: row for row in csv.DictReader(stream)}
    assert set(cleaned) == {*(f"{number}.png" for number in range(6)), "other.png"}
    assert cleaned["3.png"] == {**cleaned["3.png"], "patient_id": "p3", "sex": "F", "note": "visit, 3"}
    assert cleaned["2.png"]["patient_id"] == cleaned["other.png"]["patient_id"], "a later split keeps them together"
    assert any("take them for one" in sentence for sentence in found.sentences())


def test_series_that_share_a_folder_are_named_by_their_uid(tmp_path: Path) -> None:
    for series, folder in enumerate(("p0", "p0", "p1", "p2"), 1):
        for number in range(6):
            path = tmp_path / "dicom" / folder / f"{series}_{number}.dcm"
            dicom(path, f"1.2.{series}", number + 10 * series, folder)  # no two alike
    given = {"train": str(tmp_path / "dicom"), "near": False, "progress": False, "workers": 1}
    assert not Duplicates(out=str(tmp_path / "out"), **given).run().untold
    images = Cohort.from_source(str(tmp_path / "dicom"), "training").images
    cleaned = Cohort.from_source(str(tmp_path / "out" / "clean_train.csv"), "training").images
    assert [image.files for image in cleaned] == [image.files for image in images]
    assert [image.patient_id for image in cleaned] == ["p0", "p0", "p1", "p2"]


def test_volumes_of_one_series_that_share_a_folder_are_told_and_no_table_names_their_folder(tmp_path: Path) -> None:
    for series, folder in enumerate(("p0", "p0", "p1", "p2")):
        for number in range(6):
            path = tmp_path / "dicom" / folder / f"{series}_{number}.dcm"
            dicom(path, f"1.2.{folder[1:]}", number, f"patient {series}")
    given = {"train": str(tmp_path / "dicom"), "near": False, "progress": False, "workers": 1}
    found = Duplicates(out=str(tmp_path / "out"), **given).run()
    assert not (tmp_path / "out" / "clean_train.csv").exists()
    assert found.sentences()[-1].startswith("clean_train.csv is not written: 2 images lie in a folder with other DICOM")
    with pytest.raises(ConfigurationError, match=r"duplicates cannot be left out: clean_train\.csv is not written"):
        sources(tmp_path / "dicom", None, True, tmp_path / "again", progress=False)


def test_a_label_that_changed_is_in_the_table_of_the_next_training(tmp_path: Path) -> None:
    table = tmp_path / "train.csv"
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    for label in ("normal", "pneumonia"):
        table.write_text("image,patient_id,label\n" + "".join(f"{n}.png,p{n},{label}\n" for n in range(3)))
        cleaned = Cohort.from_source(sources(table, None, True, tmp_path / "out", progress=False).dataset, "training")
        assert [image.columns["label"] for image in cleaned.images] == [label] * 3
