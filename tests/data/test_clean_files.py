# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from monai_memo.data.clean_files import encode, write_clean
from monai_memo.data.cohort import CohortImage
from monai_memo.data.reading import Pixels, read_image
from monai_memo.errors import UnusableImageError

RNG = np.random.default_rng(0)


def image(path: Path) -> CohortImage:
    return CohortImage(path, path.name, path.name)


def same(source: Path, folder: Path, ending: str) -> Path:
    """Writes a file anew and checks that what is read of both is equal."""
    written = write_clean(image(source), folder, "0001")
    assert written.name == f"0001{ending}"
    before, after = read_image(source), read_image(written)
    assert np.array_equal(before.array, after.array)
    assert (before.affine is None) == (after.affine is None)
    if before.affine is not None:
        assert nibabel.aff2axcodes(before.affine) == nibabel.aff2axcodes(after.affine)
        assert np.allclose(nibabel.affines.voxel_sizes(before.affine), nibabel.affines.voxel_sizes(after.affine))
    return written


def test_a_picture_keeps_its_pixels_and_loses_its_words(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "Anna Zorg")
    exif = Image.Exif()
    exif[0x010E] = "Anna Zorg"
    Image.fromarray(RNG.integers(0, 256, (20, 31), dtype=np.uint8)).save(
        tmp_path / "anna.png", pnginfo=text, exif=exif, dpi=(300, 300)
    )
    written = same(tmp_path / "anna.png", tmp_path, ".png")
    assert b"Zorg" not in written.read_bytes()
    assert Image.open(written).info == {}
    assert Image.open(written).size == (31, 20)


def test_colours_and_sixteen_bits_are_kept(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    same(tmp_path / "colour.png", tmp_path / "a", ".png")
    Image.fromarray(RNG.integers(0, 65536, (9, 8), dtype=np.uint16)).save(tmp_path / "deep.png")
    same(tmp_path / "deep.png", tmp_path / "b", ".png")


def test_a_picture_turned_by_its_exif_tag_is_written_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RNG.integers(0, 256, (12, 30), dtype=np.uint8)).save(tmp_path / "turned.png", exif=exif)
    assert Image.open(same(tmp_path / "turned.png", tmp_path / "out", ".png")).size == (12, 30)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_values_that_png_cannot_hold_stay_as_they_are(tmp_path: Path, kind: type) -> None:
    np.save(tmp_path / "x.npy", (RNG.normal(0, 300, (16, 18))).astype(kind))
    same(tmp_path / "x.npy", tmp_path / "out", ".npy")


def test_a_volume_keeps_values_axes_and_spacing_and_has_a_clean_header(tmp_path: Path) -> None:
    affine = np.array([[-1.5, 0, 0, 10], [0, 2, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1.0]])
    volume = nibabel.Nifti1Image(RNG.integers(-1000, 1000, (9, 10, 11)).astype(np.int16), affine)
    volume.header["descrip"], volume.header["db_name"] = b"Anna Zorg", b"Zorg"
    volume.header["intent_name"], volume.header["aux_file"] = b"Zorg", b"Zorg"
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Anna Zorg"))
    nibabel.save(volume, tmp_path / "anna_zorg.nii.gz")
    written = same(tmp_path / "anna_zorg.nii.gz", tmp_path / "out", ".nii.gz")
    content = written.read_bytes()
    assert b"zorg" not in content.lower() and b"Zorg" not in gzip.decompress(content)
    assert content[4:8] == b"\0\0\0\0" and not content[3] & 8  # neither time nor name in the gzip header


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_origin_and_tilt_of_a_volume_are_those_of_no_scan(tmp_path: Path, order: tuple[int, int, int]) -> None:
    """Two files of one shape and spacing, one tilted and far away, come out alike."""
    sizes, signs = np.array([0.7, 1.1, 2.3]), np.array([1, -1, 1])
    plain = np.eye(4)
    plain[:3, :3] = np.eye(3)[:, order] * sizes * signs
    turn = nibabel.eulerangles.euler2mat(0.2, -0.1, 0.3)
    tilted = plain.copy()
    tilted[:3, :3], tilted[:3, 3] = turn @ plain[:3, :3], (-123.456, 78.9, 1001.5)
    volume = RNG.random((5, 6, 7), dtype=np.float32)
    files = []
    for name, affine in (("plain", plain), ("tilted", tilted)):
        nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / f"{name}.nii")
        files.append(same(tmp_path / f"{name}.nii", tmp_path / name, ".nii.gz"))
    first, second = (nibabel.load(path) for path in files)
    assert np.allclose(first.affine, second.affine, atol=1e-6)
    assert np.allclose(second.affine @ [2, 2.5, 3, 1], [0, 0, 0, 1], atol=1e-5), "about its centre"
    assert np.allclose(second.header.get_qform(), second.affine, atol=1e-4)


def test_a_volume_that_does_not_say_how_it_lies_stays_without_a_word(tmp_path: Path) -> None:
    np.save(tmp_path / "volume.npy", RNG.random((9, 10, 11), dtype=np.float32))
    written = same(tmp_path / "volume.npy", tmp_path / "out", ".nii.gz")
    header = nibabel.load(written).header
    assert int(header["sform_code"]) == int(header["qform_code"]) == 0


def test_wide_whole_numbers_of_a_volume_take_a_type_that_holds_them() -> None:
    ending, content = encode(Pixels(np.full((1, 4, 5, 6), 70_000, dtype=np.int64), None), Path("x"))
    assert ending == ".nii.gz"
    loaded = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert loaded.get_data_dtype() == np.int32 and float(np.asarray(loaded.dataobj).max()) == 70_000


def test_a_volume_in_colour_is_refused_with_its_reason() -> None:
    with pytest.raises(UnusableImageError, match="3 values at each voxel"):
        encode(Pixels(np.zeros((3, 4, 5, 6), dtype=np.uint8), None), Path("x"))


def test_equal_images_give_equal_files(tmp_path: Path) -> None:
    pixels = Pixels(RNG.random((1, 6, 6, 6), dtype=np.float32), np.eye(4))
    assert encode(pixels, tmp_path) == encode(pixels, tmp_path)


def test_an_affine_that_gives_no_orientation_makes_an_unusable_image_and_no_crash(tmp_path: Path) -> None:
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    with pytest.raises(UnusableImageError, match="an affine that no clean file can state"):
        encode(Pixels(np.ones((1, 4, 5, 6), dtype=np.float32), flat), tmp_path / "a.nii.gz")
