# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data import overlap as module
from monai_memo.data.cohort import Cohort
from monai_memo.data.overlap import check_overlap, repeated_images, source_warnings
from monai_memo.errors import CohortOverlapError


def folder(path: Path, names: list[str], start: int) -> Path:
    path.mkdir()
    for number, name in enumerate(names):
        np.save(path / name, np.random.default_rng(start + number).random((8, 8)))
    return path


def test_disjoint_cohorts_pass_even_with_equal_file_names(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy", "2.npy"], 0), folder(tmp_path / "b", ["1.npy", "2.npy"], 10)
    assert check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")]) == []


def test_shared_patients_are_refused_by_name(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["anna_1.npy", "bert_1.npy"], 0), folder(tmp_path / "b", ["anna_2.npy"], 10)
    cohorts = [Cohort.from_source(a, "training", r"^[a-z]+"), Cohort.from_source(b, "heldout", r"^[a-z]+")]
    with pytest.raises(CohortOverlapError, match=r"1 patient in both the training and the heldout cohort: anna\."):
        check_overlap(cohorts)
    assert check_overlap(cohorts, allow=True) == ["1 patient in both the training and the heldout cohort: anna."]


def test_identical_files_are_refused_by_name(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy", "2.npy"], 0), folder(tmp_path / "b", ["3.npy"], 10)
    shutil.copy(a / "2.npy", b / "copy.npy")
    cohorts = [Cohort.from_source(a, "training"), Cohort.from_source(b, "synthetic")]
    with pytest.raises(
        CohortOverlapError, match=r"2\.npy = copy\.npy.*wrote a real image out verbatim.*--allow-overlap"
    ):
        check_overlap(cohorts)
    assert len(check_overlap(cohorts, allow=True)) == 1


def test_every_identical_synthetic_image_counts_and_ten_are_listed(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy"], 0), folder(tmp_path / "b", ["x.npy"], 10)
    for number in range(13):
        shutil.copy(a / "1.npy", b / f"copy{number:02d}.npy")
    (warning,) = check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "synthetic")], allow=True)
    assert warning.startswith("13 byte-identical images in both the training and the synthetic cohort")
    assert "copy09.npy" in warning and "copy10.npy" not in warning and "and 3 more" in warning


def test_only_sizes_that_stand_in_two_cohorts_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = folder(tmp_path / "a", ["1.npy", "2.npy"], 0), folder(tmp_path / "b", ["3.npy"], 10)
    np.save(b / "3.npy", np.random.default_rng(0).random((9, 9)))
    hashed: list[Path] = []
    original = module.sha256_of_parts
    monkeypatch.setattr(module, "sha256_of_parts", lambda parts: hashed.append(parts[0]) or original(parts))
    assert check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")]) == []
    assert hashed == []
    shutil.copy(a / "1.npy", b / "4.npy")
    assert len(check_overlap([Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")], allow=True)) == 1
    assert len(hashed) == 2


def test_files_of_one_size_are_read_whole_only_where_their_samples_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{number}.npy": rng.random((100, 100)) for number in range(6)}
    arrays["like_0.npy"] = arrays["0.npy"].copy()
    arrays["like_0.npy"][25, 3] += 1.0  # neither at the beginning, nor in the middle, nor at the end
    arrays["same_as_0.npy"] = arrays["0.npy"]
    for name, array in arrays.items():
        (tmp_path / "a").mkdir(exist_ok=True)
        np.save(tmp_path / "a" / name, array)
    hashed: list[str] = []
    original = module.sha256_of_parts
    monkeypatch.setattr(module, "sha256_of_parts", lambda parts: hashed.append(parts[0].name) or original(parts))
    assert repeated_images(Cohort.from_source(tmp_path / "a", "training")) == [["0.npy", "same_as_0.npy"]]
    assert sorted(hashed) == ["0.npy", "like_0.npy", "same_as_0.npy"]


def test_repeats_within_a_cohort_are_grouped(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", ["1.npy", "2.npy"], 0)
    shutil.copy(a / "1.npy", a / "3.npy")
    assert repeated_images(Cohort.from_source(a, "training")) == [["1.npy", "3.npy"]]


def test_the_data_of_a_metaimage_lie_beside_its_header(tmp_path: Path) -> None:
    header = "NDims = 2\nDimSize = 8 8\nElementType = MET_UCHAR\nElementDataFile = scan.raw\n"
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.mhd").write_text(header)
        (tmp_path / name / "scan.raw").write_bytes(bytes([min(number, 1)] * 64))
    a, b, c = (
        Cohort.from_source(tmp_path / name, role)
        for name, role in zip("abc", ("training", "heldout", "synthetic"), strict=True)
    )
    assert check_overlap([a, b]) == []
    with pytest.raises(CohortOverlapError, match="byte-identical"):
        check_overlap([b, c])


def listed(folder: Path, name: str, patients: list[str]) -> Cohort:
    """A cohort from a datalist, one image for each patient."""
    folder.joinpath(name).mkdir(parents=True)
    rows = []
    for number, patient in enumerate(patients):
        np.save(folder / name / f"{number}.npy", np.random.default_rng(len(name) * 100 + number).random((8, 8)))
        rows.append({"image": f"{name}/{number}.npy", "patient_id": patient})
    (folder / f"{name}.json").write_text(json.dumps(rows))
    return Cohort.from_source(folder / f"{name}.json", name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("007", "7"),
        ("1", "1.0"),
        ("P1", "p1"),
        ("P001", "P1"),
        ("sub-01", "sub_1"),
        ("anna b", "Anna  B"),
        ("\uff21\uff11", "A1"),  # full width
        ("M\u00fcller", "Mu\u0308ller"),
        ("1e3", "1000"),
        ("1.20E+05", "120000"),
        ("1,0", "1"),
        ("1,000", "1000"),
        ("sub-01", "1"),
        ("Patient 7", "007"),
    ],
)
def test_ids_that_nearly_match_are_warned_about(tmp_path: Path, one: str, other: str) -> None:
    training, heldout = listed(tmp_path, "training", [one, "x", "12"]), listed(tmp_path, "heldout", ["y", other, "21"])
    assert check_overlap([training, heldout]) == [
        "1 of 3 patients of the heldout cohort may be in the training cohort as well, by ids that differ only in case, "
        "zeros, spaces or signs. If they are, copies of them are missed, so write the ids alike and run again: "
        f"{one!r} and {other!r}."
    ]


def test_ids_of_synthetic_images_are_not_compared_and_others_differ(tmp_path: Path) -> None:
    training, heldout = (
        listed(tmp_path, "training", ["001", "1-12", "10", "2e1a", "sub-a2", "1.5e0"]),
        listed(tmp_path, "heldout", ["11-2", "100", "2e1", "a2", "15"]),
    )
    assert check_overlap([training, heldout, listed(tmp_path, "synthetic", ["1", "10.0"])]) == []


def test_the_ids_of_near_matches_are_taken_out_of_redacted_reports(tmp_path: Path) -> None:
    (warning,) = check_overlap([listed(tmp_path, "training", ["Anna"]), listed(tmp_path, "heldout", ["anna"])])
    number, ids = warning.split(":")  # what comes after the colon is removed
    assert re.match(r"\d+ ", number) and "nna" not in number and "'Anna' and 'anna'" in ids


def test_one_placeholder_in_both_cohorts_is_explained(tmp_path: Path) -> None:
    cohorts = [listed(tmp_path, "training", ["ANONYMOUS"] * 4), listed(tmp_path, "heldout", ["ANONYMOUS"] * 2)]
    assert not any(cohort.patients_known for cohort in cohorts) and [cohort.n_patients for cohort in cohorts] == [4, 2]
    assert check_overlap(cohorts) == []
    assert source_warnings([*cohorts, listed(tmp_path, "synthetic", ["ANONYMOUS"] * 3)]) == [
        "all 4 training and 2 held-out images carry the PatientID ANONYMOUS: that is no patient. "
        "Give patients by --patient_pattern or a CSV with patient_id."
    ]


def test_one_id_in_all_images_of_both_cohorts_is_refused_with_the_likely_reason(tmp_path: Path) -> None:
    cohorts = [listed(tmp_path, "training", ["X17"] * 4), listed(tmp_path, "heldout", ["X17"] * 2)]
    with pytest.raises(CohortOverlapError, match=r"and all 4 and 2 images carry it \(if it was put there to make them"):
        check_overlap(cohorts)


def test_warnings_of_sources_name_the_cohort(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1.npy"], 0), folder(tmp_path / "b", ["2.npy"], 1)
    for number in range(2):
        (a / f"{number}.svs").touch()
        (b / f"{number}.txt").touch()
    cohorts = [Cohort.from_source(a, "training"), Cohort.from_source(b, "heldout")]
    assert source_warnings(cohorts) == [
        "training: 2 files were not looked at: 2 .svs (not a format that is read: .svs; if these are images, convert "
        "them to one that is, such as PNG, TIFF, npy, NIfTI or DICOM)"
    ]
    assert cohorts[1].notes == ("2 files were not looked at: 2 .txt",)


def test_header_and_data_of_a_pair_are_compared_whichever_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.hdr").write_bytes(b"header")
        (tmp_path / name / "scan.img").write_bytes(b"data" if name == "a" else b"atad")
        (tmp_path / f"{name}.csv").write_text(f"image\n{name}/scan.img\n")
    training = Cohort.from_source(tmp_path / "a", "training")
    assert check_overlap([training, Cohort.from_source(tmp_path / "b.csv", "heldout")]) == []
    with pytest.raises(CohortOverlapError, match="byte-identical"):
        check_overlap([training, Cohort.from_source(tmp_path / "a.csv", "heldout")])
