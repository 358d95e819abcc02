# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How long should an embedding be? ``python -m monai_memo.benchmark.dimensions``

The paper's detector has 128 numbers in 2D and 32 in 3D, and does not say what other lengths do. Here detectors that
differ in nothing else are trained; copies of the ladder are then looked up by embedding alone, as the paper does it,
and by the whole search, for which embeddings only propose candidates. With time and memory of the embeddings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.audit.comparison import patient_codes
from monai_memo.audit.record import software_versions
from monai_memo.benchmark.scores import kind_score
from monai_memo.benchmark.unseen import SOURCE_FACTOR, one_a_patient
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import altered, as_handed_in, chosen_levels, kinds_of
from monai_memo.data.loading import Preprocessing, guess_preprocessing
from monai_memo.data.overlap import check_overlap
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.errors import CohortError
from monai_memo.files import write_json, write_text
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner
from monai_memo.settings.refusals import refusals

LENGTHS = (16, 32, 64, 128, 256, 512)
PROPOSED = 10  # candidates by embedding, whose originals are counted
LARGE, TIMED = 100_000, 200  # images of a gallery and queries for the time of an exact search
FEWEST_UNSEEN = 100  # for a threshold at 1 % false positives
Images = NDArray[np.float32]


def cost(length: int, gallery: int = LARGE, queries: int = TIMED, seed: int = 0) -> dict[str, float]:
    """What embeddings of a length take: MB of a gallery, and milliseconds of an exact look-up on one core."""
    rng = np.random.default_rng(seed)
    index = EmbeddingIndex(rng.standard_normal((gallery, length), dtype=np.float32))
    asked = rng.standard_normal((queries, length), dtype=np.float32)
    start = time.process_time()
    index.search(asked, PROPOSED)
    return {"mb": 4e-6 * length * gallery, "ms": 1000 * (time.process_time() - start) / queries}


def measured(
    detector: Detector, gallery: Gallery, copies: Images, originals: NDArray[np.int64], unseen: Images, whole: bool
) -> dict[str, Any]:
    """Retrieval and detection of copies.

    Args:
        gallery: training images.
        copies: of training images, ``originals`` says which.
        unseen: images of other patients, which decide what is a false positive.
        whole: look them up with the search of an audit as well.
    """
    index = EmbeddingIndex(detector.embed(gallery.pixels, progress=False))
    similarity, nearest = index.search(detector.embed(copies, progress=False), PROPOSED)
    strangers, _ = index.search(detector.embed(unseen, progress=False))
    score = kind_score("embedding alone", similarity[:, 0], strangers[:, 0], nearest[:, 0] == originals)
    row: dict[str, Any] = {"alone": score.to_dict(), "proposed": float((nearest == originals[:, None]).any(1).mean())}
    if whole:
        search = CopySearch.default(detector.network).fit(gallery, Runner(seed=detector.seed, progress=False))
        found, theirs = search.search(copies), search.search(unseen)
        right = found.candidates[:, 0] == originals
        row["search"] = kind_score("search", found.similarity[:, 0], theirs.similarity[:, 0], right).to_dict()
    return row


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """One detector for each length; what is done stands in ``dimensions.json`` after each of them."""
    cohorts = {name: Cohort.from_source(getattr(given, name), name) for name in ("train", "unseen")}
    check_overlap(list(cohorts.values()), allow=False)
    preprocessing: Preprocessing = guess_preprocessing(list(cohorts.values()), given.size)
    dims = preprocessing.spatial_dims
    larger = preprocessing.resized([round(SOURCE_FACTOR[dims] * length) for length in preprocessing.size])
    training = np.stack([preprocessing(image) for image in cohorts["train"].images]).astype(np.float32)
    gallery = Gallery(training, patient_codes(cohorts["train"].patient_ids))
    unseen = one_a_patient(cohorts["unseen"], given.images, preprocessing, given.seed)
    if len(unseen) < FEWEST_UNSEEN:
        raise CohortError(
            f"{given.unseen}: a share of 1 % needs {FEWEST_UNSEEN} unseen patients at least, got {len(unseen)} with "
            f"--images {given.images}"
        )
    levels, rng = chosen_levels(kinds_of(dims), given.kinds), np.random.default_rng(given.seed)
    if given.per_level > len(training):
        raise CohortError(f"{given.train}: {len(training)} images, too few for --per_level {given.per_level}")
    originals = np.concatenate([np.sort(rng.choice(len(training), given.per_level, replace=False)) for _ in levels])
    copies = np.concatenate([
        as_handed_in(
            altered(np.stack([larger(cohorts["train"].images[int(place)]) for place in places]), level, given.seed),
            preprocessing,
        )
        for level, places in zip(levels, np.split(originals, len(levels)), strict=True)
    ]).astype(np.float32)  # fmt: skip
    plain = Recipe.named(
        "default", dims, preprocessing.size, preprocessing.channels, given.epochs, n_images=len(training)
    )
    record: dict[str, Any] = {
        "command": vars(given), "training": len(training), "unseen": len(unseen), "copies": len(copies), "rows": [],
        "software": software_versions(),
    }  # fmt: skip
    for length in given.lengths:
        for seed in range(given.seed, given.seed + given.seeds):
            recipe = replace(plain, network={**plain.network, "embedding_dim": length})
            start = time.perf_counter()
            detector = train_detector(
                training, recipe, preprocessing, Path(given.out) / "trainings" / f"{length}-{seed}", seed=seed,
                patient_ids=cohorts["train"].patient_ids, progress=False,
            )  # fmt: skip
            row = {"length": length, "seed": seed, "training_seconds": round(time.perf_counter() - start, 1)}
            row |= measured(detector, gallery, copies, originals, unseen, given.whole and seed == given.seed)
            record["rows"].append({**row, "cost": cost(length)})
            write_json(Path(given.out) / "dimensions.json", record)
            write_text(Path(given.out) / "dimensions.md", table(record["rows"]))
    return record


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line for each length, each seed of it in turn."""
    lines = [
        "| numbers in an embedding | by embedding alone: found at 1 % false positives, % | AUC | original first, % "
        f"| original among the first {PROPOSED}, % | whole search: found at 1 %, % | MB for 100,000 images "
        "| ms to look one up among them |",
        "| ---: | --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    for length in dict.fromkeys(row["length"] for row in rows):
        mine = [row for row in rows if row["length"] == length]
        whole = [_percent(row["search"]["tpr"]["0.01"]["value"]) for row in mine if row.get("search", {}).get("tpr")]
        cells = [
            ", ".join(_percent(row["alone"]["tpr"]["0.01"]["value"]) for row in mine),
            ", ".join(f"{row['alone']['auc']['value']:.3f}" for row in mine),
            ", ".join(_percent(row["alone"]["retrieval"]["value"]) for row in mine),
            ", ".join(_percent(row["proposed"]) for row in mine), ", ".join(whole) or "-",
            f"{mine[0]['cost']['mb']:.0f}", f"{np.median([row['cost']['ms'] for row in mine]):.1f}",
        ]  # fmt: skip
        lines.append(f"| {length} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, and write ``dimensions.json`` and ``dimensions.md``."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    for name in ("train", "unseen"):
        parser.add_argument(f"--{name}", required=True, help="folder, CSV or datalist; no patient in two of them")
    parser.add_argument("--out", required=True, help="folder for dimensions.json, dimensions.md and the trainings")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--size", type=int, default=64, help="of the images")
    parser.add_argument("--epochs", type=int, help="of each detector; by default those of the recipe")
    parser.add_argument("--images", type=int, default=400, help="unseen patients, one image each; 100 or more")
    parser.add_argument("--per_level", type=int, default=10, help="copies of each kind and strength")
    parser.add_argument("--kinds", nargs="+", help="of the ladder; all by default")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each length")
    parser.add_argument("--whole", action="store_true", help="the whole search as well, with the first seed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for name, least in (("lengths", 2), ("images", 1), ("per_level", 1), ("seeds", 1)):
        if np.min(getattr(given, name)) < least:
            parser.error(f"--{name}: {least} at least, got {np.min(getattr(given, name))}")
    Path(given.out).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with refusals(parser):
        print(table(compare(given)["rows"]))


if __name__ == "__main__":
    main()
