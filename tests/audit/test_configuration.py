# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from monai_memo.audit.audit import Audit
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.data.cohort import Reading
from monai_memo.data.loading import Preprocessing
from monai_memo.detector.agreement import require_agreement
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import ConfigurationError

SOURCES = {"train": "a", "heldout": "b", "synthetic": "c", "out": "d"}


def test_every_argument_is_recorded_in_plain_types() -> None:
    record = AuditConfiguration(**SOURCES, size=(64, 48), window="-100,400").to_dict()
    assert list(record)[:4] == ["train", "heldout", "synthetic", "out"]
    assert set(record) == set(AuditConfiguration.model_fields)
    assert record["size"] == [64, 48] and record["window"] == [-100.0, 400.0] and record["verification"] is None


def test_readings_of_each_cohort() -> None:
    made = AuditConfiguration(**SOURCES, window=(0, 80), channel=1, allow_gaps=True, orientation="as_is")
    assert made.readings()["heldout"] == Reading(window=(0.0, 80.0), channel=1, allow_gaps=True)
    assert made.readings()["synthetic"] == Reading(channel=1, allow_gaps=True)
    assert made.cohort_sources() == {"training": "a", "heldout": "b", "synthetic": "c"}


def test_verification_follows_the_recipe_and_the_calibration() -> None:
    assert AuditConfiguration(**SOURCES).verifies("default")
    assert not AuditConfiguration(**SOURCES).verifies("paper")
    assert AuditConfiguration(**SOURCES, verification=True).verifies("paper")
    assert not AuditConfiguration(**SOURCES, calibration="paper").verifies("default")
    with pytest.raises(ConfigurationError, match="the paper's calibration is defined on embeddings"):
        AuditConfiguration(**SOURCES, calibration="paper", verification="yes")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("train", None), ("train", ["a"]), ("seed", "x"), ("n_bootstrap", 10**9), ("n_bootstrap", 5), ("batch_size", 0),
        ("quantile", 95), ("gallery", -1), ("channel", -1), ("symmetries", "some"), ("recipe", "papers"),
    ],
)  # fmt: skip
def test_python_gets_the_same_refusals_as_the_command_line(argument: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{argument} must be "):
        Audit(**{**SOURCES, argument: value})


def _detector(recipe: str = "default", spacing: tuple[float, ...] | None = None) -> Detector:
    size = (32, 32) if spacing is None else (32, 32, 32)
    made = Recipe.named(recipe, len(size), size, epochs=7)
    return Detector(made.build_network(), made, Preprocessing(len(size), size, spacing=spacing), 0, {})


def test_options_that_agree_with_a_detector_are_accepted() -> None:
    asked = {"size": 32, "recipe": "default", "epochs": 7, "spacing": None, "seed": 3}
    require_agreement(_detector(), asked)
    made = _detector("paper", (1.0, 1.0, 2.0))
    require_agreement(made, {"size": [32, 32, 32], "recipe": "paper", "spacing": (1.0, 1.0, 2.0)})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"size": 64}, "size is 64 x 64, and the detector was made with 32 x 32"),
        ({"size": (32, 48)}, "size is 32 x 48"),
        ({"recipe": "paper"}, "recipe is paper, and the detector was made with default"),
        ({"epochs": 8}, "epochs is 8, and the detector was made with 7"),
        ({"spacing": 1.0}, "spacing is 1 x 1, and the detector was made with none"),
    ],
)
def test_options_that_a_detector_would_overrule_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{message}.*Leave these options out"):
        require_agreement(_detector(), asked)


def test_copies_in_part_that_cannot_be_looked_for_are_refused() -> None:
    sources = {"train": "t", "heldout": "h", "synthetic": "s", "out": "o"}
    with pytest.raises(ConfigurationError, match="which recipe paper does not do"):
        AuditConfiguration(**sources, parts=True, recipe="paper")
    assert AuditConfiguration(**sources, parts=True).parts is True
    assert AuditConfiguration(**sources, parts=False, recipe="paper").parts is False
