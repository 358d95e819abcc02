# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The images that a generator is trained on, and those kept out of its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import ignite.distributed as idist
import numpy as np

from monai_memo.data.cohort import Cohort, split_by_patient
from monai_memo.data.loading import Preprocessing
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.errors import CohortError, ConfigurationError

SPLITS = ("patient", "image")


@dataclass(frozen=True)
class GeneratorCohorts:
    """Training and held-out images of one generator, disjoint by patient unless split by image."""

    training: Cohort
    heldout: Cohort


def _each_image_a_patient(cohort: Cohort) -> Cohort:
    images = tuple(replace(image, patient_id=image.image_id) for image in cohort.images)
    return Cohort(cohort.name, images, cohort.source, patients_known=False)


def split_cohorts(
    dataset: str | Path,
    heldout: str | Path | None = None,
    heldout_fraction: float = 0.2,
    split_by: str = "patient",
    n_patients: int | None = None,
    patient_pattern: str | None = None,
    seed: int = 0,
) -> GeneratorCohorts:
    """Training and held-out cohort of a generator.

    Args:
        dataset: folder, CSV or datalist (see ``Cohort.from_source``).
        heldout: a source of its own for held-out images; then ``dataset`` is for training alone.
        heldout_fraction: share of the patients kept out of training, where ``heldout`` is not given.
        split_by: ``"patient"`` keeps all images of a patient together; ``"image"`` does not, which hides copies and
            lets a generator see held-out patients: for comparison, or where patients are not known.
        n_patients: train on this many patients only. With the same seed fewer patients are a subset of more.
        patient_pattern: regular expression that finds the patient in a relative path.
        seed: of the split and of the choice of patients.

    Raises:
        ConfigurationError: an unknown ``split_by``, or more patients asked for than there are.
        CohortError: nothing readable, a fraction out of range, or patients in both sources.
    """
    if split_by not in SPLITS:
        raise ConfigurationError(f"split_by must be one of {', '.join(SPLITS)}, got {split_by!r}")
    whole = Cohort.from_source(dataset, "training", patient_pattern)
    other = None if heldout is None else Cohort.from_source(heldout, "heldout", patient_pattern)
    if split_by == "image":
        whole = _each_image_a_patient(whole)
        other = None if other is None else _each_image_a_patient(other)
    if other is None:
        parts = split_by_patient(whole, {"training": 1 - heldout_fraction, "heldout": heldout_fraction}, seed)
        training, other = parts["training"], parts["heldout"]
    else:
        training = whole
        both = sorted(set(training.patient_ids) & set(other.patient_ids))
        if both and training.patients_known and other.patients_known:
            raise CohortError(f"{len(both)} patients are in both {dataset} and {heldout}, for example {both[0]}")
    if n_patients is not None:
        training = _first_patients(training, n_patients, seed)
    return GeneratorCohorts(training, other)


def _first_patients(cohort: Cohort, n_patients: int, seed: int) -> Cohort:
    patients = np.unique(cohort.patient_ids)
    if not 1 <= n_patients <= len(patients):
        raise ConfigurationError(
            f"n_patients must lie between 1 and the {len(patients)} training patients of {cohort.source}, "
            f"got {n_patients}"
        )
    chosen = set(np.random.default_rng([seed, 1]).permutation(patients)[:n_patients].tolist())
    return cohort.subset(i for i, patient in enumerate(cohort.patient_ids) if patient in chosen)


@dataclass(frozen=True)
class GeneratorData:
    """The preprocessed images of both cohorts."""

    training: PreparedCohort
    heldout: PreparedCohort


def prepare_cohorts(
    cohorts: GeneratorCohorts,
    preprocessing: Preprocessing,
    folder: str | Path,
    workers: int | None = None,
    progress: bool = True,
) -> GeneratorData:
    """Preprocess both cohorts once; rank 0 writes, the other ranks read. All ranks have to see ``folder``.

    Unusable images are left out and named in the result. See ``data.prepared.prepare`` for what is raised.
    """
    with idist.one_rank_first():
        show = progress and idist.get_rank() == 0
        training = prepare(cohorts.training, preprocessing, folder, workers, show)
        heldout = prepare(cohorts.heldout, preprocessing, folder, workers, show)
    return GeneratorData(training, heldout)
