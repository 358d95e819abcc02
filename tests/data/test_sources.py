# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What lies in a folder: read, skipped by name, or told."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_memo.audit.audit import Audit
from monai_memo.audit.inputs import read_cohorts
from monai_memo.data import folders
from monai_memo.data.cohort import Cohort
from monai_memo.data.links import BAD_NAME, DANGLING, EMPTY, FORBIDDEN, LFS_POINTER, LOOP, NOT_REGULAR, POINTER
from monai_memo.data.loading import Preprocessing
from monai_memo.data.prepared import prepare
from monai_memo.errors import CohortError
from monai_memo.files import data_files_of, parts_of, sha256_of


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def unread(kinds: str, formats: str = "not a format") -> str:
    """Why files were not looked at, and what to do."""
    verb = "that is" if formats == "not a format" else "that are"
    return (
        f"({formats} {verb} read: {kinds}; if these are images, convert them to one that is, such as PNG, TIFF, npy, "
        "NIfTI or DICOM)"
    )


def pictures(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        picture(folder / name, number)
    return folder


def file(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nibabel.Nifti1Pair if path.suffix == ".hdr" else nibabel.Nifti1Image
    nibabel.save(kind(np.random.default_rng(0).random((4, 5, 6)).astype(np.float32), np.eye(4)), path)
    return path


def read(folder: Path, name: str = "training", pattern: str | None = None) -> Cohort:
    return Cohort.from_source(folder, name, pattern)


def ids(cohort: Cohort) -> list[str]:
    return [image.image_id for image in cohort.images]


def skipped(cohort: Cohort) -> dict[str, str]:
    return {item.image_id: item.reason for item in cohort.skipped}


def test_dangling_links_are_skipped_by_name_and_reach_the_prepared_cohort(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "train", "a.png", "b.png")
    (folder / "c.png").symlink_to(".git/annex/objects/zz/SHA256E-s12--0.png/SHA256E-s12--0.png")
    (folder / "patient7").symlink_to("../gone/patient7")  # was a folder once
    (folder / "notes.txt").symlink_to("nowhere.txt")
    cohort = read(folder)
    assert ids(cohort) == ["a.png", "b.png"]
    assert skipped(cohort) == {"c.png": DANGLING, "patient7": DANGLING}
    assert cohort.notes == ("1 file was not looked at: 1 .txt",) and cohort.warnings == ()
    prepared = prepare(cohort, Preprocessing(2, (8, 8)), tmp_path / "work", progress=False)
    assert [(item.image_id, item.reason) for item in prepared.skipped] == [("c.png", DANGLING), ("patient7", DANGLING)]


def test_a_folder_of_nothing_but_dangling_links_says_so(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.nii.gz").symlink_to(f"gone/{number}.nii.gz")
    with pytest.raises(CohortError, match=r"training folder .* can be read: 3 like 0\.nii\.gz: a link to a"):
        read(tmp_path)


def test_pointers_placeholders_and_links_in_a_circle_are_named_with_the_cause(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "a.png")
    file(folder / "annex.png", b"/annex/objects/SHA256E-s123--abc.png\n")
    file(folder / "lfs.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    file(folder / "cloud.jpg", b"")
    (folder / "circle.png").symlink_to("circle.png")
    cohort = read(folder)
    assert ids(cohort) == ["a.png"]
    expected = {"annex.png": POINTER, "circle.png": LOOP, "cloud.jpg": EMPTY, "lfs.nii.gz": LFS_POINTER}
    assert skipped(cohort) == expected


def test_linked_folders_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    elsewhere = pictures(tmp_path / "elsewhere", "x.png")
    folder = pictures(tmp_path / "train", "p1/a.png", "p1/b.png")
    (folder / "a_link").symlink_to(folder / "p1")  # comes before p1, which keeps its own name
    (folder / "p1" / "up").symlink_to(folder)
    (folder / "p1" / "further_up").symlink_to(tmp_path)
    (folder / "p2").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder / "p1")
    (folder / "c.png").symlink_to(folder / "p1" / "a.png")
    cohort = read(folder)
    assert ids(cohort) == ["p1/a.png", "p1/b.png", "p2/x.png"]
    assert cohort.notes == (
        "1 link was left out: the images that they lead to are there by their own names",
        "2 linked folders were not read again: the same folder is there by another name",
        "2 linked folders were not followed: the link leads back to the folder itself or above it",
    )
    assert cohort.skipped == () and cohort.warnings == ()


def test_links_to_images_elsewhere_are_images(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", "1.png")
    folder = pictures(tmp_path / "train", "a.png")
    (folder / "b.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    assert ids(read(folder)) == ["a.png", "b.png"]
    (tmp_path / "linked").symlink_to(folder)
    assert ids(read(tmp_path / "linked")) == ["a.png", "b.png"]


def test_folders_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, "a.png", "locked/b.png")
    original: Callable = os.scandir

    def scandir(path: str):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(folders.os, "scandir", scandir)
    cohort = read(tmp_path)
    assert ids(cohort) == ["a.png"] and skipped(cohort) == {"locked": f"a folder that is {FORBIDDEN}"}


def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    os.mkfifo(tmp_path / "c")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket has to be short
        try:
            listener.bind("d.dcm")
        finally:
            os.chdir(here)
        cohort = read(tmp_path)
    assert ids(cohort) == ["a.png"] and skipped(cohort) == {"b.png": NOT_REGULAR, "d.dcm": NOT_REGULAR}
    assert cohort.notes == (f"1 file was not looked at: 1 without ending {unread('without ending')}",)


def test_names_in_another_encoding_are_named_as_far_as_can_be(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    os.link(tmp_path / "a.png", os.fsencode(tmp_path) + b"/M\xfcller.png")
    cohort = read(tmp_path)
    assert ids(cohort) == ["a.png"] and skipped(cohort) == {"M\\udcfcller.png": BAD_NAME}


def test_what_is_not_read_is_told_by_ending(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.TIF", "c.bmp")
    np.savez(tmp_path / "d.npz", image=np.zeros((9, 9)))
    for number in range(3):
        file(tmp_path / "slides" / f"{number}.SVS")
    file(tmp_path / "notes.txt")
    file(tmp_path / "scan.tar.gz")
    for quiet in ("._a.png", "Thumbs.db", ".DS_Store", "@eaDir/a.png/THUMB.jpg", "__MACOSX/x.png", ".git/x.png"):
        file(tmp_path / quiet)
    cohort = read(tmp_path)
    assert ids(cohort) == ["a.png", "b.TIF", "c.bmp", "d.npz"] and cohort.skipped == ()
    told = f"5 files were not looked at: 3 .svs, 1 .tar.gz, 1 .txt {unread('.svs, .tar.gz', 'not formats')}"
    assert cohort.notes == (told,) == cohort.warnings


def test_plain_sidecars_are_told_without_a_warning(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    for name in ("a.json", "b.json", "README", "dwi.bval"):
        file(tmp_path / name)
    cohort = read(tmp_path)
    assert cohort.notes == ("4 files were not looked at: 2 .json, 1 .bval, 1 without ending",)
    assert cohort.warnings == ()


def test_hidden_images_are_told(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", ".b.png", ".old/c.png")
    cohort = read(tmp_path)
    assert ids(cohort) == ["a.png"]
    assert cohort.notes == (
        "1 hidden folder was not looked at",
        "1 hidden file was not looked at, with endings of images",
    )
    assert cohort.warnings == ("1 hidden file was not looked at, with endings of images",)


def test_a_pair_of_header_and_data_is_one_image(tmp_path: Path) -> None:
    volume(tmp_path / "brain.hdr")
    file(tmp_path / "scan.mhd", b"ObjectType = Image\nElementDataFile = raw/scan.zraw\n")
    file(tmp_path / "raw" / "scan.zraw")
    file(tmp_path / "list.mhd", b"NDims = 3\nElementDataFile = LIST\ns1.raw\ns2.raw\n")
    file(tmp_path / "series.mhd", b"NDims = 3\nElementDataFile = t%02d.raw 1 2 1\n")
    file(tmp_path / "n.nhdr", b"NRRD0004\ntype: float\ndata file: n.raw.gz\n")
    file(tmp_path / "l.nhdr", b"NRRD0004\ndatafile: LIST\ns3.raw\n")
    for name in ("s1.raw", "s2.raw", "t01.raw", "t02.raw", "n.raw.gz", "s3.raw", "stray.raw"):
        file(tmp_path / name)
    file(tmp_path / "detached.nrrd", b"NRRD0004\ndata file: detached.bin\n\n")
    file(tmp_path / "detached.bin")
    cohort = read(tmp_path)
    assert ids(cohort) == ["brain.hdr", "detached.nrrd", "l.nhdr", "list.mhd", "n.nhdr", "scan.mhd", "series.mhd"]
    assert cohort.notes == (f"1 file was not looked at: 1 .raw {unread('.raw')}",) and cohort.skipped == ()
    assert [part.name for part in parts_of(tmp_path / "brain.img")] == ["brain.hdr", "brain.img"]
    assert [part.name for part in parts_of(tmp_path / "list.mhd")] == ["list.mhd", "s1.raw", "s2.raw"]
    assert [part.name for part in data_files_of(tmp_path / "series.mhd")] == ["t01.raw", "t02.raw"]


@pytest.mark.parametrize(("header", "data"), [("brain.hdr", "brain.img"), ("a.mhd", "a.raw"), ("a.nhdr", "a.raw.gz")])
def test_other_data_give_another_hash(tmp_path: Path, header: str, data: str) -> None:
    file(tmp_path / header, f"NRRD0004\nElementDataFile = {data}\ndata file: {data}\n".encode())
    file(tmp_path / data, b"one")
    first = sha256_of(tmp_path / header)
    file(tmp_path / data, b"two")
    assert sha256_of(tmp_path / header) != first


def test_images_that_lack_one_of_their_files_are_named_once(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    file(tmp_path / "no_data.hdr")
    file(tmp_path / "no_header.img")
    file(tmp_path / "annexed.mhd", b"ElementDataFile = annexed.raw\n")
    (tmp_path / "annexed.raw").symlink_to("gone")
    file(tmp_path / "pair.hdr")
    (tmp_path / "pair.img").symlink_to("gone")
    cohort = read(tmp_path)
    assert ids(cohort) == ["a.png"] and cohort.notes == ()
    assert skipped(cohort) == {
        "annexed.mhd": f"its data file is {DANGLING}",
        "no_data.hdr": "its data file is missing",
        "no_header.img": "its header (.hdr) is missing",
        "pair.hdr": f"its data file is {DANGLING}",
    }


def test_a_decathlon_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for number in range(3):
        volume(tmp_path / "imagesTr" / f"brain_{number}.nii.gz")
        volume(tmp_path / "labelsTr" / f"brain_{number}.nii.gz")
        file(tmp_path / "imagesTr" / f"._brain_{number}.nii.gz")
    with pytest.raises(CohortError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert f"and 3 masks of them ({tmp_path}/labelsTr)" in message and f"Name {tmp_path}/imagesTr." in message
    file(tmp_path / "dataset.json", b'{"training": []}')
    with pytest.raises(CohortError, match=r"/imagesTr, or the list .*/dataset\.json:training"):
        read(tmp_path)
    assert len(read(tmp_path / "imagesTr")) == 3
    labels = read(tmp_path / "labelsTr")
    assert labels.warnings == ("the folder's name says that it holds masks: they were read as images",)


@pytest.mark.parametrize(
    "names",
    [
        ["images/a.png", "masks/a.png"],
        ["images/a_0000.png", "labels/a.png"],
        ["p1/images/a.png", "p1/masks/a.png", "p2/images/a.png"],
        ["a.png", "b.png", "masks/a.png", "masks/b.png"],
        ["ct/1.png", "ct/2.png", "segmentations/1_seg.png", "segmentations/2_seg.png"],
        ["x.png", "x_seg.png", "y.png", "y_seg.png"],
        ["x.png", "x_mask.png"],
        ["x.png", "x-label.png"],
        ["x_t1.png", "x_t2.png", "x_seg.png"],
        ["p1/image.png", "p1/mask.png", "p2/image.png", "p2/mask.png"],
        ["image_1.png", "mask_1.png", "image_2.png", "mask_2.png"],
        ["sub-1/anat/sub-1_T1w.png", "sub-1/anat/sub-1_dseg.png"],
    ],
    ids=lambda names: names[-1],
)
def test_images_with_their_masks_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(CohortError, match="the masks would be taken for images"):
        read(pictures(tmp_path, *names))


@pytest.mark.parametrize(
    "names",
    [
        ["mask/1.png", "no_mask/2.png"],  # two classes of people
        ["labels/normal/1.png", "labels/sick/2.png"],
        ["roi_1.png", "roi_2.png", "background_3.png"],
        ["p1_left.png", "p1_right.png"],
        ["images/a.png", "images/b.png"],
    ],
    ids=lambda names: names[-1],
)
def test_names_that_only_look_like_masks_are_read(tmp_path: Path, names: list[str]) -> None:
    assert ids(read(pictures(tmp_path, *names))) == sorted(names)


def test_a_few_masks_among_many_images_are_told(tmp_path: Path) -> None:
    cohort = read(pictures(tmp_path, *(f"{number}.png" for number in range(5)), "3_mask.png"))
    assert len(cohort) == 6
    assert cohort.warnings == ("1 image may be a mask of others by its name and was read as an image",)


def test_test_images_beside_training_images_are_told(tmp_path: Path) -> None:
    cohort = read(pictures(tmp_path, "imagesTr/a.png", "imagesTs/b.png"))
    assert len(cohort) == 2 and "imagesTr and imagesTs were both read" in cohort.warnings[0]


def test_sources_that_are_no_folder_and_no_table_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "folder.csv").mkdir()
    file(tmp_path / "rows.jsonl")
    file(tmp_path / "rows.xlsx")
    for name, message in {
        "pipe.csv": "the training cohort is not a file but a named pipe",
        "gone": r"does not exist: .*gone \(it is a link to a file that is not there",
        "folder.csv": r"no images in the training folder .* By its name it should be a table, but it is a folder",
        "rows.jsonl": "JSON lines are not read",
        "rows.xlsx": "save the spreadsheet as CSV",
        "x" * 300: "does not exist",
    }.items():
        with pytest.raises(CohortError, match=message):
            read(tmp_path / name)
    with pytest.raises(CohortError, match="is an address, s3://bucket/train: only files are read"):
        Cohort.from_source("s3://bucket/train", "training")


def test_a_tilde_stands_for_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pictures(tmp_path / "scans", "a.png")
    assert ids(Cohort.from_source("~/scans", "training")) == ["a.png"]
    file(tmp_path / "elsewhere" / "index.csv", b"image\n~/scans/a.png\n")
    (image,) = Cohort.from_source(tmp_path / "elsewhere" / "index.csv", "training").images
    assert image.path == tmp_path / "scans" / "a.png"


def test_a_placeholder_in_dicom_files_is_no_patient(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(3):
        write_dicom(tmp_path / f"{number}.dcm", SeriesInstanceUID=f"1.2.840.{number + 1}", PatientID="ANONYMOUS")
    cohort = read(tmp_path)
    assert not cohort.patients_known and cohort.n_patients == 3 and cohort.placeholder == "ANONYMOUS"
    assert read(tmp_path, pattern=r"^\d").patients_known
    write_dicom(tmp_path / "3.dcm", SeriesInstanceUID="1.2.840.9", PatientID="anna")
    assert read(tmp_path).warnings == ("3 of 4 images carry no PatientID, so that patients are not known",)
    assert read(tmp_path, "synthetic").warnings == ()


def test_a_series_with_dangling_slices_is_named_as_a_whole(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "p1")
    write_series(tmp_path / "p2")
    slices = sorted((tmp_path / "p1").iterdir())
    for path in slices[:2]:  # from the end of the stack, where no gap shows
        path.unlink()
        path.symlink_to("gone")
    cohort = read(tmp_path)
    assert ids(cohort) == ["p2"] and skipped(cohort) == {"p1": f"2 slices not there: {DANGLING}"}


def test_dicom_with_a_modality_as_ending_is_read(tmp_path: Path, write_dicom: Any) -> None:
    write_dicom(tmp_path / "scan.MR", SeriesInstanceUID="1.2.840.1")
    write_dicom(tmp_path / "IM0002", SeriesInstanceUID="1.2.840.2")
    file(tmp_path / "other.MR")
    cohort = read(tmp_path)
    assert (
        ids(cohort) == ["IM0002", "scan.MR"]
        and cohort.notes[-1] == f"1 file was not looked at: 1 .mr {unread('.mr')}" == cohort.warnings[-1]
    )


def test_an_audit_tells_what_its_cohorts_were_read_without(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("heldout", 20), ("synthetic", 2)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png", number + 100 * len(name))
    file(tmp_path / "train" / "slide.svs")
    (tmp_path / "heldout.csv").write_text(
        "image,patient_id\n" + "".join(f"heldout/{number}.png,p{number}\n" for number in range(20))
    )
    sources = {name: str(tmp_path / name) for name in ("train", "synthetic")}
    audit = Audit(**sources, heldout=str(tmp_path / "heldout.csv"), out=str(tmp_path / "out"))
    cohorts, warnings = read_cohorts(audit.configuration)
    assert cohorts["heldout"].patients_known
    assert warnings[0] == f"training: 1 file was not looked at: 1 .svs {unread('.svs')}"
    assert warnings[1].startswith("Patients are not known in the training cohort: every image counts")
