# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.networks.nets import DiffusionModelUNet

from monai_memo.__main__ import FINISHED
from monai_memo.data.loading import Preprocessing
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.generators.schedulers import RectifiedFlow
from monai_memo.membership.extraction import Extraction, _compared, _said, search_on_purpose
from monai_memo.membership.inputs import ModelInputs
from monai_memo.membership.settings import ExtractSettings
from monai_memo.membership.targeted import GUIDED, drawn_towards, from_noised
from monai_memo.workspace.manifest import MANIFEST
from tests.membership.conftest import LABELS, SIZE, images, memorizer, scheduler, told_memorizer
from tests.membership.test_commands import command, options


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never trained: pairs are told apart by registration."""
    recipe = Recipe.named("default", 2, SIZE, epochs=1)
    return Detector(recipe.build_network(), recipe, Preprocessing(2, SIZE), 0, {"epochs": 1}).save(
        tmp_path_factory.mktemp("detector") / "detector.pt"
    )


def settings(cohorts: Path, out: Path, detector: Path, **further: Any) -> ExtractSettings:
    given = {"bundle": str(out), "train": str(cohorts / "train.csv"), "heldout": str(cohorts / "heldout.csv")}
    quick = {"targets": 12, "levels": (0.4, 0.9), "tries": 1, "steps": 5, "progress": False}
    return ExtractSettings(**given, out=str(out), detector=str(detector), **quick | further)


def inputs(cohorts: Path, work: Path, known: Any) -> ModelInputs:
    from monai_memo.data.cohort import Cohort

    preprocessing = Preprocessing(2, SIZE)
    training, heldout = (
        prepare(Cohort.from_source(cohorts / f"{file}.csv", name), preprocessing, work, 1, False)
        for file, name in (("train", "training"), ("heldout", "heldout"))
    )
    model = memorizer(training.pixels if known is None else known)
    return ModelInputs(model, preprocessing, training, heldout, "cpu")


def test_training_images_come_back_from_a_memorizer_and_held_out_images_do_not(
    cohorts: Path, tmp_path: Path, detector: Path
) -> None:
    found = search_on_purpose(
        inputs(cohorts, tmp_path, None), Detector.load(detector), settings(cohorts, tmp_path, detector), tmp_path
    )
    rows = {row["way"]: row for row in found["ways"]}
    assert list(rows) == ["from 40 % noise", "from 90 % noise", GUIDED]
    some = rows["from 40 % noise"]
    assert some["training_back"] == 12 and some["heldout_back"] <= 2 and some["excess"]["low"] > 0.3
    assert found["level"] == "extracted" and found["p_any"] < 0.01
    assert "the model holds them" in found["headline"]


def test_a_model_of_other_patients_gives_back_neither_more_than_the_other(
    cohorts: Path, tmp_path: Path, detector: Path
) -> None:
    known = images(3000, 24)
    found = search_on_purpose(
        inputs(cohorts, tmp_path, known), Detector.load(detector), settings(cohorts, tmp_path, detector), tmp_path
    )
    assert found["level"] == "not_shown"
    for row in found["ways"]:
        assert row["excess"]["low"] <= 0 <= row["excess"]["high"] and row["excess"]["high"] > 0.05


def test_swapped_cohorts_and_cohorts_that_differ_are_told(cohorts: Path, tmp_path: Path, detector: Path) -> None:
    given = inputs(cohorts, tmp_path, None)
    swapped = replace(given, training=given.heldout, heldout=given.training)
    chosen = settings(cohorts, tmp_path, detector)
    found = search_on_purpose(swapped, Detector.load(detector), chosen, tmp_path)
    assert found["level"] == "not_shown" and any("were swapped" in text for text in found["warnings"])
    bright = replace(given.heldout, pixels=np.clip(np.asarray(given.heldout.pixels) * 0.5 + 0.4, 0, 1))
    found = search_on_purpose(replace(given, heldout=bright), Detector.load(detector), chosen, tmp_path / "bright")
    assert any("told apart by brightness, contrast and coarse layout alone" in text for text in found["warnings"])


def test_that_no_image_came_back_is_not_called_an_image_that_did() -> None:
    none = _compared((0, 20), (0, 20)) | {"way": "from 50 % noise"}
    assert _said([none], 0.01)["headline"].startswith("No training image came back, but what was aimed at them is more")
    some = _compared((9, 20), (0, 20)) | {"way": "from 50 % noise"}
    assert "the model holds them" in _said([some], 0.01)["headline"]


def test_guidance_draws_a_memorizer_to_the_image_that_it_is_aimed_at() -> None:
    pixels = images(0, 10)
    model = memorizer(pixels, scheduler(beta_start=0.0085, beta_end=0.12))  # its last steps hold noise alone
    model.model.scheduler.set_timesteps(20)
    drawn = drawn_towards(model, pixels, 0.7, seed=0)
    free = drawn_towards(model, pixels, 0.0, seed=0)
    assert drawn is not None and free is not None and drawn.shape == pixels.shape

    def own(samples: np.ndarray) -> int:
        far = np.square(samples[:, None] - pixels[None]).mean(axis=(2, 3, 4))
        return int((far.argmin(axis=1) == np.arange(10)).sum())

    assert own(drawn) > own(free) + 2
    again = drawn_towards(model, pixels, 0.7, seed=0)
    np.testing.assert_array_equal(drawn, again)
    flow: Any = RectifiedFlow(100)
    model.model.scheduler = flow
    assert drawn_towards(model, pixels, 0.7, seed=0) is None


def test_a_sample_that_is_aimed_at_an_image_is_told_its_conditions() -> None:
    """One image of each class is remembered: what is told decides which of them comes back."""
    pixels = images(0, 2)
    model = told_memorizer(pixels, [{"label": label} for label in LABELS])
    told = model.told([{"label": LABELS[1]}, {"label": LABELS[0]}, {"label": LABELS[1]}], "targets")
    model.model.batch_size = 2
    aimed = pixels[[0, 0, 0]]
    for drawn in (
        from_noised(model.model, aimed, 0.95, 0, told), drawn_towards(model, aimed, 0.0, 0, told)
    ):  # fmt: skip
        assert drawn is not None
        np.testing.assert_allclose(drawn, pixels[[1, 0, 1]], atol=0.02)
    for drawn in (from_noised(model.model, aimed, 0.95, 0), drawn_towards(model, aimed, 0.0, 0)):
        assert drawn is not None and np.square(drawn[:, None] - pixels).mean(axis=(2, 3, 4)).min() > 0.001


@pytest.mark.parametrize(("how", "labels"), [("told", {0, 1}), ("untold", {2})])
def test_the_command_tells_a_model_its_conditions(
    how: str, labels: set[int], told_bundle: Path, cohorts: Path, tmp_path: Path, detector: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    heard: set[int] = set()
    plain = DiffusionModelUNet.forward

    def listening(self: Any, x: Any, timesteps: Any, context: Any, class_labels: Any) -> Any:
        heard.update(class_labels.tolist())
        return plain(self, x, timesteps, context, class_labels)

    monkeypatch.setattr(DiffusionModelUNet, "forward", listening)
    given = options(told_bundle, cohorts, tmp_path / how, conditions=how)
    quick = {"detector": str(detector), "targets": 10, "tries": 1, "steps": 4, "levels": (0.5,)}
    found = Extraction(**{name: value for name, value in given.items() if name != "draws"} | quick).run()
    assert heard == labels and len(found["ways"]) == 2
    assert found["model"]["conditions"] == {"columns": 2, "told": how == "told"}
    assert ("was told the conditions" in found["method"]) == (how == "told")
    assert ("a stronger attack" in found["found"][-1]) == (how == "untold")


def test_the_command_writes_a_record_that_names_nobody(
    bundle: Path, cohorts: Path, tmp_path: Path, detector: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(bundle, cohorts, tmp_path / "out")
    given = {name: value for name, value in given.items() if name != "draws"}
    quick = {"detector": str(detector), "targets": 10, "tries": 1, "steps": 4, "levels": (0.5,)}
    assert command("extract", given | quick) == FINISHED
    record = json.loads((tmp_path / "out" / "extraction.json").read_text())
    assert record["targets"] == 10 and record["level"] in ("extracted", "not_shown")
    assert [row["way"] for row in record["ways"]] == ["from 50 % noise", GUIDED]
    page = (tmp_path / "out" / "extraction.html").read_text()
    assert record["headline"].split(". ")[0] in page and str(cohorts) not in page + json.dumps(record)
    assert record["found"][1] in capsys.readouterr().out
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == [MANIFEST, "extraction.html", "extraction.json"]  # no pixels of patients in a hidden folder
