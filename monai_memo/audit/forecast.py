# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How long an audit will take, measured before it starts: a few images read, a few steps trained, a few looked up.

It costs a second or two. What each piece of work really takes is told while it is done, see ``monai_memo.progress``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.typing import NDArray

from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.parts import ForecastPart
from monai_memo.data.cohort import Cohort
from monai_memo.data.ladder import levels_of_a_limit
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import searched
from monai_memo.data.workers import PROCESSES_FROM, cores, load
from monai_memo.detector.detector import Detector
from monai_memo.detector.loop import SMALLEST_COHORT, TrainingPlan, contrastive_trainer
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import split_validation
from monai_memo.errors import MemoError
from monai_memo.networks.copy_detector import CopyDetector
from monai_memo.progress import time_text
from monai_memo.search.copy_search import FEWEST_IMAGES, SCALE_IMAGES, CopySearch
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.inverted_file import FROM
from monai_memo.search.keypoint_index import packed
from monai_memo.search.keypoints import keypoints_of
from monai_memo.search.runner import Runner
from monai_memo.training.batches import PixelDataset
from monai_memo.training.seeds import deterministic

SAMPLE, STEPS = 24, 4  # images that are read, steps that are trained, at most
ENOUGH = 1.0  # seconds after which no further image is read or looked up, or step trained
GALLERY, VALUES = 2048, 2**24  # images and pixels of the cohort that a few are looked up in
GROWTH, GROWS_TO = 0.027, FROM  # of the cost of a query for every further 1,000 training images: docs/performance.md
INDEXED = 1.5  # times the time in which keypoints are found, with their index
VALIDATIONS, FORWARD = 20, 0.35  # in a training, and what a batch costs without learning from it
PARTS = (0.35, 0.65)  # of the time of the search, for copies in part
FASTER, SLOWER = 0.75, 1.4  # machines have other things to do
Seconds = tuple[float, float]


@dataclass(frozen=True)
class Forecast:
    """What an audit will do, and how long each part will take.

    Attributes:
        work: in words, with numbers.
        steps: fewest and most seconds of each part.
        cost: seconds that the forecast took.
    """

    work: str
    steps: Mapping[str, Seconds]
    cost: float

    @property
    def seconds(self) -> float:
        """All of it, the middle of the range."""
        return sum((low + high) / 2 for low, high in self.steps.values())

    @property
    def range(self) -> Seconds:
        """What it may take, with other work on the machine."""
        lows, highs = zip(*self.steps.values(), strict=True)
        return FASTER * sum(lows), SLOWER * sum(highs)

    def __str__(self) -> str:
        middle = {name: (low + high) / 2 for name, (low, high) in self.steps.items()}
        parts = [f"{name} {time_text(each)}" for name, each in middle.items() if each >= 1]
        text = f"about {time_text(self.seconds)} on this machine ({' to '.join(map(time_text, self.range))})"
        return f"forecast: {text}{': ' if parts else ''}{', '.join(parts)}"

    def part(self) -> ForecastPart:
        """For the record."""
        low, high = self.range
        steps = {name: round((least + most) / 2, 3) for name, (least, most) in self.steps.items()}
        rounded = [round(value, 3) for value in (self.seconds, low, high, self.cost)]
        return {"total": rounded[0], "low": rounded[1], "high": rounded[2], "steps": steps, "cost": rounded[3]}


def forecast(
    cohorts: Mapping[str, Cohort],
    preprocessing: Preprocessing,
    settings: AuditConfiguration,
    device: str,
    recipe: Recipe,
    detector: Detector | None = None,
    ranks: int = 1,
) -> Forecast | None:
    """Measure parts of an audit. None if none of the images can be read: the audit will say why.

    Args:
        recipe: of the detector that is trained, or of the one that is at hand.
        detector: that is used; None if one is trained.
        ranks: that share the embedding and the search.
    """
    begin = time.perf_counter()
    images, each = _read(cohorts, preprocessing, settings.seed)
    if not len(images):
        return None
    numbers = {name: len(cohort) for name, cohort in cohorts.items()}
    steps = {"reading": _times(each, sum(numbers.values()), _share(cohorts, settings.workers))}
    told = [
        f"{numbers['training']:,} training, {numbers['heldout']:,} held-out, {numbers['synthetic']:,} synthetic images"
    ]
    plan = TrainingPlan(recipe, settings.seed, device)
    try:
        with deterministic(settings.seed):
            network = recipe.build_network() if detector is None else detector.network
            if detector is None and numbers["training"] >= SMALLEST_COHORT:
                count, steps["training"] = _training(network, images, plan, cohorts["training"].patient_ids)
                told.append(f"a detector is trained in {count:,} steps")
            network = network.to(device).eval()
            steps["embedding"] = _times(_embedding(network, images, device), sum(numbers.values()) / ranks)
            if settings.verifies(recipe.name):
                count = _look_ups(numbers, preprocessing.spatial_dims, settings)
                own = min(SCALE_IMAGES, numbers["training"]) if cohorts["training"].n_patients >= FEWEST_IMAGES else 0
                each = _search(network, images, numbers["training"], device, settings)
                steps["search"] = _times(each, (count + own) / ranks)
                told.append(f"{count:,} images are looked up")
                if preprocessing.spatial_dims == 2:
                    known = numbers["training"] + (numbers["heldout"] if settings.reference else 0)
                    steps["keypoints"] = _times(INDEXED * _keypoints(images), known / ranks)
                if settings.looks_for_parts(recipe.name, numbers["training"]):
                    low, high = steps["search"]
                    by_one = ranks / len(searched(settings.symmetries, preprocessing.spatial_dims))  # upright only
                    if settings.reference:  # among held-out patients as well
                        by_one *= 1 + numbers["synthetic"] / (numbers["synthetic"] + numbers["heldout"])
                    steps["parts"] = (PARTS[0] * low * by_one, PARTS[1] * high * by_one)
            network.to("cpu")
    except MemoError:  # a sample that nothing can be learnt from; the audit says so of all images
        return None
    return Forecast("; ".join(told), steps, time.perf_counter() - begin)


def _times(each: NDArray[np.float64], number: float, share: Seconds = (1.0, 1.0)) -> Seconds:
    """Seconds of many items, from those of a few: their mean, and what it is uncertain by."""
    error = each.std() / max(1, len(each)) ** 0.5
    return float((each.mean() - error) * number * share[0]), float((each.mean() + error) * number * share[1])


def _share(cohorts: Mapping[str, Cohort], workers: int | None) -> Seconds:
    """Of the time of one process, when several read: threads wait for one another."""
    several = workers or cores()
    files = max(sum(len(image.parts) for image in cohort.images) for cohort in cohorts.values())
    return 1 / several, 1.2 / several if files >= PROCESSES_FROM else 1.0


def _read(
    cohorts: Mapping[str, Cohort], preprocessing: Preprocessing, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A few images of all cohorts, prepared, and the seconds that each took."""
    every = [image for cohort in cohorts.values() for image in cohort.images]
    order = np.random.default_rng([seed, 17]).permutation(len(every))[: SAMPLE + 1]
    arrays, seconds, end = [], [], time.perf_counter() + ENOUGH
    for number, position in enumerate(order):
        start = time.perf_counter()
        found = load(preprocessing, every[int(position)])
        if number or len(order) == 1:  # the first one loads libraries
            seconds.append(time.perf_counter() - start)
        if found.array is not None:
            arrays.append(np.asarray(found.array, dtype=np.float32))
        if time.perf_counter() > end and seconds:
            break
    return np.stack(arrays) if arrays else np.empty((0, 1), dtype=np.float32), np.array(seconds)


def _filled(images: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """As many images, made from a few by shifts: what they show does not matter for the time."""
    rng, axes = np.random.default_rng(0), tuple(range(1, images.ndim - 1))
    copies = np.empty((number, *images.shape[1:]), dtype=np.float32)
    for place in range(number):
        shift = tuple(int(value) for value in rng.integers(0, images.shape[-1], len(axes)))
        copies[place] = np.roll(images[place % len(images)], shift, axes)
    return copies


class _Stopwatch:
    """Ignite handler: seconds of each step; ends the training when that is enough."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        self.last = time.perf_counter()
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        float(output["loss"].detach())  # waits for a card
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now
        if sum(self.seconds) > ENOUGH and len(self.seconds) > 1:
            engine.terminate()


def _training(
    network: CopyDetector, images: NDArray[np.float32], plan: TrainingPlan, patient_ids: Sequence[str]
) -> tuple[int, Seconds]:
    """Steps of the training, and their seconds with those of the validations."""
    kept, held = split_validation(patient_ids, 0.1, plan.seed)
    per_epoch = len(plan.loader(PixelDataset(images, kept)))
    batch = min(plan.recipe.batch_size, len(kept))
    short = replace(plan, recipe=replace(plan.recipe, epochs=1))
    watch = _Stopwatch()
    few = PixelDataset(_filled(images, batch * STEPS))
    contrastive_trainer(plan.place(network), few, short, train_handlers=[watch]).run()
    steps = plan.recipe.epochs * per_epoch
    validated = FORWARD * min(VALIDATIONS, plan.recipe.epochs) * (len(held) // max(1, batch))
    return steps, _times(np.array(watch.seconds[1:] or watch.seconds), steps + validated)


def _measured(once: Callable[[], Any], items: int) -> NDArray[np.float64]:
    """Seconds for each item, of a few calls after a first one."""
    once()
    found: list[float] = []
    while not found or (len(found) < 3 and sum(found) < ENOUGH / 2):
        start = time.perf_counter()
        once()
        found.append(time.perf_counter() - start)
    return np.array(found) / items


def _embedding(network: CopyDetector, images: NDArray[np.float32], device: str) -> NDArray[np.float64]:
    batch = torch.from_numpy(_filled(images, 8))
    with torch.inference_mode():
        return _measured(lambda: network.embed(batch.to(device)).cpu(), len(batch))


def _keypoints(images: NDArray[np.float32]) -> NDArray[np.float64]:
    greys = grey(torch.from_numpy(images))[:, 0].numpy()
    return _measured(lambda: keypoints_of(greys), len(greys))


def _look_ups(numbers: Mapping[str, int], dims: int, settings: AuditConfiguration) -> int:
    """Images that are looked up in the training cohort: synthetic, held-out and planted ones, turned if asked for."""
    planted = min(settings.planted, 2 * numbers["training"])
    limit = min(settings.limit_copies, numbers["training"]) * len(levels_of_a_limit(dims))
    synthetic = numbers["synthetic"] * (3 if settings.reference else 1)  # among unseen patients, and among both
    return (numbers["heldout"] + synthetic + planted + limit) * len(searched(settings.symmetries, dims))


def _search(
    network: CopyDetector, images: NDArray[np.float32], n_training: int, device: str, settings: AuditConfiguration
) -> NDArray[np.float64]:
    """Seconds of a query in a cohort of this size, or as large a one as is made quickly."""
    size = max(2, min(n_training, GALLERY, VALUES // images[0].size))
    drawn = np.random.default_rng(0).standard_normal((size, network.embedding_dim)).astype(np.float32)
    gallery = Gallery(_filled(images, size), embeddings=drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    runner = Runner(torch.device(device))
    if len(gallery.shape) == 2:
        few = packed(keypoints_of(grey(torch.from_numpy(images))[:, 0].numpy()))
        gallery.derived["keypoints"] = few[torch.arange(size) % len(few)]
    search = CopySearch.default(network, settings.batch_size)
    search.wanted_whole_images = False  # it takes little time, and its scale is measured on 200 images
    search.fit(gallery, runner)
    queries = _filled(images, 8 if runner.device.type == "cpu" else runner.queries_at_once)
    more = 1 + GROWTH * max(0, min(n_training, GROWS_TO) - GALLERY) / 1000
    return more * _measured(lambda: search.search(queries), len(queries))
