# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""CSV and datalists: what is taken, and what is said about the rest."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.links import DANGLING, EMPTY
from monai_memo.data.patients import MISSING
from monai_memo.data.tables import read_table
from monai_memo.errors import CohortError


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> None:
    for number, name in enumerate(("a.npy", "b.npy", "p1/c.npy")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.random.default_rng(number).random((16, 16)))


def table(folder: Path, content: str | bytes | Any, name: str = "index.csv") -> Path:
    path = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path | str, name: str = "training", pattern: str | None = None) -> Cohort:
    return Cohort.from_source(path, name, pattern)


def patients(cohort: Cohort) -> dict[str, str]:
    return {image.image_id: image.patient_id for image in cohort.images}


@pytest.mark.parametrize("word", [*MISSING, "NaN", "N/A", "NULL", "None", " - "])
def test_words_for_nobody_are_missing_patients(tmp_path: Path, word: str) -> None:
    cohort = read(table(tmp_path, f'image,patient_id\na.npy,"{word}"\nb.npy,{word}\n'))
    assert not cohort.patients_known and cohort.n_patients == 2
    says = rf" \('{re.escape(word.strip())}' is no patient\)" if word.strip() else ""
    with pytest.raises(CohortError, match=f"for some images only; it is missing for b.npy{says}$"):
        read(table(tmp_path, f"image,patient_id\na.npy,anna\nb.npy,{word}\n"))


def test_numbers_and_null_of_a_datalist(tmp_path: Path) -> None:
    def listed(*values: Any) -> Path:
        rows = [{"image": name, "patient_id": value} for name, value in zip(("a.npy", "b.npy"), values, strict=True)]
        return table(tmp_path, rows, "list.json")

    assert patients(read(listed(7, 7.0))) == {"a.npy": "7", "b.npy": "7.0"}
    for nobody in (float("nan"), None):
        cohort = read(listed(nobody, None))
        assert not cohort.patients_known and cohort.n_patients == 2
        with pytest.raises(CohortError, match=r"it is missing for b\.npy"):
            read(listed(0, nobody))
    with pytest.raises(CohortError, match=r"the patient_id of b\.npy has to be a text or a number, got \['x'\]"):
        read(listed("x", ["x"]))


@pytest.mark.parametrize("word", ["ANONYMOUS", "Anon", "unknown", "0", "DE-IDENTIFIED"])
def test_a_placeholder_in_every_image_is_no_patient(tmp_path: Path, word: str) -> None:
    cohort = read(table(tmp_path, f"image,patient_id\na.npy,{word}\nb.npy,{word}\n"))
    assert not cohort.patients_known and cohort.placeholder == word
    assert read(table(tmp_path, f"image,patient_id\na.npy,{word}\nb.npy,{word}\n"), pattern="^(.)").patients_known


def test_zero_is_a_patient_where_there_are_others_and_anonymous_never(tmp_path: Path) -> None:
    assert patients(read(table(tmp_path, "image,patient_id\na.npy,0\nb.npy,1\n"))) == {"a.npy": "0", "b.npy": "1"}
    with pytest.raises(CohortError, match=r"missing for b\.npy \('ANONYMOUS' is no patient\)"):
        read(table(tmp_path, "image,patient_id\na.npy,1\nb.npy,ANONYMOUS\n"))


def test_ids_that_a_spreadsheet_rounded_are_told(tmp_path: Path) -> None:
    path = table(tmp_path, "image;patient_id\na.npy;1.23457E+11\nb.npy;1,23457E+11\n")
    assert read(path).warnings == (
        "2 images of the table carry a patient_id like 1.2E+11: a spreadsheet rounded long numbers, so that different "
        "patients may have become one. Write the ids anew, as text",
    )
    assert read(path, "synthetic").warnings == ()
    assert read(table(tmp_path, "image,patient_id\na.npy,12E4\nb.npy,P1.2E+11\n")).warnings == ()


def test_a_patient_one_level_deeper_in_a_datalist_is_named(tmp_path: Path) -> None:
    path = table(tmp_path, [{"image": "a.npy", "meta": {"patient_id": "p1", "age": 3}}], "list.json")
    assert "the table has a column 'meta.patient_id' but patient_id is not there" in read(path).warnings[0]


@pytest.mark.parametrize(
    "column",
    [" patient_id", "PatientID", "Patient ID", "subject_id", "subject", "patient", "case_id", "\u00a0Patient-Id"],
)
def test_a_column_that_was_meant_to_be_patient_id_is_named(tmp_path: Path, column: str) -> None:
    expected = (
        f"the table has a column {column!r} but patient_id is not there, so that patients are not known: rename the "
        "column to patient_id",
    )
    csv = table(tmp_path, f'image,"{column}"\na.npy,1\nb.npy,2\n')
    datalist = table(tmp_path, [{"image": "a.npy", column: 1}], "list.json")
    for path in (csv, datalist):
        cohort = read(path)
        assert not cohort.patients_known and cohort.warnings == expected and expected[0] in cohort.notes
        assert read(path, pattern="^(.)").warnings == () == read(path, "synthetic").warnings


@pytest.mark.parametrize("column", [" image", "file", "path", "filename", "Image Path", "IMAGE", "file_path"])
def test_a_column_that_was_meant_to_be_image_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(CohortError, match=f"needs a column 'image'.* '{column}' looks like it: rename it to image"):
        read(table(tmp_path, f"{column},patient_id\na.npy,1\n"))
    with pytest.raises(CohortError, match=f"entry 1 has none. '{column}' looks like it: rename it to image"):
        read(table(tmp_path, [{column: "a.npy"}], "list.json"))


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_read_where_the_header_makes_them_certain(
    tmp_path: Path, separator: str, word: str
) -> None:
    rows = [["patient_id", "image"], ["anna", "a.npy"], ["bert, jr.", "b.npy"]]
    content = "\n".join(separator.join(row) for row in rows)
    for name, text in (("index.csv", content), ("index.csv", f"sep={separator}\n{content}"), ("index.tsv", content)):
        cohort = read(table(tmp_path, text, name))
        assert patients(cohort) == {"a.npy": "anna", "b.npy": "bert, jr."}
        assert cohort.notes == (f"the columns of the table are separated by {word}",)
    with pytest.raises(CohortError, match="needs a column 'image'; its columns are: picture_no, who"):
        read(table(tmp_path, content.replace("image", "who").replace("patient_id", "picture_no")))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_quotes_and_byte_order_marks(tmp_path: Path, end: str, start: bytes) -> None:
    text = end.join(["", "image,patient_id,note", '"a.npy",anna,"two', 'lines, ""quoted"""', "", "b.npy,bert,", ""])
    cohort = read(table(tmp_path, start + text.encode()))
    assert patients(cohort) == {"a.npy": "anna", "b.npy": "bert"}
    assert cohort.images[0].columns["note"] == f'two{end}lines, "quoted"'
    assert len(read(table(tmp_path, start + b'{"training": ["a.npy"]}', "list.json"))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it lists no images"),
        (b" \n\n", "is empty: it lists no images"),
        (b"image,patient_id\n", "lists no images"),
        ("image\na.npy\n".encode("utf-16"), "is in UTF-16 or UTF-32, not a CSV in UTF-8. Save it again"),
        ("image\na.npy\n".encode("utf-16-le"), "is in UTF-16"),
        (b"image\na.npy\0\n", "holds NUL bytes"),
        (b"PK\x03\x04rest", "is a spreadsheet or an archive, not a CSV"),
        (b"image,image\na.npy,b.npy\n", "has more than one column 'image'"),
        (b"image,x,x\na.npy,1,2\n", "has more than one column 'x'"),
        (b"image,patient_id\na.npy,1\nscan, final.npy,2\n", "line 3 has 3 fields, the header 2. A path or another"),
        (b"image,patient_id\na.npy,1\nb.npy\n", "line 3 has 1 field, the header 2. Fill it up"),
        (b'image,note\na.npy,"x\nb.npy,y\n', "is not a CSV: unexpected end of data in line 3. Is a quotation mark"),
        (b"image\ns3://bucket/a.npy\n", "lists an address, s3://bucket/a.npy .image 1.. Only files are read"),
        (b"image\nhttps://x.org/a.npy\n", "Only files are read"),
        (b"image\nfile:///x/a.npy\n", "Only files are read"),
        (b"image\na.npy\n" + os.fsencode("{folder}") + b"/a.npy\n", "lists 1 images more than once"),
        (b"image\nsub\\gone.npy\n", "They hold backslashes: write forward slashes"),
        (b"image\nC:\\data\\a.npy\n", "They are paths of Windows"),
        (b"image\n\\\\server\\a.npy\n", "They are paths of Windows"),
    ],
)
def test_what_is_wrong_with_a_csv_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = table(tmp_path, content.replace(b"{folder}", os.fsencode(tmp_path)))
    with pytest.raises(CohortError, match=f"index.csv.*{message}"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        ('["a.npy"]'.encode("utf-16"), "is in UTF-16"),
        (b"[" * 200_000, "is nested too deeply|is not valid JSON"),
        (b'{"image": "a.npy"}\n{"image": "b.npy"}\n', "JSON lines. is not read"),
        (b"7", "has to be a list of images, not a number"),
        (b'{"training": {"a": 1}}', "has to be a list of images, not an object"),
        (b'["a.npy", 3]', "entry 2 is a number"),
        (b'[{"image": ["a.npy", "b.npy"]}]', "lists are not supported .entry 1 has 2.. If they are channels"),
        (b'[{"image": null}]', "entry 1 has none"),
        (b'[{"image": 3}]', "entry 1 has a number"),
        (b'["a\\u0000.npy"]', "holds a character that no file's name can have"),
        (b'["a\\ud800.npy"]', "holds a character that no file's name can have"),
        (b'{"numTraining": 3, "file_ending": ".nii.gz"}', r"dataset.json of nnU-Net.* Name the folder .*imagesTr"),
        (b'{"validation": ["a.npy"], "name": "x"}', r"has no list 'training'; it has: validation\. Name one as"),
    ],
)
def test_what_is_wrong_with_a_datalist_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        read(table(tmp_path, content, "list.json"))


def test_the_datalist_of_a_decathlon_data_set(tmp_path: Path) -> None:
    for name in ("imagesTr/a.npy", "imagesTr/b.npy", "imagesTs/c.npy", "labelsTr/a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.zeros((4, 4)))
    rows = [{"image": f"./imagesTr/{name}.npy", "label": f"./labelsTr/{name}.npy"} for name in "ab"]
    path = table(tmp_path, {"numTraining": 2, "training": rows, "test": ["./imagesTs/c.npy"]}, "dataset.json")
    assert [image.image_id for image in read(path).images] == ["imagesTr/a.npy", "imagesTr/b.npy"]
    assert [image.image_id for image in read(f"{path}:test").images] == ["imagesTs/c.npy"]


def test_one_image_in_a_list_is_that_image(tmp_path: Path) -> None:
    assert patients(read(table(tmp_path, [{"image": ["a.npy"]}], "list.json"))) == {"a.npy": "a.npy"}


def test_backslashes_are_read_where_the_file_is_there_and_the_pattern_sees_slashes(tmp_path: Path) -> None:
    path = table(tmp_path, "image\np1\\c.npy\np2\\gone.npy\n")
    cohort = read(path, pattern=r"^(p\d)/")
    assert patients(cohort) == {"p1/c.npy": "p1", "p2/gone.npy": "p2"}
    assert cohort.images[0].path == tmp_path / "p1" / "c.npy"
    assert cohort.notes == ("2 paths of the table were written with backslashes and read with forward slashes",)
    np.save(tmp_path / "p1\\c.npy", np.zeros((4, 4)))  # such a name is allowed here
    assert read(path).images[0].path.name == "p1\\c.npy"


def test_names_are_found_however_their_letters_are_composed(tmp_path: Path) -> None:
    np.save(tmp_path / "Mu\u0308ller.npy", np.zeros((4, 4)))  # as a Mac writes it
    (image,) = read(table(tmp_path, "image\nM\u00fcller.npy\n")).images
    assert image.path.exists()


def test_links_and_placeholders_of_a_table_are_skipped_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "link.npy").symlink_to("gone")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "scan.mhd").write_text("ElementDataFile = scan.raw\n")
    names = ["a.npy", "gone.npy", "link.npy", "empty.npy", "scan.mhd", "x" * 300 + ".npy"]
    cohort = read(table(tmp_path, "image\n" + "\n".join(names) + "\n"))
    assert list(patients(cohort)) == ["a.npy", "gone.npy"]  # the reader says "missing"
    assert {item.image_id: item.reason for item in cohort.skipped} == {
        "link.npy": DANGLING,
        "empty.npy": EMPTY,
        "scan.mhd": "its data file is missing",
        names[-1]: "not readable (File name too long)",
    }
    with pytest.raises(CohortError, match=r"none of the 1 images of .* can be read, for example link.npy: a link to a"):
        read(table(tmp_path, "image\nlink.npy\n"))


def test_a_pair_listed_twice_is_one_image(tmp_path: Path) -> None:
    for name in ("x.hdr", "x.img"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CohortError, match=r"lists 1 images more than once, for example x.hdr"):
        read(table(tmp_path, "image\nx.hdr\nx.img\n"))


def test_paths_relative_to_the_current_folder_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tables").mkdir()
    path = table(tmp_path / "tables", "image\na.npy\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CohortError, match="They are there relative to the current folder: move the table here"):
        read(path)


@pytest.mark.parametrize("rest", [";\r\n;\r\n", "\r\n \r\n", ' ;""\r\n'])
def test_empty_rows_that_spreadsheets_leave_are_no_images(rest: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(f"image;patient_id\r\na.png;1\r\n{rest}".encode())
    assert [row["image"] for row in read_table(path, "training").rows] == ["a.png"]
