# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The mitigation benchmark on the samples of a study: quality, usefulness, sanity arm, and the registered pass rule.

    python -m monai_memo.study.mitigation --study STUDY --config docs/studies/mitigation_chest_xray_50.yaml \
        --dataset POOL.csv --heldout HELDOUT.csv --detector detector.pt --autoencoder model_autoencoder.pt \
        --metrics METRICS.csv --neutral NEUTRAL.csv --label label --positive PNEUMONIA --out OUT

``docs/mitigation_benchmark.md`` says what is asked and by which rule it is judged. Nothing is trained here but the
network of the features and the classifiers; each unit is kept in ``OUT/units`` and done once.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.comparison import patient_codes
from monai_memo.audit.record import software_versions
from monai_memo.benchmark import neutral
from monai_memo.benchmark.baselines import Scorer, StructuralSimilarity
from monai_memo.benchmark.classical import Keypoints, classical_baselines
from monai_memo.benchmark.mitigation_report import (
    copies_and_quality,
    sanity_text,
    save_figure,
    score_table,
    to_csv,
    verdict_table,
)
from monai_memo.benchmark.mitigation_rule import PLAIN, judge_all, sanity
from monai_memo.benchmark.neutral import Classifier, Features, train_classifier, train_features, usefulness
from monai_memo.data.cohort import Cohort
from monai_memo.data.overlap import check_overlap
from monai_memo.data.prepared import PreparedCohort
from monai_memo.errors import CohortError, ConfigurationError, GeneratorError, UnusableImageError
from monai_memo.files import write_json, write_text
from monai_memo.generators.latent_diffusion import sample_seeds
from monai_memo.generators.scores import diversity
from monai_memo.progress import following
from monai_memo.sealing import fingerprint, is_sealed, read_sealed_json, write_sealed, write_sealed_json
from monai_memo.settings.refusals import refusals
from monai_memo.statistics.quality import KernelDistance, feature_scores, gradient_energy
from monai_memo.study.arguments import add_study, study_of
from monai_memo.study.configuration import Run, StudyConfiguration
from monai_memo.study.study import GeneratorStudy, samples_of
from monai_memo.workspace.place import check_place

logger = logging.getLogger(__name__)

FORMAT = 1  # raise it when the same unit would come to have another result
CALLED_FROM = 0.95  # quantile of unseen patients, of searches that have no threshold of their own
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Labels:
    """Labels of images by their file.

    Attributes:
        by_file: every label.
        positive: the one that classifiers look for.
    """

    by_file: Mapping[Path, str]
    positive: str

    @classmethod
    def of(cls, cohorts: Sequence[Cohort], column: str, positive: str) -> Labels:
        """Read them from a column of the cohorts' tables.

        Raises:
            CohortError: images without a label, or no image with the positive one.
        """
        found: dict[Path, str] = {}
        for cohort in cohorts:
            without = [image.image_id for image in cohort.images if not image.columns.get(column)]
            if without:
                raise CohortError(f"{cohort.source}: {len(without)} images have no {column}, for example {without[0]}")
            found |= {image.path.resolve(): image.columns[column] for image in cohort.images}
        if positive not in found.values():
            raise CohortError(f"no image has the {column} {positive}: there are {', '.join(sorted({*found.values()}))}")
        return cls(found, positive)

    def __call__(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Which images are positive."""
        return np.array([self.by_file[image.path.resolve()] == self.positive for image in cohort.images])


def arm_of(run: Run, base: Mapping[str, Any]) -> str:
    """What a run differs in from the base run, but for patients and seed.

    Example:
        >>> base = {"generator": "plain", "augmentation": "none", "network": "medium", "steps": 10}
        >>> arm_of(Run("plain", 50, "flips", "small", 10, 0), base)
        'flips, small network'
    """
    words = [] if run.generator == base["generator"] else [run.generator]
    words += [] if run.augmentation == base["augmentation"] else [run.augmentation]
    words += [] if run.network == base["network"] else [f"{run.network} network"]
    words += [] if run.steps == base["steps"] else [f"{run.steps} steps"]
    words += [] if run.conditioning == base.get("conditioning", "none") else [f"conditioning {run.conditioning}"]
    words += [] if run.guidance == base.get("guidance", 1.0) else [f"guidance {run.guidance:g}"]
    return ", ".join(words) or PLAIN


class MitigationBenchmark:
    """Measures every finished run of a study, and the sanity arm, and judges by the registered rule.

    Args:
        study: with the same arguments as when it was run.
        out: folder for ``mitigation.json``, ``mitigation.csv``, ``mitigation.md``, ``mitigation.png`` and ``units``.
        metrics: real images of patients who took no part: what samples are compared with.
        neutral_source: of further such patients: for the network of the features, and to test classifiers on.
        label, positive: column of the tables, and the value that classifiers look for; None leaves usefulness out.
        sanity_samples: of the closed-form memorizer, for each switch; 0 leaves the sanity arm out.
        progress: show bars.
    """

    def __init__(
        self,
        study: GeneratorStudy,
        out: str | Path,
        metrics: str,
        neutral_source: str,
        label: tuple[str, str] | None = None,
        sanity_samples: int = 50,
        progress: bool = True,
    ) -> None:
        check_place(out)
        self.study, self.out, self.progress, self.sanity_samples = study, Path(out), progress, sanity_samples
        self.configuration: StudyConfiguration = study.configuration
        self.data = study.opened(only_look=True)
        pool = Cohort.from_source(str(self.configuration.dataset), "training")
        heldout = Cohort.from_source(str(self.configuration.heldout), "heldout")
        both = [
            Cohort.from_source(source, name) for source, name in ((metrics, "metrics"), (neutral_source, "neutral"))
        ]
        check_overlap([pool, heldout, *both])
        self.labels = None if label is None else Labels.of([pool, both[1]], *label)
        self.pool = pool
        self.metrics, self.neutral = (self.data.prepared(cohort) for cohort in both)
        self.scorers: dict[str, list[tuple[Scorer, float]]] = {}

    @cached_property
    def real(self) -> Pixels:
        """Images that samples are compared with."""
        return np.asarray(self.metrics.pixels, dtype=np.float32)

    @cached_property
    def features(self) -> Features:
        """Of the network that took no part."""
        known = None if self.labels is None else self.labels(self.neutral.cohort).astype(np.int64)
        pixels, seed = np.asarray(self.neutral.pixels, dtype=np.float32), self.configuration.seed
        return train_features(pixels, known, self.out / "features.pt", seed, progress=self.progress)

    @cached_property
    def reference(self) -> NDArray[np.float64]:
        """Features of the images that samples are compared with."""
        return self.features(self.real)

    @cached_property
    def teacher(self) -> Classifier | None:
        """Labels the samples, which have no label of their own; trained on all real training patients."""
        if self.labels is None:
            return None
        prepared = self.data.prepared(self.pool)
        pixels = np.asarray(prepared.pixels, dtype=np.float32)
        return train_classifier(pixels, self.labels(prepared.cohort), self.configuration.seed, neutral.TEACHER_STEPS)

    def run(self) -> dict[str, Any]:
        """Measure what is missing, and write table, numbers and figure.

        Raises:
            ConfigurationError: no run of the study is finished.
        """
        finished = self.study.finished(self.data)
        start = time.perf_counter()
        units = []
        distances: dict[tuple[int, str, int], KernelDistance] = {}
        for run, folder, result in following(finished, "units", shown=self.progress):
            samples = self._prepared_samples(samples_of(folder, result))
            unit = self._unit(run, samples, result)
            units.append(unit)
            key = int(unit["n_patients"]), str(unit["arm"]), int(unit["seed"])
            distances[key] = KernelDistance(self.features(samples), self.reference)
        rows = judge_all(units, distances, self.configuration.seeds)
        sizes = sorted({int(unit["n_patients"]) for unit in units})
        real = {size: self._real(size) for size in sizes}
        sane, refused = self._sanity()
        found = None
        if sane:
            size = int(sane[0]["n_patients"])
            plain = [unit for unit in units if unit["arm"] == PLAIN and unit["n_patients"] == size]
            apart = {"ms_ssim": diversity(self.real, len(self.real), self.configuration.seed), "gradient_ratio": 1.0}
            found = sanity(sane, plain, apart)
        record = {
            "rows": rows, "units": [*units, *sane], "real": {str(size): values for size, values in real.items()},
            "sanity": found, "refused": refused, "usefulness_of_teacher": self._of(self.teacher), "format": FORMAT,
            "metrics_images": len(self.real), "seconds": round(time.perf_counter() - start, 1),
            "software": software_versions(),
        }  # fmt: skip
        self._write(record, units, sane, real)
        return record

    def _write(
        self, record: dict[str, Any], units: list[dict[str, Any]], sane: list[dict[str, Any]], real: dict[int, Any]
    ) -> None:
        text = verdict_table(record["rows"]) + "\n" + score_table(units, real)
        if sane:
            text += "\nSanity arm: the closed-form perfect memorizer.\n\n" + score_table(sane, {})
            text += "\n" + sanity_text(record["sanity"], record["refused"])
        write_json(self.out / "mitigation.json", record)
        write_text(self.out / "mitigation.csv", to_csv([*units, *sane]))
        write_text(self.out / "mitigation.md", text)
        save_figure(copies_and_quality(units, record["rows"]), self.out / "mitigation.png")

    def _prepared_samples(self, samples: NDArray[np.floating]) -> Pixels:
        """As an audit prepares images; one of a single grey value stays as it is, so that pairs stay pairs."""
        prepared = []
        for sample in np.asarray(samples, dtype=np.float32):
            try:
                prepared.append(self.data.detector.preprocessing.from_array(sample))
            except UnusableImageError:
                prepared.append(np.clip(np.nan_to_num(sample), 0, 1))
        return np.stack(prepared).astype(np.float32)

    def _unit(self, run: Run, samples: Pixels, result: Mapping[str, Any], sane: bool = False) -> dict[str, Any]:
        """One unit, from its file where the same was measured before."""
        if "reference" not in result:
            raise ConfigurationError(
                f"{run.name} was audited before studies had the reference control: remove its result.json and run the "
                "study again, which keeps its samples"
            )
        arm = arm_of(run, self.configuration.base)
        real = [self.metrics.content_sha256, self.neutral.content_sha256, self.data.identity]
        asked = [FORMAT, run.name, sane, result, real, self.labels is not None]
        identity = fingerprint("unit of the mitigation benchmark", asked, [samples], packages=())
        path = self.out / "units" / f"{'sanity-' if sane else ''}{run.name}.json"
        kept = read_sealed_json(path) if path.exists() else None
        if kept is not None and kept["identity"] == identity:
            return dict(kept["unit"])
        logger.info("%s ...", path.stem)
        training = self.data.training_cohort(run.n_patients, run.seed)
        useful = self._useful(samples, run.seed)
        rates, seconds = result["rates"], result["seconds"]
        drawn = seconds.get("sampling")
        unit = {
            "arm": arm, "n_patients": run.n_patients, "seed": run.seed, "sanity": sane, "run": run.name,
            "n_training_images": result["n_training_images"], "n_synthetic": result["n_synthetic"],
            "excess_reference": result["reference"]["excess"], "reference_p_value": result["reference"]["p_value"],
            "excess_control": rates["size_matched"]["excess_copies"],
            "n_copies": rates["size_matched"]["n_copies"], "n_memorized": rates["size_matched"]["n_memorized"],
            "embedding_copies": rates["size_matched_embeddings"]["n_copies"], "similarity": result["similarity"],
            "called_by": self._called_by(samples, training),
            "scores": self._scores(samples) | {name: interval[0] for name, interval in useful.items()},
            "usefulness": useful, "seconds_training": seconds.get("training"),
            "seconds_per_image": None if drawn is None else round(drawn / len(samples), 4),
        }  # fmt: skip
        write_sealed_json(path, {"identity": identity, "unit": unit})
        return unit

    def _scores(self, samples: Pixels) -> dict[str, float]:
        ratio = gradient_energy(samples).mean() / gradient_energy(self.real).mean()
        return {
            **feature_scores(self.features(samples), self.reference),
            "ms_ssim": diversity(samples, len(samples), self.configuration.seed),
            "gradient_ratio": float(ratio),
        }

    def _useful(self, samples: Pixels, seed: int, positive: NDArray[np.bool_] | None = None) -> dict[str, list[float]]:
        """A classifier trained on samples that the teacher labelled, or that have labels, on real unseen patients."""
        if self.labels is None or self.teacher is None:
            return {}
        labels = self.teacher(samples) > 0.5 if positive is None else positive
        if labels.all() or not labels.any():
            return {"balanced_accuracy": [0.5] * 3, "auc": [0.5] * 3}  # one class says nothing
        return self._of(train_classifier(samples, labels, seed))

    def _of(self, classifier: Classifier | None) -> dict[str, list[float]]:
        if self.labels is None or classifier is None:
            return {}
        cohort = self.neutral.cohort
        probabilities = classifier(np.asarray(self.neutral.pixels, dtype=np.float32))
        found = usefulness(probabilities, self.labels(cohort), patient_codes(cohort.patient_ids))
        named = {"balanced_accuracy": found.balanced_accuracy, "auc": found.auc}
        return {name: [one.value, one.low, one.high] for name, one in named.items()}

    def _called_by(self, samples: Pixels, training: Cohort) -> dict[str, float]:
        """Share of samples nearer to a training image than 95 % of unseen patients, by searches without a network."""
        prepared = self.data.prepared(training)
        if prepared.content_sha256 not in self.scorers:
            pixels = np.asarray(prepared.pixels, dtype=np.float32)
            kinds: list[Scorer] = [StructuralSimilarity(pixels)]
            kinds += [one for one in classical_baselines(pixels) if isinstance(one, Keypoints)]
            unseen = self.real[_first_of_each(self.metrics)]
            limits = [float(np.quantile(one(unseen)[0], CALLED_FROM)) for one in kinds]
            self.scorers[prepared.content_sha256] = list(zip(kinds, limits, strict=True))
        found = self.scorers[prepared.content_sha256]
        return {one.name: float((one(samples)[0] > limit).mean()) for one, limit in found}

    def _real(self, size: int) -> dict[str, float]:
        """The real training images in the place of samples, mean over seeds: how good samples can be."""
        rows = []
        for seed in self.configuration.seeds:
            prepared = self.data.prepared(self.data.training_cohort(size, seed))
            pixels = np.asarray(prepared.pixels, dtype=np.float32)
            labels = None if self.labels is None else self.labels(prepared.cohort)
            useful = {name: found[0] for name, found in self._useful(pixels, seed, labels).items()}
            rows.append(self._scores(pixels) | useful)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _sanity(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Units of the closed-form perfect memorizer: as it is, and behind each switch of sampling.

        Returns:
            also the switches that gave no samples of it, with what they said: of a memorizer that is the right answer.
        """
        if not self.sanity_samples:
            return [], {}
        base = next(planned.run for planned in self.configuration.plan())
        if arm_of(base, self.configuration.base) != PLAIN:
            raise ConfigurationError("the base run has to be the plain arm")
        audit, units, refused = self.study.audit_of(self.data), [], {}
        for run in self.study.alike_but_for_sampling(base, self.data):
            name = hashlib.sha256(run.name.encode()).hexdigest()[:12]
            store, audited = (self.out / "sanity" / f"{name}{end}" for end in (".npy", ".json"))
            identity = fingerprint(
                "sanity arm", [FORMAT, run.name, self.data.identity, self.sanity_samples], packages=()
            )
            result = read_sealed_json(audited) if is_sealed(store, identity) and audited.exists() else None
            if result is None:
                logger.info("sanity arm: %s ...", run.generator)
                start = time.perf_counter()
                try:
                    generator = self.study.memorizer(run, self.data)
                    drawn = generator.sample(sample_seeds(run.seed, range(self.sanity_samples))).astype(np.float16)
                except GeneratorError as error:
                    refused[arm_of(run, self.configuration.base)] = str(error)
                    continue
                seconds = round(time.perf_counter() - start, 1)
                store.parent.mkdir(parents=True, exist_ok=True)
                training = self.data.prepared(self.data.training_cohort(run.n_patients, run.seed))
                result = audit(drawn, training, run.seed, store.with_suffix(".png"))
                result["seconds"] = {"sampling": seconds}
                write_sealed(store, partial(_save, drawn), identity)
                write_sealed_json(audited, result)
            samples = self._prepared_samples(np.load(store, allow_pickle=False))
            units.append(self._unit(run, samples, result, sane=True))
        return units, refused


def _save(array: NDArray[np.floating], path: Path) -> None:
    np.save(path, array)


def _first_of_each(prepared: PreparedCohort) -> NDArray[np.int64]:
    """One image of each patient."""
    return np.unique(patient_codes(prepared.cohort.patient_ids), return_index=True)[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, judge and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    add_study(parser)
    parser.add_argument("--metrics", required=True, help="images of patients who took no part, to compare samples with")
    parser.add_argument("--neutral", required=True, help="of further such patients: for features and classifiers")
    parser.add_argument("--label", help="column of both tables; without it no classifier is trained")
    parser.add_argument("--positive", help="its value that classifiers look for")
    parser.add_argument("--sanity_samples", type=int, default=50, help="of the perfect memorizer; 0: none")
    parser.add_argument("--out", required=True, help="folder for the results")
    parser.add_argument("--noprogress", action="store_true")
    given = parser.parse_args(arguments)
    if (given.label is None) != (given.positive is None):
        parser.error("--label and --positive go together")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    label = None if given.label is None else (given.label, given.positive)
    with refusals(parser):
        study = study_of(given, progress=not given.noprogress)
        benchmark = MitigationBenchmark(
            study, given.out, given.metrics, given.neutral, label, given.sanity_samples, not given.noprogress
        )
        benchmark.run()
        print((benchmark.out / "mitigation.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
