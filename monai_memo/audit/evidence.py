# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Evidence: a synthetic image and its nearest training image, side by side, with what differs between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.configuration import recorded_readings
from monai_memo.audit.result import Match, matches_in
from monai_memo.audit.slices import Plane, planes_at, telling_planes
from monai_memo.audit.symmetries import turned
from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import Symmetry, words_for
from monai_memo.detector.detector import Detector
from monai_memo.errors import CohortError, UnusableImageError
from monai_memo.search.pair import PairComparison, compare_pair
from monai_memo.text import uncell
from monai_memo.workspace.transaction import require_settled

SHOWN_SIZE = {2: 224, 3: 64}
AXES = {2: ("up-down", "left-right"), 3: ("left-right", "front-back", "up-down")}


@dataclass(frozen=True)
class PairEvidence:
    """One pair, ready to be shown.

    Attributes:
        match: names and similarity.
        synthetic, training: ``(planes, rows, columns)`` in [0, 1]; one plane in 2D, six in 3D. The training image is
            brought to the synthetic one, see ``fit``.
        difference: synthetic minus training, -1 to 1.
        mirrored: which mirror was applied, in words; empty for none.
        correlation: Pearson correlation of the pixels after that.
        planes: what each plane of a volume is, see ``slices.telling_planes``; empty in 2D.
        agreement: ``(planes, rows, columns)``, local agreement, -1 to 1; None without verification.
        turned: how the training image was turned before that, in words; empty for not at all.
        colours: both images as ``(rows, columns, 3)``, where pictures are compared in colour.
    """

    match: Match
    synthetic: NDArray[np.float32]
    training: NDArray[np.float32]
    difference: NDArray[np.float32]
    mirrored: str
    correlation: float
    planes: tuple[Plane, ...]
    agreement: NDArray[np.float32] | None = None
    turned: str = ""
    colours: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def shown(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both images as they are shown, ``(rows, columns)`` or in colour; of a volume this plane."""
        return self.colours or (self.synthetic[place], self.training[place])


def pixel_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Pearson correlation of all pixels; 0 if one image is constant."""
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    length = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / length) if length > 0 else 0.0


def align(training: NDArray[np.float32], synthetic: NDArray[np.float32]) -> tuple[NDArray[np.float32], str, float]:
    """Mirror the training image so that it fits the synthetic one best.

    Args:
        training, synthetic: ``(*spatial)``.

    Returns:
        The training image as shown, the mirror in words (empty for none), and the correlation of the pixels.
    """
    axes, correlation = _best_mirror(training, synthetic)
    return np.flip(training, axes), " and ".join(AXES[training.ndim][axis] for axis in axes), correlation


def _best_mirror(training: NDArray[np.float32], synthetic: NDArray[np.float32]) -> tuple[tuple[int, ...], float]:
    """Axes along which the training image is mirrored, and the correlation of the pixels then."""
    dims = training.ndim
    best: tuple[tuple[int, ...], float] = (), pixel_correlation(training, synthetic)
    for axes in (chosen for n in range(1, dims + 1) for chosen in combinations(range(dims), n)):
        correlation = pixel_correlation(np.flip(training, axes), synthetic)
        if correlation > best[1]:
            best = axes, correlation
    return best


@dataclass(frozen=True)
class Fitted:
    """A training image brought to a synthetic one.

    Attributes:
        synthetic, training: ``(*spatial)``, mean of the channels; the training image is grey where it ends.
        mirrored: which mirror was applied, in words; empty for none.
        correlation: Pearson correlation of the pixels.
        agreement: ``(*spatial)``, local agreement, -1 to 1; None where the image was only mirrored.
        coloured: the training image with its channels, ``(channels, *spatial)``.
    """

    synthetic: NDArray[np.float32]
    training: NDArray[np.float32]
    mirrored: str
    correlation: float
    coloured: NDArray[np.float32]
    agreement: NDArray[np.float32] | None = None


def fit(synthetic: NDArray[np.float32], training: NDArray[np.float32], verified: bool) -> Fitted:
    """Bring a training image to a synthetic one, both ``(channels, *spatial)`` in [0, 1].

    Args:
        verified: mirror, turn, zoom and shift it, as the verification does; otherwise only mirror it.
    """
    first = synthetic.mean(axis=0)
    if not verified:
        second = training.mean(axis=0)
        axes, _ = _best_mirror(second, first)
        return Fitted(first, *align(second, first), np.flip(training, tuple(axis + 1 for axis in axes)))
    compared = compare_pair(synthetic, training)
    second = compared.aligned.mean(axis=0)
    mirrored = AXES[first.ndim][-1 if first.ndim == 2 else 0] if compared.mirrored else ""
    return Fitted(first, second, mirrored, pixel_correlation(second, first), compared.aligned, compared.agreement)


def pair_evidence(
    match: Match, synthetic: NDArray[np.float32], training: NDArray[np.float32], verified: bool = False
) -> PairEvidence:
    """Evidence for one pair of images of the same shape ``(channels, *spatial)``, in [0, 1].

    Args:
        verified: align the training image with the synthetic one and show where they agree; otherwise only mirror it.
    """
    fitted = fit(synthetic, training, verified)
    first, second, agreement = fitted.synthetic, fitted.training, fitted.agreement
    planes: tuple[Plane, ...] = ()
    if first.ndim == 3:
        planes = telling_planes(first, second, agreement)
        first, second = planes_at(first, planes), planes_at(second, planes)
        agreement = None if agreement is None else planes_at(agreement, planes)
    else:
        first, second = first[None], second[None]
        agreement = None if agreement is None else agreement[None]
    colours = None
    if synthetic.shape[0] == 3 and synthetic.ndim == 3:
        colours = np.moveaxis(synthetic, 0, -1), np.moveaxis(fitted.coloured, 0, -1)
    return PairEvidence(
        match, first, second, first - second, fitted.mirrored, fitted.correlation, planes, agreement, colours=colours
    )


def compare_files(
    synthetic: CohortImage | str | Path, training: CohortImage | str | Path, preprocessing: Preprocessing
) -> PairComparison:
    """Align two image files and compare them place by place, at a size for people.

    Args:
        synthetic, training: image files.
        preprocessing: of the audit (``Detector.load(out / "detector.pt").preprocessing``).

    Returns:
        The aligned training image and the map of local agreement, see ``search.pair.PairComparison``.

    Raises:
        UnusableImageError: a file cannot be used.
    """
    shown = preprocessing.resized(SHOWN_SIZE[preprocessing.spatial_dims])
    return compare_pair(shown(synthetic), shown(training))


def compare_match(out: str | Path, synthetic: str, training: str | None = None) -> PairComparison:
    """The same for a match of a finished audit.

    Args:
        out: folder of the audit.
        synthetic: id of the synthetic image, as in ``matches.csv`` or as the file is named.
        training: id of a training image; the nearest one by default.

    Raises:
        CohortError: no such image in the cohorts of the audit (or the audit was redacted).
        UnusableImageError: a file has become unreadable.
    """
    out = Path(out)
    require_settled(out)
    settings = json.loads((out / "audit.json").read_text(encoding="utf-8"))["configuration"]
    if training is None:
        nearest = {row["synthetic"]: row["nearest_training"] for row in matches_in(out)}
        synthetic = synthetic if synthetic in nearest else uncell(synthetic)
        training = nearest.get(synthetic)
    pair = []
    for name, source, wanted in (("synthetic", "synthetic", synthetic), ("training", "train", training)):
        pattern = settings.get("patient_pattern") if name == "training" else None
        cohort = Cohort.from_source(settings[source], name, pattern, recorded_readings(settings)[name])
        image = next((image for image in cohort.images if image.image_id == wanted), None)
        if image is None:
            raise CohortError(f"no image {wanted!r} in the {name} cohort of the audit in {out}")
        pair.append(image)
    return compare_files(pair[0], pair[1], Detector.load(out / "detector.pt").preprocessing)


def _turned_to(
    synthetic: NDArray[np.float32], training: NDArray[np.float32], symmetries: Sequence[Symmetry]
) -> tuple[NDArray[np.float32], str]:
    """A training image turned as the synthetic one lies, and how, in words (empty for not at all)."""
    best, words, most = training, "", pixel_correlation(training, synthetic)
    for one in symmetries:
        candidate = np.asarray(turned(training[None], one)[0])
        correlation = pixel_correlation(candidate, synthetic)
        if correlation > most:
            best, words, most = candidate, words_for(one), correlation
    return best, words


def each_evidence(
    matches: Sequence[Match],
    synthetic: Cohort,
    training: Cohort,
    preprocessing: Preprocessing,
    verified: Callable[[Match], bool],
    symmetries: Sequence[Symmetry] = (),
) -> Iterator[PairEvidence]:
    """``collect_evidence``, one pair after the other: a large gallery need not be held in memory.

    Args:
        verified: whether the training image of a match is aligned, which takes a tenth of a second and more.
    """
    shown = preprocessing.resized(SHOWN_SIZE[preprocessing.spatial_dims])
    found = {name: {image.image_id: image for image in cohort.images}
             for name, cohort in (("synthetic", synthetic), ("training", training))}  # fmt: skip
    for match in matches:
        try:
            pair = shown(found["synthetic"][match.synthetic]), shown(found["training"][match.nearest_training])
        except UnusableImageError:
            continue
        training_image, words = _turned_to(pair[0], pair[1], symmetries)
        yield replace(pair_evidence(match, pair[0], training_image, verified(match)), turned=words)


def collect_evidence(
    matches: Sequence[Match],
    synthetic: Cohort,
    training: Cohort,
    preprocessing: Preprocessing,
    verified: bool = False,
    symmetries: Sequence[Symmetry] = (),
) -> list[PairEvidence]:
    """Load the pairs again, at a size for people, and compare them.

    A file that has become unreadable since it was audited is left out. Where images were looked up under several
    symmetries, the training image is turned by the one that fits best first.
    """
    return list(each_evidence(matches, synthetic, training, preprocessing, lambda _: verified, symmetries))
