# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_memo.data.arrays import PICKLED
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import COLOUR_NOTE, Preprocessing, guess_preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.pictures import TRANSPARENCY_NOTE
from monai_memo.data.reading import spatial_dims_of
from monai_memo.data.writing import save_image
from monai_memo.errors import CohortError, ConfigurationError, UnusableImageError

TWO, THREE = Preprocessing(2, (32, 32)), Preprocessing(3, (16, 16, 16))


def marked(rows: int = 40, columns: int = 24) -> np.ndarray:
    """Bright in the upper left corner, so that turned or mirrored pictures are found out."""
    image = np.tile(np.linspace(0.2, 0.5, columns), (rows, 1))
    image[:8, :6] = 1.0
    return image


@pytest.mark.parametrize("ending", ["png", "jpg", "npy", "nii.gz", "nrrd"])
def test_2d_images_of_every_format_come_out_upright(tmp_path: Path, ending: str) -> None:
    path, image = tmp_path / f"x.{ending}", marked()
    if ending in ("png", "jpg"):
        Image.fromarray((image * 255).astype(np.uint8)).save(path, quality=95)
    elif ending == "npy":
        np.save(path, image)
    elif ending == "nii.gz":
        nibabel.save(nibabel.Nifti1Image(image.T[:, :, None].astype(np.float32), np.eye(4)), path)
    else:
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(image, dtype=np.float32)), str(path))
    found = TWO(path)
    assert found.shape == (1, 32, 32) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    assert found[0, :5, :5].mean() > 0.9
    assert max(found[0, -5:, :5].mean(), found[0, :5, -5:].mean(), found[0, -5:, -5:].mean()) < 0.6


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "npy"])
def test_volumes_of_every_format_agree(tmp_path: Path, ending: str) -> None:
    volume = knee_phantom(0, (20, 18, 16))[0]
    path = tmp_path / f"x.{ending}"
    if ending.startswith("nii"):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    elif ending == "npy":
        np.save(path, volume)
    else:
        # ITK stores z, y, x and means LPS by its axes.
        image = itk.image_from_array(np.ascontiguousarray(volume.T))
        image.SetDirection(itk.matrix_from_array(np.diag([-1.0, -1.0, 1.0])))
        itk.imwrite(image, str(path))
    np.save(tmp_path / "reference.npy", volume)
    np.testing.assert_allclose(THREE(path), THREE(tmp_path / "reference.npy"), atol=1e-4)


def test_volumes_are_turned_to_one_orientation(tmp_path: Path) -> None:
    volume = knee_phantom(0, (16, 16, 16))[0]
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "ras.nii")
    turned = np.flip(volume, (0, 1)).transpose(2, 0, 1)
    affine = np.array([[0, -1, 0, 15], [0, 0, -1, 15], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(turned), affine), tmp_path / "other.nii")
    np.testing.assert_allclose(THREE(tmp_path / "ras.nii"), THREE(tmp_path / "other.nii"), atol=1e-5)


def test_spacing_changes_the_field_of_view_only_as_asked(tmp_path: Path) -> None:
    volume = knee_phantom(0, (16, 16, 8))[0]
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 2.0, 1.0])), tmp_path / "thick.nii")
    found = Preprocessing(3, (16, 16, 16), spacing=(1.0, 1.0, 1.0))(tmp_path / "thick.nii")
    assert found.shape == (1, 16, 16, 16)
    assert np.corrcoef(found.ravel(), THREE(tmp_path / "thick.nii").ravel())[0, 1] > 0.95


def test_intensity_is_robust_to_scales_that_differ_by_10000(tmp_path: Path) -> None:
    image = chest_phantom(0)[0].astype(np.float64)
    for name, values in (("a", image), ("b", image * 1e4 + 777.0), ("c", image * 1e-4 - 3.0)):
        np.save(tmp_path / f"{name}.npy", values)
    reference = TWO(tmp_path / "a.npy")
    np.testing.assert_allclose(TWO(tmp_path / "b.npy"), reference, atol=1e-5)
    np.testing.assert_allclose(TWO(tmp_path / "c.npy"), reference, atol=1e-5)


def test_16_bit_png_and_colour(tmp_path: Path) -> None:
    image = chest_phantom(0)[0]
    Image.fromarray((image * 65535).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((np.stack([image] * 3, axis=-1) * 255).astype(np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray((np.stack([image] * 2, axis=-1) * 255).astype(np.uint8), mode="LA").save(tmp_path / "alpha.png")
    np.save(tmp_path / "grey.npy", image)
    reference = TWO(tmp_path / "grey.npy")
    for name, note in (("deep.png", None), ("rgb.png", COLOUR_NOTE), ("alpha.png", TRANSPARENCY_NOTE)):
        found, said = TWO.load(tmp_path / name)
        np.testing.assert_allclose(found, reference, atol=0.01)
        assert said == note
    assert Preprocessing(2, (32, 32), channels=3)(tmp_path / "grey.npy").shape == (3, 32, 32)


def test_palette_and_cmyk_pictures_are_not_inverted(tmp_path: Path) -> None:
    grey = (chest_phantom(0)[0] * 255).astype(np.uint8)
    picture = Image.fromarray(np.stack([grey] * 3, axis=-1))
    picture.save(tmp_path / "grey.png")
    picture.quantize(64).save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    reference = TWO(tmp_path / "grey.png").ravel()
    for name in ("palette.png", "cmyk.jpg"):
        assert np.corrcoef(TWO(tmp_path / name).ravel(), reference)[0, 1] > 0.98


def test_a_volume_of_three_slices_is_no_colour_picture(tmp_path: Path) -> None:
    volume = knee_phantom(0, (20, 18, 3))[0]
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "x.nii.gz")
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(volume.T)), str(tmp_path / "x.mha"))
    for name in ("x.nii.gz", "x.mha"):
        assert spatial_dims_of(tmp_path / name) == 3
        found, note = THREE.load(tmp_path / name)
        assert found.shape == (1, 16, 16, 16) and note is None


def test_colour_nifti_becomes_luminance(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (40, 24, 3), dtype=np.uint8)
    colours = values.view(np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])).reshape(40, 24)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(colours.T)[:, :, None], np.eye(4)), tmp_path / "x.nii")
    np.save(tmp_path / "x.npy", values)
    found, note = TWO.load(tmp_path / "x.nii")
    np.testing.assert_allclose(found, TWO(tmp_path / "x.npy"), atol=1e-6)
    assert note == COLOUR_NOTE


def test_every_flipped_bit_in_a_compressed_volume_is_found(tmp_path: Path) -> None:
    path = save_image(tmp_path / "x.nii.gz", knee_phantom(0, (16, 16, 16)))
    whole, intact = path.read_bytes(), THREE(path)
    # The last byte before the checksum ends in padding: flipped there, the file still holds the same image.
    for position in np.linspace(20, len(whole) - 20, 25).astype(int):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        path.write_bytes(bytes(changed))
        with pytest.raises(UnusableImageError, match=r"damaged|truncated"):
            THREE(path)
    path.write_bytes(whole)
    np.testing.assert_array_equal(THREE(path), intact)


def broken(tmp_path: Path, kind: str) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / ("x.nii.gz" if kind == "nifti" else "x.png" if kind == "truncated" else "x.npy")
    if kind == "truncated":
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-1500])
    elif kind == "nifti":
        nibabel.save(nibabel.Nifti1Image(rng.random((8, 8, 8)).astype(np.float32), np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:600])
    elif kind == "object":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        values = {
            "nan": rng.random((16, 16)),
            "constant": np.ones((16, 16)),
            "3D": rng.random((16, 16, 16)),
            "empty": np.zeros((0, 16)),
            "text": np.array([["a", "b"], ["c", "d"]]),
            "complex": rng.random((16, 16)) + 1j,
            "wide": np.tile([-1.7e308, 1.7e308], (16, 8)),
        }[kind]
        if kind == "nan":
            values[3, 4] = np.nan
        np.save(path, values)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("truncated", "truncated: the file ends before its image does"),
        ("nifti", "truncated: the file ends before its image does"),
        ("object", PICKLED),
        ("nan", "contains NaN or infinity"),
        ("constant", "constant"),
        ("3D", "a 3D image in a 2D audit"),
        ("empty", "empty"),
        ("text", "holds str32 values instead of real numbers"),
        ("complex", "holds complex128 values instead of real numbers"),
        ("wide", "has a range of intensity too wide for its numbers"),
    ],
)
def test_unusable_images_are_named_with_a_reason(tmp_path: Path, kind: str, reason: str) -> None:
    with pytest.raises(UnusableImageError) as error:
        TWO(broken(tmp_path, kind))
    assert error.value.reason == reason
    with pytest.raises(UnusableImageError, match="missing"):
        TWO(tmp_path / "nothing.png")


def test_a_volume_with_a_singular_affine_is_named(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(knee_phantom(0, (16, 16, 16))[0], np.eye(4))
    raw = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(raw[:348]))
    header["sform_code"], header["srow_x"], header["srow_y"], header["srow_z"] = 1, 0, 0, 0
    (tmp_path / "x.nii").write_bytes(header.binaryblock + bytes(raw[348:]))
    with pytest.raises(UnusableImageError, match="affine"):
        THREE(tmp_path / "x.nii")


def test_guessing_dimensions(tmp_path: Path) -> None:
    save_image(tmp_path / "flat" / "a.png", chest_phantom(0))
    save_image(tmp_path / "deep" / "b.nii.gz", knee_phantom(0, (8, 8, 8)))
    flat, deep = (Cohort.from_source(tmp_path / name, name) for name in ("flat", "deep"))
    assert guess_preprocessing([flat]).size == (64, 64)
    assert guess_preprocessing([deep], size=16).size == (16, 16, 16)
    with pytest.raises(CohortError, match=r"2D and 3D images are mixed \(flat: 1 in 2D; deep: 1 in 3D"):
        guess_preprocessing([flat, deep])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.npy").write_bytes(b"nothing")
    with pytest.raises(CohortError, match="can be read"):
        guess_preprocessing([Cohort.from_source(tmp_path / "bad", "bad")])


def test_settings_are_checked_and_survive_json() -> None:
    for bad in (
        {"size": (32,)},
        {"size": (4, 4)},
        {"channels": 2},
        {"spacing": (1.0, 1.0, 1.0)},
        {"percentiles": (9, 1)},
    ):
        with pytest.raises(ConfigurationError):
            Preprocessing(**{"spatial_dims": 2, "size": (32, 32), **bad})  # type: ignore[arg-type]
    settings = Preprocessing(3, (16, 16, 16), spacing=(1.0, 1.0, 2.0))
    assert Preprocessing.from_dict(settings.to_dict()) == settings
    assert "1 x 1 x 2 mm" in settings.describe() and "16 x 16 x 16 voxels" in settings.describe()


def test_written_images_read_back_and_are_the_same_bytes_twice(tmp_path: Path) -> None:
    image, volume = chest_phantom(3, (32, 32)), knee_phantom(3, (16, 16, 16))
    for name, array in (("a.png", image), ("a.npy", image), ("b.nii.gz", volume), ("b.nii", volume)):
        first = save_image(tmp_path / name, array).read_bytes()
        assert save_image(tmp_path / name, array).read_bytes() == first
    low, high = np.percentile(image, (0.5, 99.5))
    np.testing.assert_allclose(TWO(tmp_path / "a.png")[0], ((image[0] - low) / (high - low)).clip(0, 1), atol=0.01)
    with pytest.raises(ConfigurationError, match=r"written as \.png"):
        save_image(tmp_path / "a.gif", image)
    colour = np.stack([image[0], 0 * image[0], image[0]])
    assert np.asarray(Image.open(save_image(tmp_path / "c.png", colour)))[..., 1].max() == 0
    for name, bad in (
        ("d.png", volume),
        ("d.png", image[[0, 0]]),
        ("d.nii", volume[[0, 0]]),
        ("d.npy", image * np.nan),
    ):
        with pytest.raises(ConfigurationError, match=r"d\.(png|nii|npy)"):
            save_image(tmp_path / name, bad)
    assert not list(tmp_path.glob("d.*"))
