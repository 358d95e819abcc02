# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark: planted copies of a user's own training cohort, the default detector and all baselines in one run."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo import __version__
from monai_memo.audit.certainty import same_patient_pairs
from monai_memo.audit.record import software_versions
from monai_memo.audit.run import resolve_device
from monai_memo.benchmark.baselines import (
    PAPER,
    EmbeddingSimilarity,
    Found,
    Scorer,
    VerifiedSimilarity,
    paper_detector,
    pixel_baselines,
    random_network,
)
from monai_memo.benchmark.classical import classical_baselines
from monai_memo.benchmark.planted import ladder, plant_at_source
from monai_memo.benchmark.settings import BenchmarkSettings
from monai_memo.benchmark.tables import summarise_benchmark, write_benchmark
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import Planted
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.sources import require_sources
from monai_memo.detector.agreement import require_agreement
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.errors import ConfigurationError
from monai_memo.generators.small import train_small_generator
from monai_memo.progress import following
from monai_memo.sampling import Reconstructor
from monai_memo.sealing import fingerprint, is_sealed, write_sealed
from monai_memo.search.copy_search import VERSION, CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import check_images

logger = logging.getLogger(__name__)

RESULT = ("benchmark.json", "benchmark.md", "scores.npz", "curves.png", "detector.pt")
DEFAULT, UNVERIFIED = "monai_memo", "monai_memo, embedding only"


def _save_arrays(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


class Benchmark:
    """Plant copies at every strength, and look them and unseen patients up with every detector.

    Work in progress lies in ``<out>/.monai_memo_work``, and stays: the same call continues after an interruption.

    Args:
        arguments: see ``BenchmarkSettings``.
    """

    def __init__(self, **arguments: Any) -> None:
        settings = BenchmarkSettings(**arguments)
        self.asked = settings.given()
        self.arguments = settings.to_dict()
        cohorts = {"train": settings.train, "negatives": settings.negatives, "heldout": settings.heldout}
        writes = [name for name in RESULT if settings.detector is None or name != "detector.pt"]
        self.output = OutputFolder(settings.out, "benchmark", cohorts, writes, self.arguments)
        self.out, self.work = Path(settings.out), self.output.work
        self.trained_here = False
        self.device, self.workers, self.progress = resolve_device(settings.device), settings.workers, settings.progress
        self.per_level, self.seed = settings.per_level, settings.seed
        self.seconds: dict[str, float] = {}
        self.overlap: list[str] = []

    def run(self) -> dict[str, Any]:
        """Do the benchmark, write its output and return the record."""
        with self.output:
            return self._run()

    def _run(self) -> dict[str, Any]:
        prepared, sources, preprocessing = self._prepare()
        detector = self._detector(prepared["training"], preprocessing)
        training = np.asarray(prepared["training"].pixels, dtype=np.float32)
        generator = self._generator(training)
        levels = ladder(preprocessing.spatial_dims, generator is not None, self.arguments["kinds"])
        queries: dict[str, NDArray[np.float32]] = {}
        originals: dict[str, NDArray[np.int64]] = {}
        for number, level in enumerate(following(levels, "plant", shown=self.progress)):
            originals[level.name] = self._originals(number, len(training))
            queries[level.name] = self._planted(level, sources, originals[level.name], preprocessing, generator)
        for name in ("negatives", "heldout", "same patient"):
            if name in prepared:
                queries[name] = np.asarray(prepared[name].pixels, dtype=np.float32)
        results = {}
        paper = self._paper(prepared["training"], preprocessing)
        identity = [__version__, detector.sha256, prepared["training"].content_sha256, paper and paper.sha256]
        key = fingerprint("benchmark", [*identity, self.arguments], queries.values())
        for scorer in self._scorers(detector, paper, prepared["training"], preprocessing):
            results[scorer.name] = self._score(scorer, queries, key)
        record = {
            "schema_version": "1.0",
            **summarise_benchmark(results, originals, levels, self.seed),
            "cohorts": {name: len(item.cohort) for name, item in prepared.items()},
            "skipped": {name: len(item.skipped) for name, item in prepared.items()},
            "overlap": self.overlap,
            "seconds": self.seconds,
            "detector": {"sha256": detector.sha256, "training": detector.training_summary},
            "configuration": self.arguments,
            "software": software_versions(),
        }
        staging = self.output.staging()
        if self.trained_here:
            detector.save(staging / "detector.pt")
        write_benchmark(staging, record, results, levels)
        self.output.publish()
        return record

    def _originals(self, number: int, n_train: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, number])
        return np.sort(rng.choice(n_train, self.per_level, replace=n_train < self.per_level))

    def _prepare(self) -> tuple[dict[str, PreparedCohort], PreparedCohort, Preprocessing]:
        arguments = self.arguments
        pattern = arguments["patient_pattern"]
        detector = Detector.given(arguments["detector"]) if arguments["detector"] else None
        if detector is not None:
            require_agreement(detector, self.asked, ("epochs", "size", "spacing"))
        if arguments["paper_detector"]:
            Detector.given(arguments["paper_detector"], "paper_detector")
        require_sources({name: arguments[name] for name in ("train", "negatives", "heldout")})
        named = {"training": arguments["train"], "negatives": arguments["negatives"], "heldout": arguments["heldout"]}
        cohorts = {name: Cohort.from_source(source, name, pattern) for name, source in named.items() if source}
        files = (part for cohort in cohorts.values() for image in cohort.images for part in image.parts)
        check_images(self.out, files, RESULT)
        self.overlap = check_overlap(list(cohorts.values()), allow=arguments["allow_overlap"])
        for message in self.overlap:
            logger.warning(message)
        preprocessing = guess_preprocessing(list(cohorts.values()), arguments["size"], arguments["spacing"])
        if detector is not None:
            preprocessing = detector.preprocessing
        if arguments["generator_steps"] and (preprocessing.channels > 1 or any(n % 16 for n in preprocessing.size)):
            raise ConfigurationError(
                "generator_steps needs images of one channel and of lengths that are multiples of 16, not "
                f"{preprocessing.describe()}: choose another --size, or --generator_steps 0"
            )
        # One image of some patients with several is kept out of the training cohort: same patient, other image.
        training = cohorts["training"]
        if training.patients_known:
            pairs = same_patient_pairs(training.patient_ids, len(training) // 8, self.seed)
            out: set[int] = set()
            for first, second in pairs:
                if second not in out:
                    out.add(first)
            stays = [position for position in range(len(training)) if position not in out]
            left = {training.patient_ids[position] for position in stays}
            taken = [position for position in sorted(out) if training.patient_ids[position] in left]
            if taken:
                cohorts["training"] = training.subset(stays)
                cohorts["same patient"] = training.subset(taken, "same patient")
        prepared = {
            name: prepare(cohort, preprocessing, self.work / "pixels", self.workers, self.progress)
            for name, cohort in cohorts.items()
        }
        larger = preprocessing.resized([round(arguments["source_factor"] * n) for n in preprocessing.size])
        sources = prepare(prepared["training"].cohort, larger, self.work / "sources", self.workers, self.progress)
        return prepared, sources, preprocessing

    def _recipe(self, name: str, preprocessing: Preprocessing, epochs: int | None, n_images: int) -> Recipe:
        return Recipe.named(
            name, preprocessing.spatial_dims, preprocessing.size, preprocessing.channels, epochs, n_images=n_images
        )

    def _train(self, recipe: Recipe, training: PreparedCohort, preprocessing: Preprocessing, folder: str) -> Detector:
        start = time.perf_counter()
        detector = train_detector(
            training.pixels, recipe, preprocessing, self.work / folder, seed=self.seed, device=self.device,
            patient_ids=training.cohort.patient_ids, progress=self.progress,
        )  # fmt: skip
        self.seconds[f"train {recipe.name}"] = round(time.perf_counter() - start, 1)
        return detector

    def _detector(self, training: PreparedCohort, preprocessing: Preprocessing) -> Detector:
        if self.arguments["detector"]:
            return Detector.load(self.arguments["detector"])
        recipe = self._recipe("default", preprocessing, self.arguments["epochs"], len(training.pixels))
        detector = self._train(recipe, training, preprocessing, "training")
        self.trained_here = True
        return detector

    def _paper(self, training: PreparedCohort, preprocessing: Preprocessing) -> Detector | None:
        if self.arguments["paper_detector"]:
            return paper_detector(self.arguments["paper_detector"], preprocessing)
        epochs = self.arguments["paper_epochs"]
        if not epochs:
            return None
        recipe = self._recipe("paper", preprocessing, epochs, len(training.pixels))
        return self._train(recipe, training, preprocessing, "paper")

    def _generator(self, training: NDArray[np.float32]) -> Reconstructor | None:
        steps = self.arguments["generator_steps"]
        if not steps:
            return None
        start = time.perf_counter()
        generator = train_small_generator(
            training, self.work / "generator", steps, round(5 * steps / 3), self.seed, self.progress
        )
        self.seconds["train generator"] = round(time.perf_counter() - start, 1)
        return generator

    def _planted(
        self,
        level: Planted,
        sources: PreparedCohort,
        originals: NDArray[np.int64],
        preprocessing: Preprocessing,
        generator: Reconstructor | None,
    ) -> NDArray[np.float32]:
        images = np.asarray(sources.pixels[originals], dtype=np.float32)
        return plant_at_source(images, level, preprocessing, self.seed, generator)

    def _scorers(
        self, detector: Detector, paper: Detector | None, training: PreparedCohort, preprocessing: Preprocessing
    ) -> list[Scorer]:
        pixels = training.pixels
        plain = EmbeddingSimilarity(UNVERIFIED, detector, pixels, self.device)
        patients = training.cohort.patient_ids
        gallery = Gallery.of(pixels, patients, plain.embeddings)
        runner = Runner(torch.device(self.device), progress=self.progress)
        search = CopySearch.default(detector.network).fit(gallery, runner)
        found: list[Scorer] = [VerifiedSimilarity(DEFAULT, search), plain]
        if self.arguments["baselines"]:
            untrained = random_network(preprocessing, self.seed)
            found += [*pixel_baselines(pixels), *classical_baselines(pixels)]
            found.append(EmbeddingSimilarity("random network", untrained, pixels, self.device))
        if paper is not None:
            found.append(EmbeddingSimilarity(PAPER, paper, pixels, self.device))
        return found

    def _score(self, scorer: Scorer, queries: dict[str, NDArray[np.float32]], key: str) -> dict[str, Found]:
        store = self.work / "scores" / f"{key[:16]}-{hashlib.sha256(scorer.name.encode()).hexdigest()[:8]}.npz"
        found: dict[str, Found] = {}
        # Another version of the search scores anew; baselines, which take longer, do not change with it.
        of_search = [VERSION] if isinstance(scorer, VerifiedSimilarity) else []
        identity = fingerprint("scores", [key, scorer.name, *of_search])
        if is_sealed(store, identity):
            with np.load(store, allow_pickle=False) as kept:
                names = [name.removesuffix("|s") for name in kept.files if name.endswith("|s")]
                found = {name: (kept[f"{name}|s"], kept[f"{name}|n"]) for name in names}
        start, done = time.perf_counter(), 0
        for name in following(queries, scorer.name, shown=self.progress):
            if name not in found:
                found[name] = scorer(queries[name])
                done += len(queries[name])
                arrays = {f"{k}|s": v[0] for k, v in found.items()} | {f"{k}|n": v[1] for k, v in found.items()}
                write_sealed(store, partial(_save_arrays, arrays), identity)
        if done:
            self.seconds[f"{scorer.name}, per image"] = round((time.perf_counter() - start) / done, 5)
        return found
