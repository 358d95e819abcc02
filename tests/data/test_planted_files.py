# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Planted copies come back from files as they were, and do not where reading is at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pytest
from PIL import Image

import monai_memo.data.loading as loading
from monai_memo.data.cohort import Cohort, Reading
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantom_skin import skin_phantom
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planted_files import ReadBack, through_files
from monai_memo.data.reading import Pixels

COPIES = np.stack([Preprocessing(2, (32, 32)).from_array(chest_phantom(i, (32, 32))) for i in range(3)])
VOLUMES = np.stack([Preprocessing(3, (12, 12, 12)).from_array(knee_phantom(i, (12, 12, 12))) for i in range(2)])
SAGITTAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 31], [0, -1, 0, 31], [0, 0, 0, 1]])
EXAMPLE = np.round(255 * chest_phantom(9, (64, 96))[0]).astype(np.uint8)
VOLUME = np.round(800 * knee_phantom(9, (24, 12, 36))[0] - 300).astype(np.int16)


def picture(mode: str, **further: Any) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        values: Any = EXAMPLE if mode in ("L", "RGB", "RGBA", "P", "CMYK") else EXAMPLE.astype(np.uint16) * 200
        image = Image.fromarray(values)
        (image.convert(mode) if mode != "I;16" else image).save(path, **further)

    return save


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(EXAMPLE).save(path, exif=exif, quality=95)


def nifti(affine: np.ndarray | None, dtype: type = np.int16) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        image = nibabel.Nifti1Image(VOLUME.astype(dtype), affine)  # type: ignore[attr-defined,no-untyped-call]
        if affine is None:
            image.header.set_sform(None, 0)
            image.header.set_qform(None, 0)
        nibabel.save(image, path)  # type: ignore[attr-defined]

    return save


def itk_file(path: Path) -> None:
    image = itk.image_from_array(np.ascontiguousarray(VOLUME))
    image.SetDirection(itk.matrix_from_array(np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])))
    itk.imwrite(image, str(path))


def read_back(folder: Path, name: str, save: Callable[[Path], Any], lies: str | None = None) -> ReadBack:
    (folder / "synthetic").mkdir(exist_ok=True)
    save(folder / "synthetic" / name)
    cohort = Cohort.from_source(folder / "synthetic", "synthetic", reading=Reading(orientation=lies))
    pictures = cohort.images[0].path.suffix in (".png", ".jpg", ".tif") or name.startswith("flat")
    preprocessing = Preprocessing(2, (32, 32)) if pictures else Preprocessing(3, (12, 12, 12))
    return through_files(COPIES if pictures else VOLUMES, cohort, preprocessing, folder / "planted")


KINDS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("a.png", picture("L"), "files (PNG, 8 bit)"),
    ("b.png", picture("I;16"), "files (PNG, 16 bit)"),
    ("c.png", picture("RGB"), "files (PNG, 8 bit, RGB)"),
    ("d.png", picture("P"), "files (PNG, 8 bit, P)"),
    ("e.tif", picture("L"), "files (TIFF, 8 bit)"),
    ("f.jpg", picture("L", quality=95), "files (JPEG, 8 bit)"),
    ("g.jpg", rotated, "files (JPEG, 8 bit)"),
    ("flat.npy", lambda path: np.save(path, EXAMPLE / 255), "files (npy, float64)"),
    ("h.npy", lambda path: np.save(path, VOLUME), "files (npy, int16)"),
    ("i.npz", lambda path: np.savez(path, image=VOLUME.astype(np.float32)), "files (npz, float32)"),
    ("j.nii.gz", nifti(np.eye(4)), "files (NIfTI, int16)"),
    ("k.nii", nifti(SAGITTAL, np.float32), "files (NIfTI, float32)"),
    ("l.nii", nifti(np.diag([-1.0, -1, 1, 1])), "files (NIfTI, int16)"),
    ("m.nii", nifti(None), "files (NIfTI, int16)"),
    ("n.nrrd", itk_file, "files (NRRD, int16)"),
    ("o.mha", itk_file, "files (MetaImage, int16)"),
]


@pytest.mark.parametrize(("name", "save", "described"), KINDS, ids=[name for name, *_ in KINDS])
@pytest.mark.parametrize("turn", [False, True], ids=["as it is", "with an orientation"])
def test_copies_come_back_from_every_kind_of_file(
    name: str, save: Callable[[Path], Any], described: str, turn: bool, tmp_path: Path
) -> None:
    flat = name.startswith("flat") or Path(name).suffix in (".png", ".jpg", ".tif")
    found = read_back(tmp_path, name, save, None if not turn else "rotate_90" if flat else "PIR")
    assert (found.description, found.unreadable) == (described, ())
    expected = COPIES if flat else VOLUMES
    for one, other in zip(found.pixels, expected, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("b.png", "RGBA"), ("c.jpg", "RGB")])
@pytest.mark.parametrize("lies", [None, "rotate_90"])
def test_copies_in_colour_come_back_from_pictures(name: str, mode: str, lies: str | None, tmp_path: Path) -> None:
    coloured = Preprocessing(2, (32, 32), 3)
    copies = np.stack([coloured.from_array(skin_phantom(i, (32, 32))) for i in range(3)])
    picture(mode)(tmp_path / name)
    cohort = Cohort.from_source(tmp_path, "synthetic", reading=Reading(orientation=lies))
    found = through_files(copies, cohort, coloured, tmp_path / "planted")
    assert found.description.startswith("files") and found.unreadable == ()
    for one, other in zip(found.pixels, copies, strict=True):
        for channel in range(3):
            assert np.corrcoef(one[channel].ravel(), other[channel].ravel())[0, 1] > 0.95
        assert np.ptp(one, axis=0).mean() > 0.8 * np.ptp(other, axis=0).mean()  # still in colour


def test_copies_in_colour_stay_arrays_beside_grey_pictures(tmp_path: Path) -> None:
    copies = np.stack([skin_phantom(i, (32, 32)) for i in range(2)])
    picture("L")(tmp_path / "a.png")
    cohort = Cohort.from_source(tmp_path, "synthetic")
    found = through_files(copies, cohort, Preprocessing(2, (32, 32), 3), tmp_path / "planted")
    assert found.description == "arrays"
    np.testing.assert_array_equal(found.pixels, copies)


def wrongly(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Pixels]:
    read = loading.read_image

    def sabotaged(image: Any) -> Pixels:
        pixels = read(image)
        return pixels._replace(array=change(pixels.array))

    return sabotaged


@pytest.mark.parametrize(
    "change",
    [lambda array: array.swapaxes(1, 2), lambda array: array[:, ::-1], lambda array: array.max() - array],
    ids=["transposed", "upside down", "negative"],
)
@pytest.mark.parametrize("name", ["a.png", "k.nii"])
def test_copies_do_not_come_back_where_reading_is_at_fault(
    name: str, change: Callable[[np.ndarray], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "read_image", wrongly(change))
    found = read_back(tmp_path, name, {kind[0]: kind[1] for kind in KINDS}[name])
    expected = COPIES if name == "a.png" else VOLUMES
    correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(found.pixels, expected, strict=True)]
    assert max(correlations) < 0.9


def test_files_that_cannot_be_read_back_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "read_image", wrongly(lambda array: np.full(array.shape, 3.0)))
    found = read_back(tmp_path, "a.png", picture("L"))
    assert not found.readable.any()
    assert found.unreadable[0] == "planted_0000.png (constant)" and len(found.unreadable) == 3


def test_what_is_not_written_here_stays_an_array_and_mixed_cohorts_are_counted(tmp_path: Path) -> None:
    (tmp_path / "synthetic").mkdir()
    Image.fromarray(EXAMPLE > 100).save(tmp_path / "synthetic" / "bits.png")
    picture("L")(tmp_path / "synthetic" / "a.png")
    cohort = Cohort.from_source(tmp_path / "synthetic", "synthetic")
    found = through_files(COPIES, cohort, Preprocessing(2, (32, 32)), tmp_path / "planted")
    assert found.description in (
        "files (PNG, 8 bit), 1 of 3 as arrays", "files (PNG, 8 bit), 2 of 3 as arrays",
    )  # fmt: skip
    only = Cohort("synthetic", cohort.images[1:], "x", True)
    found = through_files(COPIES, only, Preprocessing(2, (32, 32)), tmp_path / "planted")
    assert found.description == "arrays" and found.readable.all()
    np.testing.assert_array_equal(found.pixels, COPIES)
