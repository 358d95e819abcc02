# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Fill the record of an audit (``AuditResult``) from its numbers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.by_condition import describe_conditions, uneven_warning
from monai_memo.audit.certainty import Calibrated, describe_discoveries
from monai_memo.audit.comparison import Comparison, patient_codes
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.controls import Controls
from monai_memo.audit.in_part import InPart, describe_parts, left_out, partial_matches, raised_in_part, with_parts
from monai_memo.audit.inputs import Inputs
from monai_memo.audit.orientation import not_looked_up
from monai_memo.audit.parts import AgreementPart, OrientationPart, ReferencePart, StandardPart, Timing
from monai_memo.audit.reference import describe_reference, heldout_copied, near_many_warning, raised_warning
from monai_memo.audit.repeats import repeated_samples
from monai_memo.audit.result import SCHEMA_VERSION, AuditResult, CohortSummary, Count, Estimate, Match
from monai_memo.audit.run import Run
from monai_memo.audit.searching import Searched
from monai_memo.audit.single_copies import single_copies, with_single_copies
from monai_memo.audit.unlike import unlike_training
from monai_memo.audit.verdict import (
    SHARE_OF_CONCERN,
    covering,
    resting_on,
    unread_training,
    verdict_for,
    weighed,
)
from monai_memo.data.columns import OF_SAMPLES, given
from monai_memo.data.overlap import repeated_images
from monai_memo.data.prepared import PreparedCohort
from monai_memo.detector.detector import known_summary
from monai_memo.redaction import Named, plain
from monai_memo.statistics.calibration import expected_floor, memorized_level
from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.rates import AuditRates

PACKAGES = ("monai-memo", "monai", "torch", "pytorch-ignite", "faiss-cpu", "numpy", "scipy", "itk", "nibabel")


def software_versions() -> dict[str, str]:
    """Version of Python and of each package that can change a result."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def estimate_of(interval: Interval) -> Estimate:
    """For the record."""
    return Estimate(value=interval.value, low=interval.low, high=interval.high)


def _count(number: int, rate: Interval, total: int) -> Count:
    return Count(value=number, low=rate.low * total, high=rate.high * total, of=total, rate=estimate_of(rate))


def summarise(prepared: PreparedCohort) -> CohortSummary:
    """What of a cohort was audited and what was left out."""
    cohort = prepared.cohort
    return CohortSummary(
        source=cohort.source,
        n_images=len(cohort),
        n_patients=cohort.n_patients,
        patients_known=cohort.patients_known,
        skipped=[{"image": item.image_id, "reason": item.reason} for item in prepared.skipped],
        notes=list(prepared.notes),
        repeated=sum(len(group) - 1 for group in repeated_images(cohort)),
        content_sha256=prepared.content_sha256,
    )


def explain_calibration(
    configuration: AuditConfiguration,
    n_train: int,
    n_heldout: int,
    n_synthetic: int,
    rates: AuditRates | None = None,
) -> str:
    """How the thresholds came about, in plain words.

    Args:
        rates: of the audit, which say whether tau was raised.
    """
    percent = 100 * (1 - configuration.quantile)
    if configuration.calibration == "paper":
        copies = 100 * expected_floor(n_train, n_heldout, configuration.quantile)
        memorized = 100 * expected_floor(n_synthetic, n_heldout, configuration.quantile)
        return (
            f"Calibration as in the paper: tau is the {100 * configuration.quantile:g}th percentile, over the "
            f"{n_train} training images, of the similarity to the nearest of {n_heldout} held-out images. The counts "
            f"compare with {n_train} and {n_synthetic} candidates instead, so with nothing memorized about "
            f"{copies:.1f} % of the synthetic images would count as copies and about {memorized:.1f} % of the training "
            "images as memorized (for exchangeable pairs). Read the excess over the control, not the rates themselves."
        )
    level = memorized_level(n_heldout, n_synthetic, configuration.quantile)
    text = (
        f"Size-matched calibration. A synthetic image counts as a copy if it is more similar to its nearest training "
        f"image than {100 * configuration.quantile:g} % of the {n_heldout} held-out images are to theirs, among the "
        f"same {n_train} training images. With nothing copied, about {percent:.3g} % of the synthetic images would "
        "pass this threshold by chance. "
    )
    if rates is not None and rates.tau.value > rates.tau_control:
        text += (
            f"That would be {rates.tau_control:.3f}; but with these or other patients held out, synthetic images can "
            f"come as near to such patients, who cannot have been copied, more often than that. So tau is "
            f"{rates.tau.value:.3f}, above which no more than {percent:.3g} % of them do. "
        )
    if n_heldout >= n_synthetic:
        return text + (
            f"A training image counts as memorized if it is more similar to its nearest synthetic image than "
            f"{100 * configuration.quantile:g} % of training images are to the nearest of {n_synthetic} held-out "
            f"images (averaged over all subsets of that size of the {n_heldout})."
        )
    return text + (
        f"For memorized training images there are fewer held-out ({n_heldout}) than synthetic images ({n_synthetic}), "
        f"so the threshold is taken at the {100 * level:.4g}th percentile of the similarity to the nearest held-out "
        f"image, which stands for the {100 * configuration.quantile:g}th percentile with {n_synthetic} of them."
    )


def kinds_of_agreement(comparison: Comparison, tau: float) -> list[Literal["places", "layout"] | None]:
    """Of each synthetic image: whether it is above tau place by place, or as a whole only."""
    similarity, by_places = comparison.sims.synthetic_to_training, comparison.by_places
    if by_places is None:
        return [None] * len(similarity)
    return [
        None if value <= tau else "places" if local > tau else "layout"
        for value, local in zip(similarity, by_places, strict=True)
    ]


def _agreement(comparison: Comparison, tau: float) -> AgreementPart | None:
    if comparison.by_places is None:
        return None
    kinds = kinds_of_agreement(comparison, tau)
    return AgreementPart(kinds.count("places"), kinds.count("layout"))


def match_table(prepared: Mapping[str, PreparedCohort], comparison: Comparison, calibrated: Calibrated) -> list[Match]:
    """One row for each synthetic image, most similar first."""
    tau, certainty, look_alikes = calibrated.rates.tau.value, calibrated.certainty, calibrated.look_alikes
    beyond = certainty.same_patient["threshold"] if certainty.same_patient else None
    similarity = comparison.sims.synthetic_to_training
    training = prepared["training"].cohort.images
    synthetic = prepared["synthetic"].cohort.images
    agrees, near_many = kinds_of_agreement(comparison, tau), comparison.near_many(tau)
    found, nearest = comparison.found, comparison.nearest_training
    if found is not None:
        nearest = np.where(near_many, found.image, nearest)
    rows = []
    for index in np.argsort(-similarity, kind="stable"):
        original, columns = training[int(nearest[index])], synthetic[int(index)].columns
        rows.append(
            Match(
                synthetic=synthetic[int(index)].image_id,
                nearest_training=original.image_id,
                nearest_patient=original.patient_id,
                similarity=float(similarity[index]),
                tau=tau,
                copy=bool(similarity[index] > tau),
                p_value=float(certainty.discoveries.p_values[index]),
                listed=bool(certainty.discoveries.listed[index]),
                same_image=None if beyond is None else bool(similarity[index] > beyond),
                agrees=agrees[index],
                look_alikes=None if look_alikes is None else round(float(look_alikes[index]), 6),
                conditions={name: given(value) for name, value in columns.items() if name not in OF_SAMPLES},
                as_found=None if found is None else float(found.similarity[index]),
            )
        )
    return rows


def _sample(values: NDArray[np.float64], most: int = 5000) -> list[float]:
    """Sorted sample for figures: evenly spaced order statistics keep the shape of the distribution."""
    ranked = np.sort(values)
    if len(ranked) > most:
        ranked = ranked[np.linspace(0, len(ranked) - 1, most).round().astype(int)]
    return [round(float(value), 6) for value in ranked]


def _reference(configuration: AuditConfiguration, searched: Searched, calibrated: Calibrated) -> ReferencePart | None:
    nearest, found, look_alikes = searched.reference, calibrated.reference, calibrated.look_alikes
    if nearest is None or found is None or look_alikes is None:
        return None
    listed = int((look_alikes <= configuration.fdr).sum())
    similarity, rates = searched.comparison.sims.synthetic_to_training, calibrated.rates
    between = int(((similarity > rates.tau_control) & (similarity <= rates.tau.value)).sum())
    near_many = int(searched.comparison.near_many(rates.tau.value).sum())
    return describe_reference(
        found, nearest.ratio, listed, searched.search is not None, rates.tau_control, between, near_many
    )


def _raised(searched: Searched, calibrated: Calibrated, reference: ReferencePart | None) -> list[str]:
    own, rates = searched.own, calibrated.rates
    if own is None or reference is None or reference.between is None:
        return []
    above = int((own.similarity > rates.tau_control).sum())
    return raised_warning(rates.tau_control, rates.tau.value, reference.between, above, len(own.similarity))


def recoloured(inputs: Inputs, copies: NDArray[np.bool_]) -> list[str]:
    """Why finding no copies would say little, where pictures are compared in colour: no or one sentence.

    The comparison of cohorts looks at grey values. What is a near twin there and no copy in colour may be another stain
    on the same structure, or a copy in other colours.
    """
    if inputs.preprocessing.channels == 1:
        return []
    pairs = [one for one in inputs.orientations if (one.reference, one.other) == ("training", "synthetic")]
    twins = {name for one in pairs for name, _ in one.twins}
    images = inputs.prepared["synthetic"].cohort.images
    found = sum(image.image_id in twins and not copy for image, copy in zip(images, copies, strict=True))
    if found <= SHARE_OF_CONCERN * len(images):
        return []
    return [
        f"{found} of {len(images)} synthetic images are near twins of training images by their grey values and do not "
        "count as copies in colour: they may be copies in other colours. Look at these pairs, or compare in grey "
        "values with a detector of grey images."
    ]


def _timing(run: Run, inputs: Inputs) -> Timing:
    timing: Timing = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": run.seconds}
    if inputs.forecast is not None:
        timing["forecast"] = inputs.forecast.part()
    return timing


def build_result(
    run: Run,
    inputs: Inputs,
    searched: Searched,
    calibrated: Calibrated,
    controls: Controls,
    in_part: InPart | None = None,
) -> AuditResult:
    """Assemble the record."""
    configuration, prepared = run.settings, inputs.prepared
    comparison, detector, softening = searched.comparison, searched.detector, searched.matched.softening
    rates, certainty, sensitivity = calibrated.rates, calibrated.certainty, controls.sensitivity
    sims = comparison.sims
    n_patients = prepared["training"].cohort.n_patients
    excess = estimate_of(rates.excess_copies)
    n_copies = _count(rates.n_copies, rates.copies, sims.n_synthetic)
    preprocessing = detector.preprocessing
    said = [*inputs.warnings, *searched.matched.warnings, *rates.warnings]
    unseen = searched.matched.prepared["heldout"]  # as soft as the synthetic ones
    whose = patient_codes(unseen.cohort.patient_ids)
    repeated, too_many = repeated_samples(prepared["synthetic"].pixels, unseen.pixels, whose, configuration.seed)
    said += repeated
    called = sims.synthetic_to_training > rates.tau.value
    unlike = unlike_training(
        prepared["synthetic"].pixels, inputs.training.pixels, unseen.pixels, called, configuration.seed
    )
    said += unlike
    said += calibrated.reference.warnings if calibrated.reference is not None else []
    reference = _reference(configuration, searched, calibrated)
    said += _raised(searched, calibrated, reference)
    said += near_many_warning(0 if reference is None else reference.near_many or 0, sims.n_synthetic)
    of_heldout = heldout_copied(rates.of_heldout, sims.n_synthetic)
    said += of_heldout
    said += raised_in_part(in_part)
    said += left_out(run, searched, sims.n_train)
    partial = None if in_part is None else describe_parts(in_part)
    cohorts = {name: item.cohort for name, item in prepared.items()}
    conditions = describe_conditions(cohorts, configuration.condition, comparison, rates, configuration.confidence)
    said += uneven_warning(conditions)
    said += [certainty.discoveries.warning] if certainty.discoveries.warning else []
    verdict = verdict_for(
        n_copies,
        estimate_of(rates.control_copies),
        excess,
        sensitivity,
        configuration.confidence,
        concerns=[
            *unread_training(sims.n_train, len(prepared["training"].skipped)),
            *not_looked_up(inputs.orientations, configuration.symmetries, preprocessing.spatial_dims),
            *inputs.concerns,
            *too_many,
            *unlike,
            *of_heldout,
            *recoloured(inputs, called),
        ],
    )
    verdict = weighed(verdict, excess, reference, configuration.confidence, sims.n_synthetic)
    agreement = _agreement(comparison, rates.tau.value)
    verdict = resting_on(verdict, agreement)
    alone = single_copies(prepared["synthetic"].pixels, inputs.training.pixels, comparison, rates.tau.value)
    verdict = with_single_copies(verdict, alone)
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        n_synthetic=sims.n_synthetic,
        n_train=sims.n_train,
        n_heldout=sims.n_heldout,
        tau=estimate_of(rates.tau),
        tau_memorized=estimate_of(rates.tau_memorized),
        n_copies=n_copies,
        n_mem=_count(rates.n_memorized, rates.memorized, sims.n_train),
        n_mem_patients=_count(rates.n_memorized_patients, rates.memorized_patients, n_patients),
        control_copies=estimate_of(rates.control_copies),
        control_mem=estimate_of(rates.control_memorized) if rates.control_memorized else None,
        excess_copies=excess,
        excess_mem=estimate_of(rates.excess_memorized) if rates.excess_memorized else None,
        sensitivity=sensitivity,
        calibration={
            "mode": configuration.calibration,
            "quantile": configuration.quantile,
            "confidence": configuration.confidence,
            "n_bootstrap": configuration.n_bootstrap,
            "explanation": explain_calibration(configuration, sims.n_train, sims.n_heldout, sims.n_synthetic, rates),
            "sharpness": None if softening is None else softening.describe(),
        },
        verdict=covering(with_parts(verdict, partial), len(prepared["synthetic"].skipped)),
        cohorts={name: summarise(item) for name, item in prepared.items()},
        detector={
            "recipe": detector.recipe.name,
            "sha256": detector.sha256,
            "views": detector.recipe.views.describe(),
            "training": known_summary(detector.training_summary),
            "spatial_dims": preprocessing.spatial_dims,
            "channels": preprocessing.channels,
            "image_size": list(preprocessing.size),
            "trained_for_this_audit": searched.trained_here,
        },
        preprocessing={"sentence": preprocessing.describe(), **preprocessing.to_dict()},  # type: ignore[typeddict-item]
        # A detector that was brought along has a recipe of its own, whatever the default is.
        configuration={**configuration.to_dict(), "recipe": detector.recipe.name},
        software=software_versions(),
        warnings=[plain(text) for text in said],
        warning_names=[list(text.names) if isinstance(text, Named) else [] for text in said],
        distributions={
            "synthetic_to_training": _sample(sims.synthetic_to_training),
            "heldout_to_training": _sample(sims.heldout_to_training),
            "training_to_heldout": _sample(sims.training_to_nearest_heldout),
            "training_to_synthetic": _sample(sims.training_to_nearest_synthetic),
        },
        timing=_timing(run, inputs),
        discoveries=describe_discoveries(certainty.discoveries),
        sampling_curve=certainty.sampling_curve,
        same_patient=certainty.same_patient,
        verification=certainty.verification,
        detection_limit=controls.detection_limit,
        reference=reference,
        agreement=agreement,
        standard=[StandardPart(**asdict(number)) for number in calibrated.standard],
        orientation=[cast(OrientationPart, finding.to_dict()) for finding in inputs.orientations],
        partial=partial,
        conditions=conditions,
        matches=match_table(prepared, comparison, calibrated),
        partial_matches=[] if in_part is None else partial_matches(in_part, inputs),
    )
