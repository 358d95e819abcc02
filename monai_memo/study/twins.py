# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Truth without planting and without raters: generators of two halves of the patients.

One generator is trained on each half by the same recipe. What its samples show against the other half, whose patients
it never saw, is no copying; what they show against its own half beyond that is. Both halves have the same number of
patients, so that neither is nearer by its size. That gives every detector a ROC curve on *samples of real generators*,
and the audit's calls a false positive rate that rests on nothing but the split.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.comparison import patient_codes
from monai_memo.audit.record import software_versions
from monai_memo.audit.reference import joint_patients, nearest_patients
from monai_memo.audit.run import resolve_device
from monai_memo.audit.sharpness import match_sharpness
from monai_memo.audit.verified_comparison import gallery_looked_through, lowered, search_in
from monai_memo.benchmark.baselines import PAPER, EmbeddingSimilarity, Scorer, paper_detector, pixel_baselines
from monai_memo.benchmark.classical import classical_baselines
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json, write_text
from monai_memo.generators.fast import Memorizer, PrincipalDiffusion, PrincipalGaussian
from monai_memo.generators.latent_diffusion import sample_seeds
from monai_memo.generators.small import train_small_generator
from monai_memo.progress import following
from monai_memo.sampling import Generator
from monai_memo.sealing import fingerprint, read_sealed_json, write_sealed_json
from monai_memo.search.copy_search import VERSION, CopySearch
from monai_memo.search.parts import NOT_SCORED, PartSearch
from monai_memo.search.runner import Runner
from monai_memo.statistics.calibration import require_heldout
from monai_memo.statistics.exceedance import exceedance
from monai_memo.statistics.hubs import usual_nearness
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.rates import audit_rates
from monai_memo.statistics.reference import ReferenceControl, reference_control
from monai_memo.statistics.similarities import Similarities
from monai_memo.statistics.twins import summarise
from monai_memo.study.gan import train_gan
from monai_memo.study.pixel_training import PixelTraining
from monai_memo.study.twin_settings import TRAINED, TwinSettings
from monai_memo.study.variational_autoencoder import train_variational_autoencoder
from monai_memo.workspace.output_folder import OutputFolder

logger = logging.getLogger(__name__)

FORMAT = 7  # raise it when the same unit would come to have another result
FEWEST = 10  # patients of a half
OURS = "this search"
Pixels = NDArray[np.floating]
Stages = Iterator[tuple[int, Generator]]


def generators_of(
    kind: str, pixels: Pixels, steps: Sequence[int], folder: Path, seed: int, device: str = "cpu"
) -> Stages:
    """Generators of one kind, halted at each number of steps; those in closed form have none (0).

    Args:
        kind: of ``twin_settings.GENERATORS``.
        pixels: ``(n, 1, *spatial)`` in [0, 1].
        folder: for the checkpoints of this kind, half and seed.
        device: that is trained on.
    """
    if kind == "memorizer":
        yield 0, Memorizer(pixels)
    elif kind == "gaussian":
        yield 0, PrincipalGaussian(pixels)
    elif kind == "principal_diffusion":
        model = PrincipalDiffusion(pixels, seed=seed, device=device)
        for count in steps:
            yield count, model.train(count)
    elif kind == "latent_diffusion":
        for count in steps:
            place = folder / str(count)
            yield count, train_small_generator(pixels, place, diffusion_steps=count, seed=seed, device=device)
    else:
        train = train_gan if kind == "gan" else train_variational_autoencoder
        for count in steps:
            settings = {"steps_per_epoch": int(np.gcd.reduce(steps))}
            yield count, train(PixelTraining(pixels, "none", count, seed, folder, settings, device))


@dataclass(frozen=True)
class Half:
    """One half of the patients.

    Attributes:
        prepared: its images as the detector sees them.
        search: in them.
        parts: likewise, for copies in part.
        scorers: further ways to look samples up in them.
    """

    prepared: PreparedCohort
    search: CopySearch
    parts: PartSearch
    scorers: tuple[Scorer, ...]

    @property
    def pixels(self) -> NDArray[np.float32]:
        """``(n, channels, *spatial)``."""
        return np.asarray(self.prepared.pixels, dtype=np.float32)


@dataclass(frozen=True)
class Strangers:
    """The held-out patients, of whom neither twin saw any.

    Attributes:
        prepared: their images.
        search: in as many of them as a half has.
        parts: likewise, for copies in part.
    """

    prepared: PreparedCohort
    search: CopySearch
    parts: PartSearch


def require_patients(cohort: Cohort, source: object) -> None:
    """Twins are split by patient.

    Args:
        source: of the cohort, as it was named.

    Raises:
        ConfigurationError: patients are not known.
    """
    if not cohort.patients_known:
        raise ConfigurationError(
            f"{source} names no patients, and a patient in both halves would be no stranger to either generator: give "
            "patient_id in a CSV or datalist, or --patient_pattern"
        )


def halves_of(cohort: Cohort, patients: int | None, seed: int) -> tuple[Cohort, Cohort]:
    """Two cohorts of as many patients, drawn at random, none in both.

    Raises:
        ConfigurationError: fewer patients than asked for.
    """
    known = np.unique(cohort.patient_ids)
    each = len(known) // 2 if patients is None else patients
    if len(known) < 2 * FEWEST:
        raise ConfigurationError(f"--train needs {2 * FEWEST} patients, {FEWEST} for each half, got {len(known)}")
    if each < FEWEST or 2 * each > len(known):
        raise ConfigurationError(
            f"patients must lie between {FEWEST} and {len(known) // 2}, half of the {len(known)} patients of --train, "
            f"got {each}"
        )
    drawn = np.random.default_rng([seed, 11]).permutation(known)
    chosen = [set(drawn[:each].tolist()), set(drawn[each : 2 * each].tolist())]
    first, second = (
        cohort.subset(row for row, patient in enumerate(cohort.patient_ids) if patient in half) for half in chosen
    )
    return first, second


class TwinStudy:
    """Train twins, look their samples up on both sides, and sum up.

    Each unit (split, kind, half, steps) is kept in ``<out>/units`` and done once; the same command goes on where it was
    interrupted.

    Args:
        arguments: see ``TwinSettings``.
    """

    def __init__(self, **arguments: Any) -> None:
        self.settings = TwinSettings(**arguments)
        self.out, self.device = Path(self.settings.out), resolve_device(self.settings.device)
        self.work = self.out
        self.paper: Detector | None = None

    def run(self) -> dict[str, Any]:
        """Do what is missing; write ``twins.json`` and ``twins.md``.

        Raises:
            MemoError: cohorts, detector or output folder that cannot be used.
        """
        settings = self.settings
        cohorts = {"train": settings.train, "heldout": settings.heldout}
        with OutputFolder(self.out, "twins", cohorts, ["twins.json", "twins.md"]) as output:
            self.work = output.work  # pixels of patients and trained networks: removed at the end
            detector = Detector.given(settings.detector)
            given = settings.paper_detector
            self.paper = None if given is None else paper_detector(given, detector.preprocessing)
            pool = Cohort.from_source(settings.train, "training", settings.patient_pattern)
            heldout = Cohort.from_source(settings.heldout, "heldout", settings.patient_pattern)
            require_patients(pool, settings.train)
            require_patients(heldout, settings.heldout)
            check_overlap([pool, heldout])
            require_heldout(heldout.n_patients, 0.95, fixed=True)
            detector.check_cohort(guess_preprocessing([pool, heldout]))
            units = [
                unit
                for split in following(range(settings.splits), "splits", shown=settings.progress)
                for unit in self._split(split, pool, heldout, detector)
            ]
            summary = summarise(units, settings.seed)
            record: dict[str, Any] = {
                "settings": settings.to_dict(), "summary": summary, "units": units,
                "software": software_versions(),
            }  # fmt: skip
            staging = output.staging()
            write_json(staging / "twins.json", record)
            write_text(staging / "twins.md", table(summary))
            output.publish()
            output.clear()
        return record

    def _prepared(self, cohort: Cohort, detector: Detector, name: str) -> PreparedCohort:
        return prepare(
            cohort, detector.preprocessing, self.work / "pixels" / name, self.settings.workers, self.settings.progress
        )

    def _split(self, split: int, pool: Cohort, heldout: Cohort, detector: Detector) -> Iterator[dict[str, Any]]:
        settings, seed = self.settings, self.settings.seed + split
        drawn = halves_of(pool, settings.patients, seed)
        unseen = self._prepared(heldout, detector, "heldout")
        prepared = [self._prepared(one, detector, f"{split}-{name}") for name, one in zip("AB", drawn, strict=True)]
        halves: list[Half] = []
        for kind in settings.generators:
            for own in (0, 1):
                counts = settings.steps if kind in TRAINED else (0,)
                paths = {count: self._path(kind, count, own, [*prepared, unseen], detector, seed) for count in counts}
                kept = {count: read_sealed_json(path) if path.exists() else None for count, path in paths.items()}
                if any(record is None for record in kept.values()):
                    if not halves:
                        halves = [
                            half_of(one, detector, self.device, settings.seed, settings.baselines, self.paper)
                            for one in prepared
                        ]
                        most = min(len(one.pixels) for one in prepared)
                        strangers = strangers_of(unseen, detector, most, self.device, settings.seed)
                    folder = self.work / "trainings" / f"{split}-{'AB'[own]}-{kind}"
                    stages = generators_of(kind, halves[own].pixels, settings.steps, folder, seed, self.device)
                    for count, model in stages:
                        if kept[count] is None:
                            logger.info("split %d, %s, %s steps, half %s ...", split, kind, count, "AB"[own])
                            raw = model.sample(sample_seeds(seed, range(settings.samples)))
                            samples = as_the_detector_sees(raw, detector)
                            unit = {"split": split, "generator": kind, "steps": count, "half": "AB"[own]}
                            found = unit | look_up(samples, halves[own], halves[1 - own], strangers, seed)
                            write_sealed_json(paths[count], found)
                            kept[count] = found
                yield from (record for record in kept.values() if record is not None)

    def _path(
        self, kind: str, steps: int, own: int, cohorts: Sequence[PreparedCohort], detector: Detector, seed: int
    ) -> Path:
        contents = [one.content_sha256 for one in cohorts]
        made_from = [FORMAT, VERSION, kind, steps, own, contents, detector.sha256, seed]
        made_from += [self.settings.samples, self.settings.baselines, self.settings.seed]
        made_from += [] if self.device == "cpu" else [self.device]
        made_from += [] if self.paper is None else [self.paper.sha256]
        made_from += [list(self.settings.steps)] if kind in ("gan", "variational_autoencoder") else []  # their epochs
        return self.out / "units" / f"{kind}-{steps}-{fingerprint('twin unit', made_from)[:24]}.json"


def half_of(
    prepared: PreparedCohort,
    detector: Detector,
    device: str,
    seed: int,
    baselines: bool,
    paper: Detector | None = None,
) -> Half:
    """Everything that samples are looked up in these images by.

    Args:
        paper: a detector by the paper's recipe, for its embeddings alone.
    """
    embeddings = detector.embed(prepared.pixels, device=device, progress=False)
    runner = Runner.on(device, seed=seed, progress=False)
    search = search_in(prepared, embeddings, detector, runner)
    pixels = np.asarray(prepared.pixels, dtype=np.float32)
    scorers: list[Scorer] = [EmbeddingSimilarity("embedding alone", detector, pixels, device)]
    if baselines:
        scorers += [*pixel_baselines(pixels), *classical_baselines(pixels)]
    if paper is not None:
        scorers.append(EmbeddingSimilarity(PAPER, paper, pixels, device))
    return Half(prepared, search, PartSearch().fit(search.gallery, runner), tuple(scorers))


def strangers_of(unseen: PreparedCohort, detector: Detector, most: int, device: str, seed: int) -> Strangers:
    """Held-out patients, of whose images so many are looked through at the most."""
    embeddings = detector.embed(unseen.pixels, device=device, progress=False)
    runner = Runner.on(device, seed=seed, progress=False)
    gallery = gallery_looked_through(unseen, embeddings, most, seed)
    search = CopySearch.default(detector.network).fit(gallery, runner)
    return Strangers(unseen, search, PartSearch().fit(gallery, runner))


def as_the_detector_sees(drawn: NDArray[np.floating], detector: Detector) -> NDArray[np.float32]:
    """Samples that can be used, ``(n, channels, *spatial)``.

    Raises:
        ConfigurationError: fewer than two of them.
    """
    drawn = np.asarray(drawn, dtype=np.float32)
    usable = [image for image in drawn if np.isfinite(image).all() and np.ptp(image) > 0]
    if len(usable) < 2:
        raise ConfigurationError(f"of {len(drawn)} samples of a generator {len(usable)} can be used")
    return np.stack([detector.preprocessing.from_array(image) for image in usable]).astype(np.float32)


def look_up(samples: NDArray[np.float32], own: Half, twin: Half, strangers: Strangers, seed: int) -> dict[str, Any]:
    """Similarities of samples to both halves by every method, and what an audit would call against either.

    Returns:
        ``scores`` by method, of ``own`` and ``twin``; ``audit`` of both: tau, samples called, their number, samples
        that a threshold from held-out images alone would call, samples called in part (none of those), and the
        reference control with the other half as the patients whom nobody trained on.
    """
    scores: dict[str, dict[str, list[float]]] = {OURS: {}}
    audits: dict[str, Any] = {}
    nearest: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    unseen, to_unseen = strangers.prepared, strangers.search.search(samples)
    in_part_of_unseen = strangers.parts.search(samples).score
    softening = match_sharpness(samples, unseen.pixels)
    control = np.asarray(unseen.pixels if softening is None else softening(unseen.pixels), dtype=np.float32)
    for name, half in (("own", own), ("twin", twin)):
        as_it_is, held = half.search.search(samples), half.search.search(control)
        found = lowered(as_it_is, half.search.gallery.patients)
        sims = Similarities.from_candidates(
            (found.candidates, found.similarity), (held.candidates, held.similarity),
            patient_codes(half.prepared.cohort.patient_ids), patient_codes(unseen.cohort.patient_ids),
        )  # fmt: skip
        whose, nearest_unseen = strangers.search.gallery.patients, (to_unseen.candidates, to_unseen.similarity)
        references = OwnReferences.among(
            nearest_unseen, whose, len(half.pixels), to_unseen.by_places(), usual_nearness(as_it_is.similarity)
        )
        rates = audit_rates(sims, n_bootstrap=200, seed=seed, own=references)
        called, by_control = (int((found.similarity[:, 0] > x).sum()) for x in (rates.tau.value, rates.tau_control))
        audits[name] = {
            "called_in_part": _called_in_part(
                np.where(found.similarity[:, 0] > rates.tau.value, NOT_SCORED, half.parts.search(samples).score),
                np.where(held.similarity[:, 0] > rates.tau.value, NOT_SCORED, half.parts.search(control).score),
                OwnReferences(in_part_of_unseen, references.ratio),
            ),
            "tau": rates.tau.value, "called": called, "of": len(samples), "softened": softening is not None,
            "tau_control": rates.tau_control, "called_by_control": by_control, "of_heldout": rates.of_heldout,
        }  # fmt: skip
        nearest.append((found.similarity[:, 0], found.candidates[:, 0]))
        scores[OURS][name] = np.round(found.similarity[:, 0], 6).tolist()
        for scorer in half.scorers:
            scores.setdefault(scorer.name, {})[name] = np.round(scorer(samples)[0], 6).tolist()
    for name, halves, found_in in (("own", (own, twin), nearest), ("twin", (twin, own), nearest[::-1])):
        control_of = reference_of(found_in, halves, audits[name]["tau"], seed)
        excess = control_of.excess
        audits[name] |= {"excess": [excess.value, excess.low, excess.high], "p_value": control_of.p_value}
    return {"scores": scores, "audit": audits}


def _called_in_part(scores: NDArray[np.float64], heldout: NDArray[np.float64], own: OwnReferences) -> int:
    """As in an audit: what is called as a whole is not asked, on either side."""
    asked, unseen = scores > NOT_SCORED, heldout > NOT_SCORED
    if not asked.any() or not unseen.any():
        return 0
    own = replace(own, similarity=own.similarity[asked])
    return exceedance(scores[asked], heldout[unseen], np.arange(int(unseen.sum())), draws=2, own=own).n


def reference_of(
    nearest: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]],
    halves: tuple[Half, Half],
    tau: float,
    seed: int,
) -> ReferenceControl:
    """The reference control of samples, with the second half as the patients whom nobody trained on.

    An audit looks samples up in both galleries together; here each half was searched by itself, and whichever is nearer
    counts.

    Args:
        nearest: of the samples in each half: similarity and image ``(m,)``.
    """
    patients = joint_patients(*(half.prepared.cohort.patient_ids for half in halves))
    (first, image), (second, other) = nearest
    chosen = np.where(second > first, other + len(halves[0].prepared.pixels), image)
    joint = nearest_patients(np.maximum(first, second), chosen, patients, len(halves[0].prepared.pixels))
    return reference_control(joint, tau, seed=seed)


def _text(interval: Sequence[float] | None, percent: bool = True) -> str:
    if interval is None:
        return "-"
    value, low, high = (100 * x for x in interval) if percent else interval
    return f"{value:.1f} ({low:.1f} to {high:.1f})" if percent else f"{value:.3f} ({low:.3f} to {high:.3f})"


def table(summary: Sequence[Mapping[str, Any]]) -> str:
    """Two tables in Markdown: what the audit calls against either half, and ROC by method."""
    lines = [
        "| generator | steps | samples | called against their own half, % | against the twin's half, % "
        "| by held-out images alone: own half, % | twin's half, % | called in part: own half, % | twin's half, % "
        "| reference control: excess, % | shown (p < 0.05) in audits of the own half, of the twin's |",
        "| --- " * 11 + "|",
    ]
    for row in summary:
        called, by_control, in_part = row["called"], row["called_by_control"], row["called_in_part"]
        lines.append(
            f"| {row['generator']} | {row['steps']:,} | {row['samples']} | {_text(called['own'])} "
            f"| {_text(called['twin'])} | {_text(by_control['own'])} | {_text(by_control['twin'])} "
            f"| {_text(in_part['own'])} | {_text(in_part['twin'])} "
            f"| {_text(row['excess'])} "
            f"| {row['shown']['own']} of {row['trainings']}, {row['shown']['twin']} of {row['trainings']} |"
        )
    methods = list(summary[0]["methods"]) if summary else []
    lines += ["", "Area under the ROC curve; share found at 1 % false positives, %.", ""]
    lines += ["| generator | steps | " + " | ".join(methods) + " |", "| --- " * (2 + len(methods)) + "|"]
    for row in summary:
        cells = [
            f"{_text(one['auc'], percent=False)}; {_text(one['found_at_0.01'])}" for one in row["methods"].values()
        ]
        lines.append(f"| {row['generator']} | {row['steps']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
