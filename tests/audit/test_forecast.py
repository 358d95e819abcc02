# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_memo.audit import forecast as module
from monai_memo.audit.audit import Audit
from monai_memo.audit.forecast import Forecast, forecast
from monai_memo.audit.inputs import preprocessing_for, read_cohorts, recipe_for
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import levels_of_a_limit
from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe


@pytest.fixture()
def audit_of(demo_folder: Path, tmp_path: Path) -> Callable[..., Audit]:
    def make(**options: object) -> Audit:
        sources = {name: str(demo_folder / folder) for name, folder in
                   {"train": "training", "heldout": "heldout", "synthetic": "synthetic"}.items()}  # fmt: skip
        return Audit(**{"out": str(tmp_path / "out"), "n_bootstrap": 200, "limit_copies": 2, **sources, **options})

    return make


def measured(audit: Audit, detector: Detector | None = None) -> Forecast:
    settings = audit.configuration
    cohorts, _ = read_cohorts(settings)
    preprocessing, _ = preprocessing_for(settings, cohorts, detector)
    recipe = recipe_for(settings, len(cohorts["training"]), preprocessing) if detector is None else detector.recipe
    found = forecast(cohorts, preprocessing, settings, "cpu", recipe, detector)
    assert found is not None
    return found


def test_all_that_is_done_is_counted(audit_of: Callable[..., Audit], demo_folder: Path) -> None:
    numbers = {name: len(Cohort.from_source(demo_folder / name, name)) for name in ("training", "heldout", "synthetic")}
    found = measured(audit_of(size=32, epochs=7, planted=10))
    kept = numbers["training"] - round(0.1 * numbers["training"])
    looked_up = numbers["heldout"] + 3 * numbers["synthetic"] + 10 + 2 * len(levels_of_a_limit(2))
    assert found.work == (
        f"{numbers['training']} training, {numbers['heldout']} held-out, {numbers['synthetic']} synthetic images; "
        f"a detector is trained in {7 * (kept // 32)} steps; {looked_up} images are looked up"
    )
    assert list(found.steps) == ["reading", "training", "embedding", "search", "keypoints", "parts"]
    assert all(0 < low <= high for low, high in found.steps.values())
    assert found.range[0] < found.seconds < found.range[1] and found.cost < 60


def test_a_ready_detector_is_not_trained_and_symmetries_multiply_the_look_ups(
    audit_of: Callable[..., Audit], detector_file: Path
) -> None:
    detector = Detector.load(detector_file)
    plain = measured(audit_of(detector=str(detector_file), planted=0, limit_copies=0), detector)
    turned = measured(audit_of(detector=str(detector_file), planted=0, limit_copies=0, symmetries="all"), detector)
    assert list(plain.steps) == ["reading", "embedding", "search", "keypoints", "parts"]
    one, eight = (int(found.work.split("; ")[1].split()[0].replace(",", "")) for found in (plain, turned))
    assert eight == 8 * one
    unverified = audit_of(detector=str(detector_file), verification=False)
    assert list(measured(unverified, detector).steps) == ["reading", "embedding"]


def test_nothing_of_the_audit_depends_on_it(audit_of: Callable[..., Audit], detector_file: Path) -> None:
    detector = Detector.load(detector_file)
    state, before = torch.get_rng_state(), detector.sha256
    measured(audit_of(detector=str(detector_file)), detector)
    assert torch.equal(torch.get_rng_state(), state) and detector.sha256 == before
    assert not detector.network.training and next(detector.network.parameters()).device.type == "cpu"


def test_seconds_are_those_of_the_clock(audit_of: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch) -> None:
    audit = audit_of(size=32, epochs=7, verification=False)
    monkeypatch.setattr(module, "_read", lambda *_: (np.ones((2, 1, 32, 32), dtype=np.float32), np.array([0.5, 0.5])))
    monkeypatch.setattr(module, "_embedding", lambda *_: np.array([0.25, 0.35]))
    found = measured(audit)
    total = sum(len(cohort) for cohort in read_cohorts(audit.configuration)[0].values())
    error = 0.05 / np.sqrt(2)
    assert found.steps["embedding"] == pytest.approx(((0.3 - error) * total, (0.3 + error) * total))
    assert found.steps["reading"][1] == 0.5 * total and found.steps["reading"][0] <= found.steps["reading"][1]


def test_it_is_told_in_a_line_and_kept_in_the_record(
    audit_of: Callable[..., Audit], detector_file: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    options = {"detector": str(detector_file), "planted": 4, "limit_copies": 0, "gallery": 0, "verification": False}
    audit_of(**options).run()
    order = [line for line in caplog.messages if line.startswith(("forecast: about ", "read cohorts", "preprocess"))]
    assert [line.split()[0] for line in order] == ["read", "forecast:", "preprocess"]
    kept = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))["timing"]["forecast"]
    assert kept["low"] < kept["total"] < kept["high"] and set(kept["steps"]) == {"reading", "embedding"}
    assert kept["total"] == pytest.approx(sum(kept["steps"].values()), abs=0.01)


def test_without_progress_there_is_none(
    audit_of: Callable[..., Audit], detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = audit_of(
        detector=str(detector_file), progress=False, verification=False, planted=0, limit_copies=0, gallery=0
    )
    monkeypatch.setattr("monai_memo.audit.inputs.forecast", lambda *_: pytest.fail("measured"))
    assert "forecast" not in audit.run().timing


def test_images_that_cannot_be_read_are_left_to_the_audit(audit_of: Callable[..., Audit], tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    np.save(tmp_path / "bad" / "a.npy", np.full((8, 8), np.nan))
    cohorts = dict.fromkeys(("training", "heldout", "synthetic"), Cohort.from_source(tmp_path / "bad", "training"))
    recipe, configuration = Recipe.named("default", 2, (32, 32)), audit_of().configuration
    assert forecast(cohorts, Preprocessing(2, (32, 32)), configuration, "cpu", recipe) is None


def test_the_words_of_a_forecast() -> None:
    found = Forecast("work", {"reading": (0.1, 0.3), "training": (200, 280), "search": (60, 60)}, 1.0)
    assert str(found) == "forecast: about 5 min on this machine (3 min to 8 min): training 4 min, search 1 min"
    assert found.part() == {
        "total": 300.2, "low": 195.075, "high": 476.42, "cost": 1.0,
        "steps": {"reading": 0.2, "training": 240.0, "search": 60.0},
    }  # fmt: skip


def test_queries_cost_more_in_larger_cohorts_and_ranks_share_them(
    audit_of: Callable[..., Audit], detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit, detector = audit_of(detector=str(detector_file)), Detector.load(detector_file)
    monkeypatch.setattr(module, "_measured", lambda *_: np.array([1.0]))
    monkeypatch.setattr(module, "GALLERY", 32)
    images = np.stack([np.eye(32, dtype=np.float32)[None]] * 2)
    one, many = (
        float(module._search(detector.network, images, n, "cpu", audit.configuration)[0])
        for n in (module.GALLERY, module.GALLERY + 10_000)
    )
    assert (one, many) == (1.0, pytest.approx(1 + 10 * module.GROWTH))
    cohorts, _ = read_cohorts(audit.configuration)
    preprocessing, _ = preprocessing_for(audit.configuration, cohorts, detector)
    alone, shared = (
        forecast(cohorts, preprocessing, audit.configuration, "cpu", detector.recipe, detector, ranks)
        for ranks in (1, 2)
    )
    assert alone is not None and shared is not None
    for step in ("embedding", "search"):
        assert shared.steps[step][0] == pytest.approx(alone.steps[step][0] / 2)


def test_a_large_cohort_is_not_made_for_it(
    audit_of: Callable[..., Audit], detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cohort is filled up with a few images; what is found in these stands for all of them."""
    described = []
    own = module.keypoints_of
    monkeypatch.setattr(module, "keypoints_of", lambda images: described.append(len(images)) or own(images))
    monkeypatch.setattr(module, "GALLERY", 100)
    monkeypatch.setattr(module, "_measured", lambda once, items: np.array([1.0 / items]))
    audit, detector = audit_of(detector=str(detector_file)), Detector.load(detector_file)
    cohorts, _ = read_cohorts(audit.configuration)
    images = module._read(cohorts, preprocessing_for(audit.configuration, cohorts, detector)[0], 0)[0]
    small, large, huge = (
        module._search(detector.network, images, n, "cpu", audit.configuration).mean() for n in (100, 20_000, 10**6)
    )
    assert described == [len(images)] * 3
    assert 1.4 * small < large < huge < 2 * small  # an inverted file looks at few of a million
