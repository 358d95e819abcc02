# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from monai_memo.data.demo_cohorts import write_demo_cohorts
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantom_pet import counted
from monai_memo.data.phantom_ultrasound import AXIAL, LATERAL, speckle
from monai_memo.data.phantoms import PHANTOMS, VOLUMES
from monai_memo.data.reading import read_header
from monai_memo.demo import run_demo
from monai_memo.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("chest", (64, 64)), ("knee", (16, 16, 16)), ("coronary", (16, 16, 16)), ("ultrasound", (48, 48)),
        ("pet", (64, 64)), ("pet_volume", (16, 16, 16)), ("dermoscopy", (64, 64)),
    ],
)  # fmt: skip
def test_patients_are_alike_yet_different(name: str, size: tuple[int, ...]) -> None:
    make = PHANTOMS[name]
    images = np.stack([make(patient, size) for patient in range(12)])
    assert images.shape == (12, 3 if name == "dermoscopy" else 1, *size) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    pairs = np.corrcoef(images.reshape(12, -1))[np.triu_indices(12, 1)]
    assert 0.5 < np.median(pairs) < 0.9 and pairs.max() < 0.97
    np.testing.assert_array_equal(make(3, size), images[3])
    visit = np.corrcoef(make(3, size, visit=1).ravel(), images[3].ravel())[0, 1]
    assert np.median(pairs) < visit < 0.999


def test_every_phantom_is_oblong_on_request() -> None:
    for name, make in PHANTOMS.items():
        size = (18, 12, 10) if name in VOLUMES else (40, 24)
        assert make(5, size).shape[1:] == size


def test_speckle_follows_rayleigh_and_is_longer_across_the_beams() -> None:
    envelope = speckle(np.zeros((600, 500)), np.random.default_rng(0), axial=0.003, lateral=0.006)
    assert (envelope**2).mean() == pytest.approx(1, abs=0.06)
    # Signal to noise of a Rayleigh distribution, and one of its quantiles.
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    assert np.quantile(envelope, 0.9) == pytest.approx(np.sqrt(np.log(10) * (envelope**2).mean()), rel=0.03)
    centred = envelope - envelope.mean()
    along, across = (centred[:-3] * centred[3:]).mean(), (centred[:, :-3] * centred[:, 3:]).mean()
    assert 0 < along < 0.7 * across and AXIAL < LATERAL
    # Ten decibels less are a third of the amplitude.
    weaker = speckle(np.full((600, 500), -10.0), np.random.default_rng(0), axial=0.003, lateral=0.006)
    np.testing.assert_allclose(weaker, envelope / np.sqrt(10))


def test_two_ultrasounds_of_a_patient_share_the_anatomy_and_not_the_speckle() -> None:
    make = PHANTOMS["ultrasound"]
    fine: dict[str, list[float]] = {"same": [], "other": []}
    coarse: dict[str, list[float]] = {"same": [], "other": []}
    for patient in range(8):
        first = make(patient, (64, 64))[0]
        for kind, second in (("same", make(patient, (64, 64), visit=1)[0]), ("other", make(patient + 50)[0])):
            sector = (first > 0) & (second > 0)
            soft = [gaussian_filter(image, 3) for image in (first, second)]
            detail = [image - gaussian_filter(image, 1) for image in (first, second)]
            inner = binary_erosion(sector, iterations=4)
            coarse[kind].append(np.corrcoef(soft[0][inner], soft[1][inner])[0, 1])
            fine[kind].append(np.corrcoef(detail[0][inner], detail[1][inner])[0, 1])
    assert np.median(coarse["same"]) > np.median(coarse["other"]) + 0.1
    assert np.median(np.abs(fine["same"])) < 0.2


def test_ultrasound_is_black_outside_one_sector_and_darker_in_shadows() -> None:
    images = np.stack([PHANTOMS["ultrasound"](patient, (64, 64))[0] for patient in range(20)])
    seen = (images > 0).mean(axis=0)
    assert (seen[:, 0][:20] == 0).all() and (seen[:2, :10] == 0).all()  # beside the beams
    assert ((seen == 0) | (seen > 0.5)).mean() > 0.97  # the same sector in all
    upper, lower = images[:, 8:16, 28:36].mean(), images[:, 50:58, 20:44].mean()
    assert lower < upper  # what lies deep returns less


def test_counts_of_pet_scatter_as_poisson_and_are_blurred() -> None:
    rng, steps = np.random.default_rng(0), np.repeat([1.0, 4.0], 50)
    activity = np.broadcast_to(steps[:, None], (100, 100))
    found = counted(activity, rng, counts=50, spread=0, smooth=0)
    low, high = found[:50], found[50:]
    assert low.mean() == pytest.approx(1, abs=0.01) and high.mean() == pytest.approx(4, abs=0.02)
    assert low.var() * 50 == pytest.approx(1, rel=0.1) and high.var() * 50 == pytest.approx(4, rel=0.1)
    point = np.zeros((65, 65))
    point[32, 32] = 1e6
    blurred = counted(point, rng, counts=100, spread=3 / 65, smooth=4 / 65)[32]  # together as one of 5 pixels
    assert blurred[37] / blurred[32] == pytest.approx(np.exp(-0.5), rel=0.02)


def test_demo_cohorts_of_every_modality_have_its_dimensions_and_colours(tmp_path: Path) -> None:
    for name in PHANTOMS:
        write_demo_cohorts(tmp_path / name, name, 3, 2, 2, 0.5, size=16)
        (first, *_) = sorted((tmp_path / name / "training").iterdir())
        header = read_header(first)
        assert header.spatial_dims == (3 if name in VOLUMES else 2) and header.colour == (name == "dermoscopy")


def test_demo_cohorts_hold_the_planted_share(tmp_path: Path) -> None:
    write_demo_cohorts(tmp_path, "chest", 20, 6, 10, 0.3, seed=2, size=32)
    with open(tmp_path / "truth.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10 == len(list((tmp_path / "synthetic").iterdir()))
    assert len(list((tmp_path / "training").iterdir())) == 20 and len(list((tmp_path / "heldout").iterdir())) == 6
    copied = [row for row in rows if row["copied_from"]]
    assert len(copied) == 3 and all((tmp_path / "training" / row["copied_from"]).exists() for row in copied)
    same = [row for row in copied if row["kind"] in ("blur", "gamma", "contrast", "noise")]
    load = Preprocessing(2, (32, 32))
    for row in same:
        pair = load(tmp_path / "synthetic" / row["synthetic"]), load(tmp_path / "training" / row["copied_from"])
        assert np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1] > 0.9


def test_demo_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError,
        match="modality must be one of chest, knee, coronary, ultrasound, pet, pet_volume, dermoscopy, got 'brain'",
    ):
        write_demo_cohorts(tmp_path, "brain")
    with pytest.raises(ConfigurationError, match="as many training images"):
        write_demo_cohorts(tmp_path, "chest", n_train=5, n_synthetic=20, copy_share=0.5)


def test_phantoms_do_not_mix_with_other_images(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "patient_00000.png").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="training is there already, and not from these very phantoms"):
        write_demo_cohorts(tmp_path, "chest", 2, 2, 1, 0, size=16)
    assert [path.read_bytes() for path in tmp_path.rglob("*.*")] == [b"mine"]
    write_demo_cohorts(tmp_path / "new", "chest", 3, 2, 1, 0, size=16)
    write_demo_cohorts(tmp_path / "new", "chest", 3, 2, 1, 0, size=16)  # the same again
    with pytest.raises(ConfigurationError, match="name another folder"):
        write_demo_cohorts(tmp_path / "new", "chest", 2, 2, 1, 0, size=16)  # patient_00002 would be left
    assert len(list((tmp_path / "new" / "training").iterdir())) == 3


def test_a_demo_goes_to_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_memo.audit.audit.Audit.run", lambda audit: audit.out)
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "patient_1.png").write_bytes(b"mine")
    sizes = {"n_train": 3, "n_heldout": 2, "n_synthetic": 2}
    with pytest.raises(ConfigurationError, match="holds something already that no demo wrote"):
        run_demo(out=str(cohort), **sizes)
    assert [path.name for path in cohort.iterdir()] == ["patient_1.png"]
    (tmp_path / "new").mkdir()
    for _ in range(2):  # an empty folder, and the one of the same demo
        assert run_demo(out=str(tmp_path / "new"), **sizes)[0] == tmp_path / "new" / "audit"
