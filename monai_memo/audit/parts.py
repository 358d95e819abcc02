# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The parts of an audit's record. Their types and descriptions are what the JSON schema is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic reads typing's own from Python 3.12 on
)

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
OPEN = ConfigDict(extra="allow", allow_inf_nan=False)  # fields may be added within a major version

COHORTS = ("training", "heldout", "synthetic")
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval."""

    __pydantic_config__ = CLOSED

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Count:
    """A number of images or patients out of ``of``; ``low`` and ``high`` in the same unit; ``rate`` from 0 to 1."""

    __pydantic_config__ = CLOSED

    value: Natural
    low: float
    high: float
    of: Natural
    rate: Estimate


class Skipped(TypedDict):
    """An image that was left out, and why."""

    image: str
    reason: str


@dataclass(frozen=True)
class CohortSummary:
    """What of a cohort was audited, and what was left out and why."""

    source: str
    n_images: Natural
    n_patients: Natural
    patients_known: bool
    skipped: list[Skipped]
    content_sha256: str
    notes: list[str] = field(default_factory=list)
    repeated: Natural = 0


def all_three(cohorts: dict[str, CohortSummary]) -> dict[str, CohortSummary]:
    """A record tells of each of the three cohorts."""
    missing = [name for name in COHORTS if name not in cohorts]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    return cohorts


@dataclass(frozen=True)
class Match:
    """A synthetic image with its nearest training image.

    Attributes:
        copy: similarity above tau.
        p_value: conformal p-value against the held-out images.
        listed: on the list of copies at the false discovery rate asked for.
        same_image: more similar than 95 % of the pairs of different images of one patient are; None if not measured.
        look_alikes: of all synthetic images that are as close to a training patient, the share that are look-alikes, as
            the reference control estimates it; 1 where a held-out patient is nearer. None if not measured.
        agrees: of copies: ``"places"`` where both images agree place by place, in the finer bands too (the same image),
            ``"layout"`` where they agree as a whole only. None of other images and without verification.
        conditions: of the synthetic image, what its table says beside image and seed.
        as_found: the similarity before patients who are near to many of the synthetic images counted for less
            (``statistics.hubs``); None where they do not. Where it alone is above tau, image and patient are its.
    """

    synthetic: str
    nearest_training: str
    nearest_patient: str
    similarity: float
    tau: float
    copy: bool
    p_value: float = 1.0
    listed: bool = False
    same_image: bool | None = None
    look_alikes: float | None = None
    agrees: Literal["places", "layout"] | None = None
    conditions: dict[str, str] = field(default_factory=dict, hash=False)
    as_found: float | None = None

    @property
    def near_many(self) -> bool:
        """Above tau, and no copy only because the patient is near to many of the synthetic images."""
        return not self.copy and self.as_found is not None and self.as_found > self.tau


@dataclass(frozen=True)
class PartialMatch:
    """A synthetic image with the training image that a region of it resembles most.

    Attributes:
        score: see ``PartialPart``.
        in_part: score above tau.
        p_value: conformal p-value against the held-out images.
        listed: on the list of copies in part at the false discovery rate asked for.
        region: where the region begins and ends along each axis of the synthetic image, as shares of its length.
        transform: that brings the training image to the synthetic one, see ``registration.affine``.
    """

    synthetic: str
    training: str
    patient: str
    score: float
    tau: float
    in_part: bool
    p_value: float
    listed: bool
    region: list[list[float]]
    transform: list[list[float]]


@with_config(OPEN)
class PartialPart(TypedDict):
    """Copies in part: images that are no copy as a whole, with a region of a training image."""

    n_copies: Annotated[Count, Field(description="Synthetic images with a region above tau.")]
    control: Annotated[Estimate, Field(description="Rate when held-out patients pose as synthetic.")]
    excess: Annotated[Estimate, Field(description="Rate minus control.")]
    tau: Annotated[Estimate, Field(description="Threshold of the score.")]
    tau_control: NotRequired[Annotated[float, Field(description="That of held-out images alone.")]]
    between: NotRequired[Annotated[int, Field(ge=0, description="Synthetic images between both.")]]
    listed: Annotated[int, Field(ge=0, description="On the list at the false discovery rate.")]
    sentence: str


@with_config(OPEN)
class Sensitivity(TypedDict):
    """The positive control."""

    planted: Natural
    found: Natural
    rate: Estimate
    by_kind: Annotated[dict[str, float], Field(description="Found / planted of each kind.")]
    planted_as: NotRequired[Annotated[str, Field(description="Files that were written and read back, or arrays.")]]
    unreadable: NotRequired[Annotated[list[str], Field(description="Planted files that could not be read back.")]]


@with_config(OPEN)
class OrientationPart(TypedDict):
    """The orientation of one cohort, compared with another."""

    reference: str
    other: str
    status: Literal["same", "otherwise", "mixed", "cannot_tell"]
    best: Annotated[str | None, Field(description="Orientation that fits better.")]
    evidence: dict[str, float]
    sentence: str
    remedy: str
    not_told: Annotated[list[str], Field(description="Orientations that the anatomy does not tell apart.")]
    turned: NotRequired[Annotated[list[str], Field(description="Orientations that a part of the images has.")]]


@with_config(OPEN)
class Sharpness(TypedDict):
    """How held-out images were softened to match the synthetic ones."""

    synthetic: Annotated[float, Field(ge=0)]
    heldout: Annotated[float, Field(ge=0)]
    sentence: str


@with_config(OPEN)
class CalibrationPart(TypedDict):
    """How the thresholds and intervals came about."""

    mode: Annotated[str, Field(pattern="^(size_matched|paper)$")]
    quantile: float
    confidence: float
    n_bootstrap: Natural
    explanation: str
    sharpness: NotRequired[
        Annotated[
            Sharpness | None,
            Field(description="How held-out images were softened to match the synthetic ones; null where not."),
        ]
    ]


@with_config(OPEN)
class Verdict(TypedDict):
    """The result in words."""

    level: Literal["copies_found", "no_excess", "inconclusive"]
    headline: str
    detail: str


@with_config(OPEN)
class DetectorPart(TypedDict):
    """The detector."""

    recipe: str
    sha256: Annotated[str, Field(description="Hash of weights, recipe and preprocessing.")]
    views: Annotated[str, Field(description="What counts as the same image.")]
    spatial_dims: Annotated[int, Field(ge=2, le=3)]
    channels: Annotated[int, Field(ge=1)]
    image_size: list[int]
    training: NotRequired[dict[str, Any]]
    trained_for_this_audit: NotRequired[bool]


@with_config(OPEN)
class PreprocessingPart(TypedDict):
    """The one preprocessing of all cohorts."""

    sentence: str


@with_config(OPEN)
class ForecastPart(TypedDict):
    """What the audit was expected to take before it started, in seconds."""

    total: float
    low: float
    high: float
    steps: dict[str, float]
    cost: Annotated[float, Field(description="What the forecast itself took.")]


@with_config(OPEN)
class Timing(TypedDict):
    """When, and how long each step took."""

    created: str
    seconds: NotRequired[dict[str, float]]
    forecast: NotRequired[ForecastPart]


@with_config(OPEN)
class DiscoveriesPart(TypedDict):
    """The list of copies."""

    fdr: float
    listed: Natural
    smallest_p: Annotated[float, Field(description="What the held-out cohort allows.")]
    least: Annotated[int, Field(ge=0, description="The fewest images that a list can hold.")]
    warning: str


@with_config(OPEN)
class SamplingCurve(TypedDict):
    """Distinct training images copied over the number of synthetic images drawn."""

    copies: Literal["listed", "above_tau"]
    drawn: list[Natural]
    copied: list[float]
    low: list[float]
    high: list[float]
    seen: Natural
    once: Natural
    twice: Natural
    limit: float


@with_config(OPEN)
class SamePatient(TypedDict):
    """Different images of one training patient."""

    pairs: Natural
    above_tau: float
    threshold: float


@with_config(OPEN)
class VerificationPart(TypedDict):
    """How similarities came about."""

    neighbours: Natural
    refined: Natural
    sentence: str
    whole_images: NotRequired[bool]


@dataclass(frozen=True)
class ReferencePart:
    """The reference control: the synthetic images, looked up among training and held-out patients together.

    Attributes:
        by: ``"search"``, as copies are looked for, or ``"embeddings"`` where these alone decide.
        to_training: synthetic images above tau that are nearest to a training patient.
        to_unseen: synthetic images above tau that are nearest to a held-out patient.
        ratio: training images for each held-out image.
        expected: share that as many unseen images would have got.
        excess: share of the synthetic images that was copied, look-alikes taken off.
        p_value: of "nothing was copied": patients change places between the galleries.
        patients_needed: fewest copied patients that can bring the p-value down to the level of the intervals.
        smallest_p: the smallest p-value with these galleries and that many images above tau.
        detectable: excess that would have been seen in four of five audits like this one.
        listed: images on a list of which at most the false discovery rate asked for are look-alikes.
        tau_control: what tau would be by held-out images alone; it is higher where the synthetic images come as near
            to unseen patients.
        between: images above that threshold and not above tau: as near as samples are to anybody, no copies by this.
        near_many: images that are not above tau only because their patient is near to many of the synthetic images.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    by: Literal["search", "embeddings"]
    to_training: Natural
    to_unseen: Natural
    n_training_patients: Natural
    n_unseen_patients: Natural
    ratio: float
    expected: float
    excess: Estimate
    p_value: Rate
    patients_needed: Natural
    smallest_p: Rate
    detectable: Rate
    listed: Natural = 0
    tau_control: float | None = None
    between: Natural | None = None
    near_many: Natural | None = None


@dataclass(frozen=True)
class AgreementPart:
    """What the copies share with their training images.

    Attributes:
        places: copies that agree place by place, in the finer bands too: the same image.
        layout: copies that agree as a whole only: the same layout, with other detail.
    """

    places: Natural
    layout: Natural


@dataclass(frozen=True)
class GroupPart:
    """One class of a condition.

    Attributes:
        name: of the class.
        n_synthetic, n_copies: its samples and those above tau; ``copies`` their rate.
        together: the interval of that rate that holds for all classes at once.
        n_train, n_patients, n_mem: its training images, their patients, and memorized images; ``mem`` their rate.
        n_heldout: its held-out images; ``control`` the share of them above tau.
    """

    __pydantic_config__ = CLOSED

    name: str
    n_synthetic: Natural
    n_copies: Natural
    copies: Estimate
    together: Estimate
    n_train: Natural
    n_patients: Natural
    n_mem: Natural
    mem: Estimate | None
    n_heldout: Natural
    control: Estimate | None


@dataclass(frozen=True)
class ConditionPart:
    """Copies by class of a condition, at the thresholds of the whole audit.

    Attributes:
        condition: the column.
        groups: classes, the rarest in the training cohort first.
        p_value: of equal rates in all classes; null with one class, and without copies.
        notes: how far the rates can be trusted.
    """

    __pydantic_config__ = CLOSED

    condition: str
    groups: list[GroupPart]
    p_value: Rate | None
    notes: list[str]


@dataclass(frozen=True)
class StandardPart:
    """A number that readers of papers on generators know, see ``statistics.standard``.

    Attributes:
        value: of the synthetic images.
        expected: the same for held-out images in their place, or what theory says.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    name: str
    value: float
    expected: float | None
    says: str
    misses: str


@with_config(OPEN)
class KindLimit(TypedDict):
    """One kind of change."""

    kind: str
    found_up_to: float | None
    missed_from: float | None
    found: Annotated[dict[str, Rate], Field(description="Share found, by strength.")]


@with_config(OPEN)
class DetectionLimit(TypedDict):
    """Which planted copies an audit would find."""

    copies: Annotated[int, Field(ge=2)]
    limits: list[KindLimit]
