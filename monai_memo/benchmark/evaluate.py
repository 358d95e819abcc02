# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a detector finds: planted copies of the training cohort against unseen patients, kind by kind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.configuration import is_verified
from monai_memo.audit.orientation import compare_cohorts, require_alike
from monai_memo.audit.record import software_versions
from monai_memo.audit.run import resolve_device
from monai_memo.audit.verified_comparison import search_in
from monai_memo.benchmark.scores import KindScore, kind_score, markdown_table
from monai_memo.benchmark.settings import EvaluationSettings
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.data.planting import KINDS, plant
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.detector.agreement import require_agreement
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.files import write_json, write_text
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.protocols import SearchDescription
from monai_memo.search.runner import Runner
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import check_images

logger = logging.getLogger(__name__)

RESULT = ("evaluation.json", "evaluation.md", "detector.pt")
SCHEMA_VERSION = "2.0"  # since 2.0 scores are by verified matches unless "similarity" says otherwise
VERIFIED = "Scores are similarities of verified matches, as an audit measures them."
EMBEDDED = "Scores are similarities of embeddings alone; an audit verifies matches on top of that."
Nearest = tuple[NDArray[np.float64], NDArray[np.int64]]
LookUp = Callable[[NDArray[np.floating], str], Nearest]


class Evaluation:
    """Plant copies of training images, look them up in the whole training cohort, and score them against negatives.

    Args:
        arguments: see ``EvaluationSettings``.
    """

    def __init__(self, **arguments: Any) -> None:
        settings = EvaluationSettings(**arguments)
        self.asked = settings.given()
        left_out = ("out", "device", "workers", "progress")
        self.arguments = {key: value for key, value in settings.to_dict().items() if key not in left_out}
        self.arguments["kinds"] = list(settings.kinds or KINDS)
        self.out = Path(settings.out)
        cohorts = {"train": settings.train, "negatives": settings.negatives}
        writes = [name for name in RESULT if settings.detector is None or name != "detector.pt"]
        self.output = OutputFolder(settings.out, "evaluate", cohorts, writes, self.arguments)
        self.skipped, self.trained_here = 0, False
        self.search: SearchDescription | None = None  # None: embeddings alone
        self.device, self.workers, self.progress = resolve_device(settings.device), settings.workers, settings.progress

    def run(self) -> list[KindScore]:
        """Do the evaluation, write its output and return one score per kind and one over all kinds."""
        with self.output:
            return self._run()

    def _run(self) -> list[KindScore]:
        prepared, detector = self._prepare()
        training, negatives = prepared["training"], prepared["negatives"]
        look_up = self._search(detector, training)
        unseen, _ = look_up(negatives.pixels, "negatives")
        scores, positives, hits = [], [], []
        for number, kind in enumerate(self.arguments["kinds"]):
            rng = np.random.default_rng([self.arguments["seed"], number])
            n_train = len(training.cohort)
            originals = np.sort(
                rng.choice(n_train, self.arguments["per_kind"], replace=n_train < self.arguments["per_kind"])
            )
            copies = plant(np.asarray(training.pixels[originals], dtype=np.float32), kind, self.arguments["seed"])
            similarity, nearest = look_up(copies, kind)
            retrieved = nearest == originals
            scores.append(kind_score(kind, similarity, unseen, retrieved))
            positives.append(similarity)
            hits.append(retrieved)
            logger.info("%s: AUC %.3f", kind, scores[-1].auc.value)
        scores.append(kind_score("all", np.concatenate(positives), unseen, np.concatenate(hits)))
        self._write(scores, prepared, detector)
        return scores

    def _prepare(self) -> tuple[dict[str, PreparedCohort], Detector]:
        arguments = self.arguments
        detector = Detector.given(arguments["detector"]) if arguments["detector"] else None
        if detector is not None:
            require_agreement(detector, self.asked)
            arguments["recipe"] = detector.recipe.name
        require_sources({name: arguments[name] for name in ("train", "negatives")})
        cohorts = {
            name: Cohort.from_source(source, name, arguments["patient_pattern"])
            for name, source in (("training", arguments["train"]), ("negatives", arguments["negatives"]))
        }
        files = (part for cohort in cohorts.values() for image in cohort.images for part in image.parts)
        check_images(self.out, files, RESULT)
        for message in check_overlap(list(cohorts.values()), allow=arguments["allow_overlap"]):
            logger.warning(message)
        preprocessing = guess_preprocessing(list(cohorts.values()), arguments["size"], arguments["spacing"])
        if detector is not None:
            detector.check_cohort(preprocessing)
            preprocessing = detector.preprocessing
        work = self.output.work
        prepared = {
            name: prepare(cohort, preprocessing, work / "pixels", self.workers, self.progress)
            for name, cohort in cohorts.items()
        }
        self.skipped = sum(len(item.skipped) for item in prepared.values())
        for message in require_alike(compare_cohorts(prepared, arguments["seed"]), dims=preprocessing.spatial_dims):
            logger.warning(message)
        if detector is None:
            recipe = Recipe.named(
                arguments["recipe"],
                preprocessing.spatial_dims,
                preprocessing.size,
                channels=preprocessing.channels,
                epochs=arguments["epochs"],
                n_images=len(prepared["training"].pixels),
            )
            detector = train_detector(
                prepared["training"].pixels,
                recipe,
                preprocessing,
                work / "training",
                seed=arguments["seed"],
                device=self.device,
                patient_ids=prepared["training"].cohort.patient_ids,
                progress=self.progress,
            )
            self.trained_here = True
        return prepared, detector

    def _search(self, detector: Detector, training: PreparedCohort) -> LookUp:
        """Similarity and number of the nearest training image, by the search of an audit with the same settings."""
        embeddings = self._embed(detector, training.pixels)
        if not is_verified(self.arguments["verification"], detector.recipe.name):
            index = EmbeddingIndex(embeddings)

            def by_embedding(pixels: NDArray[np.floating], name: str) -> Nearest:
                similarity, nearest = index.search(self._embed(detector, pixels))
                return similarity[:, 0], nearest[:, 0]

            return by_embedding
        runner = Runner(torch.device(self.device), seed=self.arguments["seed"], progress=self.progress)
        search = search_in(training, embeddings, detector, runner, self.arguments["batch_size"])
        self.search = search.describe()

        def verified(pixels: NDArray[np.floating], name: str) -> Nearest:
            found = search.search(pixels, self.output.work / "verified" / f"{name}.npz")
            return found.similarity[:, 0], found.candidates[:, 0]

        return verified

    def _embed(self, detector: Detector, pixels: NDArray[np.floating]) -> NDArray[np.float32]:
        return detector.embed(
            pixels, batch_size=self.arguments["batch_size"], device=self.device, progress=self.progress
        )

    def _write(self, scores: list[KindScore], prepared: dict[str, PreparedCohort], detector: Detector) -> None:
        record = {
            "schema_version": SCHEMA_VERSION,
            "similarity": "embedding" if self.search is None else "verified",
            "search": self.search,
            "scores": [score.to_dict() for score in scores],
            "n_train": len(prepared["training"].cohort),
            "n_negatives": len(prepared["negatives"].cohort),
            "detector": {"recipe": detector.recipe.name, "sha256": detector.sha256},
            "configuration": self.arguments,
            "software": software_versions(),
        }
        staging = self.output.staging()
        write_json(staging / "evaluation.json", record)
        how = EMBEDDED if self.search is None else VERIFIED
        write_text(staging / "evaluation.md", f"{markdown_table(scores)}\n{how}\n")
        if self.trained_here:
            detector.save(staging / "detector.pt")
        self.output.publish()
        self.output.clear()
