# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Twin generators of phantoms: the memorizer is told apart, what knows nothing of patients is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image
from monai_memo.errors import CalibrationError, ConfigurationError, DetectorError, MemoError
from monai_memo.study import twins as module
from monai_memo.study.twins import TwinStudy, generators_of, halves_of
from monai_memo.workspace.place import WORK

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    for i in range(72):
        save_image(folder / ("train" if i < 48 else "heldout") / f"p{i:02d}.png", chest_phantom(i, (32, 32)))
    return folder


def arguments(folders: Path, out: Path, detector_file: Path, **further: Any) -> dict[str, Any]:
    sources = {"train": str(folders / "train"), "heldout": str(folders / "heldout"), "out": str(out)}
    short = {
        "splits": 1, "samples": 12, "baselines": False, "progress": False, "workers": 1, "patient_pattern": r"p\d+",
    }  # fmt: skip
    return {**sources, "detector": str(detector_file), **short, **further}


def test_copies_of_one_half_are_none_of_the_other(
    folders: Path, tmp_path: Path, detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = {"generators": ("memorizer", "gaussian"), "paper_detector": str(detector_file)}
    given = arguments(folders, tmp_path / "out", detector_file, **further)
    record = TwinStudy(**given).run()
    memorizer, gaussian = record["summary"]
    assert memorizer["samples"] == gaussian["samples"] == 24
    assert memorizer["called_in_part"]["own"][0] == 0  # what is called as a whole is not asked
    assert memorizer["called"]["own"][0] == 1.0 and memorizer["called"]["twin"][0] < 0.5
    assert memorizer["methods"][module.OURS]["auc"][0] > 0.99
    assert memorizer["methods"][module.OURS]["auc"][0] > gaussian["methods"][module.OURS]["auc"][0]
    assert gaussian["methods"]["paper's recipe"] == gaussian["methods"]["embedding alone"]  # the same file
    assert memorizer["excess"][1] > 0.5 and memorizer["shown"] == {"own": 2, "twin": 0}
    assert gaussian["excess"][1] < 0.3 and gaussian["shown"]["twin"] == 0
    written = json.loads((tmp_path / "out" / "twins.json").read_text(encoding="utf-8"))
    assert written["summary"] == record["summary"]
    assert "| memorizer | 0 | 24 | 100.0" in (tmp_path / "out" / "twins.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / WORK).exists()  # pixels of patients
    monkeypatch.setattr(module, "look_up", None)  # what is done is not done again
    assert TwinStudy(**given).run()["summary"] == record["summary"]


def test_a_paper_detector_of_other_images_is_refused(
    folders: Path, tmp_path: Path, detector_file: Path, detector_file_3d: Path
) -> None:
    given = arguments(folders, tmp_path / "out", detector_file, paper_detector=str(detector_file_3d))
    with pytest.raises(DetectorError, match="paper_detector prepares images otherwise"):
        TwinStudy(**given).run()


def test_halves_share_no_patient_and_have_as_many(folders: Path) -> None:
    cohort = Cohort.from_source(str(folders / "train"), "training")
    first, second = halves_of(cohort, None, seed=1)
    assert first.n_patients == second.n_patients == 24 and not set(first.patient_ids) & set(second.patient_ids)
    assert halves_of(cohort, 10, seed=1)[0].n_patients == 10
    with pytest.raises(ConfigurationError, match="patients must lie between 10 and 24, half of the 48 patients"):
        halves_of(cohort, 25, seed=1)


def test_a_trained_generator_is_halted_at_each_number_of_steps(tmp_path: Path) -> None:
    pixels = np.stack([chest_phantom(i, (32, 32)) for i in range(12)])
    drawn = {count: model.sample([1]) for count, model in
             generators_of("principal_diffusion", pixels, (1, 3), tmp_path, 0)}  # fmt: skip
    assert list(drawn) == [1, 3] and not np.array_equal(drawn[1], drawn[3])
    steps = [count for count, _ in generators_of("variational_autoencoder", pixels, (1, 2), tmp_path, 0)]
    assert steps == [1, 2]


def test_too_few_patients_for_two_halves_are_refused_by_their_number(folders: Path) -> None:
    few = Cohort.from_source(str(folders / "train"), "training").subset(range(15))
    with pytest.raises(ConfigurationError, match="--train needs 20 patients, 10 for each half, got 15"):
        halves_of(few, None, seed=1)


@pytest.mark.parametrize("unknown", ["train", "heldout"])
def test_cohorts_that_name_no_patients_are_refused(
    unknown: str, folders: Path, tmp_path: Path, detector_file: Path
) -> None:
    """Split by image, halves share patients: what is near to both would pass for a look-alike."""
    table = folders.parent / f"{unknown}-with-patients.csv"
    other = "heldout" if unknown == "train" else "train"
    rows = [f"{path},{path.stem}" for path in sorted((folders / other).glob("*.png"))]
    table.write_text("\n".join(["image,patient_id", *rows]), encoding="utf-8")
    given = {**arguments(folders, tmp_path / "out", detector_file), other: str(table), "patient_pattern": None}
    with pytest.raises(ConfigurationError, match=f"{unknown} names no patients.*--patient_pattern"):
        TwinStudy(**given).run()


def test_a_detector_of_volumes_and_too_few_patients_are_refused_by_what_can_be_changed(
    folders: Path, tmp_path: Path, detector_file: Path
) -> None:
    volumes = ROOT / "bundles" / "memorization_detection" / "models" / "hippocampus_mri_32.pt"
    with pytest.raises(DetectorError, match="the detector is for 3D images, the cohort has 2D images"):
        TwinStudy(**arguments(folders, tmp_path / "out", volumes)).run()
    few = tmp_path / "few.csv"
    rows = [f"{path},{path.stem}" for path in sorted((folders / "heldout").glob("*.png"))[:11]]
    few.write_text("\n".join(["image,patient_id", *rows]), encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"200 or more are recommended. Add held-out patients\.$"):
        TwinStudy(**{**arguments(folders, tmp_path / "out", detector_file), "heldout": str(few)}).run()


def test_patients_of_both_cohorts_are_refused(folders: Path, tmp_path: Path, detector_file: Path) -> None:
    with pytest.raises(MemoError):
        TwinStudy(**{**arguments(folders, tmp_path, detector_file), "heldout": str(folders / "train")}).run()


def test_a_finished_run_leaves_no_pixels_and_a_refused_one_none_either(
    folders: Path, tmp_path: Path, detector_file: Path
) -> None:
    given = arguments(folders, tmp_path / "out", detector_file, generators=("gaussian",))
    with pytest.raises(ConfigurationError, match="half of the 48 patients"):
        TwinStudy(**given, patients=9).run()
    assert not list((tmp_path / "out").rglob("*.f16"))
    TwinStudy(**given).run()
    kept = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kept <= {".json", ".md", ".lock", ""}, kept
    with pytest.raises(MemoError, match="generators must be named once, got gaussian again"):
        TwinStudy(**{**given, "generators": ("gaussian", "memorizer", "gaussian")})
