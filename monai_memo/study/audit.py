# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit of one run: the same samples counted by both calibrations, how good they are, and pairs to look at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.certainty import describe_sampling
from monai_memo.audit.comparison import Comparison, compare
from monai_memo.audit.reference import joint_gallery, nearest_patients
from monai_memo.audit.sharpness import match_sharpness
from monai_memo.audit.verified_comparison import compare_verified, gallery_looked_through, lowered, search_in
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.columns import cells_of
from monai_memo.data.prepared import PreparedCohort
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.errors import UnusableImageError
from monai_memo.generators.evaluation import COLUMNS, sheet
from monai_memo.generators.scores import distribution_distances, diversity, features
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.runner import Runner
from monai_memo.statistics.calibration import expected_floor
from monai_memo.statistics.discoveries import discover
from monai_memo.statistics.groups import group_rates
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.rates import AuditRates, audit_rates
from monai_memo.statistics.reference import reference_control

INTERVALS = (
    "tau", "copies", "memorized", "memorized_patients", "control_copies", "control_memorized", "excess_copies",
    "excess_memorized",
)  # fmt: skip
COUNTS = ("n_copies", "n_memorized", "n_memorized_patients")
FDR, CONFIDENCE = 0.05, 0.95
SAMPLE = "sample_"


@dataclass(frozen=True)
class Groups:
    """Classes of images.

    Attributes:
        column: with the class of the held-out images.
        synthetic: of each sample, for which it was drawn.
        training: of each training image.
    """

    column: str
    synthetic: tuple[str, ...]
    training: tuple[str, ...]


@dataclass(frozen=True)
class RunAudit:
    """Audits runs of one study against the same held-out images.

    Attributes:
        detector: of the study.
        heldout: held-out images as the detector sees them.
        folder: for what can be used again (embeddings, verified candidates of held-out images).
        n_bootstrap: resamples of patients.
        progress: show progress bars.
        searches: in the images of earlier runs: training, held-out, both.
    """

    detector: Detector
    heldout: PreparedCohort
    folder: Path
    n_bootstrap: int = 1000
    progress: bool = True
    searches: dict[str, CopySearch] = field(default_factory=dict)

    def __call__(
        self,
        samples: NDArray[np.floating],
        training: PreparedCohort,
        seed: int,
        pairs_path: Path,
        groups: Groups | None = None,
    ) -> dict[str, Any]:
        """Audit samples, and write the sheet of pairs.

        Three audits of the same samples: ``size_matched`` with verification, as ``monai-memo audit`` does by default
        (what the samples show among held-out patients can raise its threshold), and, by embeddings alone,
        ``size_matched_embeddings`` and ``paper``. Where samples are softer than the held-out images, these are blurred
        to the same sharpness, but not for ``paper``.

        Args:
            samples: ``(n, channels, *spatial)`` in [0, 1].
            training: the images that the generator was trained on, as the detector sees them.
            seed: of bootstrap and controls.
            pairs_path: of the PNG.
            groups: classes, where samples were drawn by class.

        Returns:
            ``rates`` by audit, ``reference`` (the excess over the reference control at the same tau), ``similarity``
            (its 99th percentile and maximum), ``sampling_curve``, ``quality``, ``n_synthetic``, ``n_unusable``,
            ``softened`` and sizes of cohorts; with groups also ``groups``, copies by class.

        Raises:
            UnusableImageError: fewer than two samples can be used (constant, not finite).
        """
        synthetic, unusable = self._synthetic(samples)
        softening = match_sharpness(synthetic.pixels, self.heldout.pixels)
        alike = self.heldout if softening is None else softening.cohort(self.heldout)
        prepared = {"training": training, "heldout": alike, "synthetic": synthetic}
        embeddings = {name: self._embed(item) for name, item in prepared.items()}
        patients = training.cohort.patient_ids, self.heldout.cohort.patient_ids
        embedded = compare(embeddings, *patients)
        # The paper knows no softening of the held-out images.
        as_they_are = compare({**embeddings, "heldout": self._embed(self.heldout)}, *patients)
        search = self._search(training, embeddings["training"])
        verified = compare_verified(prepared, search, self.detector.sha256, self.folder / "verified", hubs=True)
        own = self._own(synthetic, len(training.cohort), seed, verified.usual)
        rates = {
            name: audit_rates(comparison.sims, mode, n_bootstrap=self.n_bootstrap, seed=seed, own=references)
            for name, mode, comparison, references in (
                ("size_matched", "size_matched", verified, own),
                ("size_matched_embeddings", "size_matched", embedded, None),
                ("paper", "paper", as_they_are, None),
            )
        }
        tau = rates["size_matched"].tau.value
        sims = verified.sims
        found = discover(sims.synthetic_to_training, sims.heldout_to_training, FDR, sims.heldout_patients, own=own)
        save_image(pairs_path, pair_sheet(synthetic.pixels, training.pixels, verified, seed))
        n_heldout = len(self.heldout.cohort)
        by_group = {} if groups is None else {"groups": self._by_group(groups, synthetic, training, verified, rates)}
        return {
            **by_group,
            "n_training_images": len(training.cohort),
            "n_heldout_images": n_heldout,
            "n_synthetic": len(synthetic.cohort),
            "n_unusable": unusable,
            "softened": softening is not None,
            "rates": {name: _record(item) for name, item in rates.items()},
            "reference": self._reference(synthetic, training, embeddings["training"], tau, seed),
            "similarity": {
                "p99": float(np.quantile(verified.sims.synthetic_to_training, 0.99)),
                "max": float(verified.sims.synthetic_to_training.max()),
            },
            "paper_floor": {
                "copies": expected_floor(len(training.cohort), n_heldout),
                "memorized": expected_floor(len(synthetic.cohort), n_heldout),
            },
            "sampling_curve": describe_sampling(verified, tau, found, CONFIDENCE, seed),
            "quality": self._quality(samples, training, synthetic, seed),
        }

    def _by_group(
        self,
        groups: Groups,
        synthetic: PreparedCohort,
        training: PreparedCohort,
        verified: Comparison,
        rates: Mapping[str, AuditRates],
    ) -> dict[str, Any]:
        """Copies by class, at the thresholds of the whole audit."""
        found, sims = rates["size_matched"], verified.sims
        drawn = [groups.synthetic[int(image.image_id.removeprefix(SAMPLE))] for image in synthetic.cohort.images]
        unseen = cells_of(self.heldout.cohort, groups.column)
        by_group = group_rates(
            drawn,
            sims.synthetic_to_training > found.tau.value,
            groups.training,
            sims.training_to_nearest_synthetic > found.tau_memorized.value,
            training.cohort.patient_ids,
            None if unseen is None else (unseen, sims.heldout_to_training > found.tau.value),
        )
        return asdict(by_group)

    def _synthetic(self, samples: NDArray[np.floating]) -> tuple[PreparedCohort, int]:
        pixels, images, reason = [], [], "no samples"
        for number, sample in enumerate(samples):
            name = f"{SAMPLE}{number:06d}"
            try:
                pixels.append(self.detector.preprocessing.from_array(np.asarray(sample, dtype=np.float32), name))
            except UnusableImageError as error:
                reason = error.reason
                continue
            images.append(CohortImage(Path(name), name, name))
        if len(pixels) < 2:
            raise UnusableImageError("samples", f"only {len(pixels)} of {len(samples)} can be used: {reason}")
        stacked = np.stack(pixels).astype(np.float16)
        digest = hashlib.sha256(stacked.tobytes()).hexdigest()
        cohort = Cohort("synthetic", tuple(images), "samples", patients_known=False)
        return PreparedCohort(cohort, stacked, (), (), digest), len(samples) - len(pixels)

    def _search(self, training: PreparedCohort, embeddings: NDArray[np.float32]) -> CopySearch:
        """The search of an audit in these training images; kept, since many runs are trained on the same ones."""
        key = training.content_sha256
        if key not in self.searches:
            self.searches[key] = search_in(training, embeddings, self.detector, Runner(progress=self.progress))
        return self.searches[key]

    def _own(self, synthetic: PreparedCohort, n_training: int, seed: int, usual: float | None) -> OwnReferences:
        """What the samples show among held-out patients, where nothing can be a copy, as in an audit."""
        key = f"unseen, {n_training} images, seed {seed}"
        if key not in self.searches:
            gallery = gallery_looked_through(self.heldout, self._embed(self.heldout), n_training, seed)
            search = CopySearch.default(self.detector.network)
            self.searches[key] = search.fit(gallery, Runner(progress=self.progress))
        found, patients = self.searches[key].search(synthetic.pixels), self.searches[key].gallery.patients
        nearest = found.candidates, found.similarity
        return OwnReferences.among(nearest, patients, n_training, found.by_places(), usual)

    def _reference(
        self,
        synthetic: PreparedCohort,
        training: PreparedCohort,
        embeddings: NDArray[np.float32],
        tau: float,
        seed: int,
    ) -> dict[str, Any]:
        """The same samples looked up among training and held-out patients together: what is left is no look-alike."""
        key, cohorts = f"joint {training.content_sha256}", {"training": training, "heldout": self.heldout}
        if key not in self.searches:
            both = {"training": embeddings, "heldout": self._embed(self.heldout)}
            search = CopySearch.default(self.detector.network)
            self.searches[key] = search.fit(joint_gallery(cohorts, both), Runner(progress=self.progress))
        search = self.searches[key]
        found = lowered(search.search(synthetic.pixels), search.gallery.patients)
        control = reference_control(
            nearest_patients(
                found.similarity[:, 0], found.candidates[:, 0], search.gallery.patients, len(training.cohort)
            ),
            tau,
            seed=seed,
        )
        excess = control.excess
        return {"excess": [excess.value, excess.low, excess.high], "p_value": float(control.p_value)}

    def _embed(self, prepared: PreparedCohort) -> NDArray[np.float32]:
        store = self.folder / "embeddings" / f"{self.detector.sha256[:16]}-{prepared.content_sha256[:16]}.npy"
        store.parent.mkdir(parents=True, exist_ok=True)
        return self.detector.embed(prepared.pixels, progress=self.progress, store=store)

    def _quality(
        self, samples: NDArray[np.floating], training: PreparedCohort, synthetic: PreparedCohort, seed: int
    ) -> dict[str, float]:
        """FID in the detector's features against held-out images, and MS-SSIM of random pairs."""
        reference = features(self.detector, self.heldout.pixels)
        return {
            "fid": distribution_distances(features(self.detector, synthetic.pixels), reference)["fid"],
            "fid_training": distribution_distances(features(self.detector, training.pixels), reference)["fid"],
            "ms_ssim": diversity(samples, len(samples), seed),
            "ms_ssim_heldout": diversity(self.heldout.pixels, len(samples), seed),
        }


def _record(rates: AuditRates) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(rates, name) for name in (*COUNTS, "tau_control")}
    for name in INTERVALS:
        interval = getattr(rates, name)
        record[name] = None if interval is None else [interval.value, interval.low, interval.high]
    return record


def pair_sheet(
    synthetic: NDArray[np.floating], training: NDArray[np.floating], comparison: Comparison, seed: int
) -> NDArray[np.float32]:
    """Synthetic images and, below each row, the training images nearest to them.

    In the first two rows the pairs of the highest similarity, in the next two randomly chosen ones.
    """
    shown = COLUMNS[synthetic.ndim - 2]
    order = np.argsort(-comparison.sims.synthetic_to_training, kind="stable")
    drawn = np.random.default_rng([seed, 3]).permutation(len(synthetic))[:shown]
    rows = []
    for chosen in (order[:shown], drawn):
        for images in (synthetic[chosen], training[comparison.nearest_training[chosen]]):
            short = ((0, shown - len(images)), *((0, 0),) * (images.ndim - 1))
            rows.append(np.pad(np.asarray(images, dtype=np.float32), short))
    return sheet(np.concatenate(rows))
