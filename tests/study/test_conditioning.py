# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Generators that are told classes: what they learn of them, what guidance does, and how a study counts copies."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.phantoms import chest_phantom
from monai_memo.errors import ConfigurationError
from monai_memo.generators.cohorts import GeneratorCohorts
from monai_memo.study.conditioning import COLUMN, Told, labelled
from monai_memo.study.configuration import StudyConfiguration
from monai_memo.study.principal import PrincipalAutoencoder, PrincipalTraining
from monai_memo.study.study import GeneratorStudy
from tests.study.conftest import write_grid

PLAIN = np.stack([chest_phantom(number, (16, 16)) for number in range(20)])
BOTH = np.concatenate([PLAIN, 1 - PLAIN])  # films and their negatives
SPACE = PrincipalAutoencoder(BOTH, 10).eval()
LABELS = ["film"] * 20 + ["negative"] * 20


def cohort(labels: list[str]) -> Cohort:
    images = (CohortImage(Path(f"{i}.png"), f"{i:02d}.png", str(i), {"kind": label}) for i, label in enumerate(labels))
    return Cohort("training", tuple(images), "table.csv", True)


def trained(folder: Path, guidance: float = 1.0, conditioning: str = "class") -> Any:
    asked = {"components": 10, "hidden": 48, "steps_per_epoch": 100, "num_inference_steps": 10}
    images = labelled(cohort(LABELS), conditioning, "kind", 0)
    nobody = GeneratorCohorts(images, images)
    told = Told.of(images, guidance)
    return PrincipalTraining(SPACE, BOTH, PLAIN, nobody, "none", 400, 3, folder, asked, told).generator()


def test_samples_are_of_the_class_that_was_asked_for_and_guidance_does_what_it_says(tmp_path: Path) -> None:
    middle, seeds = float(BOTH.mean()), range(12)
    direction = (PLAIN.mean(axis=0) - (1 - PLAIN).mean(axis=0)).ravel()

    def towards_film(guidance: float, label: str) -> float:
        images = trained(tmp_path, guidance).sample(seeds, {COLUMN: [label] * 12})
        return float(((images - middle).reshape(12, -1) @ direction).mean())

    film, negative = (towards_film(1.0, label) for label in ("film", "negative"))
    assert film > 0 > negative
    assert towards_film(0.0, "film") == towards_film(0.0, "negative"), "told nothing"
    assert towards_film(4.0, "film") > film and towards_film(4.0, "negative") < negative


def test_labels_of_a_run_are_the_classes_shuffled_ones_or_one_for_each_image() -> None:
    labels = [["a", "b", "b"][i % 3] for i in range(30)]
    told = {kind: [image.columns[COLUMN] for image in labelled(cohort(labels), kind, "kind", 4).images]
            for kind in ("class", "random", "unique")}  # fmt: skip
    assert told["class"] == labels and len(set(told["unique"])) == 30
    assert told["random"] != labels and Counter(told["random"]) == Counter(labels)
    again = [image.columns[COLUMN] for image in labelled(cohort(labels), "random", "kind", 5).images]
    assert again != told["random"] and Counter(again) == Counter(labels)
    assert Told.of(labelled(cohort(labels), "unique", None, 0)).code.num_class_embeds == 31
    with pytest.raises(ConfigurationError, match=r"table\.csv has no column 'sex'"):
        labelled(cohort(labels), "class", "sex", 0)


@pytest.fixture
def told(grid: dict[str, Any], cohorts: Path, tmp_path: Path) -> dict[str, Any]:
    """A study whose generator is told whether a phantom's number is divisible by three."""
    for name in ("training", "heldout"):
        rows = [
            f"{path},{path.stem},{'third' if int(path.stem[1:]) % 3 == 0 else 'other'}"
            for path in sorted((cohorts / name).iterdir())
        ]
        (tmp_path / f"{name}.csv").write_text("image,patient_id,label\n" + "\n".join(rows) + "\n")
        grid["dataset" if name == "training" else "heldout"] = str(tmp_path / f"{name}.csv")
    settings = {"components": 8, "hidden": 16, "steps_per_epoch": 5, "num_inference_steps": 4}
    grid["generators"] = {"quick": {"kind": "principal_diffusion", "settings": settings}}
    grid["base"] = {"generator": "quick", "n_patients": 12, "augmentation": "none", "network": "m", "steps": 5}
    return {**grid, "condition": "label"}


@pytest.mark.slow
def test_a_study_of_conditions_trains_once_for_all_scales_and_counts_by_class(
    told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told["base"]["conditioning"] = "class"
    told["factors"] = {"conditioning": ["none", "class", "random", "unique"], "guidance": [1, 3]}
    trainings: list[Path] = []
    original = PrincipalTraining._train
    monkeypatch.setattr(
        PrincipalTraining, "_train", lambda self, *rest: (trainings.append(self.folder), original(self, *rest))[1]
    )
    settings: dict[str, Any] = {"device": "cpu", "workers": 1, "progress": False}
    records = GeneratorStudy(config=str(write_grid(told, tmp_path)), out=str(tmp_path / "out"), **settings).run()
    assert [record["status"] for record in records] == ["finished"] * 5 and len(set(trainings)) == len(trainings) == 4
    by_run = {(record["run"]["conditioning"], record["run"]["guidance"]): record["result"] for record in records}
    assert set(by_run) == {("none", 1.0), ("class", 1.0), ("class", 3.0), ("random", 1.0), ("unique", 1.0)}
    groups = by_run["class", 1.0]["groups"]["groups"]
    assert {group["name"] for group in groups} <= {"third", "other"} and sum(g["n_synthetic"] for g in groups) == 20
    assert sum(group["n_train"] for group in groups) == 12 and all(group["n_heldout"] for group in groups)
    assert "groups" not in by_run["random", 1.0] and "groups" not in by_run["none", 1.0]
    text = (tmp_path / "out" / "study.md").read_text()
    assert "| class | 3 | 0 |" in text and "| none | - | 0 |" in text and "Copies by class" in text
    with open(tmp_path / "out" / "study.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["conditioning"] for row in rows] == ["class", "", "random", "unique", "class"]


@pytest.mark.slow
def test_a_bundle_in_a_study_is_told_the_same(told: dict[str, Any], grid: dict[str, Any], tmp_path: Path) -> None:
    from tests.study.conftest import LATENT_DIFFUSION, ROOT

    bundle = {"kind": "latent_diffusion", "bundle": str(ROOT / "bundles" / "chest_xray_ldm"), "profile": "small"}
    told["generators"] = {"quick": {**bundle, "settings": LATENT_DIFFUSION}}
    told["base"] |= {"conditioning": "unique", "steps": 4}
    settings: dict[str, Any] = {"device": "cpu", "workers": 1, "progress": False}
    records = GeneratorStudy(config=str(write_grid(told, tmp_path)), out=str(tmp_path / "out"), **settings).run()
    assert [record["status"] for record in records] == ["finished"], records[0].get("error")


def test_runs_without_conditions_are_those_of_earlier_studies(told: dict[str, Any], tmp_path: Path) -> None:
    told["factors"] = {"conditioning": ["class"]}
    plain, conditional = (planned.run for planned in StudyConfiguration.read(write_grid(told, tmp_path)).plan())
    assert plain.name == "quick-12p-none-m-5-seed0" and conditional.name == "quick-12p-none-m-5-class_labels-seed0"
    assert set(plain.deciding()) == {"generator", "n_patients", "augmentation", "network", "steps", "seed"}
    assert replace(conditional, guidance=3.0).deciding()["guidance"] == 3.0


def test_conditions_that_cannot_be_told_are_refused_before_any_work(told: dict[str, Any], tmp_path: Path) -> None:
    told["factors"] = {"conditioning": ["class"]}
    with pytest.raises(ConfigurationError, match="needs classes: name a column"):
        StudyConfiguration.read(write_grid({key: told[key] for key in told if key != "condition"}, tmp_path))
    with pytest.raises(ConfigurationError, match="guidance needs a base run with a conditioning"):
        StudyConfiguration.read(write_grid({**told, "factors": {"guidance": [1, 3]}}, tmp_path))
    told["generators"]["quick"] = {"kind": "gan", "settings": {"channels": [8, 4], "discriminator_channels": [4, 8]}}
    told["base"]["steps"] = 250
    with pytest.raises(ConfigurationError, match="conditioning class is for generators of the kind latent_diffusion"):
        StudyConfiguration.read(write_grid(told, tmp_path))
    told["factors"] = {"conditioning": ["sometimes"]}
    with pytest.raises(ConfigurationError, match="conditioning must be one of none, class, random, unique"):
        StudyConfiguration.read(write_grid(told, tmp_path))
