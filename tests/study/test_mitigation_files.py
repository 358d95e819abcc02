# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The registered benchmark of docs/mitigation_benchmark.md is what its files say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from monai_memo.study.configuration import StudyConfiguration
from monai_memo.study.latent_diffusion import BundleTraining
from monai_memo.study.mitigation import arm_of
from monai_memo.study.study import GeneratorStudy

STUDIES = Path(__file__).resolve().parents[2] / "docs" / "studies"
ARMS = {"plain", "repellency", "dissimilarity", "ambient", "lowest loss", "dropout and decay", "no duplicates"}


@pytest.fixture(scope="module", params=["chest_xray", "hippocampus_mri"])
def study(request: pytest.FixtureRequest) -> StudyConfiguration:
    return StudyConfiguration.read(STUDIES / f"mitigation_{request.param}.yaml", dataset="pool", heldout="heldout")


def test_every_arm_stands_at_every_size_with_three_seeds(study: StudyConfiguration) -> None:
    units: Counter[tuple[Any, ...]] = Counter()
    for planned in study.plan():
        run = planned.run
        units[run.n_patients, run.generator, run.augmentation, run.network] += 1
    assert set(units.values()) == {3}
    sizes = {key[0] for key in units}
    assert sizes in ({50, 100, 500}, {40})
    for size in sizes:
        plainly = {key[1] for key in units if key[0] == size and key[2:] == ("none", "medium")}
        assert plainly == ARMS
        assert (size, "plain", "flips and rotations", "medium") in units


def test_arms_that_differ_in_sampling_alone_share_a_training(study: StudyConfiguration) -> None:
    identities = {
        name: BundleTraining(entry, "medium", {}).identity(trained=True) for name, entry in study.generators.items()
    }
    assert identities["plain"] == identities["repellency"] == identities["dissimilarity"]
    trained = [identities[name]["settings"] for name in sorted(ARMS - {"repellency", "dissimilarity"})]
    assert all(one != two for place, one in enumerate(trained) for two in trained[:place])
    whole = BundleTraining(study.generators["repellency"], "medium", {}).identity()
    assert whole["settings"]["repel"] == 0.05 and whole != identities["repellency"]


def test_what_was_run_has_three_seeds_of_each_arm_and_shares_trainings(tmp_path: Path) -> None:
    path = STUDIES / "mitigation_chest_xray_50.yaml"
    study = GeneratorStudy(config=path, out=tmp_path, dataset="pool", heldout="heldout")
    arms = Counter(arm_of(planned.run, study.configuration.base) for planned in study.configuration.plan())
    assert arms == dict.fromkeys(
        ["plain", "repellency", "dissimilarity", "rejection", "lowest loss", "ambient", "dropout and decay",
         "differential privacy", "flips and rotations"], 3,
    )  # fmt: skip
    nobody = SimpleNamespace(identity="images")
    base = study.configuration.plan()[0].run
    alike = [run.generator for run in study.alike_but_for_sampling(base, nobody)]  # type: ignore[arg-type]
    assert alike == ["plain", "repellency", "dissimilarity", "rejection"]


@pytest.mark.parametrize("name", ["chest_xray_latent_diffusion_50", "hippocampus_mri_quick"])
def test_what_was_run_of_other_generators_and_volumes_has_three_seeds_of_each_arm(name: str, tmp_path: Path) -> None:
    study = GeneratorStudy(config=STUDIES / f"mitigation_{name}.yaml", out=tmp_path, dataset="pool", heldout="heldout")
    arms = Counter(arm_of(planned.run, study.configuration.base) for planned in study.configuration.plan())
    assert arms == dict.fromkeys([*sorted(ARMS - {"no duplicates"}), "flips and rotations"], 3)


def test_the_latent_diffusion_models_that_were_run_have_the_registered_settings() -> None:
    run, registered = (
        StudyConfiguration.read(STUDIES / f"mitigation_{name}.yaml", dataset="pool", heldout="heldout")
        for name in ("chest_xray_latent_diffusion_50", "chest_xray")
    )
    for name, entry in run.generators.items():
        assert entry.settings_of("medium") == registered.generators[name].settings_of("medium")
    assert run.base["steps"] == registered.base["steps"]
