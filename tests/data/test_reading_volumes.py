# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Volumes lie as their files say, and several values at a voxel are never taken for colours or slices."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from monai_memo.data.cohort import Cohort, CohortImage, Reading
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.nifti import CONFLICT_NOTE, LEADING_NOTE, LIES_NOWHERE, QFORM_NOTE
from monai_memo.data.prepared import prepare
from monai_memo.data.reading import read_header, read_image
from monai_memo.data.stored import CHANNEL_NOTE, PRESUMED_COLOUR_NOTE, UNKNOWN_NOTE
from monai_memo.errors import CohortError, UnusableImageError

SHAPE = (12, 14, 16)
THREE = Preprocessing(3, SHAPE)
SAGITTAL = np.array([[0, 0, 1, 0], [-1, 0, 0, 31], [0, -1, 0, 31], [0, 0, 0, 1]], dtype=float)


def volume(seed: int = 0) -> NDArray[np.float32]:
    """(x, y, z) in RAS, with no symmetry."""
    found = np.random.default_rng(seed).random(SHAPE, dtype=np.float32)
    found[:3, :4, :5] += 2
    return found


def image_of(path: Path, channel: int | None = None) -> CohortImage:
    return CohortImage(path, path.name, path.name, reading=Reading(channel=channel))


def reason_of(path: Path, channel: int | None = None) -> str:
    with pytest.raises(UnusableImageError) as error:
        read_image(image_of(path, channel))
    with pytest.raises(UnusableImageError) as earlier:
        read_header(image_of(path, channel))
    assert earlier.value.reason == error.value.reason, "the header's check is the reader's check"
    return error.value.reason


def save(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None, **codes: int) -> Path:
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    raw = bytearray(image.to_bytes())
    for name, code in codes.items():
        start = image.header.template_dtype.fields[name][1]
        raw[start : start + 2] = code.to_bytes(2, "little")
    path.write_bytes(raw)
    return path


def reoriented(array: NDArray[Any], codes: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same volume stored along other axes, with the affine that says so."""
    orientations: Any = nibabel.orientations
    steps = orientations.ornt_transform(*(orientations.axcodes2ornt(tuple(axes)) for axes in ("RAS", codes)))
    image = nibabel.Nifti1Image(array, np.eye(4)).as_reoriented(steps)
    return np.ascontiguousarray(image.dataobj), image.affine


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "img", "mgz", "nrrd", "mha", "mhd"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
def test_every_format_and_orientation_gives_the_same_volume(tmp_path: Path, ending: str, codes: str) -> None:
    truth = volume()
    stored, affine = reoriented(truth, codes)
    affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    path = tmp_path / f"x.{ending}"
    if ending in ("nrrd", "mha", "mhd"):
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        image = itk.image_from_array(np.ascontiguousarray(stored.T))
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / 2)))
        image.SetSpacing([2.0] * 3)
        itk.imwrite(image, str(path), compression=ending == "nrrd")
    elif ending == "mgz":
        nibabel.save(nibabel.MGHImage(stored, affine), path)
    else:
        nibabel.save((nibabel.Nifti1Pair if ending == "img" else nibabel.Nifti1Image)(stored, affine), path)
    header = read_header(path)
    assert header.orientation == codes and header.shape == stored.shape
    assert header.spacing == pytest.approx((2, 2, 2)) and header.dtype == "float32"
    np.testing.assert_allclose(read_image(path).array[0], stored, atol=1e-6)
    low, high = np.percentile(truth, (0.5, 99.5))
    found, note = THREE.load(path)
    np.testing.assert_allclose(found[0], ((truth - low) / (high - low)).clip(0, 1), atol=1e-4)
    assert note is None


def test_without_codes_the_volume_is_left_as_stored_and_counted(tmp_path: Path) -> None:
    stored = volume()
    for number in range(3):
        codes = {"sform_code": 0, "qform_code": 0} if number < 2 else {}
        save(tmp_path / f"{number}.nii", stored, **codes)
    header = read_header(tmp_path / "0.nii")
    assert header.orientation is None and header.spacing == (1, 1, 1)
    assert read_image(tmp_path / "0.nii").affine is None
    np.testing.assert_allclose(THREE(tmp_path / "0.nii"), THREE(tmp_path / "2.nii"))
    found = prepare(Cohort.from_source(tmp_path, "training"), THREE, tmp_path / "work", progress=False)
    assert found.notes == (f"2 images {UNKNOWN_NOTE}",)


def test_voxel_sizes_count_also_where_the_orientation_is_not_known(tmp_path: Path) -> None:
    stored, affine = volume(), np.diag([1.0, 1.0, 2.0, 1.0])
    save(tmp_path / "known.nii", stored, affine)
    save(tmp_path / "unknown.nii", stored, affine, sform_code=0, qform_code=0)
    settings = Preprocessing(3, (12, 14, 32), spacing=(1.0, 1.0, 1.0))
    np.testing.assert_allclose(settings(tmp_path / "unknown.nii"), settings(tmp_path / "known.nii"), atol=1e-5)


def with_forms(path: Path, sform: NDArray[Any] | None, qform: NDArray[Any] | None) -> Path:
    """Zeros in the sform rows where it is a matrix of zeros, which nibabel does not write."""
    image = nibabel.Nifti1Image(volume(), None)
    image.set_qform(qform, 1 if qform is not None else 0)
    header = image.header
    header["sform_code"], header["vox_offset"] = 0 if sform is None else 1, 352
    if sform is not None:
        header["srow_x"], header["srow_y"], header["srow_z"] = sform[:3]
    path.write_bytes(header.binaryblock + b"\0" * 4 + np.asarray(volume()).tobytes(order="F"))
    return path


def test_an_empty_sform_gives_way_to_a_good_qform(tmp_path: Path) -> None:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    for name, empty in (("zeros.nii", np.zeros((4, 4))), ("nan.nii", np.full((4, 4), np.nan))):
        path = with_forms(tmp_path / name, empty, lps)
        assert read_header(path).orientation == "LPS" and read_image(path).notes == (QFORM_NOTE,)
        np.testing.assert_allclose(read_image(path).array[0], volume())
        assert reason_of(with_forms(tmp_path / name, empty, None)) == LIES_NOWHERE


def test_the_sform_goes_before_a_qform_that_says_otherwise(tmp_path: Path) -> None:
    path = with_forms(tmp_path / "x.nii", np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert read_header(path).orientation == "RAS" and read_image(path).notes == (CONFLICT_NOTE,)
    oblique = np.eye(4)
    oblique[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    path = with_forms(tmp_path / "y.nii", np.eye(4), oblique)
    assert read_header(path).orientation == "RAS" and read_image(path).notes == ()
    assert read_header(with_forms(tmp_path / "z.nii", None, oblique)).orientation == "RAS"


def test_analyze_and_mgh_without_a_word_on_orientation_are_left_as_stored(tmp_path: Path) -> None:
    nibabel.save(nibabel.Spm2AnalyzeImage(volume(), np.diag([-1.0, 1, 1, 1])), tmp_path / "x.img")
    (tmp_path / "x.mat").unlink()
    raw = bytearray(nibabel.MGHImage(volume(), np.eye(4)).to_bytes())
    raw[28:30] = bytes(2)  # goodRASFlag
    (tmp_path / "y.mgh").write_bytes(raw)
    for name, kind in (("x.img", "Analyze"), ("x.hdr", "Analyze"), ("y.mgh", "MGH")):
        found = read_image(tmp_path / name)
        np.testing.assert_allclose(found.array[0], volume(), atol=1e-6)
        assert found.affine is None and found.notes == (UNKNOWN_NOTE,)
        assert read_header(tmp_path / name).format == kind
    (tmp_path / "x.hdr").unlink()
    assert reason_of(tmp_path / "x.img") == "its .hdr file is missing"


@pytest.mark.parametrize("dtype", [">i2", "uint16", "int64", "float64", "uint8"])
def test_numbers_of_every_kind_and_scaled_ones_keep_their_values(tmp_path: Path, dtype: str) -> None:
    values = (volume() * 60).astype(dtype)
    header = nibabel.Nifti1Header(endianness=">" if dtype == ">i2" else "<")
    header.set_data_dtype(dtype)
    image = nibabel.Nifti1Image(values, np.eye(4), header)
    nibabel.Nifti1Image.to_filename(image, tmp_path / "x.nii")
    np.testing.assert_allclose(read_image(tmp_path / "x.nii").array[0], values)
    if dtype == "uint8":
        raw = bytearray((tmp_path / "x.nii").read_bytes())
        raw[112:120] = np.array([2.0, -1024.0], "<f4").tobytes()
        (tmp_path / "x.nii").write_bytes(raw)
        np.testing.assert_allclose(read_image(tmp_path / "x.nii").array[0], values * 2.0 - 1024)


def test_compressed_or_not_whatever_the_name_says(tmp_path: Path) -> None:
    raw = nibabel.Nifti1Image(volume(), np.eye(4)).to_bytes()
    (tmp_path / "packed.nii").write_bytes(gzip.compress(raw))
    (tmp_path / "plain.nii.gz").write_bytes(raw)
    (tmp_path / "named.png").write_bytes(raw)
    nibabel.save(nibabel.Nifti2Image(volume(), np.eye(4)), tmp_path / "two.nii")
    for name in ("packed.nii", "plain.nii.gz", "named.png", "two.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], volume())
        assert read_header(tmp_path / name).shape == SHAPE


def test_what_cannot_be_read_under_its_name_says_what_it_holds(tmp_path: Path) -> None:
    packed = gzip.compress(nibabel.Nifti1Image(volume(), np.eye(4)).to_bytes())
    (tmp_path / "twice.nii.gz").write_bytes(gzip.compress(packed))
    assert reason_of(tmp_path / "twice.nii.gz") == "is compressed with gzip twice: unpack it once"
    path = nrrd(tmp_path / "x.nii", bytes_of((5, 6, 7)), "space dimension: 3")
    assert reason_of(path) == "holds NRRD under another name: give it the ending .nrrd or .nhdr"
    path = meta(tmp_path / "x.nrrd", bytes_of((5, 6, 7)))
    assert reason_of(path) == "holds MetaImage under another name: give it the ending .mha or .mhd"


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.nrrd", "x.mha", "x.npy", "x.npz", "vector.nii"])
def test_several_values_at_a_voxel_are_refused_or_one_is_taken_by_name(tmp_path: Path, name: str) -> None:
    """Four MR sequences in one file were read as red, green and blue, the fourth was dropped."""
    parts = [volume(seed) for seed in range(4)]
    path, several = tmp_path / name, np.stack(parts, axis=-1)
    if name == "vector.nii":
        save(path, several[:, :, :, None], intent_code=1007)
    elif ".nii" in name:
        nibabel.save(nibabel.Nifti1Image(several, np.eye(4)), path)
    elif name == "x.npy":
        np.save(path, several)
    elif name == "x.npz":
        np.savez_compressed(path, np.stack(parts))
    else:
        itk.imwrite(itk.image_from_array(several.transpose(2, 1, 0, 3).copy(), is_vector=True), str(path))
    remedy = "name one with --channel 0 to 3, or save one volume a file"
    assert reason_of(path) == f"has 4 values at each voxel (4D): {remedy}"
    for channel in (0, 3):
        found = read_image(image_of(path, channel))
        np.testing.assert_allclose(found.array, parts[channel][None])
        assert CHANNEL_NOTE in found.notes
        assert read_header(image_of(path, channel)).shape == SHAPE
    assert reason_of(path, 4) == "has channels 0 to 3, and no channel 4"


def test_the_channel_is_asked_of_files_that_have_several_only(tmp_path: Path) -> None:
    """Real files of four sequences against synthetic ones of one."""
    several = np.stack([volume(seed) for seed in range(4)], axis=-1)
    for name, array in (("real", several), ("synthetic", several[..., 2])):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.nii", array)
    cohorts = [Cohort.from_source(tmp_path / name, name, reading=Reading(channel=2)) for name in ("real", "synthetic")]
    settings = guess_preprocessing(cohorts, size=16)
    np.testing.assert_array_equal(*(settings(cohort.images[0]) for cohort in cohorts))
    with pytest.raises(
        CohortError, match=r"a\.nii \(real\): has 4 values at each voxel \(4D\): name one with --channel"
    ):
        guess_preprocessing([Cohort.from_source(tmp_path / "real", "real")])


@pytest.mark.parametrize("name", ["x.nii", "x.npy", "x.npz"])
@pytest.mark.parametrize(
    "shape", [(1, 12, 14, 16), (12, 14, 16, 1), (1, 1, 12, 14, 16), (12, 14, 16, 1, 1), (1, 12, 14, 16, 1)]
)
def test_axes_of_length_one_are_dropped_wherever_they_are(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path, array = tmp_path / name, volume().reshape(shape)
    if name == "x.nii":
        save(path, array)
    else:
        (np.save if name == "x.npy" else np.savez)(path, array)
    assert read_header(path).shape == SHAPE
    found = read_image(path)
    np.testing.assert_array_equal(found.array[0], volume())
    assert (LEADING_NOTE in found.notes) == (name == "x.nii" and shape[0] == 1)


@pytest.mark.parametrize("shape", [(14, 12), (1, 1, 14, 12), (14, 12, 1), (1, 14, 12), (1, 14, 12, 1)])
def test_2d_arrays_with_axes_of_length_one_are_2d(tmp_path: Path, shape: tuple[int, ...]) -> None:
    picture = volume()[0, :, :12]
    np.save(tmp_path / "x.npy", picture.reshape(shape))
    save(tmp_path / "x.nii", picture.reshape(shape))
    assert read_header(tmp_path / "x.npy").shape == (14, 12) and read_header(tmp_path / "x.nii").shape == (12, 14)
    np.testing.assert_array_equal(read_image(tmp_path / "x.npy").array[0], picture)
    np.testing.assert_array_equal(read_image(tmp_path / "x.nii").array[0], picture.T)


def test_2d_images_with_several_values_are_no_volumes_of_few_slices(tmp_path: Path) -> None:
    several = volume()[:, :, :3]
    save(tmp_path / "x.nii", several[:, :, None])
    assert reason_of(tmp_path / "x.nii").startswith("has 3 values at each pixel (3D): name one with --channel 0 to 2")
    found = read_image(image_of(tmp_path / "x.nii", 1)).array
    np.testing.assert_array_equal(found[0], several[:, :, 1].T)
    save(tmp_path / "slices.nii", several)
    assert read_image(tmp_path / "slices.nii").array.shape == (1, 12, 14, 3)


def test_shapes_that_do_not_tell_are_refused_with_the_shape(tmp_path: Path) -> None:
    save(tmp_path / "x.nii", np.moveaxis(np.stack([volume(seed) for seed in range(4)], axis=-1), -1, 0))
    for channel in (None, 1):
        assert "has the shape 4 x 12 x 14 x 16 and does not tell" in reason_of(tmp_path / "x.nii", channel)
    np.save(tmp_path / "y.npy", np.zeros((12, 5, 14, 16)))
    assert "has 4 dimensions (12 x 5 x 14 x 16) and does not tell" in reason_of(tmp_path / "y.npy", 0)
    np.save(tmp_path / "z.npy", volume()[:, :, :3])
    assert "which may mean 3 slices or 3 values at each pixel" in reason_of(tmp_path / "z.npy")
    np.testing.assert_array_equal(read_image(image_of(tmp_path / "z.npy", 2)).array[0], volume()[:, :, 2])
    save(tmp_path / "t.nii", np.zeros((6, 6, 6, 2, 3), np.float32))
    assert reason_of(tmp_path / "t.nii", 0) == "has 2 x 3 values at each voxel: save one volume a file"


def test_bytes_of_three_or_four_are_colours_in_npy_and_the_report_says_so(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (12, 14, 3), dtype=np.uint8)
    np.save(tmp_path / "last.npy", colours)
    np.save(tmp_path / "first.npy", np.moveaxis(colours, -1, 0))
    for name in ("last.npy", "first.npy"):
        found = read_image(tmp_path / name)
        np.testing.assert_array_equal(found.array, np.moveaxis(colours, -1, 0))
        assert found.notes == (PRESUMED_COLOUR_NOTE,) and read_header(tmp_path / name).colour


@pytest.mark.parametrize("intent", [2003, 2004])
def test_colour_nifti_by_its_intent(tmp_path: Path, intent: int) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (12, 14, 1, 1, intent - 2000), dtype=np.uint8)
    path = save(tmp_path / "x.nii", colours, intent_code=intent)
    assert read_header(path).colour and read_header(path).shape == (14, 12)
    np.testing.assert_array_equal(read_image(path).array, np.moveaxis(colours[:, :, 0, 0], -1, 0).swapaxes(1, 2))


def nrrd(path: Path, array: NDArray[np.uint8], *fields: str) -> Path:
    sizes = " ".join(map(str, array.shape))
    lines = ["NRRD0004", "type: uchar", f"dimension: {array.ndim}", f"sizes: {sizes}", "encoding: raw", *fields]
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + array.tobytes(order="F"))
    return path


def bytes_of(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["RGB-color", "3-color", "RGBA-color"])
def test_nrrd_has_colours_where_its_kinds_say_so(tmp_path: Path, kind: str) -> None:
    colours = bytes_of((4 if "A" in kind else 3, 12, 14))
    path = nrrd(tmp_path / "x.nrrd", colours, f"kinds: {kind} domain domain")
    assert read_header(path).colour and read_header(path).shape == (14, 12)
    np.testing.assert_array_equal(read_image(path).array, colours.swapaxes(1, 2))


@pytest.mark.parametrize("kind", ["vector", "list", "3-vector"])
@pytest.mark.parametrize("last", [False, True])
def test_other_components_of_nrrd_are_no_colours(tmp_path: Path, kind: str, last: bool) -> None:
    values, lies = bytes_of((3, 5, 6, 7)), ["(-1,0,0)", "(0,-1,0)", "(0,0,1)"]
    kinds, directions = ["domain"] * 3, list(lies)
    kinds.insert(3 if last else 0, kind)
    directions.insert(3 if last else 0, "none")
    fields = (
        f"kinds: {' '.join(kinds)}",
        "space: right-anterior-superior",
        f"space directions: {' '.join(directions)}",
    )
    path = nrrd(tmp_path / "x.nrrd", np.moveaxis(values, 0, -1) if last else values, *fields)
    assert "has 3 values at each voxel (4D)" in reason_of(path)
    found = read_image(image_of(path, 1))
    np.testing.assert_array_equal(found.array, values[1:2])
    assert read_header(image_of(path, 1)).orientation == "LPS"


def test_complex_nrrd_is_refused(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "x.nrrd", bytes_of((2, 5, 6, 7)), "kinds: complex domain domain domain")
    assert reason_of(path) == "holds complex values instead of real numbers: save their magnitude"


@pytest.mark.parametrize(
    ("space", "codes"),
    [
        ("right-anterior-superior", "RAS"), ("RAS", "RAS"), ("left-posterior-superior", "LPS"), ("LAS", "LAS"),
        ("scanner-xyz", None), ("3D-right-handed", None), (None, None),
    ],
)  # fmt: skip
def test_only_anatomical_spaces_of_nrrd_say_how_a_volume_lies(
    tmp_path: Path, space: str | None, codes: str | None
) -> None:
    values = bytes_of((5, 6, 7))
    said = f"space: {space}" if space else "space dimension: 3"
    path = nrrd(tmp_path / "x.nrrd", values, said, "space directions: (1,0,0) (0,2,0) (0,0,3)")
    assert read_header(path).orientation == codes and read_header(path).spacing == (1, 2, 3)
    found = read_image(path)
    np.testing.assert_array_equal(found.array[0], values)
    assert found.notes == (() if codes else (UNKNOWN_NOTE,))


def test_a_space_that_nrrd_does_not_have_is_named(tmp_path: Path) -> None:
    said = "space: right-posterior-superior"
    path = nrrd(tmp_path / "x.nrrd", bytes_of((5, 6, 7)), said, "space directions: (1,0,0) (0,2,0) (0,0,3)")
    assert reason_of(path).startswith("damaged: it names a space that NRRD does not have")


def meta(path: Path, array: NDArray[Any], *fields: str, channels: int = 1, kind: str = "MET_UCHAR") -> Path:
    shape = array.shape[channels > 1 :]
    lines = ["ObjectType = Image", f"NDims = {len(shape)}", *fields, f"DimSize = {' '.join(map(str, shape))}"]
    lines += [f"ElementNumberOfChannels = {channels}"] if channels > 1 else []
    path.write_bytes(
        ("\n".join([*lines, f"ElementType = {kind}", "ElementDataFile = LOCAL"]) + "\n").encode()
        + array.tobytes(order="F")
    )
    return path


def test_meta_images_lie_as_their_matrix_says_and_not_as_a_word_that_programs_read_in_two_ways(tmp_path: Path) -> None:
    values = bytes_of((5, 6, 7))
    path = meta(tmp_path / "x.mha", values, "TransformMatrix = 1 0 0 0 -1 0 0 0 1", "AnatomicalOrientation = RAI")
    assert read_header(path).orientation == "LAS"
    for fields in ((), ("AnatomicalOrientation = LPI",)):
        path = meta(tmp_path / "y.mha", values, *fields)
        assert read_header(path).orientation is None and read_image(path).notes == (UNKNOWN_NOTE,)
        np.testing.assert_array_equal(read_image(path).array[0], values)


def test_meta_images_have_colours_only_as_pictures_of_bytes(tmp_path: Path) -> None:
    picture = bytes_of((3, 12, 14))
    path = meta(tmp_path / "x.mha", picture, channels=3)
    np.testing.assert_array_equal(read_image(path).array, picture.swapaxes(1, 2))
    assert read_image(path).notes == (PRESUMED_COLOUR_NOTE,)
    path = meta(tmp_path / "y.mha", bytes_of((3, 5, 6, 7)), channels=3)
    assert "has 3 values at each voxel (4D)" in reason_of(path)
    path = meta(tmp_path / "z.mha", picture.astype(np.int16), channels=3, kind="MET_SHORT")
    assert "has 3 values at each pixel (3D)" in reason_of(path)


@pytest.mark.parametrize("kind", ["MET_CHAR", "MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"])
def test_types_that_itk_has_no_images_of_are_read(tmp_path: Path, kind: str) -> None:
    dtype = {"MET_CHAR": "i1", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_DOUBLE": "f8"}[kind]
    values = (volume() * 40 - (30 if dtype[0] != "u" else 0)).astype(dtype)
    np.testing.assert_array_equal(read_image(meta(tmp_path / "x.mha", values, kind=kind)).array[0], values)


def test_flipped_bits_in_compressed_nrrd_and_meta_images_are_found(tmp_path: Path) -> None:
    packed = zlib.compress(volume().tobytes(order="F"))
    head = "ObjectType = Image\nNDims = 3\nCompressedData = True\nDimSize = 12 14 16\nElementType = MET_FLOAT\n"
    raw = f"{head}CompressedDataSize = {len(packed)}\nElementDataFile = LOCAL\n".encode() + packed
    (tmp_path / "x.mha").write_bytes(raw)
    np.testing.assert_array_equal(read_image(tmp_path / "x.mha").array[0], volume())
    itk.imwrite(itk.image_from_array(volume()), str(tmp_path / "x.nrrd"), compression=True)
    for name in ("x.mha", "x.nrrd"):
        whole = (tmp_path / name).read_bytes()
        for position in (len(whole) // 2, len(whole) - 6):
            changed = bytearray(whole)
            changed[position] ^= 0x10
            (tmp_path / name).write_bytes(bytes(changed))
            with pytest.raises(UnusableImageError, match=r"damaged|truncated"):
                read_image(tmp_path / name)
