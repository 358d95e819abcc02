# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The detector learns from ratings."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError, TrainingError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.learning import FINE_TUNED, decisions, fine_tune_on_ratings, similarities_with
from monai_memo.label.prepare import FINAL, prepare_review
from monai_memo.label.ratings import all_ratings
from tests.label.conftest import rate_all


def test_the_detector_learns_from_what_raters_have_decided(audit: Path, truth: dict[str, str]) -> None:
    study = prepare_review(str(audit), n=30, n_uncertain=0, progress=False)
    ratings = {p.pair_id: "copy" if truth[p.synthetic] == p.training else "novel" for p in study.pairs}
    rate_all(audit, ratings, "anna")
    folder = AuditFolder(audit)
    history = all_ratings(audit / "review" / FINAL, study.by_id)
    assert decisions(study, history) == {pair: rating == "copy" for pair, rating in ratings.items()}
    before = (audit / "detector.pt").read_bytes()
    told = fine_tune_on_ratings(folder, study, history, epochs=1, learning_rate=1e-3)
    copies = [p for p in study.pairs if ratings[p.pair_id] == "copy"]
    assert told["confirmed_copies"] == len({p.training for p in copies}) and told["confirmed_novel"] == 30 - len(copies)
    assert (audit / "detector.pt").read_bytes() == before and not (audit / "review" / "work").exists()
    tuned = Detector.load(audit / "review" / FINE_TUNED)
    assert tuned.sha256.startswith(told["detector"])
    images = {name: folder.images(name) for name in ("synthetic", "training")}
    first, second = (
        similarities_with(detector, study, images) for detector in (Detector.load(audit / "detector.pt"), tuned)
    )
    assert set(first) == {p.pair_id for p in study.pairs}
    assert second != pytest.approx(first, abs=1e-3)
    with pytest.raises(ConfigurationError, match="epochs"):
        fine_tune_on_ratings(folder, study, history, epochs=0)
    with pytest.raises(ConfigurationError, match="learning_rate"):
        fine_tune_on_ratings(folder, study, history, learning_rate=2)
    with pytest.raises(TrainingError, match="nothing to learn from"):
        fine_tune_on_ratings(folder, study, {}, epochs=1)
