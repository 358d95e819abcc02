# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Options by keyword: typed, with defaults, and nothing misspelt goes unnoticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.fine_tuning import fine_tune
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.errors import ConfigurationError
from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor
from monai_memo.label.study import draw_study
from monai_memo.settings import Whole
from monai_memo.settings.keywords import with_defaults

NOTHING: Any = None


def test_what_is_given_takes_the_place_of_a_default_and_the_defaults_stay() -> None:
    defaults = {"seed": 0, "device": "cpu"}
    assert with_defaults(defaults, {"seed": 5}, "f") == {"seed": 5, "device": "cpu"}
    assert with_defaults(defaults, {}, "f") == defaults == {"seed": 0, "device": "cpu"}


def test_values_are_read_by_their_kind_and_none_stays_where_it_is_the_default() -> None:
    defaults: dict[str, Any] = {"seed": 0, "workers": None}
    kinds = {"seed": Whole(0, 9), "workers": Whole(1, 9)}
    assert with_defaults(defaults, {"seed": "5"}, "f", kinds) == {"seed": 5, "workers": None}
    for given, words in (({"seed": None}, "seed must be"), ({"workers": "all"}, "workers must be a whole number")):
        with pytest.raises(ConfigurationError, match=words):
            with_defaults(defaults, given, "f", kinds)


def test_a_misspelt_option_is_refused_before_any_work_with_the_nearest_known_one(tmp_path: Path) -> None:
    recipe = Recipe.named("default", 2, (16, 16), epochs=1)
    pixels, preprocessing = np.zeros((8, 1, 16, 16), dtype=np.float32), Preprocessing(2, (16, 16))
    wrong: dict[str, Any] = {"sed": 3}
    with pytest.raises(TypeError, match=r"train_detector\(\) got an unexpected .* 'sed' \(did you mean seed\?\)"):
        train_detector(pixels, recipe, preprocessing, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
    with pytest.raises(TypeError, match=r"fine_tune\(\) .* 'epoch' \(did you mean epochs\?\)"):
        fine_tune(NOTHING, pixels, {}, epoch=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"CopyRateMonitor\(\) .* 'n_sample' \(did you mean n_samples\?\)"):
        CopyRateMonitor(NOTHING, NOTHING, NOTHING, tmp_path / "x.csv", n_sample=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"draw_study\(\) .* 'xyz' \(it takes n, n_uncertain, seed, confidence\)"):
        draw_study([], NOTHING, "audit", 2, xyz=3)  # type: ignore[call-arg]
