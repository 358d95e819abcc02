# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Unseen patients, altered: what share would an audit call copies? ``python -m monai_memo.benchmark.unseen``

Each alteration of the ladder is applied to unseen patients, who then play the synthetic cohort of an audit: held-out
images are softened as they would be and set the threshold, the altered images' own similarities to held-out patients
raise it, and the share above it is what a user would be told by mistake.
It should be what the threshold promises (5 % at the 95th percentile), whatever was done to the images. The same for the
images of other cohorts as they are (another hospital). Copies in part are judged and counted likewise. Results stand in
``docs/benchmark.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.record import software_versions
from monai_memo.audit.sharpness import match_sharpness
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import Planted, altered, as_handed_in, chosen_levels, kinds_of
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.detector.detector import Detector
from monai_memo.errors import CohortError, UnusableImageError
from monai_memo.files import write_json, write_text
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.parts import NOT_SCORED, PartSearch
from monai_memo.search.runner import Runner
from monai_memo.settings.refusals import refusals
from monai_memo.statistics.calibration import require_heldout, threshold_copies
from monai_memo.statistics.hubs import usual_nearness, without_hubs
from monai_memo.statistics.intervals import proportion_interval
from monai_memo.statistics.own_references import OwnReferences

SOURCE_FACTOR = {2: 2.0, 3: 1.5}  # how much larger the images are that are altered
Images = NDArray[np.float32]


class Judge:
    """Calls images copies as an audit does, with held-out images as soft as they are.

    Args:
        search: in the training cohort.
        parts: likewise, for copies in part.
        heldout: ``(n, channels, *spatial)``.
        quantile: level of the thresholds.
        strangers: both searches in held-out images, no more of them than there are training images; without them the
            thresholds come from held-out images alone.
    """

    def __init__(
        self,
        search: CopySearch,
        parts: PartSearch,
        heldout: Images,
        quantile: float = 0.95,
        strangers: tuple[CopySearch, PartSearch] | None = None,
    ) -> None:
        self.search, self.parts, self.heldout, self.quantile = search, parts, heldout, quantile
        self.strangers = strangers
        self.known: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    def __call__(self, images: Images) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], str]:
        """Which images are called copies as a whole, by held-out images alone and in part; how these were softened."""
        softening = match_sharpness(images, self.heldout)
        words = "" if softening is None else softening.describe()["sentence"]
        if words not in self.known:
            self.known[words] = self._scores(self.heldout if softening is None else softening(self.heldout))
        similarity, score = self.known[words]
        tau_control = tau = float(threshold_copies(similarity, quantile=self.quantile)[0])
        looked_up, own_in_part = self.search.search(images), None
        to_training = looked_up.similarity[:, 0]
        if self.strangers is not None:
            found, gallery = self.strangers[0].search(images), self.strangers[0].gallery
            nearest = found.candidates, found.similarity
            own = OwnReferences.among(
                nearest, gallery.patients, len(self.search), found.by_places(), usual_nearness(looked_up.similarity)
            )
            tau = max(tau, own.without_copies(tau)[0].threshold(self.quantile))
            patients = self.search.gallery.patients
            to_training = without_hubs(looked_up.candidates, looked_up.similarity, patients).max(axis=1)
            own_in_part = OwnReferences(self.strangers[1].search(images).score, own.ratio)
        # As in an audit: what is called as a whole is not counted again.
        part_tau = float(threshold_copies(np.where(similarity > tau, NOT_SCORED, score), quantile=self.quantile)[0])
        part_tau = part_tau if own_in_part is None else max(part_tau, own_in_part.threshold(self.quantile))
        similarity, score = to_training, self.parts.search(images).score
        whole = similarity > tau
        return whole, similarity > tau_control, ~whole & (score > part_tau), words

    def _scores(self, images: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.search.search(images).similarity[:, 0], self.parts.search(images).score


def share_of(called: NDArray[np.bool_], confidence: float = 0.95) -> dict[str, float]:
    """A share with its interval."""
    found = proportion_interval(int(called.sum()), len(called), confidence)
    return {"value": found.value, "low": found.low, "high": found.high}


def row_of(judge: Judge, name: str, images: Images) -> dict[str, Any]:
    """One line of the table."""
    whole, by_control, part, words = judge(images)
    shares = {"as_a_whole": share_of(whole), "by_control": share_of(by_control), "in_part": share_of(part)}
    return {"name": name, "images": len(images), **shares, "heldout": words or "as they are"}


def wanted_levels(dims: int, kinds: Sequence[str] | None, every_strength: bool) -> list[Planted]:
    """All strengths of the ladder, or the strongest of each kind."""
    levels = chosen_levels(kinds_of(dims), kinds)
    strongest = {level.kind: level for level in levels}  # the last one of a kind is its strongest
    return levels if every_strength else list(strongest.values())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| unseen patients | images | called copies (%) | by held-out images alone (%) | called copies in part (%) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            f"{100 * one['value']:.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
            for one in (row["as_a_whole"], row["by_control"], row["in_part"])
        ]
        lines.append(f"| {row['name']} | {row['images']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def one_a_patient(cohort: Cohort, count: int, read: Preprocessing, seed: int) -> Images:
    """One image each of so many patients, chosen at random."""
    patients: set[str] = set()
    found: list[NDArray[np.floating]] = []
    for position in np.random.default_rng([seed, 31]).permutation(len(cohort)):
        image = cohort.images[int(position)]
        if len(found) == count:
            break
        if image.patient_id in patients:
            continue
        try:
            found.append(read(image))
        except UnusableImageError:
            continue
        patients.add(image.patient_id)
    if len(found) < 2:
        raise CohortError(f"{cohort.source}: at least two usable images of two patients are needed, got {len(found)}")
    return np.stack(found).astype(np.float32)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rows; what is done stands in ``unseen.json`` after each of them."""
    sources = {"training": given.train, "heldout": given.heldout, "unseen": given.unseen}
    cohorts = {name: Cohort.from_source(source, name, given.patient_pattern) for name, source in sources.items()}
    check_overlap(list(cohorts.values()), allow=False)
    require_heldout(cohorts["heldout"].n_patients, 0.95)
    others = {Path(source).stem: Cohort.from_source(source, Path(source).stem) for source in given.other}
    detector = Detector.load(given.detector) if given.detector else None
    size = given.size[0] if given.size and len(given.size) == 1 else given.size  # a square or cube
    preprocessing = guess_preprocessing(list(cohorts.values()), size) if detector is None else detector.preprocessing
    dims = preprocessing.spatial_dims
    larger = preprocessing.resized([round(SOURCE_FACTOR[dims] * length) for length in preprocessing.size])
    training = np.stack([preprocessing(image) for image in cohorts["training"].images]).astype(np.float32)
    runner = Runner(torch.device(given.device), seed=given.seed)
    gallery = Gallery.of(training, cohorts["training"].patient_ids)
    search = CopySearch() if detector is None else CopySearch.default(detector.network)
    with torch.inference_mode():
        heldout = one_a_patient(cohorts["heldout"], len(cohorts["heldout"]), preprocessing, given.seed)
        strangers = CopySearch() if detector is None else CopySearch.default(detector.network)
        unseen = Gallery(heldout[: len(training)])
        judge = Judge(
            search.fit(gallery, runner), PartSearch().fit(gallery, runner), heldout,
            strangers=(strangers.fit(unseen, runner), PartSearch().fit(unseen, runner)),
        )  # fmt: skip
    record: dict[str, Any] = {
        "command": vars(given), "training": len(training), "heldout": len(judge.heldout), "rows": [],
        "software": software_versions(),
    }  # fmt: skip
    images, start = one_a_patient(cohorts["unseen"], given.images, larger, given.seed), time.perf_counter()
    for name, cohort in others.items():
        record["rows"].append(row_of(judge, name, one_a_patient(cohort, given.images, preprocessing, given.seed)))
        _keep(given.out, record, start)
    for level in [None, *wanted_levels(dims, given.kinds, given.every_strength)]:
        queries = images if level is None else altered(images, level, given.seed)
        name = "as they are" if level is None else level.name
        record["rows"].append(row_of(judge, name, as_handed_in(queries, preprocessing)))
        _keep(given.out, record, start)
    return record


def _keep(out: str, record: dict[str, Any], start: float) -> None:
    record["seconds"] = round(time.perf_counter() - start, 1)
    write_json(Path(out) / "unseen.json", record)
    write_text(Path(out) / "unseen.md", table(record["rows"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write ``unseen.json`` and ``unseen.md``."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    for name in ("train", "heldout", "unseen"):
        parser.add_argument(f"--{name}", required=True, help="folder, CSV or datalist; no patient in two of them")
    parser.add_argument("--other", nargs="*", default=[], help="further cohorts that are looked up as they are")
    parser.add_argument("--out", required=True, help="folder for unseen.json and unseen.md")
    parser.add_argument("--detector", help="by default candidates are found by shape and window alone")
    parser.add_argument("--size", type=int, nargs="+", help="of the images, without a detector")
    parser.add_argument("--images", type=int, default=200, help="unseen patients, one image each")
    parser.add_argument("--kinds", nargs="+", help="of the ladder; all by default")
    parser.add_argument("--every_strength", action="store_true", help="of each kind, not the strongest alone")
    parser.add_argument("--patient_pattern")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    Path(given.out).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with refusals(parser):
        print(json.dumps(measure(given)["rows"][-1]), Path(given.out) / "unseen.md", sep="\n")


if __name__ == "__main__":
    main()
