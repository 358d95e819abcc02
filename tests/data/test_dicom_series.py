# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort, CohortImage, Reading
from monai_memo.data.dicom import dicom_header
from monai_memo.data.reading import read_image, spatial_dims_of
from monai_memo.errors import CohortError, UnusableImageError

VOLUME = np.stack([np.arange(16 * 12).reshape(16, 12).T + 10 * number for number in range(5)], axis=-1)
SR = "1.2.840.10008.5.1.4.1.1.88.11"


def cohort_of(folder: Path, **reading: Any) -> Cohort:
    return Cohort.from_source(folder, "training", reading=Reading(**reading))


def ids_of(cohort: Cohort) -> list[str]:
    return [image.image_id for image in cohort.images]


def only_volume(folder: Path, **reading: Any) -> np.ndarray:
    (image,) = cohort_of(folder, **reading).images
    return read_image(image).array


def reason_of(image: CohortImage) -> str:
    with pytest.raises(UnusableImageError) as error:
        read_image(image)
    return error.value.reason


def test_slices_are_stacked_by_position_and_lie_as_itk_says(tmp_path: Path, write_series: Any) -> None:
    import itk
    from monai.data.image_reader import ITKReader

    write_series(tmp_path / "scan")
    (image,) = cohort_of(tmp_path / "scan").images
    array, affine, notes = read_image(image)
    assert image.image_id == "scan" and notes == ()
    np.testing.assert_array_equal(array, VOLUME[None])
    np.testing.assert_allclose(affine, np.diag([-0.75, -0.5, 2, 1]))
    header = dicom_header(image)
    assert header.shape == (12, 16, 5) and header.spacing == (0.75, 0.5, 2.0) and header.orientation == "LPS"
    reader = ITKReader()
    independent, meta = reader.get_data(reader.read(str(tmp_path / "scan")))
    np.testing.assert_array_equal(array[0], np.asarray(independent))
    np.testing.assert_allclose(affine, meta["affine"])
    assert itk is not None


@pytest.mark.parametrize(
    "orientation",
    [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.48, 0.64, 0.6), (1, 0, 0, 0, 0.94, 0.342)],
    ids=["sagittal", "coronal", "oblique", "tilted head"],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_any_orientation_lies_as_itk_says(
    tmp_path: Path, write_dicom: Any, orientation: tuple[float, ...], backwards: bool
) -> None:
    from monai.data.image_reader import ITKReader

    axes = np.reshape(orientation, (2, 3)) / np.linalg.norm(np.reshape(orientation, (2, 3)), axis=1)[:, None]
    normal = np.cross(*axes) * (-1 if backwards else 1)
    for number in range(4):
        pixels = np.arange(192, dtype=np.uint16).reshape(16, 12) + 500 * number
        position = [round(float(v), 5) for v in np.array([3, -4, 5]) + 1.5 * number * normal]
        write_dicom(
            tmp_path / "scan" / f"{number}.dcm",
            pixels,
            ImagePositionPatient=position,
            ImageOrientationPatient=[round(float(v), 6) for v in axes.ravel()],
            InstanceNumber=number,
        )
    array, affine, _ = read_image(cohort_of(tmp_path / "scan").images[0])
    reader = ITKReader()
    independent, meta = reader.get_data(reader.read(str(tmp_path / "scan")))
    np.testing.assert_array_equal(array[0], np.asarray(independent))
    np.testing.assert_allclose(affine, meta["affine"], atol=1e-4)


def test_a_tilted_gantry_gives_a_sheared_volume(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(4):
        write_dicom(tmp_path / "scan" / f"{number}.dcm", ImagePositionPatient=[0, 0.5 * number, 2.0 * number])
    affine = read_image(cohort_of(tmp_path / "scan").images[0]).affine
    assert affine is not None
    np.testing.assert_allclose(affine[:3, 2], [0, -0.5, 2])


def test_positions_off_by_rounding_are_one_regular_volume(tmp_path: Path, write_dicom: Any) -> None:
    for number, place in enumerate([0.0, 0.6, 1.301, 1.899, 2.5]):  # 0.625 mm, rounded
        write_dicom(tmp_path / "scan" / f"{number}.dcm", ImagePositionPatient=[0, 0.001 * (number % 2), place])
    array, affine, _ = read_image(cohort_of(tmp_path / "scan").images[0])
    assert array.shape == (1, 12, 16, 5) and affine is not None
    np.testing.assert_allclose(affine[2, 2], 0.625)


def test_unknown_sizes_of_pixels_are_noted(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "scan", PixelSpacing=None)
    array, _, notes = read_image(cohort_of(tmp_path / "scan").images[0])
    np.testing.assert_array_equal(array[0], VOLUME)
    assert notes == ("taken with pixels of 1 mm: the files do not say how large they are",)


def test_slices_that_are_shifted_against_each_other_are_refused(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(6):
        write_dicom(tmp_path / "scan" / f"{number}.dcm", ImagePositionPatient=[40.0 * (number % 2), 0, 1.0 * number])
    assert reason_of(cohort_of(tmp_path / "scan").images[0]) == "slices that do not lie in a row"


def test_localizers_that_say_so_by_nothing_but_their_place_are_set_aside(
    tmp_path: Path, write_series: Any, write_dicom: Any
) -> None:
    for scan, (place, number) in enumerate([(-80.0, 0), (100.0, 21)]):
        write_series(tmp_path / f"scan{scan}", 20, distance=1.0)
        tags = {"ImagePositionPatient": [0.0, 0.0, place], "InstanceNumber": number}
        write_dicom(tmp_path / f"scan{scan}" / "scout.dcm", **tags)
    cohort = cohort_of(tmp_path)
    assert [item.image_id for item in cohort.skipped] == ["scan0/scout.dcm", "scan1/scout.dcm"]
    for image in cohort.images:
        array, affine, _ = read_image(image)
        assert array.shape[-1] == 20 and affine is not None and affine[2, 2] == 1.0


def test_numbers_of_instances_are_not_needed(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "scan", InstanceNumber=None)
    np.testing.assert_array_equal(only_volume(tmp_path / "scan")[0], VOLUME)


def test_two_slices_are_a_volume_and_one_is_a_picture(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "two", 2)
    write_series(tmp_path / "one", 1)
    assert only_volume(tmp_path / "two").shape == (1, 12, 16, 2)
    (single,) = cohort_of(tmp_path / "one").images
    assert single.image_id == "00_0.dcm" and spatial_dims_of(single) == 2
    np.testing.assert_array_equal(read_image(single).array[0], VOLUME[..., 0].T)


@pytest.mark.parametrize(
    ("tag", "values", "told"),
    [
        ("TemporalPositionIdentifier", (1, 2), "TemporalPositionIdentifier 1, 2"),
        ("AcquisitionNumber", (3, 10), "AcquisitionNumber 3, 10"),
        ("EchoTime", (4.6, 9.2), "EchoTime 4.6, 9.2"),
        ("EchoNumbers", (1, 2), "EchoNumbers 1, 2"),
        ("TriggerTime", (0.0, 30.0), "TriggerTime, 2 values"),
        ("DiffusionBValue", (0.0, 1000.0), "DiffusionBValue 0, 1000"),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]), "ImageType"),
        ("KVP", (80, 140), "KVP 80, 140"),
        ("AcquisitionTime", ("101500", "101600"), "AcquisitionTime, 2 values"),
    ],
)
def test_two_images_at_each_position_are_refused_by_name_with_the_tag_that_tells_them_apart(
    tmp_path: Path, write_series: Any, tag: str, values: tuple[Any, Any], told: str
) -> None:
    for start, value in zip((0, 100), values, strict=True):
        for path in write_series(tmp_path / "scan" / str(start), 5, **{tag: value}):
            path.rename(tmp_path / "scan" / f"{start}_{path.name}")
    write_series(tmp_path / "good", SeriesInstanceUID="1.2.840.2")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["good", "scan"] and spatial_dims_of(cohort.images[1]) == 3
    reason = reason_of(cohort.images[1])
    assert reason.startswith(f"2 images at each position ({told}") and reason.endswith("keep one of them")
    assert read_image(cohort.images[0]).array.shape == (1, 12, 16, 5)


def test_repeats_that_no_tag_explains_and_repeats_of_one_slice_are_refused(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "whole")
    for path in write_series(tmp_path / "more", SpecificCharacterSet="ISO_IR 100"):
        path.rename(tmp_path / "whole" / f"again_{path.name}")
    (tmp_path / "more").rmdir()
    assert "2 images at each position, which no tag tells apart" in reason_of(cohort_of(tmp_path / "whole").images[0])
    write_series(tmp_path / "one")
    for path in write_series(tmp_path / "extra", 1, start=2):
        path.rename(tmp_path / "one" / f"again_{path.name}")
    reason = reason_of(cohort_of(tmp_path / "one").images[0])
    assert reason == "up to 2 images at one position, at 1 of 5 positions: keep one of them"


def test_the_phases_of_one_slice_are_no_volume(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(6):
        write_dicom(tmp_path / "cine" / f"{number}.dcm", Modality="MR", TriggerTime=30.0 * number)
    assert reason_of(cohort_of(tmp_path / "cine").images[0]).startswith(
        "6 images at each position (TriggerTime, 6 values)"
    )


def test_a_file_under_two_names_counts_once(tmp_path: Path, write_series: Any) -> None:
    first = write_series(tmp_path / "scan")[0]
    shutil.copy(first, tmp_path / "scan" / "copy.dcm")
    cohort = cohort_of(tmp_path / "scan")
    assert cohort.notes == ("1 DICOM file is a copy of another and left out",) and not cohort.skipped
    np.testing.assert_array_equal(read_image(cohort.images[0]).array[0], VOLUME)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "another orientation than the other slices of its series"),
        ({"PixelSpacing": [1.5, 1.5]}, "another pixel spacing than the other slices of its series"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "a derived image beside original ones"),
        ({"InstanceNumber": 99}, "far from the other slices of its series"),
    ],
)
def test_an_odd_slice_of_the_series_is_set_aside_by_name_and_the_rest_is_used(
    tmp_path: Path, write_series: Any, write_dicom: Any, odd: dict[str, Any], reason: str
) -> None:
    write_series(tmp_path / "scan")
    tags = {"ImagePositionPatient": [0.0, 0.0, 40.0], "InstanceNumber": 6, **odd}
    write_dicom(tmp_path / "scan" / "odd.dcm", **tags)
    write_series(tmp_path / "other", SeriesInstanceUID="1.2.840.2")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["other", "scan"]
    assert [(item.image_id, item.reason) for item in cohort.skipped] == [("scan/odd.dcm", reason)]
    array, affine, _ = read_image(cohort.images[1])
    np.testing.assert_array_equal(array[0], VOLUME)
    assert affine is not None and affine[2, 2] == 2.0


def test_a_slice_of_another_size_is_set_aside(tmp_path: Path, write_series: Any, write_dicom: Any) -> None:
    write_series(tmp_path / "scan")
    write_dicom(tmp_path / "scan" / "odd.dcm", np.zeros((20, 20), np.uint16), ImagePositionPatient=[0.0, 0.0, 10.0])
    cohort = cohort_of(tmp_path / "scan")
    assert [item.reason for item in cohort.skipped] == ["another size than the other slices of its series"]
    np.testing.assert_array_equal(read_image(cohort.images[0]).array[0], VOLUME)


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ([4], "1 slice missing (1 gap in steps of 2 mm)"),
        ([3, 4], "2 slices missing (1 gap in steps of 2 mm)"),
        ([2, 6], "2 slices missing (2 gaps in steps of 2 mm)"),
        ([2, 3, 4, 5, 6, 7, 8], "7 slices missing (1 gap in steps of 2 mm)"),
        ([1], "1 slice missing (1 gap in steps of 2 mm)"),
        ([1, 2, 3, 4], "4 slices missing (1 gap in steps of 2 mm)"),
    ],
)
def test_missing_slices_are_named_and_taken_on_request(
    tmp_path: Path, write_series: Any, missing: list[int], reason: str
) -> None:
    for number, path in enumerate(write_series(tmp_path / "scan", 12)):
        if number in missing:
            path.unlink()
    cohort = cohort_of(tmp_path / "scan")
    assert ids_of(cohort) == ["scan"] and not cohort.skipped
    assert reason_of(cohort.images[0]) == f"{reason}: --allow_gaps takes it all the same"
    array, _, notes = read_image(cohort_of(tmp_path / "scan", allow_gaps=True).images[0])
    kept = [number for number in range(12) if number not in missing]
    np.testing.assert_array_equal(array[0, 0, 0], [10 * number for number in kept])
    assert notes == (f"taken with {reason}",)


def test_uneven_distances_are_named(tmp_path: Path, write_dicom: Any) -> None:
    for number, place in enumerate([0.0, 1.0, 2.0, 3.0, 4.5, 5.5]):
        write_dicom(tmp_path / "scan" / f"{number}.dcm", ImagePositionPatient=[0, 0, place])
    assert reason_of(cohort_of(tmp_path / "scan").images[0]).startswith("slices at uneven distances (1 to 1.5 mm)")


def test_two_series_of_one_folder_are_two_volumes(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "p1", 5, SeriesInstanceUID="1.2.840.7.31.1")
    for path in write_series(tmp_path / "p1" / "x", 4, SeriesInstanceUID="1.2.840.7.32.1"):
        path.rename(tmp_path / "p1" / f"second_{path.name}")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["p1/31.1", "p1/32.1"] and cohort.patient_ids == ["anna", "anna"]
    first, second = (read_image(image).array for image in cohort.images)
    np.testing.assert_array_equal(first[0], VOLUME)
    np.testing.assert_array_equal(second[0], VOLUME[..., :4])
    assert not set(cohort.images[0].parts) & set(cohort.images[1].parts)


def test_patients_mixed_in_one_folder_are_kept_apart_even_in_one_series(tmp_path: Path, write_series: Any) -> None:
    for patient in ("anna", "bert"):
        for path in write_series(tmp_path / "x" / patient, PatientID=patient):
            path.rename(tmp_path / f"{patient}_{path.name}")
    cohort = cohort_of(tmp_path)
    assert sorted(cohort.patient_ids) == ["anna", "bert"] and len(set(ids_of(cohort))) == 2
    for image in cohort.images:
        np.testing.assert_array_equal(read_image(image).array[0], VOLUME)


def test_two_orientations_in_one_series_are_two_volumes(tmp_path: Path, write_series: Any, write_dicom: Any) -> None:
    write_series(tmp_path / "scan")
    for number in range(4):
        write_dicom(
            tmp_path / "scan" / f"sagittal{number}.dcm",
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[3.0 * number, 0, 0],
        )
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["scan/1-1", "scan/1-2"] and not cohort.skipped
    assert [read_image(image).array.shape[-1] for image in cohort.images] == [5, 4]


def test_reports_and_structures_in_every_folder_are_set_aside(
    tmp_path: Path, write_series: Any, write_dicom: Any
) -> None:
    for scan in range(2):
        folder = tmp_path / f"scan{scan}"
        write_series(folder, SeriesInstanceUID=f"1.2.840.{scan}", PatientID=f"p{scan}")
        without = dict.fromkeys(("Rows", "Columns", "PixelData", "ImagePositionPatient", "ImageOrientationPatient"))
        write_dicom(folder / "sr.dcm", SOPClassUID=SR, Modality="SR", SeriesInstanceUID="1.2.840.90", **without)
        structures = "1.2.840.10008.5.1.4.1.1.481.3"
        write_dicom(folder / "rs", SOPClassUID=structures, Modality="RTSTRUCT", SeriesInstanceUID="1.2.9", **without)
        write_dicom(folder / "seg.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG")
        write_dicom(folder / "dose.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2", Modality="RTDOSE")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["scan0", "scan1"] and cohort.patient_ids == ["p0", "p1"]
    assert {spatial_dims_of(image) for image in cohort.images} == {3}
    assert [(item.image_id, item.reason) for item in cohort.skipped][:4] == [
        ("scan0/dose.dcm", "holds a radiotherapy dose, no image of the patient"),
        ("scan0/rs", "holds radiotherapy structures, no image of the patient"),
        ("scan0/seg.dcm", "holds a segmentation, no image of the patient"),
        ("scan0/sr.dcm", "holds a report, no image of the patient"),
    ]
    np.testing.assert_array_equal(read_image(cohort.images[0]).array[0], VOLUME)


def test_a_folder_of_reports_alone_is_no_cohort(tmp_path: Path, write_dicom: Any) -> None:
    write_dicom(tmp_path / "sr.dcm", SOPClassUID=SR, Modality="SR", Rows=None, Columns=None, PixelData=None)
    with pytest.raises(CohortError, match=r"1 like sr\.dcm: holds a report"):
        cohort_of(tmp_path)


def test_localizers_and_screenshots_beside_volumes_are_set_aside(
    tmp_path: Path, write_series: Any, write_dicom: Any
) -> None:
    write_series(tmp_path / "scan")
    localizer = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    for number in range(2):
        write_dicom(tmp_path / "scout" / f"{number}.dcm", SeriesInstanceUID=f"1.2.840.5{number}", ImageType=localizer)
    write_dicom(
        tmp_path / "dose" / "page.dcm",
        np.zeros((20, 20, 3), np.uint8),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        SeriesInstanceUID="1.2.840.60",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    write_dicom(tmp_path / "scan" / "extra.dcm", SeriesInstanceUID="1.2.840.61")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["scan"]
    assert {item.image_id: item.reason for item in cohort.skipped} == {
        "dose/page.dcm": "a screenshot (secondary capture) beside volumes",
        "scan/extra.dcm": "a single image beside the slices of a volume",
        "scout/0.dcm": "a localizer",
        "scout/1.dcm": "a localizer",
    }


def test_localizers_alone_are_pictures(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(2):
        write_dicom(
            tmp_path / f"{number}.dcm",
            SeriesInstanceUID=f"1.2.840.5{number}",
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        )
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["0.dcm", "1.dcm"] and not cohort.skipped


@pytest.mark.parametrize("modality", ["US", "ES", "DX", "CR", "XC", "OT", "OP"])
def test_images_without_position_are_stills(tmp_path: Path, write_dicom: Any, modality: str) -> None:
    for number in range(4):
        write_dicom(
            tmp_path / "study" / f"{number}.dcm",
            np.full((10, 14), 7 * number, np.uint8) + np.arange(14, dtype=np.uint8),
            Modality=modality,
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            InstanceNumber=number,
        )
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == [f"study/{number}.dcm" for number in range(4)] and cohort.patient_ids == ["anna"] * 4
    array, affine, _ = read_image(cohort.images[3])
    assert spatial_dims_of(cohort.images[3]) == 2 and affine is None
    np.testing.assert_array_equal(array[0], np.full((10, 14), 21) + np.arange(14))


def test_one_series_in_sibling_folders_is_one_volume(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "scan" / "00000", 3)
    write_series(tmp_path / "scan" / "00001", 2, start=3)
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["scan"]
    np.testing.assert_array_equal(read_image(cohort.images[0]).array[0], VOLUME)


def test_one_series_identifier_for_all_patients_does_not_mix_them(tmp_path: Path, write_series: Any) -> None:
    for scan in range(3):
        write_series(tmp_path / f"scan{scan}", PatientID="")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["scan0", "scan1", "scan2"] and not cohort.patients_known
    assert all((read_image(image).array[0] == VOLUME).all() for image in cohort.images)


def test_series_without_identifier_are_volumes_where_their_slices_fit(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "scan", SeriesInstanceUID="")
    np.testing.assert_array_equal(only_volume(tmp_path / "scan")[0], VOLUME)
    shutil.rmtree(tmp_path / "scan")
    for path in write_series(tmp_path / "scan", 6, SeriesInstanceUID="")[1:3]:
        path.unlink()
    assert len(cohort_of(tmp_path / "scan")) == 4  # slices that somebody picked


def test_a_table_may_name_a_folder_or_a_file(tmp_path: Path, write_series: Any, write_dicom: Any) -> None:
    slices = write_series(tmp_path / "good")
    write_dicom(tmp_path / "good" / "sr.dcm", SOPClassUID=SR, Modality="SR", Rows=None, Columns=None)
    write_series(tmp_path / "patient" / "study" / "scan", SeriesInstanceUID="1.2.840.5")
    write_series(tmp_path / "two", SeriesInstanceUID="1.2.840.3")
    write_series(tmp_path / "two", 4, start=5, SeriesInstanceUID="1.2.840.4")
    name = slices[2].relative_to(tmp_path).as_posix()
    (tmp_path / "list.csv").write_text(f"image,patient_id\ngood,p1\npatient,p2\ntwo,p3\n{name},p1\n", encoding="utf-8")
    cohort = cohort_of(tmp_path / "list.csv")
    images = {image.image_id: image for image in cohort.images}
    assert [(item.image_id, item.reason) for item in cohort.skipped] == [
        ("good/sr.dcm", "holds a report, no image of the patient")
    ]
    for named in ("good", "patient"):
        np.testing.assert_array_equal(read_image(images[named]).array[0], VOLUME)
    assert reason_of(images["two"]).startswith("a folder that holds 2 DICOM series instead of one image")
    still = read_image(images[name])
    assert still.affine is None
    np.testing.assert_array_equal(still.array[0], VOLUME[..., 2].T)


def test_a_table_names_one_of_several_series_of_a_folder_by_its_uid(
    tmp_path: Path, write_series: Any, write_dicom: Any
) -> None:
    write_series(tmp_path / "two", SeriesInstanceUID="1.2.840.3")
    write_series(tmp_path / "two", 4, start=5, SeriesInstanceUID="1.2.840.4")
    write_series(tmp_path / "alone", SeriesInstanceUID="1.2.840.5")
    table = tmp_path / "list.csv"
    table.write_text(
        "image,patient_id,SeriesInstanceUID\ntwo,p1, 1.2.840.4\ntwo,p1,1.2.840.3\nalone,p2,\ntwo,p3,1.2.840.9\n"
    )
    images = {image.image_id: image for image in cohort_of(table).images}
    assert set(images) == {"two/1.2.840.4", "two/1.2.840.3", "alone", "two/1.2.840.9"}
    np.testing.assert_array_equal(read_image(images["two/1.2.840.3"]).array[0], VOLUME)
    assert read_image(images["two/1.2.840.4"]).array.shape[-1] == 4 and len(images["two/1.2.840.4"].files) == 4
    assert reason_of(images["two/1.2.840.9"]) == "a folder without an image of that SeriesInstanceUID"
    table.write_text("image\ntwo\n")
    (image,) = cohort_of(table).images
    assert reason_of(image).endswith("instead of one image: say which one in a column SeriesInstanceUID of the table")
    table.write_text("image,SeriesInstanceUID\ntwo,1.2.840.3\ntwo,1.2.840.3\n")
    with pytest.raises(CohortError, match="more than once"):
        cohort_of(table)


def test_a_slice_without_pixels_makes_the_volume_unusable_by_name(tmp_path: Path, write_series: Any) -> None:
    import pydicom

    path = write_series(tmp_path / "scan")[2]
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    assert reason_of(cohort_of(tmp_path / "scan").images[0]) == (
        "only 4 of 5 slices form one readable series (holds no pixels)"
    )


def test_slices_with_scales_of_their_own_are_each_scaled(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(4):
        write_dicom(
            tmp_path / "pet" / f"{number}.dcm",
            np.full((8, 8), 100, np.uint16),
            Modality="PT",
            ImagePositionPatient=[0, 0, 3.0 * number],
            RescaleSlope=0.5 + number,
            RescaleIntercept=number,
        )
    volume = only_volume(tmp_path / "pet")
    np.testing.assert_allclose(volume[0, 0, 0], [50, 151, 252, 353])


def test_padding_takes_the_lowest_value_of_the_whole_volume(tmp_path: Path, write_dicom: Any) -> None:
    for number in range(3):
        pixels = np.full((8, 8), 500 + 100 * number, np.int16)
        pixels[:2] = -2000
        if number == 2:
            pixels[:] = -2000  # a slice beyond the patient
        write_dicom(
            tmp_path / "ct" / f"{number}.dcm",
            pixels,
            ImagePositionPatient=[0, 0, 3.0 * number],
            PixelPaddingValue=-2000,
            RescaleIntercept=-1024,
            RescaleSlope=1,
        )
    volume = only_volume(tmp_path / "ct")[0]
    assert volume[0, 0, 0] == -524 and volume[0, 5, 1] == -424 and (volume[..., 2] == -524).all()


def test_names_in_other_alphabets_and_empty_patients(tmp_path: Path, write_series: Any) -> None:
    write_series(tmp_path / "Müller 検査", PatientID="Ünal", SpecificCharacterSet="ISO_IR 192")
    write_series(tmp_path / "b", PatientID="Anna^Ω", SeriesInstanceUID="1.2.4", SpecificCharacterSet="ISO_IR 192")
    cohort = cohort_of(tmp_path)
    assert ids_of(cohort) == ["Müller 検査", "b"] or ids_of(cohort) == ["b", "Müller 検査"]
    assert set(cohort.patient_ids) == {"Ünal", "Anna^Ω"}


def test_headers_of_many_slices_are_read_quickly(tmp_path: Path, write_series: Any) -> None:
    import time

    first = write_series(tmp_path / "scan", 1)[0]
    content = first.read_bytes()
    for number in range(500):
        (tmp_path / "many" / f"{number}").mkdir(parents=True)
        (tmp_path / "many" / f"{number}" / "a.dcm").write_bytes(content)
    start = time.process_time()
    assert len(cohort_of(tmp_path / "many")) == 500
    assert time.process_time() - start < 5
