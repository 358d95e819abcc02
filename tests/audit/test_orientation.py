# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cohorts stored in another orientation: refused with the remedy, and with it every planted copy is found."""

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
from monai_memo.audit.audit import Audit
from monai_memo.audit.result import AuditResult
from monai_memo.benchmark.evaluate import Evaluation
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.reading import Pixels
from monai_memo.errors import CohortError, ConfigurationError

N_COPIES = 6
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LPS[:2, 3] = 15
SAGITTAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 31], [0, -1, 0, 31], [0, 0, 0, 1]])
Writer = Callable[[Path, np.ndarray], None]


def write_png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(np.ascontiguousarray(np.round(image.clip(0, 1) * 255)).astype(np.uint8)).save(f"{path}.png")


def nifti(affine: np.ndarray) -> Writer:
    def write(path: Path, image: np.ndarray) -> None:
        nibabel.save(nibabel.Nifti1Image(image, affine), f"{path}.nii")  # type: ignore[attr-defined,no-untyped-call]

    return write


def write_nrrd(path: Path, image: np.ndarray) -> None:
    """Voxel order as it is, with ITK's identity direction, which means LPS."""
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(image.transpose(2, 1, 0))), f"{path}.nrrd")


def cohorts(
    folder: Path,
    phantom: Callable[..., np.ndarray],
    shape: tuple[int, ...],
    real: Writer,
    samples: Writer,
    n_train: int = 60,
    turned: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    heldout: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    n_synthetic: int = 20,
) -> dict[str, str]:
    """Training, held-out and synthetic folders; the first synthetic images are noisy copies of training images."""
    rng = np.random.default_rng(0)
    for name in ("training", "heldout", "synthetic"):
        (folder / name).mkdir(parents=True)
    for i in range(n_train):
        real(folder / "training" / f"t{i:02d}", phantom(i, shape)[0])
    for i in range(24):
        real(folder / "heldout" / f"h{i:02d}", heldout(phantom(1000 + i, shape)[0]))
    for i in range(n_synthetic):
        copy = phantom(i, shape)[0] + 0.02 * rng.standard_normal(shape).astype(np.float32)
        image = copy if i < N_COPIES else phantom(2000 + i, shape)[0]
        samples(folder / "synthetic" / f"s{i:02d}", turned(image).astype(np.float32))
    return {
        "train": str(folder / "training"),
        "heldout": str(folder / "heldout"),
        "synthetic": str(folder / "synthetic"),
    }


def audit(sources: dict[str, str], out: Path, **further: Any) -> AuditResult:
    settings = {"n_bootstrap": 100, "planted": 0, "limit_copies": 0, "gallery": 0, "progress": False, **further}
    return Audit(**sources, out=str(out), **settings).run()


def copies_found(result: AuditResult) -> int:
    """Copies that are called so, with the right original."""
    return sum(
        match.copy and match.synthetic[1:3] == match.nearest_training[1:3]
        for match in result.matches
        if int(match.synthetic[1:3]) < N_COPIES
    )


@pytest.mark.parametrize(
    ("turned", "remedy"),
    [
        (lambda image: image.T, "transpose"),
        (np.flipud, "flip_up_down"),
        (np.rot90, "rotate_270"),
        (lambda image: np.rot90(image, 2), "rotate_180"),
    ],
    ids=["transposed", "upside down", "by 90 degrees", "by 180 degrees"],
)
def test_samples_in_another_orientation_are_refused_and_found_with_the_remedy(
    turned: Callable[[np.ndarray], np.ndarray], remedy: str, detector_file: Path, tmp_path: Path
) -> None:
    sources = cohorts(tmp_path, chest_phantom, (32, 32), write_png, write_png, turned=turned)
    settings = {"detector": str(detector_file), "verification": remedy == "transpose"}
    with pytest.raises(CohortError, match=f"of 20 synthetic images .*--orientation {remedy}, .*--orientation as_is"):
        audit(sources, tmp_path / "out", **settings)
    result = audit(sources, tmp_path / "out", orientation=remedy, **settings)
    assert copies_found(result) == N_COPIES
    assert result.orientation is not None
    assert [(item["other"], item["status"]) for item in result.orientation] == [
        ("heldout", "same"), ("synthetic", "same"),
    ]  # fmt: skip
    assert f"20 images turned, as orientation {remedy} says" in result.cohorts["synthetic"].notes
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Do the cohorts have the same orientation?" in report
    assert "The synthetic images have the same orientation as the training images" in report


def test_samples_taken_as_they_are_come_with_a_warning(detector_file: Path, tmp_path: Path) -> None:
    sources = cohorts(tmp_path, chest_phantom, (32, 32), write_png, write_png, turned=np.flipud)
    result = audit(sources, tmp_path / "out", orientation="as_is", detector=str(detector_file), verification=False)
    assert any("taken as they are, as --orientation as_is says" in text for text in result.warnings)
    assert result.verdict["level"] == "inconclusive" and "Copies among them are missed." in result.verdict["detail"]
    assert copies_found(result) < N_COPIES
    assert [item["best"] for item in result.orientation or []] == [None, "flip_up_down"]


def test_nothing_found_among_negatives_is_not_conclusive(detector_file: Path, tmp_path: Path) -> None:
    turns = iter([lambda image: image, lambda image: 1 - image] * 10)
    sources = cohorts(
        tmp_path, chest_phantom, (32, 32), write_png, write_png, turned=lambda image: next(turns)(image)
    )  # fmt: skip
    for path in sorted(Path(sources["synthetic"]).iterdir())[:N_COPIES]:
        path.unlink()  # what is left copies nobody
    result = audit(sources, tmp_path / "out", detector=str(detector_file), verification=False)
    assert any("7 of 14 synthetic images look like negatives" in text for text in result.warnings)
    assert result.verdict["level"] == "inconclusive" and "look like negatives" in result.verdict["detail"]


def test_nothing_found_among_cut_samples_of_oblong_images_is_not_conclusive(
    detector_file: Path, tmp_path: Path
) -> None:
    """The commonest way to feed a generator: copies of cut images do not match whole ones that are squeezed."""

    def oblong(path: Path, image: np.ndarray) -> None:
        write_png(path, image[8:56])

    def square(path: Path, image: np.ndarray) -> None:
        write_png(path, image[8:56, 8:56])

    sources = cohorts(tmp_path, chest_phantom, (64, 64), oblong, square)
    result = audit(sources, tmp_path / "out", detector=str(detector_file), verification=False)
    assert copies_found(result) < N_COPIES
    assert any("measure 48 x 64, the synthetic images 48 x 48" in text for text in result.warnings)
    assert result.verdict["level"] == "inconclusive" and "cut about their centre" in result.verdict["detail"]


def test_the_wrong_remedy_is_refused_with_the_right_one(detector_file: Path, tmp_path: Path) -> None:
    sources = cohorts(tmp_path, chest_phantom, (32, 32), write_png, write_png, turned=np.rot90)
    with pytest.raises(CohortError, match="--orientation rotate_270,"):
        audit(sources, tmp_path / "out", orientation="rotate_90", detector=str(detector_file))
    with pytest.raises(ConfigurationError, match="orientation of 2D images must be as_is, transpose"):
        audit(sources, tmp_path / "out", orientation="LPS", detector=str(detector_file))


def test_held_out_images_in_another_orientation_are_refused(detector_file: Path, tmp_path: Path) -> None:
    sources = cohorts(tmp_path, chest_phantom, (32, 32), write_png, write_png, heldout=np.flipud)
    with pytest.raises(CohortError, match=r"24 held-out images .* Write the held-out files and the training files in"):
        audit(sources, tmp_path / "out", detector=str(detector_file))
    with pytest.raises(CohortError, match="Write the negatives files"):
        Evaluation(train=sources["train"], negatives=sources["heldout"], out=str(tmp_path / "evaluation"),
                   detector=str(detector_file), progress=False).run()  # fmt: skip


@pytest.mark.parametrize(
    ("real", "samples", "remedy"),
    [
        (nifti(LPS), nifti(np.eye(4)), "LPS"),
        (nifti(SAGITTAL), nifti(np.eye(4)), "PIR"),
        (nifti(np.eye(4)), write_nrrd, "LPS"),
    ],
    ids=["LPS", "sagittal", "NRRD"],
)
def test_volumes_in_the_voxel_order_of_the_training_files_are_refused_and_found_with_the_remedy(
    real: Writer, samples: Writer, remedy: str, detector_file_3d: Path, tmp_path: Path
) -> None:
    sources = cohorts(tmp_path, knee_phantom, (16, 16, 16), real, samples, n_train=30, n_synthetic=14)
    settings = {"detector": str(detector_file_3d), "verification": False}
    with pytest.raises(CohortError, match=f"of 14 synthetic images .*--orientation {remedy}, "):
        audit(sources, tmp_path / "out", **settings)
    result = audit(sources, tmp_path / "out", orientation=remedy, **settings)
    assert copies_found(result) == N_COPIES
    # Taken for sagittal, a knee's symmetric axis is the one from back to front, which then cannot be told.
    statuses = {item["status"] for item in result.orientation or []}
    assert statuses == ({"cannot_tell"} if remedy == "PIR" else {"same"})


def test_an_audit_finds_copies_of_a_generator_trained_with_turns(detector_file: Path, tmp_path: Path) -> None:
    """Each sample is turned in its own way; the control rises with the look-ups, so that chance stays at 5 %."""
    turns = iter([np.rot90, np.transpose, np.flipud, lambda image: np.rot90(image, 2)] * 5)
    sources = cohorts(
        tmp_path, chest_phantom, (32, 32), write_png, write_png, turned=lambda image: next(turns)(image)
    )  # fmt: skip
    common = {"detector": str(detector_file), "verification": False}
    without = audit(sources, tmp_path / "none", orientation="as_is", **common)
    found = audit(sources, tmp_path / "all", orientation="as_is", symmetries="all", planted=20, **common)
    assert copies_found(without) < 3 and copies_found(found) >= 5
    assert found.control_copies.value <= 0.1
    assert found.sensitivity is not None and found.sensitivity["rate"].value > 0.6
    report = (tmp_path / "all" / "report.html").read_text(encoding="utf-8")
    assert "looked up under every turn and mirror image" in report


@pytest.mark.parametrize(
    "change", [lambda array: array.swapaxes(1, 2), lambda array: array.max() - array], ids=["transposed", "negative"]
)
def test_the_positive_control_fails_where_the_synthetic_files_are_read_wrongly(
    change: Callable[[np.ndarray], np.ndarray], detector_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only PNG is read wrongly, and only the synthetic images are PNG: planted arrays would be found as ever."""
    sources = cohorts(
        tmp_path, chest_phantom, (32, 32), lambda path, image: np.save(f"{path}.npy", image), write_png
    )  # fmt: skip
    common = {"detector": str(detector_file), "verification": False, "planted": 40, "orientation": "as_is"}
    right = audit(sources, tmp_path / "right", **common)
    read = loading.read_image

    def sabotaged(image: Any) -> Pixels:
        pixels = read(image)
        return pixels._replace(array=change(pixels.array)) if str(image.path).endswith(".png") else pixels

    monkeypatch.setattr(loading, "read_image", sabotaged)
    wrong = audit(sources, tmp_path / "wrong", **common)
    assert right.sensitivity is not None and wrong.sensitivity is not None
    assert right.sensitivity["planted_as"] == "files (PNG, 8 bit)"
    assert right.sensitivity["rate"].value > 0.5 and wrong.sensitivity["rate"].value < 0.25
    report = (tmp_path / "right" / "report.html").read_text(encoding="utf-8")
    assert "written as files (PNG, 8 bit) like the synthetic ones and read back by the same reader" in report
