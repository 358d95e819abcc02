# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies in part: synthetic images with a region of a training image, in an image that is no copy as a whole.

They are counted apart, with a threshold and a control of their own: held-out images go through the same search. Where
the synthetic images have regions that are nearer to held-out patients than that, this raises the threshold: exchanged
quarters of an unseen patient, with borders in the middle of the image, have such regions. Images that are called copies
already are not counted again, neither synthetic nor held-out ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.certainty import Calibrated
from monai_memo.audit.comparison import patient_codes
from monai_memo.audit.configuration import MOST_IN_PARTS
from monai_memo.audit.inputs import Inputs
from monai_memo.audit.parts import Count, Estimate, PartialMatch, PartialPart, Verdict
from monai_memo.audit.reference import between_both, unseen_gallery
from monai_memo.audit.run import Run
from monai_memo.audit.searching import Searched
from monai_memo.audit.sharing import SharedPartSearch
from monai_memo.audit.verdict import percent
from monai_memo.data.prepared import PreparedCohort
from monai_memo.sealing import fingerprint
from monai_memo.search.gallery import Gallery
from monai_memo.search.parts import NOT_SCORED, VERSION, PartMatches, PartSearch
from monai_memo.statistics.discoveries import Discoveries, discover
from monai_memo.statistics.exceedance import Exceedance, exceedance
from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.own_references import OwnReferences

SENTENCE = (
    "Windows of a quarter of each image (of a volume: an eighth) were looked up by themselves, at any place of any "
    "training image, also mirrored left to right (not turned), and compared in fine detail. The score says by how many "
    "standard deviations the best window agrees more with a training image than the same window of training images "
    "does with other patients."
)
LEFT_OUT = (
    "Copies in part were not looked for: with {n} training images it would take long. --parts True does it anyway."
)
Pixels = NDArray[np.floating]


@dataclass(frozen=True)
class InPart:
    """What was found.

    Attributes:
        search: of parts; all ranks make it together.
        found: of the synthetic images.
        scores: ``(n_synthetic,)`` that count; those of copies as a whole do not.
        numbers: threshold, count and control.
        discoveries: p-values, and the list at the audit's false discovery rate.
        heldout: ``(n_heldout,)`` scores of the held-out images, likewise.
        own: scores of the same synthetic images among held-out patients; None where these were not looked through.
    """

    search: PartSearch | SharedPartSearch
    found: PartMatches
    scores: NDArray[np.float64]
    numbers: Exceedance
    discoveries: Discoveries
    heldout: NDArray[np.float64] | None = None
    own: OwnReferences | None = None

    @property
    def between(self) -> int:
        """Synthetic images above what held-out images reach, and not above tau."""
        return int(((self.scores > self.numbers.tau_control) & (self.scores <= self.numbers.tau.value)).sum())

    def contain(self, images: Pixels) -> NDArray[np.bool_]:
        """Which of these images, as soft as the synthetic ones, contain part of a training image."""
        return self.search.search(images, name="parts").score > self.numbers.tau.value


def copies_in_part(run: Run, inputs: Inputs, searched: Searched, calibrated: Calibrated) -> InPart | None:
    """Look regions of synthetic and held-out images up in the training cohort; None where that is not wanted."""
    settings, training = run.settings, inputs.training
    if not settings.looks_for_parts(searched.detector.recipe.name, len(training.pixels)):
        return None
    with run.timed("search in parts"):
        among_unseen = None
        if searched.own is not None:  # before the training images: what is asked later is asked of these
            among_unseen = _among_unseen(run, inputs)
        gallery = Gallery.of(training.pixels, training.cohort.patient_ids)
        search = _part_search(run, gallery, "verified")
        found = {
            name: _look_up(run, search, searched.matched.prepared[name], name, "verified")
            for name in ("heldout", "synthetic")
        }
    sims, tau = searched.comparison.sims, calibrated.rates.tau.value
    scores = np.where(sims.synthetic_to_training > tau, NOT_SCORED, found["synthetic"].score)
    heldout = np.where(sims.heldout_to_training > tau, NOT_SCORED, found["heldout"].score)
    # Copies as a whole can be no copies in part: both counts are of the others, so that many of them hide nothing.
    asked, unseen = scores > NOT_SCORED, heldout > NOT_SCORED
    patients = patient_codes(inputs.prepared["heldout"].cohort.patient_ids)[unseen]
    if not asked.any() or not unseen.any():
        return None
    own = None
    if searched.own is not None and among_unseen is not None:
        own = OwnReferences(among_unseen[asked], searched.own.ratio)
    numbers = exceedance(
        scores[asked], heldout[unseen], patients, own, quantile=settings.quantile, confidence=settings.confidence,
        draws=settings.n_bootstrap, seed=settings.seed,
    )  # fmt: skip
    listed = discover(scores, heldout[unseen], settings.fdr, patients, own=own)
    return InPart(search, found["synthetic"], scores, numbers, listed, heldout, own)


def _part_search(run: Run, gallery: Gallery, place: str) -> PartSearch | SharedPartSearch:
    """What is in progress lies in a folder of its own."""
    runner = run.runner(place)
    return PartSearch().fit(gallery, runner) if run.sharing is None else run.sharing.parts(gallery, runner)


def _among_unseen(run: Run, inputs: Inputs) -> NDArray[np.float64]:
    """Scores of the synthetic images among the held-out patients that whole images were looked up among."""
    search = _part_search(run, unseen_gallery(run.settings.seed, inputs), "unseen")
    return _look_up(run, search, inputs.prepared["synthetic"], "synthetic among unseen patients", "unseen").score


def _look_up(
    run: Run, search: PartSearch | SharedPartSearch, prepared: PreparedCohort, name: str, place: str
) -> PartMatches:
    store = run.work / place / f"parts-{fingerprint('parts', [VERSION, prepared.content_sha256])[:32]}.npz"
    return search.search(prepared.pixels, store, f"parts, {name}")


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high)


def describe_parts(in_part: InPart) -> PartialPart:
    """For the record."""
    numbers, total = in_part.numbers, int((in_part.scores > NOT_SCORED).sum())
    rate = _estimate(numbers.rate)
    return {
        "n_copies": Count(numbers.n, rate.low * total, rate.high * total, total, rate),
        "control": _estimate(numbers.control),
        "excess": _estimate(numbers.excess),
        "tau": _estimate(numbers.tau),
        "tau_control": numbers.tau_control,
        "between": in_part.between,
        "listed": int(in_part.discoveries.listed.sum()),
        "sentence": SENTENCE,
    }


def partial_matches(in_part: InPart, inputs: Inputs) -> list[PartialMatch]:
    """One row for each synthetic image that is no copy as a whole, highest score first."""
    training, synthetic = inputs.training.cohort.images, inputs.prepared["synthetic"].cohort.images
    found, tau, rows = in_part.found, in_part.numbers.tau.value, []
    for index in np.argsort(-in_part.scores, kind="stable"):
        if in_part.scores[index] == NOT_SCORED or found.training[index] < 0:
            continue
        original = training[int(found.training[index])]
        rows.append(
            PartialMatch(
                synthetic=synthetic[int(index)].image_id,
                training=original.image_id,
                patient=original.patient_id,
                score=float(in_part.scores[index]),
                tau=tau,
                in_part=bool(in_part.scores[index] > tau),
                p_value=float(in_part.discoveries.p_values[index]),
                listed=bool(in_part.discoveries.listed[index]),
                region=[[round(float(end), 4) for end in axis] for axis in found.regions[index]],
                transform=[[round(float(value), 5) for value in row] for row in found.transforms[index]],
            )
        )
    return rows


def with_parts(verdict: Verdict, part: PartialPart | None) -> Verdict:
    """The verdict, with what was found in part. Where that is more than chance, it decides with."""
    if part is None:
        return verdict
    count = part["n_copies"]
    share = f"{count.value} of {count.of} synthetic images ({percent(count.rate.value)})"
    if part["excess"].low <= 0:
        return {
            **verdict,
            "detail": f"{verdict['detail']} Of images that are no copy as a whole, {share} have a region above the "
            f"threshold for copies in part; {percent(part['control'].value)} would be expected by chance.",
        }
    sentence = (
        f"{share} contain part of a training image, in an image that is no copy as a whole "
        f"({percent(part['control'].value)} would be expected by chance; excess {percent(part['excess'].value)}, "
        f"{percent(part['excess'].low)} to {percent(part['excess'].high)}); the column in_part of partial.csv has them."
    )
    if verdict["level"] == "copies_found":
        return {**verdict, "detail": f"{verdict['detail']} Besides, {sentence}"}
    return {
        "level": "copies_found",
        "headline": f"Copies in part found: {share} contain part of a training image.",
        "detail": f"{sentence[0].upper()}{sentence[1:]} Do not share them. As a whole: {verdict['headline']} "
        f"{verdict['detail']}",
    }


def raised_in_part(in_part: InPart | None) -> list[str]:
    """What to tell where the synthetic images themselves made the threshold higher: no or one sentence."""
    if in_part is None or in_part.own is None or in_part.numbers.tau.value <= in_part.numbers.tau_control:
        return []
    tau_control, own = in_part.numbers.tau_control, in_part.own.similarity
    above, tau = int((own > tau_control).sum()), in_part.numbers.tau.value
    return [
        f"Copies in part: among patients whom the generator never saw, {above} of {len(own)} synthetic images "
        f"{'has' if above == 1 else 'have'} a region above a score of {tau_control:.3f}, the threshold from held-out "
        f"images. So it was raised to {tau:.3f}, above which no more of them come there than chance allows. "
        f"{between_both(in_part.between, f'{tau_control:.3f}', 'copies in part', 'score of partial.csv')}"
    ]


def left_out(run: Run, searched: Searched, n_train: int) -> list[str]:
    """A warning where parts were not looked for although nobody said so."""
    settings = run.settings
    by_itself = settings.parts is None and settings.verifies(searched.detector.recipe.name) and n_train > MOST_IN_PARTS
    return [LEFT_OUT.format(n=n_train)] if by_itself else []
