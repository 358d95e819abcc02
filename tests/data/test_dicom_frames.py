# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort, CohortImage, Reading
from monai_memo.data.dicom import dicom_header
from monai_memo.data.reading import as_image, read_image
from monai_memo.errors import UnusableImageError

FRAME = np.arange(16 * 12).reshape(16, 12)


def reason_of(image: Path | CohortImage) -> str:
    with pytest.raises(UnusableImageError) as error:
        read_image(image)
    return error.value.reason


def test_frames_are_sorted_by_position_and_scaled_one_by_one(tmp_path: Path, write_enhanced: Any) -> None:
    order = [2, 0, 3, 1]
    write_enhanced(tmp_path / "a.dcm", [(1.0, 2.0, 3.0 * place) for place in order], slopes=[1, 2, 0.5, 4])
    (image,) = Cohort.from_source(tmp_path, "training").images
    array, affine, notes = read_image(image)
    assert image.image_id == "a.dcm" and image.patient_id == "anna" and notes == ()
    slopes = {2: 1, 0: 2, 3: 0.5, 1: 4}
    for place in range(4):
        frame = order.index(place)
        np.testing.assert_array_equal(array[0, :, :, place], ((FRAME + 10 * frame) * slopes[place] - 5).T)
    np.testing.assert_allclose(affine, [[-0.75, 0, 0, -1], [0, -0.5, 0, -2], [0, 0, 3, 0], [0, 0, 0, 1]])
    header = dicom_header(image)
    assert header.shape == (12, 16, 4) and header.spacing == (0.75, 0.5, 3.0 / 3 * abs(order[0] - order[-1]))


def test_repeated_positions_of_frames_are_refused_with_the_tag(tmp_path: Path, write_enhanced: Any) -> None:
    places = [(0.0, 0.0, 2.0 * (number % 3)) for number in range(6)]
    content = [{"TemporalPositionIndex": 1 + number // 3} for number in range(6)]
    path = write_enhanced(tmp_path / "a.dcm", places, content=content)
    assert reason_of(path) == "2 images at each position (TemporalPositionIndex 1, 2): keep one of them"


def test_missing_frames_are_named(tmp_path: Path, write_enhanced: Any) -> None:
    path = write_enhanced(tmp_path / "a.dcm", [(0.0, 0.0, 2.0 * number) for number in (0, 1, 2, 4, 5)])
    assert reason_of(path).startswith("1 slice missing")
    image = CohortImage(path, "a", "a", reading=Reading(allow_gaps=True))
    assert read_image(image).array.shape == (1, 12, 16, 5)


def test_frames_that_do_not_say_where_they_lie_are_refused(tmp_path: Path, write_enhanced: Any) -> None:
    path = write_enhanced(tmp_path / "a.dcm", [(0.0, 0.0, 2.0 * number) for number in range(4)])
    import pydicom

    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    dataset.save_as(path)
    assert reason_of(path).startswith("1 of its 4 frames do not say where they lie")
    del dataset.PerFrameFunctionalGroupsSequence[3]
    dataset.save_as(path)
    assert reason_of(path).startswith("describes 3 of its 4 frames")


@pytest.mark.parametrize("modality", ["US", "XA", "RF", "NM", "OT"])
def test_films_are_refused_with_the_remedy(tmp_path: Path, write_dicom: Any, modality: str) -> None:
    pixels = np.stack([FRAME + number for number in range(6)]).astype(np.uint8)
    write_dicom(
        tmp_path / "film.dcm",
        pixels,
        NumberOfFrames=6,
        Modality=modality,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    write_dicom(tmp_path / "still.dcm", FRAME.astype(np.uint8), Modality="US", ImagePositionPatient=None)
    cohort = Cohort.from_source(tmp_path, "training")
    assert [image.image_id for image in cohort.images] == ["film.dcm", "still.dcm"]
    assert reason_of(cohort.images[0]).startswith("a film or a pile of 6 frames")
    with pytest.raises(UnusableImageError, match="save the frames that count as single images"):
        dicom_header(cohort.images[0])
    np.testing.assert_array_equal(read_image(cohort.images[1]).array[0], FRAME)


def test_an_enhanced_file_with_one_frame_is_a_picture_with_its_own_scale(tmp_path: Path, write_enhanced: Any) -> None:
    path = write_enhanced(tmp_path / "a.dcm", [(0.0, 0.0, 0.0)], slopes=[3])
    array, affine, _ = read_image(path)
    np.testing.assert_array_equal(array[0], FRAME * 3 - 5)
    assert affine is None and dicom_header(as_image(path)).shape == (16, 12)


def test_enhanced_files_with_one_frame_each_form_a_volume(tmp_path: Path, write_enhanced: Any) -> None:
    for number in range(4):
        write_enhanced(tmp_path / "scan" / f"{number}.dcm", [(0.0, 0.0, 2.0 * (3 - number))], slopes=[1 + number])
    (image,) = Cohort.from_source(tmp_path, "training").images
    array, affine, _ = read_image(image)
    assert image.image_id == "scan" and affine is not None and affine[2, 2] == 2
    for number in range(4):
        np.testing.assert_array_equal(array[0, :, :, 3 - number], (FRAME * (1 + number) - 5).T)


def test_reconstructed_spect_is_a_volume(tmp_path: Path, write_dicom: Any) -> None:
    from pydicom.dataset import Dataset

    detector = Dataset()
    detector.ImageOrientationPatient, detector.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [5, 6, 7]
    path = write_dicom(
        tmp_path / "a.dcm",
        np.stack([FRAME + 10 * number for number in range(5)]).astype(np.uint16),
        NumberOfFrames=5,
        Modality="NM",
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        DetectorInformationSequence=[detector],
        SpacingBetweenSlices=4.0,
        SliceVector=[1, 2, 3, 4, 5],
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    array, affine, _ = read_image(path)
    np.testing.assert_array_equal(array[0, 0, 0], [0, 10, 20, 30, 40])
    np.testing.assert_allclose(affine, [[-0.75, 0, 0, -5], [0, -0.5, 0, -6], [0, 0, 4, 7], [0, 0, 0, 1]])


def test_an_ultrasound_volume_lies_in_the_frame_of_its_probe(tmp_path: Path, write_enhanced: Any) -> None:
    import pydicom
    from pydicom.dataset import Dataset

    path = write_enhanced(tmp_path / "a.dcm", [(0.0, 0.0, 2.0 * number) for number in (2, 1, 0)], Modality="US")
    dataset = pydicom.dcmread(path)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        place = Dataset()
        place.ImagePositionVolume = [0, 0, 2.0 * (2 - number)]
        frame.PlanePositionVolumeSequence = [place]
        del frame.PlanePositionSequence
    plane = Dataset()
    plane.ImageOrientationVolume = [1, 0, 0, 0, 1, 0]
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationVolumeSequence = [plane]
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    dataset.save_as(path)
    array, affine, _ = read_image(path)
    np.testing.assert_array_equal(array[0, 0, 0], [20, 10, 0])
    assert affine is None and dicom_header(as_image(path)).orientation is None


def test_enhanced_localizers_beside_volumes_are_set_aside(tmp_path: Path, write_enhanced: Any) -> None:
    write_enhanced(tmp_path / "p" / "scan.dcm", [(0.0, 0.0, 2.0 * number) for number in range(4)])
    write_enhanced(
        tmp_path / "p" / "scout.dcm",
        [(0.0, 0.0, 9.0 * number) for number in range(3)],
        SeriesInstanceUID="1.2.5",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"],
    )
    cohort = Cohort.from_source(tmp_path, "training")
    assert [image.image_id for image in cohort.images] == ["p/scan.dcm"]
    assert [(item.image_id, item.reason) for item in cohort.skipped] == [("p/scout.dcm", "a localizer")]


def test_damage_within_the_description_of_frames_is_named(tmp_path: Path, write_enhanced: Any) -> None:
    for name, places in (("one.dcm", [(0.0, 0.0, 0.0)]), ("more.dcm", [(0.0, 0.0, 2.0 * n) for n in range(4)])):
        path = write_enhanced(tmp_path / name, places)
        content = path.read_bytes()
        assert content.count(b"\x00\x52\x30\x92SQ") == 1  # the sequence that describes the frames
        path.write_bytes(content.replace(b"\x00\x52\x30\x92SQ", b"\x00\x52\x30\x92VQ"))
    assert "damaged" in reason_of(tmp_path / "more.dcm")
    assert reason_of(tmp_path / "one.dcm") == "holds no pixels"  # what follows the damage cannot be found
    cohort = Cohort.from_source(tmp_path, "training")
    assert [image.image_id for image in cohort.images] == ["more.dcm", "one.dcm"]
