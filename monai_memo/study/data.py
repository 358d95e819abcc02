# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What all runs of a study share: patients to choose from, held-out images, copy detector."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.writing import cohort_table, write_cohort
from monai_memo.detector.command import train_detector_command
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import sha256_of_parts
from monai_memo.generators.cohorts import split_cohorts
from monai_memo.sealing import fingerprint
from monai_memo.statistics.calibration import require_heldout
from monai_memo.study.conditioning import labels_of
from monai_memo.study.configuration import StudyConfiguration

DETECTOR = Path("detector") / "detector.pt"  # trained on the pool, where none is named


@dataclass(frozen=True)
class StudyData:
    """Shared inputs of a study.

    Attributes:
        pool, heldout: CSV files of all training patients and of the held-out images.
        identity: hash of both lists of images.
        detector: trained on the pool, or a file that the user answers for.
        folder: for prepared images.
        labels: hash of the classes of all images; empty where the study names no column of classes.
        workers, progress: see ``data.prepared.prepare``.
    """

    pool: Path
    heldout: Path
    identity: str
    detector: Detector
    folder: Path
    workers: int | None
    progress: bool
    labels: str = ""

    def training_cohort(self, n_patients: int, seed: int) -> Cohort:
        """The patients of a run: with the same seed fewer of them are a subset of more."""
        return split_cohorts(self.pool, self.heldout, n_patients=n_patients, seed=seed).training

    def prepared(self, cohort: Cohort, preprocessing: Preprocessing | None = None) -> PreparedCohort:
        """Images of a cohort, by default as the detector sees them; prepared once for all runs that share them."""
        chosen = preprocessing or self.detector.preprocessing
        key = json.dumps([[image.image_id for image in cohort.images], chosen.to_dict()])
        folder = self.folder / "pixels" / hashlib.sha256(key.encode()).hexdigest()[:16]
        return prepare(cohort, chosen, folder, self.workers, self.progress)

    def heldout_cohort(self) -> Cohort:
        """Held-out images of the study."""
        return Cohort.from_source(self.heldout, "heldout")


def _chosen_patients(cohort: Cohort, n_patients: int | None, seed: int) -> Cohort:
    patients = np.unique(cohort.patient_ids)
    if n_patients is None:
        return cohort
    if not 1 <= n_patients <= len(patients):
        raise ConfigurationError(
            f"heldout_patients must lie between 1 and the {len(patients)} patients of {cohort.source}, got {n_patients}"
        )
    chosen = set(np.random.default_rng([seed, 7]).permutation(patients)[:n_patients].tolist())
    return cohort.subset(i for i, patient in enumerate(cohort.patient_ids) if patient in chosen)


def _identity(*cohorts: Cohort) -> str:
    """By names, contents and patients, not by folders: a study can be moved with its images."""
    rows = [
        [image.path.name, sha256_of_parts(image.parts) if image.path.exists() else None, image.patient_id]
        for cohort in cohorts
        for image in cohort.images
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def require_same_images(configuration: StudyConfiguration, folder: Path) -> None:
    """Refuse to look at a study with other images or without its detector: that would change what it was made from.

    Images may lie elsewhere than when it was run.

    Args:
        folder: that a study shares.

    Raises:
        ConfigurationError: there is no study, or it was made with other images; which option, and what to name.
    """
    if configuration.detector is None and not (folder / DETECTOR).is_file():
        raise ConfigurationError(f"name the --detector that the study in {folder.parent} was run with")
    pool = Cohort.from_source(str(configuration.dataset), "training")
    heldout = Cohort.from_source(str(configuration.heldout), "heldout")
    chosen = _chosen_patients(heldout, configuration.heldout_patients, configuration.seed)
    for option, cohort in (("dataset", pool), ("heldout", chosen)):
        path = folder / f"{cohort.name}.csv"
        if not path.is_file():
            raise ConfigurationError(
                f"--study {folder.parent} holds no study: name the folder that monai-memo study wrote"
            )
        if _named(path.read_text(encoding="utf-8")) != _named(cohort_table(cohort)):
            raise ConfigurationError(
                f"--{option} {cohort.source} has other images than the study in {folder.parent} was made with: name "
                f"the cohort that it was given ({path} lists its images)"
            )


def _named(table: str) -> list[tuple[str, str | None]]:
    """Names of files and patients in a table of a cohort."""
    return [(Path(row["image"]).name, row.get("patient_id")) for row in csv.DictReader(io.StringIO(table))]


def open_study_data(
    configuration: StudyConfiguration, folder: Path, device: str, workers: int | None, progress: bool
) -> StudyData:
    """Read and check the cohorts; load the detector, or train it on all patients of the data set.

    Raises:
        MemoError: cohorts that overlap or cannot be read, too few held-out patients, a detector that does not fit.
    """
    pool = Cohort.from_source(str(configuration.dataset), "training")
    heldout = Cohort.from_source(str(configuration.heldout), "heldout")
    check_overlap([pool, heldout])
    heldout = _chosen_patients(heldout, configuration.heldout_patients, configuration.seed)
    require_heldout(heldout.n_patients, 0.95, fixed=True)
    columns = [] if configuration.condition is None else [configuration.condition]
    classes = [labels_of(cohort, column) for cohort in (pool, heldout) for column in columns]
    labels = fingerprint("labels of a study", classes, packages=()) if classes else ""
    files = [write_cohort(cohort, folder / f"{cohort.name}.csv", columns=columns) for cohort in (pool, heldout)]
    detector_file = folder / DETECTOR
    if configuration.detector is not None:
        detector_file = Path(configuration.detector)
    elif not detector_file.is_file():
        train_detector_command(
            colour=False,  # the generators of a study draw grey images
            train=str(files[0]),
            out=str(detector_file.parent),
            epochs=configuration.detector_epochs,
            size=configuration.image_size,
            seed=configuration.seed,
            device=device,
            workers=workers,
            progress=progress,
        )
    detector = Detector.load(detector_file)
    dims = len(configuration.image_size)
    detector.check_fits(dims, detector.preprocessing.channels)
    detector.check_cohort(guess_preprocessing([pool, heldout]))
    return StudyData(files[0], files[1], _identity(pool, heldout), detector, folder, workers, progress, labels)


def generator_preprocessing(detector: Detector, image_size: tuple[int, ...]) -> Preprocessing:
    """How images are prepared for generators: as for the detector, at the generators' size."""
    return replace(detector.preprocessing, size=image_size)
