# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo extract``: a search for training images on purpose, with held-out images as its control."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.audit.record import software_versions
from monai_memo.audit.verdict import percent
from monai_memo.audit.verified_comparison import search_in
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.detector.detector import Detector
from monai_memo.generators.latent_diffusion import sample_seeds
from monai_memo.membership.attack import by_pixels, told_of
from monai_memo.membership.inputs import PIXELS, ModelInputs, described, read_inputs
from monai_memo.membership.settings import ExtractSettings
from monai_memo.membership.targeted import GUIDED, drawn_towards, from_noised
from monai_memo.membership.words import apart_by_pixels, asked, unheard, untold
from monai_memo.membership.writing import in_audit, write_result
from monai_memo.progress import Progress
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.runner import Runner
from monai_memo.statistics.calibration import threshold_copies
from monai_memo.statistics.intervals import Interval, proportion_interval, wilson_interval
from monai_memo.statistics.membership import separations
from monai_memo.workspace.output_folder import OutputFolder

SCHEMA_VERSION = "1.0"
MOST_REAL = 300  # images, one of each patient, that the threshold is taken from
QUANTILE = 0.95  # of real images of other patients that stay below the threshold
METHOD = (
    "One image of each of {targets} training patients was aimed at, {tries} times in each way, and likewise of "
    "{targets} held-out patients. It came back if the search of an audit, among the images of {people} patients of "
    "that cohort, finds its patient nearest and above the threshold that 95 % of the real images of the other cohort, "
    "one of each patient, stay below. Intervals: of a proportion (Jeffreys), and of a difference (Newcombe)."
)
LEVEL = 0.05


@dataclass(frozen=True)
class Side:
    """One cohort that is aimed at.

    Attributes:
        targets: images as the generator sees them.
        patients: of the targets, as codes of the gallery.
        search: in this cohort's gallery.
        told: what the network is told of the targets; empty where it is told nothing.
        threshold: similarity that real images of other patients hardly reach in it.
    """

    targets: NDArray[np.float32]
    patients: NDArray[np.int64]
    told: Mapping[str, Tensor]
    search: CopySearch
    threshold: float


class Extraction:
    """Aim at training images, and at held-out images as the control.

    .. versionadded:: 0.2.0

    Args:
        options: see ``ExtractSettings``.
    """

    def __init__(self, **options: Any) -> None:
        self.settings = ExtractSettings(**options)
        self.out = Path(self.settings.out)
        self.skipped = 0

    def run(self) -> dict[str, Any]:
        """Search, and write ``extraction.json`` and ``extraction.html``; with ``audit`` a chapter there as well.

        Returns:
            The record, which names nobody.

        Raises:
            MemoError: no model with weights, cohorts or a detector that cannot be used, or no folder to write to.
        """
        settings = self.settings
        files = ["extraction.json", "extraction.html"]
        with OutputFolder(
            self.out, "extraction", settings.cohort_options(), files, settings.to_dict()
        ) as output, in_audit(settings.audit, "extraction", self.out) as chapter:  # fmt: skip
            detector = Detector.given(settings.detector)
            inputs = read_inputs(settings, output.work / PIXELS)
            self.skipped = inputs.skipped
            record = search_on_purpose(inputs, detector, settings, output.work / PIXELS)
            if chapter is not None:
                record["warnings"] += chapter.compare(record["cohorts"]["training"])
            write_result(output.staging(), "extraction", record)
            output.publish()
            if chapter is not None:
                chapter.publish(record)
            output.clear()
        return record


def search_on_purpose(
    inputs: ModelInputs, detector: Detector, settings: ExtractSettings, folder: Path
) -> dict[str, Any]:
    """Draw and look up; the record, without names. Images as the detector sees them are kept in the folder."""
    inputs.denoiser.latents(inputs.training.pixels[:1])  # images of another size are refused before hours of search
    looked = {
        name: prepare(one.cohort, detector.preprocessing, folder / "looked_up", settings.workers, settings.progress)
        for name, one in (("training", inputs.training), ("heldout", inputs.heldout))
    }
    sides, people = _sides(inputs, looked, detector, settings)
    returned: dict[str, list[tuple[int, int]]] = {}
    scores: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in sides}
    ways = [*(f"from {100 * level:g} % noise" for level in settings.levels), *([GUIDED] if settings.pull else [])]
    with Progress(len(ways) * settings.tries * len(sides), "aim", shown=settings.progress) as bar:
        for way, level in zip(ways, [*settings.levels, None], strict=False):
            for name, side in sides.items():
                found = _aim(inputs, detector, side, level, settings, bar)
                if found is None:
                    continue
                back, best = found
                returned.setdefault(way, []).append((int(back.sum()), len(back)))
                scores[name][way] = best
    known = [way for way in ways if way in returned]
    apart, p_any = separations(scores["training"], scores["heldout"], seed=settings.seed)
    rows = [
        {"way": way, **_compared(*returned[way]), "p_value": apart[way].p_value, "auc": asdict(apart[way].auc)}
        for way in known
    ]
    targets = len(sides["training"].targets)
    model = {"model": described(inputs.denoiser, inputs.told)}
    said = _said(rows, p_any)
    return {
        "schema_version": SCHEMA_VERSION, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "confidence": 0.95, "level": "extracted" if p_any < LEVEL else "not_shown", **said,
        "found": [*said["found"], *untold(model)], "ways": rows, "p_any": p_any,
        "warnings": _warnings(inputs, ways, rows, settings.seed),
        "method": " ".join([METHOD.format(targets=targets, tries=settings.tries, people=people), *asked(model)]),
        "targets": targets, "tries": settings.tries, "pull": settings.pull, "steps": settings.steps,
        "seed": settings.seed, "thresholds": {name: side.threshold for name, side in sides.items()},
        "cohorts": inputs.cohorts(), **model, "detector_sha256": detector.sha256,
        "software": software_versions(),
    }  # fmt: skip


def _sides(
    inputs: ModelInputs, looked: Mapping[str, PreparedCohort], detector: Detector, settings: ExtractSettings
) -> tuple[dict[str, Side], int]:
    """Galleries of equally many patients of both cohorts, and the targets among them."""
    rng = np.random.default_rng([settings.seed, 41])
    both = {}
    for name, one in (("training", inputs.training), ("heldout", inputs.heldout)):
        # What cannot be read for the generator cannot be aimed at, and the other way round.
        places = {image.image_id: row for row, image in enumerate(one.cohort.images)}
        both[name] = [(row, places[image.image_id]) for row, image in enumerate(looked[name].cohort.images)
                      if image.image_id in places]  # fmt: skip
    patients = {name: np.asarray([looked[name].cohort.images[row].patient_id for row, _ in pairs])
                for name, pairs in both.items()}  # fmt: skip
    people = min(len(np.unique(ids)) for ids in patients.values())
    cohorts, aims, searches = {}, {}, {}
    runner = Runner.on(inputs.device, seed=settings.seed, progress=False)
    for name, pairs in both.items():
        drawn = rng.permutation(np.unique(patients[name]))[:people]
        known = set(drawn.tolist())
        rows = [row for row, patient in enumerate(patients[name]) if patient in known]
        prepared = looked[name]
        kept = [pairs[row][0] for row in rows]
        cohorts[name] = PreparedCohort(
            prepared.cohort.subset(kept), np.asarray(prepared.pixels)[kept], (), (), prepared.content_sha256
        )
        first = {str(patients[name][row]): place for place, row in reversed(list(enumerate(rows)))}
        chosen = [first[str(patient)] for patient in drawn[: settings.targets]]
        aims[name] = (chosen, [pairs[rows[place]][1] for place in chosen])
        embeddings = detector.embed(cohorts[name].pixels, device=inputs.device, progress=False)
        searches[name] = search_in(cohorts[name], embeddings, detector, runner)
    told = told_of(
        inputs.denoiser, dict(zip(("training", "heldout"), inputs.groups(), strict=True)), members="training"
    )
    sides = {}
    for name, other in (("training", "heldout"), ("heldout", "training")):
        one_each = np.unique(np.asarray(cohorts[other].cohort.patient_ids), return_index=True)[1][:MOST_REAL]
        real = np.asarray(cohorts[other].pixels[one_each], dtype=np.float32)
        threshold = float(threshold_copies(searches[name].search(real).similarity[:, 0], quantile=QUANTILE)[0])
        one = inputs.training if name == "training" else inputs.heldout
        shown, at = aims[name]
        sides[name] = Side(
            np.asarray(one.pixels, dtype=np.float32)[at],
            searches[name].gallery.patients[shown],
            {key: rows[at] for key, rows in told[name].items()},
            searches[name],
            threshold,
        )
    return sides, people


def _aim(
    inputs: ModelInputs, detector: Detector, side: Side, level: float | None, settings: ExtractSettings, bar: Progress
) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Whether each target came back in any try, and the greatest similarity to its patient."""
    back = np.zeros(len(side.targets), dtype=bool)
    best = np.full(len(side.targets), -1.0)
    for seed in sample_seeds(settings.seed, range(settings.tries)):
        if level is None:
            drawn = drawn_towards(inputs.denoiser, side.targets, settings.pull, seed, side.told)
        else:
            drawn = from_noised(inputs.denoiser.model, side.targets, level, seed, side.told)
        if drawn is None:
            return None
        for rows, images in _usable(drawn, detector):
            found = side.search.search(images)
            whose = side.search.gallery.patients[found.candidates.clip(min=0)]
            own = (whose == side.patients[rows, None]) & (found.candidates >= 0)
            similarity = np.where(own, found.similarity, -1.0).max(axis=1)
            best[rows] = np.maximum(best[rows], similarity)
            back[rows] |= own[:, 0] & (found.similarity[:, 0] > side.threshold)
        bar.update()
    return back, best


def _usable(drawn: NDArray[np.float32], detector: Detector) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows of the images that can be looked up, and these as the detector sees them."""
    rows = [row for row, image in enumerate(drawn) if np.isfinite(image).all() and np.ptp(image) > 0]
    if rows:
        images = np.stack([detector.preprocessing.from_array(drawn[row]) for row in rows]).astype(np.float32)
        yield np.asarray(rows), images


def _compared(training: tuple[int, int], heldout: tuple[int, int]) -> dict[str, Any]:
    """Both shares and their difference."""
    return {
        "training": asdict(proportion_interval(*training)), "training_back": training[0],
        "heldout": asdict(proportion_interval(*heldout)), "heldout_back": heldout[0],
        "excess": asdict(difference(training, heldout)),
    }  # fmt: skip


def difference(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Difference of two independent proportions, Newcombe's method 10 (Statistics in Medicine 1998).

    Example:
        >>> found = difference((10, 20), (2, 20))
        >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
        (0.4, 0.12, 0.61)
    """
    one, other = wilson_interval(*first), wilson_interval(*second)
    value = one.value - other.value
    low = value - math.hypot(one.value - one.low, other.high - other.value)
    high = value + math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, max(-1.0, low), min(1.0, high))


def _said(rows: list[dict[str, Any]], p_any: float) -> dict[str, Any]:
    most = max(rows, key=lambda row: row["excess"]["high"])
    excess = max(rows, key=lambda row: row["excess"]["value"])
    if p_any < LEVEL and any(row["training_back"] for row in rows):
        first = "Aimed at, training images come back more than held-out images do: the model holds them."
    elif p_any < LEVEL:
        first = (
            "No training image came back, but what was aimed at them is more like them than chance allows: the model "
            "knows something of them."
        )
    else:
        first = "Aimed at, training images come back no more than held-out images do, as far as this search can tell."
    return {
        "headline": f"{first} p = {p_any:.2g} over all ways.",
        "found": [
            f"Most beyond the control: {excess['way']}, {excess['training_back']} training and "
            f"{excess['heldout_back']} held-out images came back ({percent(excess['excess']['value'])} beyond, "
            f"{percent(excess['excess']['low'])} to {percent(excess['excess']['high'])}).",
            f"Upper bound of these ways: {percent(max(0.0, most['excess']['high']))} of the training patients, for "
            "somebody who has their images to begin with. Without them less comes back; other searches may do better.",
        ],
    }  # fmt: skip


def _warnings(inputs: ModelInputs, ways: list[str], rows: list[dict[str, Any]], seed: int) -> list[str]:
    said = []
    pixels = by_pixels(*inputs.groups(), seed)
    if pixels.auc.low > 0.5:
        said.append(apart_by_pixels(pixels))
    if any(row["excess"]["high"] < 0 or row["auc"]["high"] < 0.5 for row in rows):
        said.append(
            "Held-out images come back more, or more alike, than training images do, which memory cannot do: training "
            "and held-out cohort were swapped, the model was trained on the held-out patients, or these are easier for "
            "any model. Check --train and --heldout."
        )
    if GUIDED in ways and GUIDED not in [row["way"] for row in rows]:
        said.append("Guidance was left out: it takes a model that predicts noise or velocity, and no rectified flow.")
    unknown = [name for name, one in inputs.cohorts().items() if not one["patients_known"]]
    if unknown:
        said.append(f"Patients of the {' and '.join(unknown)} cohort are not known: each image counts as one.")
    return said + unheard(inputs.unheard)
