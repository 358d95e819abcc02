# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_memo.data.cohort import Cohort, split_by_patient
from monai_memo.errors import CohortError, UnusableImageError


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (16, 16), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_folder_is_searched_recursively_and_other_files_are_ignored(tmp_path: Path) -> None:
    for number, name in enumerate(["a.png", "b/c.JPG", "b/d/e.jpeg"]):
        picture(tmp_path / name, number)
    np.save(tmp_path / "f.npy", np.zeros((8, 8)))
    (tmp_path / "SOURCE.txt").write_text("where from")
    picture(tmp_path / ".hidden" / "x.png")
    cohort = Cohort.from_source(tmp_path, "training")
    assert [image.image_id for image in cohort.images] == ["a.png", "b/c.JPG", "b/d/e.jpeg", "f.npy"]
    assert not cohort.patients_known and cohort.n_patients == 4


def test_patient_pattern(tmp_path: Path) -> None:
    for number, name in enumerate(["p1/a.png", "p1/b.png", "p2/a.png"]):
        picture(tmp_path / name, number)
    cohort = Cohort.from_source(tmp_path, "training", r"^(p\d+)/")
    assert cohort.patients_known and cohort.patient_ids == ["p1", "p1", "p2"]
    with pytest.raises(CohortError, match=r"finds no patient in 1 of 3 images, for example p2/a\.png"):
        Cohort.from_source(tmp_path, "training", "p1")
    with pytest.raises(CohortError, match="not a regular expression"):
        Cohort.from_source(tmp_path, "training", "(")


def test_csv_keeps_columns_and_resolves_paths(tmp_path: Path) -> None:
    elsewhere = picture(tmp_path / "elsewhere" / "x.png")
    picture(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(f"image,patient_id,label\na.png,p1,normal\n{elsewhere},p2,sick\n")
    cohort = Cohort.from_source(tmp_path / "index.csv", "training")
    by_id = {image.image_id: image for image in cohort.images}
    assert by_id["a.png"].patient_id == "p1" and by_id["a.png"].columns == {"label": "normal"}
    assert by_id[str(elsewhere)].path == elsewhere and cohort.patients_known


def test_datalist(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [{"image": "a.png", "patient_id": "p1", "age": 3}]
    (tmp_path / "list.json").write_text(json.dumps({"training": rows, "validation": ["a.png"]}))
    cohort = Cohort.from_source(tmp_path / "list.json", "training")
    assert cohort.patients_known and cohort.images[0].columns == {"age": "3"}
    assert not Cohort.from_source(f"{tmp_path / 'list.json'}:validation", "training").patients_known
    with pytest.raises(CohortError, match="has no list 'test'; it has: training, validation"):
        Cohort.from_source(f"{tmp_path / 'list.json'}:test", "training")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,patient\na.png,1\n", "needs a column 'image'; its columns are: file, patient"),
        ("image\nnothing.png\n", "none of the 1 images"),
        ("image\n", "lists no images"),
        ("image,patient_id\na.png,p1\nb.png,\n", "missing for b.png"),
        ("image\na.png\na.png\n", "more than once, for example a.png"),
        ("image\na.png\n./a.png\n", "more than once, for example a.png"),
        ("image,patient_id\na.png,p1\n,p2\n", "leaves the column 'image' empty in 1 of 2 lines"),
        ("patient_id,image\np1,a.png\np2\n", "leaves the column 'image' empty in 1 of 2 lines"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, content: str, message: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(content)
    with pytest.raises(CohortError, match=message):
        Cohort.from_source(tmp_path / "index.csv", "training")


def test_missing_empty_and_odd_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="the heldout cohort does not exist"):
        Cohort.from_source(tmp_path / "nowhere", "heldout")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CohortError, match="no images in the synthetic folder"):
        Cohort.from_source(tmp_path / "empty", "synthetic")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CohortError, match="must be a folder"):
        Cohort.from_source(tmp_path / "notes.txt", "training")
    (tmp_path / "list.json").write_text("{")
    with pytest.raises(CohortError, match="not valid JSON"):
        Cohort.from_source(tmp_path / "list.json", "training")


def test_patient_pattern_serves_tables_without_patients(tmp_path: Path) -> None:
    for number, name in enumerate(["p1_a.png", "p2_a.png"]):
        picture(tmp_path / name, number)
    table = tmp_path / "index.csv"
    table.write_text("image\np1_a.png\np2_a.png\n")
    cohort = Cohort.from_source(table, "training", r"^(p\d)_")
    assert cohort.patients_known and cohort.patient_ids == ["p1", "p2"]
    with pytest.raises(CohortError, match="finds no patient in 2 of 2 images"):
        Cohort.from_source(table, "training", r"^q(\d)?")
    with pytest.raises(CohortError, match="finds no patient in 2 of 2 images"):  # matches, but names nobody
        Cohort.from_source(table, "training", r"^p(9)?")
    table.write_text("image,patient_id\np1_a.png,anna\np2_a.png,bert\n")
    assert Cohort.from_source(table, "training", r"^(p\d)_").patient_ids == ["anna", "bert"]


def test_rows_whose_file_is_missing_are_kept_to_be_skipped_by_name(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text("image\na.png\nnothing.png\n")
    assert len(Cohort.from_source(tmp_path / "index.csv", "training")) == 2


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_bytes("image,name\na.png,Müller\n".encode("latin-1"))
    with pytest.raises(CohortError, match=r"index\.csv is not a CSV in UTF-8"):
        Cohort.from_source(tmp_path / "index.csv", "training")


def dicom(path: Path, series: str, number: int, patient: str, modality: str = "CT") -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID, data.SeriesInstanceUID, data.StudyInstanceUID = modality, patient, series, "1.2.3"
    data.Rows, data.Columns, data.InstanceNumber = 16, 12, number
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelSpacing, data.SliceThickness = [1.0, 1.0], 2.0
    data.ImagePositionPatient, data.ImageOrientationPatient = [0.0, 0.0, 2.0 * number], [1.0, 0, 0, 0, 1.0, 0]
    pixels = np.arange(16 * 12, dtype=np.uint16).reshape(16, 12) + 10 * number
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def test_dicom_series_is_one_volume_and_single_files_stand_alone(tmp_path: Path) -> None:
    from monai_memo.data.loading import Preprocessing
    from monai_memo.data.reading import read_image, spatial_dims_of

    for number in range(5):
        dicom(tmp_path / "scan" / f"slice{number}.dcm", "1.2.840.1", number, "anna")
    for number in range(2):
        dicom(tmp_path / "films" / f"IM{number}", f"1.2.840.{7 + number}", number, f"patient{number}")
    series = Cohort.from_source(tmp_path / "scan", "training")
    assert (
        [image.image_id for image in series.images] == ["scan"]
        and series.patients_known
        and series.patient_ids == ["anna"]
    )
    assert spatial_dims_of(series.images[0].path) == 3
    volume, affine, _ = read_image(series.images[0].path)
    assert volume.shape == (1, 12, 16, 5) and affine is not None
    films = Cohort.from_source(tmp_path / "films", "training")
    assert films.patient_ids == ["patient0", "patient1"]
    assert spatial_dims_of(films.images[0].path) == 2
    assert read_image(films.images[0].path)[0].shape == (1, 16, 12)
    assert Preprocessing(2, (16, 16))(films.images[0].path).shape == (1, 16, 16)


def test_two_views_of_one_x_ray_series_are_two_pictures(tmp_path: Path) -> None:
    for number in range(2):
        dicom(tmp_path / f"view{number}.dcm", "1.2.840.1", number, "anna", modality="DX")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")  # an index of files, not an image
    cohort = Cohort.from_source(tmp_path, "training")
    assert [image.image_id for image in cohort.images] == ["view0.dcm", "view1.dcm"]
    assert cohort.patient_ids == ["anna", "anna"]


@pytest.mark.parametrize("keep", [0, -100], ids=["header", "pixels"])
def test_a_series_with_a_damaged_slice_is_skipped_and_not_shortened(tmp_path: Path, keep: int) -> None:
    from monai_memo.data.loading import Preprocessing
    from monai_memo.data.reading import spatial_dims_of

    for scan in range(2):
        for number in range(5):
            dicom(tmp_path / f"scan{scan}" / f"{number}.dcm", f"1.2.840.{scan + 1}", number, f"patient{scan}")
    damaged = tmp_path / "scan1" / "2.dcm"
    damaged.write_bytes(damaged.read_bytes()[:keep])
    cohort = Cohort.from_source(tmp_path, "training")
    assert [image.image_id for image in cohort.images] == ["scan0", "scan1"]
    assert cohort.patients_known and cohort.patient_ids == ["patient0", "patient1"]
    assert {spatial_dims_of(image.path) for image in cohort.images} == {3}
    settings = Preprocessing(3, (8, 8, 8))
    assert settings(tmp_path / "scan0").shape == (1, 8, 8, 8)
    with pytest.raises(UnusableImageError, match="only 4 of 5 slices"):
        settings(tmp_path / "scan1")


def test_a_damaged_dicom_file_leaves_the_patients_of_the_others_known(tmp_path: Path) -> None:
    for number in range(3):
        dicom(tmp_path / f"{number}.dcm", f"1.2.840.{number + 1}", number, f"patient{number}")
    (tmp_path / "1.dcm").write_bytes(b"nothing")
    cohort = Cohort.from_source(tmp_path, "training")
    assert cohort.patients_known and cohort.patient_ids == ["patient0", "1.dcm", "patient2"]


def test_split_keeps_patients_together_and_is_repeatable(tmp_path: Path) -> None:
    for patient in range(10):
        for visit in range(3):
            picture(tmp_path / f"p{patient}_{visit}.png", 3 * patient + visit)
    cohort = Cohort.from_source(tmp_path, "training", r"p\d+")
    parts = split_by_patient(cohort, {"training": 0.5, "heldout": 0.3}, seed=3)
    patients = {name: set(part.patient_ids) for name, part in parts.items()}
    assert len(patients["training"]) == 5 and len(patients["heldout"]) == 3
    assert not patients["training"] & patients["heldout"] and len(parts["training"]) == 15
    assert split_by_patient(cohort, {"training": 0.5, "heldout": 0.3}, seed=3) == parts
    assert split_by_patient(cohort, {"training": 0.5, "heldout": 0.3}, seed=4) != parts
    for bad in ({"training": 0.8, "heldout": 0.3}, {"training": 0.0}, {}):
        with pytest.raises(CohortError, match="fractions must be positive"):
            split_by_patient(cohort, bad, seed=0)
    with pytest.raises(CohortError, match="too few for a part"):
        split_by_patient(cohort, {"training": 0.9, "heldout": 0.01}, seed=0)
