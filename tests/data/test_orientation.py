# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from nibabel import orientations
from PIL import Image

from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.data.cohort import Cohort, Reading
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import (
    PICTURES,
    VOLUMES,
    left_right,
    mirrors,
    name_of,
    orientation,
    symmetries,
    turn,
    turn_back,
)
from monai_memo.data.prepared import prepare
from monai_memo.errors import ConfigurationError

PILLOW = {
    "transpose": Image.Transpose.TRANSPOSE,
    "rotate_90": Image.Transpose.ROTATE_90,
    "rotate_180": Image.Transpose.ROTATE_180,
    "rotate_270": Image.Transpose.ROTATE_270,
    "flip_left_right": Image.Transpose.FLIP_LEFT_RIGHT,
    "flip_up_down": Image.Transpose.FLIP_TOP_BOTTOM,
    "transverse": Image.Transpose.TRANSVERSE,
}


def reoriented(volume: np.ndarray, first: str, second: str) -> np.ndarray:
    """By nibabel: voxels of a volume whose axes point to ``first``, in the order ``second``."""
    codes: Any = [orientations.axcodes2ornt(tuple(name)) for name in (first, second)]
    return np.asarray(orientations.apply_orientation(volume, orientations.ornt_transform(*codes)))


def cohort_of(path: Path, lies: str | None) -> Cohort:
    return Cohort.from_source(path, "synthetic", reading=Reading(orientation=lies))


def test_there_are_8_names_for_pictures_and_48_for_volumes_and_each_means_something_else() -> None:
    image, volume = np.arange(12).reshape(1, 3, 4), np.arange(24).reshape(1, 2, 3, 4)
    assert len({turn(image, name).tobytes() + bytes(turn(image, name).shape) for name in PICTURES}) == 8
    assert len({turn(volume, name).tobytes() + bytes(turn(volume, name).shape) for name in VOLUMES}) == 48
    assert len(symmetries(2)) == 8 and len(symmetries(3)) == 48
    assert len(mirrors(2)) == 4 and len(mirrors(3)) == 8


@pytest.mark.parametrize("name", PILLOW)
def test_pictures_are_turned_as_pillow_turns_them(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 7), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).transpose(PILLOW[name]))
    np.testing.assert_array_equal(turn(image[None], name)[0], expected)
    np.testing.assert_array_equal(turn(image[None], name.upper())[0], expected)
    np.testing.assert_array_equal(turn_back(turn(image[None], name), name)[0], image)
    np.testing.assert_array_equal(turn(np.stack([image[None]] * 2), name, 2)[1, 0], expected)


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_are_turned_as_nibabel_turns_them(name: str) -> None:
    volume = np.random.default_rng(0).random((1, 3, 4, 5))
    np.testing.assert_array_equal(turn(volume, name.lower())[0], reoriented(volume[0], name, "RAS"))
    np.testing.assert_array_equal(turn_back(volume, name)[0], reoriented(volume[0], "RAS", name))


@pytest.mark.parametrize("dims", [2, 3])
def test_turns_follow_one_another_and_are_undone(dims: int) -> None:
    array = np.random.default_rng(0).random((1, *range(3, 3 + dims)))
    for second in symmetries(dims)[::5]:
        for first in symmetries(dims):
            np.testing.assert_array_equal(second.after(first)(array), second(first(array)))
            assert first.inverse().after(first).is_identity
    assert sum(one.is_rotation for one in symmetries(dims)) == len(symmetries(dims)) // 2
    assert name_of(left_right(dims)) == {2: "flip_left_right", 3: "LAS"}[dims]


def test_a_name_that_is_none_is_refused_with_the_allowed_ones(tmp_path: Path) -> None:
    for name in ("upside", "LLS", "XYZ", "RASL", ""):
        with pytest.raises(ConfigurationError, match=r"transpose, rotate_90.*three axis codes such as LPS"):
            orientation(name, 2)
    with pytest.raises(ConfigurationError, match="orientation of 2D images must be as_is, transpose"):
        orientation("LPS", 2)
    with pytest.raises(ConfigurationError, match="orientation of 3D images must be as_is or three axis codes"):
        orientation("transpose", 3)
    paths = {"train": "a", "heldout": "b", "synthetic": "c", "out": "d"}
    with pytest.raises(ConfigurationError, match="got 'upside'"):
        AuditConfiguration(**paths, orientation="upside")
    with pytest.raises(ConfigurationError, match="symmetries must be one of none, mirror, all, got 'some'"):
        AuditConfiguration(**paths, symmetries="some")
    settings = AuditConfiguration(**paths, orientation="lps", symmetries="ALL")
    assert (settings.orientation, settings.symmetries) == ("LPS", "all")
    assert settings.readings()["synthetic"].orientation == "LPS" and settings.readings()["training"].orientation is None
    assert AuditConfiguration(**paths, orientation="As_Is").readings()["synthetic"].orientation is None


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("size", [(24, 16), (16, 16)])
def test_pictures_of_an_orientation_are_read_upright(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    upright = np.random.default_rng(0).integers(0, 255, (24, 40), dtype=np.uint8)
    lying = turn_back(upright[None], name)[0]
    for folder, array in (("upright", upright), ("lying", lying)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.ascontiguousarray(array)).save(tmp_path / folder / "a.png")
    pixels = {
        folder: prepare(cohort_of(tmp_path / folder, lies), Preprocessing(2, size), tmp_path / "w", progress=False)
        for folder, lies in (("upright", None), ("lying", name))
    }
    np.testing.assert_array_equal(pixels["lying"].pixels, pixels["upright"].pixels)
    assert pixels["lying"].notes == (f"1 image turned, as orientation {name} says",)


@pytest.mark.parametrize("name", ["LPS", "PIR", "SRA", "ILA"])
@pytest.mark.parametrize("target", ["RAS", "LPS"])
@pytest.mark.parametrize("claimed", ["RAS", "LPI", None])
def test_volumes_of_an_orientation_are_read_as_they_really_lie(
    name: str, target: str, claimed: str | None, tmp_path: Path
) -> None:
    """What the file calls right, front and up really is ``name``."""
    truth = np.random.default_rng(0).random((12, 16, 20)).astype(np.float32)  # right, front, up
    canonical = Preprocessing(3, (12, 10, 8), orientation=target)
    nibabel.save(nibabel.Nifti1Image(truth, np.eye(4)), tmp_path / "truth.nii")  # type: ignore[attr-defined,no-untyped-call]
    lying = reoriented(truth, "RAS", name)  # its axes point to `name`; a file that takes them for RAS claims otherwise
    if claimed is None:
        np.save(tmp_path / "lying.npy", lying)
    else:
        image = nibabel.Nifti1Image(lying, np.eye(4))  # type: ignore[attr-defined,no-untyped-call]
        codes: Any = [orientations.axcodes2ornt(tuple(axes)) for axes in ("RAS", claimed)]
        nibabel.save(image.as_reoriented(orientations.ornt_transform(*codes)), tmp_path / "lying.nii")  # type: ignore[attr-defined]
    expected = canonical(tmp_path / "truth.nii")
    path = tmp_path / ("lying.npy" if claimed is None else "lying.nii")
    found, note = canonical.load(cohort_of_file(path, name))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert note == f"turned, as orientation {name} says"


def cohort_of_file(path: Path, lies: str) -> Any:
    folder = path.parent / "one"
    folder.mkdir()
    path.rename(folder / path.name)
    return cohort_of(folder, lies).images[0]


def test_voxel_sizes_stay_with_their_axes(tmp_path: Path) -> None:
    """Spacing is measured along the axes as they really lie."""
    truth = np.random.default_rng(0).random((16, 12, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(truth, np.diag([1.0, 2, 3, 1])), tmp_path / "truth.nii")  # type: ignore[attr-defined,no-untyped-call]
    lying = reoriented(truth, "RAS", "SPL")
    (tmp_path / "one").mkdir()
    nibabel.save(nibabel.Nifti1Image(lying, np.diag([3.0, 2, 1, 1])), tmp_path / "one" / "a.nii")  # type: ignore[attr-defined,no-untyped-call]
    preprocessing = Preprocessing(3, (16, 24, 24), spacing=(1.0, 1.0, 1.0))
    found = preprocessing(cohort_of(tmp_path / "one", "SPL").images[0])
    np.testing.assert_allclose(found, preprocessing(tmp_path / "truth.nii"), atol=1e-5)
