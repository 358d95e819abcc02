# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The scores of planted copies are those of an audit's search, with a detector that was never trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.audit.verified_comparison import search_in
from monai_memo.benchmark.evaluate import Evaluation
from monai_memo.benchmark.scores import kind_score
from monai_memo.data.cohort import Cohort
from monai_memo.data.planting import plant
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.search.embedding_index import EmbeddingIndex
from tests.audit.small import untrained, write_cohorts

KINDS = ["shift", "rotation"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_cohorts(tmp_path_factory.mktemp("inputs"), train=24, heldout=20, synthetic=1)
    untrained(root / "detector.pt")
    return root


def evaluate(inputs: Path, out: Path, detector: str = "detector.pt", **further: Any) -> dict[str, Any]:
    Evaluation(
        train=str(inputs / "train"), negatives=str(inputs / "heldout"), out=str(out), per_kind=24, kinds=KINDS,
        detector=str(inputs / detector), progress=False, workers=1, device="cpu", **further,
    ).run()  # fmt: skip
    record: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return record


def expected(inputs: Path, folder: Path, verified: bool) -> list[dict[str, Any]]:
    detector = Detector.load(inputs / "detector.pt")
    training, negatives = (
        prepare(Cohort.from_source(inputs / name, name), detector.preprocessing, folder, 1, False)
        for name in ("train", "heldout")
    )
    embeddings = detector.embed(training.pixels, progress=False)
    search, index = search_in(training, embeddings, detector), EmbeddingIndex(embeddings)

    def nearest(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if verified:
            found = search.search(pixels)
            return found.similarity[:, 0], found.candidates[:, 0]
        similarity, which = index.search(detector.embed(pixels, progress=False))
        return similarity[:, 0], which[:, 0]

    unseen = nearest(negatives.pixels)[0]
    scores = []
    for kind in KINDS:  # 24 copies of 24 images: each once
        similarity, which = nearest(plant(np.asarray(training.pixels, dtype=np.float32), kind, 0))
        scores.append(kind_score(kind, similarity, unseen, which == np.arange(24)))
    return [json.loads(json.dumps(score.to_dict())) for score in scores]


def test_scores_are_those_of_the_search_of_an_audit(inputs: Path, tmp_path: Path) -> None:
    record = evaluate(inputs, tmp_path / "out")
    assert record["schema_version"] == "2.0" and record["similarity"] == "verified"
    assert record["search"]["whole_images"] and record["search"]["neighbours"] == 24
    assert record["scores"][:2] == expected(inputs, tmp_path / "pixels", verified=True)
    assert record["scores"][2]["retrieval"]["value"] > 0.9, "what an untrained network cannot do by itself"
    assert "verified matches" in (tmp_path / "out" / "evaluation.md").read_text()


def test_embeddings_alone_are_scored_where_that_is_asked_for(inputs: Path, tmp_path: Path) -> None:
    record = evaluate(inputs, tmp_path / "out", verification=False)
    assert record["similarity"] == "embedding" and record["search"] is None
    assert record["scores"][:2] == expected(inputs, tmp_path / "pixels", verified=False)
    assert "embeddings alone" in (tmp_path / "out" / "evaluation.md").read_text()


def test_the_papers_recipe_is_not_verified_unless_that_is_asked_for(inputs: Path, tmp_path: Path) -> None:
    detector = Detector.load(inputs / "detector.pt")
    detector.recipe = replace(detector.recipe, name="paper")
    detector.save(inputs / "paper.pt")
    assert evaluate(inputs, tmp_path / "out", "paper.pt")["similarity"] == "embedding"
    assert evaluate(inputs, tmp_path / "asked", "paper.pt", verification=True)["similarity"] == "verified"
