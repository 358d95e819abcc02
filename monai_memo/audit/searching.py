# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The middle of an audit: a detector, and held-out and synthetic images looked up in the training cohort with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.comparison import Comparison, compare, with_soft_part
from monai_memo.audit.inputs import Inputs, recipe_for
from monai_memo.audit.reference import joint_gallery, nearest_patients, unseen_gallery
from monai_memo.audit.run import Run
from monai_memo.audit.sharing import build_search
from monai_memo.audit.sharpness import (
    Softening,
    SoftPart,
    blur_warning,
    match_sharpness,
    partly_soft_warning,
    soft_part,
)
from monai_memo.audit.symmetries import TurnedSearch, best_of_views, embed_views
from monai_memo.audit.verified_comparison import compare_verified, gallery_of, lowered
from monai_memo.data.orientation import Symmetry, searched
from monai_memo.data.prepared import PreparedCohort
from monai_memo.detector.detector import Detector
from monai_memo.detector.training import train_detector
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.gallery import Gallery
from monai_memo.search.matches import Matches
from monai_memo.search.protocols import Search
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.reference import NearestPatients

Pixels = NDArray[np.floating]
Embeddings = Mapping[str, NDArray[np.float32]]
UNSEEN = "unseen"  # held-out images as they are, where they were softened
ALONE = "unseen alone"  # those that the synthetic images are looked up among on their own


@dataclass(frozen=True)
class Matched:
    """The cohorts as thresholds and control are taken from them.

    Attributes:
        prepared: of all cohorts, the held-out images as soft as the synthetic ones.
        softening: that made them so; None where they are as they are.
        warnings: what to tell of soft images.
        soft_part: the soft ones among mostly sharp synthetic images, which are judged by references of their own.
    """

    prepared: Mapping[str, PreparedCohort]
    softening: Softening | None
    warnings: Sequence[str]
    soft_part: SoftPart | None = None

    def soften(self, images: Pixels) -> Pixels:
        """Real images as soft as the synthetic ones."""
        return images if self.softening is None else self.softening(images)


@dataclass(frozen=True)
class Searched:
    """What was found in the training cohort.

    Attributes:
        detector: that embedded the images.
        trained_here: whether it was trained for this audit.
        matched: the cohorts that were looked up.
        symmetries: under which they were.
        search: that verified the matches; None where embeddings alone decide.
        comparison: similarities, and the nearest training images.
        similarity_of: images to their similarity to the nearest training image, found as for the synthetic ones.
        embeddings: of all cohorts as they are, nothing softened.
        reference: the nearest patients of the synthetic images among training and held-out patients together; None
            where the reference control was left out.
        own: similarities of the synthetic images to held-out patients alone; None where that was left out.
    """

    detector: Detector
    trained_here: bool
    matched: Matched
    symmetries: tuple[Symmetry, ...]
    search: Search | None
    comparison: Comparison
    similarity_of: Callable[[Pixels], NDArray[np.float64]]
    embeddings: Embeddings
    reference: NearestPatients | None = None
    own: OwnReferences | None = None


def match_cohorts(run: Run, inputs: Inputs) -> Matched:
    """Soften the held-out images where the synthetic ones are softer."""
    prepared = inputs.prepared
    synthetic, heldout = prepared["synthetic"].pixels, prepared["heldout"].pixels
    softening = match_sharpness(synthetic, heldout)
    wanted = run.settings.match_sharpness and run.settings.calibration == "size_matched"
    warnings = blur_warning(softening, wanted)
    if softening is None and wanted:
        part = soft_part(synthetic, heldout)
        return Matched(prepared, None, [*warnings, *([] if part is None else [part.warning()])], part)
    if softening is None:
        warnings += partly_soft_warning(synthetic, heldout)
    if softening is None or not wanted:
        return Matched(prepared, None, warnings)
    alike = {**prepared, "heldout": softening.cohort(prepared["heldout"], run.work / "pixels")}
    return Matched(alike, softening, warnings)


def detector_for(run: Run, inputs: Inputs) -> Detector:
    """The one that was brought along, or one that is trained on the training cohort."""
    if inputs.given is not None:
        return inputs.given
    with run.timed("train detector"):
        training = inputs.training
        return train_detector(
            training.pixels,
            recipe_for(run.settings, len(training.pixels), inputs.preprocessing),
            inputs.preprocessing,
            run.work / "training",
            seed=run.settings.seed,
            device=run.device,
            patient_ids=training.cohort.patient_ids,
            progress=run.settings.progress,
        )


def search_copies(run: Run, inputs: Inputs, detector: Detector, matched: Matched) -> Searched:
    """Embed all cohorts, and look held-out and synthetic images up in the training cohort."""
    symmetries = searched(run.settings.symmetries, detector.preprocessing.spatial_dims)
    embed = _embedder(run, detector)
    with run.timed("embed images"):
        if run.sharing is not None:
            run.sharing.bring(detector)
        embeddings = {name: _embed_cohort(run, detector, item, name) for name, item in matched.prepared.items()}
        as_they_are, softened = dict(embeddings), matched.softening is not None
        if softened:
            as_they_are["heldout"] = _embed_cohort(run, detector, inputs.prepared["heldout"], UNSEEN)
    reference = own = joint = unseen = None
    with run.timed("reference control", run.settings.reference):
        if run.settings.reference:
            names = ("training", UNSEEN if softened else "heldout")
            reference, joint = _reference(run, inputs, detector, as_they_are, names, symmetries)
            # Embeddings alone cannot tell copies from look-alikes, and the paper's calibration has its own threshold.
            if run.settings.verifies(detector.recipe.name) and run.settings.calibration == "size_matched":
                unseen = _among_unseen(run, inputs, detector, as_they_are, names, symmetries)
    with run.timed("search and verify"):
        if run.settings.verifies(detector.recipe.name):
            gallery = gallery_of(inputs.training, embeddings["training"])
            if joint is not None:
                gallery.knowing(joint)
            search = _search(run, detector, gallery, symmetries)
            place, hubs = run.work / "verified", unseen is not None
            comparison = compare_verified(matched.prepared, search, detector.sha256, place, hubs)
            if unseen is not None:
                nearest, patients = (unseen[0].candidates, unseen[0].similarity), unseen[1].patients
                n_training, by_places = len(inputs.training.cohort), unseen[0].by_places()
                own = OwnReferences.among(nearest, patients, n_training, by_places, comparison.usual)
        else:
            search = None
            comparison = _compare_embeddings(matched.prepared, embeddings, symmetries, embed)

    def similarity_of(images: Pixels) -> NDArray[np.float64]:
        if search is not None:
            return search.search(images).similarity[:, 0]
        assert comparison.training_index is not None
        return best_of_views(comparison.training_index, embed_views(images, symmetries, embed))[0][:, 0]

    if matched.soft_part is not None:
        with run.timed("soft images"):
            theirs = similarity_of(matched.soft_part.softening(inputs.prepared["heldout"].pixels))
            which, quantile = matched.soft_part.which, run.settings.quantile
            if own is not None:  # on the scale of the others, as what is compared with them
                own = own.moved(which, theirs, comparison.sims.heldout_to_training, quantile)
            comparison = with_soft_part(comparison, which, theirs, quantile)
    return Searched(
        detector, inputs.given is None, matched, symmetries, search, comparison, similarity_of, as_they_are, reference,
        own,
    )  # fmt: skip


def _embed_cohort(run: Run, detector: Detector, prepared: PreparedCohort, name: str) -> NDArray[np.float32]:
    store = run.work / "embeddings" / f"{detector.sha256[:16]}-{prepared.content_sha256[:16]}.npy"
    store.parent.mkdir(parents=True, exist_ok=True)
    if run.sharing is not None:
        return run.sharing.embed(detector, prepared.pixels, name, store.absolute())
    return detector.embed(
        prepared.pixels,
        batch_size=run.settings.batch_size,
        device=run.device,
        progress=run.settings.progress,
        store=store,
    )


def _embedder(run: Run, detector: Detector) -> Callable[[Pixels], NDArray[np.float32]]:
    sharing = run.sharing
    if sharing is not None:
        return lambda images: sharing.embed(detector, images)
    return lambda images: detector.embed(images, run.settings.batch_size, run.device, progress=False)


def _search(
    run: Run,
    detector: Detector,
    gallery: Gallery,
    symmetries: tuple[Symmetry, ...],
    names: Sequence[str] = ("training",),
    place: str = "verified",
) -> Search:
    """In a gallery, whose embeddings have these names; what is in progress lies in a folder of its own."""
    settings, sharing, runner = run.settings, run.sharing, run.runner(place)
    search: Search = (
        build_search(gallery, detector, runner, settings.batch_size, run.make_search) if sharing is None
        else sharing.search(detector, gallery, runner, names)
    )  # fmt: skip
    return search if len(symmetries) == 1 else TurnedSearch(search, symmetries)


def _reference(
    run: Run,
    inputs: Inputs,
    detector: Detector,
    embeddings: Embeddings,
    names: tuple[str, str],
    symmetries: tuple[Symmetry, ...],
) -> tuple[NearestPatients, Gallery | None]:
    """The nearest patients of the synthetic images, in one gallery of training and held-out images as they are.

    Args:
        names: under which all ranks have the embeddings of both.

    Returns:
        also the gallery, which the training images begin, where it was searched.
    """
    synthetic, folder = inputs.prepared["synthetic"].pixels, run.work / "reference"
    gallery = joint_gallery(inputs.prepared, embeddings, folder)
    if run.settings.verifies(detector.recipe.name):
        search = _search(run, detector, gallery, symmetries, names, "reference")
        found = search.search(synthetic, folder / "reference.npz")
        if run.settings.calibration == "size_matched":
            found = lowered(found, gallery.patients)
        similarity, image = found.similarity[:, 0], found.candidates[:, 0]
        searched_in: Gallery | None = gallery
    else:
        assert gallery.embeddings is not None
        views = embed_views(synthetic, symmetries, _embedder(run, detector))
        values, places = best_of_views(EmbeddingIndex(gallery.embeddings), views)
        similarity, image, searched_in = values[:, 0], places[:, 0], None
    return nearest_patients(similarity, image, gallery.patients, len(inputs.training.cohort)), searched_in


def _among_unseen(
    run: Run,
    inputs: Inputs,
    detector: Detector,
    embeddings: Embeddings,
    names: tuple[str, str],
    symmetries: tuple[Symmetry, ...],
) -> tuple[Matches, Gallery]:
    """The synthetic images looked up among held-out patients alone, as they are, and these.

    Args:
        names: of ``_reference``.
    """
    gallery = unseen_gallery(run.settings.seed, inputs, embeddings["heldout"])
    some = len(gallery) < len(inputs.prepared["heldout"].cohort)
    if some and run.sharing is not None:  # the others know embeddings by name
        gallery.embeddings = run.sharing.embed(detector, gallery.pixels, ALONE)
    search = _search(run, detector, gallery, symmetries, (ALONE if some else names[1],), "unseen")
    return search.search(inputs.prepared["synthetic"].pixels, run.work / "unseen" / "unseen.npz"), gallery


def _compare_embeddings(
    prepared: Mapping[str, PreparedCohort],
    embeddings: Embeddings,
    symmetries: tuple[Symmetry, ...],
    embed: Callable[[Pixels], NDArray[np.float32]],
) -> Comparison:
    patients = (prepared[name].cohort.patient_ids for name in ("training", "heldout"))
    if len(symmetries) == 1:
        return compare(embeddings, *patients)
    views = {name: embed_views(prepared[name].pixels, symmetries, embed) for name in ("heldout", "synthetic")}
    return compare({**embeddings, **views}, *patients)
