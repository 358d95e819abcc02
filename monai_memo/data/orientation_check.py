# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Do two cohorts have the same orientation? Files saved with other axes look like a generator that copies nobody.

Every image votes for the symmetry under which it fits the reference cohort best, but only where it does so more clearly
than hardly any reference image does by chance. A few images that have a near twin in the reference cohort when turned,
and none as stored, are evidence as well: copies that were written in another orientation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monai_memo.data.orientation import Symmetry, name_of, orientation, words_for
from monai_memo.data.orientation_evidence import FOLDS, Fit, Fits, measure
from monai_memo.data.prepared import PreparedCohort

CHANCE = 0.01  # of the reference images look turned this clearly
SURE = 1e-4  # chance of a false "otherwise", for all symmetries together
KNOWS = 0.3  # a symmetry is told apart if this share of reference images, turned by it, would vote for it
FEWEST_VOTES, FEWEST_TWINS = 4, 2
FEWEST_POOLED = 2  # votes for a turn to be named, where the images lie in so many ways that none has many
MOST = 0.5  # of the votes, with certainty, for "otherwise"
SOME = 0.05  # of the images, beyond chance, for "mixed"
SHOWS = 0.1  # of the images have to look upright before a cohort is said to have the same orientation
ALIKE = 0.7  # of the usual correlation with the nearest reference image: what is less alike has no vote
MEANS_ALIKE = 0.5  # correlation of the mean images below which no cohort is said to have another orientation
TWIN_MARGIN = 0.3  # Fisher's z beyond the clearest reference image of another patient
TIE = 0.01  # of correlation
LOOK = "Look at images of both cohorts side by side (monai-memo inspect shows them)."


@dataclass(frozen=True)
class OrientationFinding:
    """The orientation of a cohort, compared with the reference cohort.

    Attributes:
        reference, other: names of the cohorts.
        status: ``"same"``; ``"otherwise"`` (another orientation fits clearly better); ``"mixed"`` (a part of the images
            has another orientation); ``"cannot_tell"``.
        best: name of the orientation that fits better; None for "same" and "cannot_tell".
        evidence: numbers: ``images`` looked at, ``fit_better`` turned, ``upright`` (look upright), ``twins`` turned and
            ``twins_upright``, ``mean`` and ``mean_turned`` (correlation of the mean images), ``share`` turned,
            ``near_twins`` in any orientation.
        sentence: what was found, with the numbers and without names of files.
        remedy: what to do; empty for "same".
        not_told: names of the orientations that the anatomy does not tell from the reference's own.
        turned: names of all orientations that a part of the images has, ``best`` among them, the most frequent
            first; beyond the turn that was applied already. A search that finds copies looks images up under all.
        turned_images: ids of the images that fit better turned, each with the turn in words.
        twins: ids of the images that have a near twin in the reference cohort, each with the twin's; see
            ``data.near_twins``.
    """

    reference: str
    other: str
    status: str
    best: str | None
    evidence: dict[str, float]
    sentence: str
    remedy: str = ""
    not_told: tuple[str, ...] = ()
    turned: tuple[str, ...] = ()
    turned_images: tuple[tuple[str, str], ...] = ()
    twins: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON, without names of images: it stands in redacted records as well."""
        record = {**asdict(self), "not_told": list(self.not_told), "turned": list(self.turned)}
        return {key: value for key, value in record.items() if key not in ("turned_images", "twins")}

    def turned_names(self) -> list[str]:
        """Of the images that fit better turned; with the turn where there is more than one."""
        several = len({words for _, words in self.turned_images}) > 1
        return [f"{name} ({words})" if several else name for name, words in self.turned_images]


class _Ballot:
    """Thresholds that the reference cohort sets, and the votes that follow.

    Attributes:
        told: which symmetries the anatomy tells from the identity.
    """

    def __init__(self, fits: Fits) -> None:
        own = fits.reference.gains[:, 0]
        turned = -own[fits.group.inverse]  # gains of reference images that had been turned the other way
        clear = np.quantile(own, 1 - CHANCE, axis=1, method="higher")
        self.least = np.maximum(np.maximum(clear, 0.1 * np.median(turned, axis=1)), 0)
        self.most = np.minimum(np.quantile(turned, CHANCE, axis=1, method="lower"), 0)
        self.told = (turned > self.least[:, None]).mean(axis=1) >= KNOWS
        self.told[0] = True
        self.fewest = ALIKE * float(np.median(fits.reference.nearest[0]))
        self.product = fits.group.product

    def choices(self, fit: Fit) -> NDArray[np.int64]:
        """``(n,)`` the symmetry that each image votes for, 0 for none."""
        preferred = 1 / (1 + np.exp(np.clip(fit.gains, -30, 30)))  # each g to each h after g
        score = preferred[self.told].sum(axis=0)
        allowed = (fit.gains[:, 0] > self.least[:, None]) & self.told[:, None] & (fit.nearest >= self.fewest)
        allowed[0] = False
        choice = np.where(allowed, score, -np.inf).argmax(axis=0)
        return np.where(allowed.any(axis=0), choice, 0).astype(np.int64)

    def upright(self, fit: Fit) -> NDArray[np.bool_]:
        """``(symmetries, n)``: the image looks upright, and not as if turned by that symmetry."""
        return (fit.gains[:, 0] < self.most[:, None]) & (fit.nearest[0] >= self.fewest)

    def alike(self, place: int) -> NDArray[np.int64]:
        """Symmetries that are not told from this one, because they differ by one that the anatomy does not tell."""
        if not self.told[place]:
            return np.array([place])
        return np.unique(self.product[[0, *np.flatnonzero(~self.told)], place])


def _z(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.arctanh(np.clip(values.astype(np.float64), -0.999, 0.999))


def _twins(fits: Fits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(n,)`` symmetry under which an image has a near twin among the reference images; -1 for none.

    Returns:
        First where the symmetry is certain. Then only twins that are near by themselves, however certain the symmetry:
        where all images are turned, the nearest ones stand out of what is left of them unturned anyway.
    """
    own, other = _z(fits.reference.nearest), _z(fits.other.nearest)
    near = np.quantile(own[0], 1 - CHANCE, method="higher")
    ahead = np.maximum((own - own[0]).max(axis=1), 0) + TWIN_MARGIN
    best = other.argmax(axis=0)
    top = other.max(axis=0)
    turned = (best > 0) & (top > near) & (top - other[0] > ahead[best])
    upright = (best == 0) & (top > near + TWIN_MARGIN)
    certain = np.where(turned, best, np.where(upright, 0, -1)).astype(np.int64)
    return certain, np.where(top > near + TWIN_MARGIN, best, -1).astype(np.int64)


def _lower(successes: float, total: float) -> float:
    """Wilson's lower bound of a share, two standard errors down."""
    if total <= 0:
        return 0.0
    share, z = successes / total, 2.0
    spread = z * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total * total)))
    return (share + z * z / (2 * total) - spread) / (1 + z * z / total)


@dataclass(frozen=True)
class _Judgement:
    """Numbers of the comparison, and the status that follows.

    Attributes:
        turned_images: position of each image that fits better turned, and the number of the turn.
        twins: position of each image with a near twin, and of the twin in the reference cohort.
    """

    fits: Fits
    ballot: _Ballot
    best: int
    status: str
    evidence: dict[str, float]
    unanswered: bool
    turned: tuple[int, ...]
    turned_images: tuple[tuple[int, int], ...]
    twins: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, fits: Fits) -> _Judgement:
        group, ballot, n = fits.group, _Ballot(fits), len(fits.other)
        choice, own = ballot.choices(fits.other), ballot.choices(fits.reference)
        twins, likely = _twins(fits)
        # Images that are all alike are not so many witnesses.
        weight = (1 + (n - 1) * min(1.0, fits.other.spread / max(fits.reference.spread, 1e-6))) / n

        def votes_for(members: NDArray[np.int64]) -> tuple[int, float, float]:
            """Votes for these symmetries, their share by chance, and how probable so many are by chance."""
            count, chance = int(np.isin(choice, members).sum()), (int(np.isin(own, members).sum()) + 1) / (len(own) + 1)
            effective = round(weight * count)
            p = float(stats.binom.sf(effective - 1, max(round(weight * n), 1), chance)) if effective else 1.0
            return count, chance, p if effective >= FEWEST_VOTES else 1.0

        # A generator trained with all turns leaves images in every orientation: the most frequent one is not all.
        ranking = _ranking(fits, ballot, choice, twins)
        turned, surely = [], []
        for place, alike in ranking:
            count, chance, p = votes_for(alike)
            twinned, enough = np.isin(twins, alike).sum() >= FEWEST_TWINS, count / n - chance > SOME
            # What has to be looked for besides needs less proof than that there is something at all.
            turned += [place] if twinned or (enough and p < CHANCE / len(group)) else []
            if not group.members[place].is_left_right and (twinned or (enough and p < SURE / len(group))):
                surely.append((place, alike))
        pooled = [item for item in ranking if not group.members[item[0]].is_left_right] if not surely else []
        voters = np.unique(np.concatenate([alike for _, alike in pooled])) if pooled else np.array([], dtype=np.int64)
        count, chance, p = votes_for(voters)
        if count / n - chance > SOME and p < SURE / len(group):
            # Too few images of each turn to be sure of it, but surely many that are turned somehow.
            surely = [item for item in pooled if votes_for(item[1])[0] >= FEWEST_POOLED] or pooled
            turned = [place for place, _ in surely] + [place for place in turned if group.members[place].is_left_right]
        several_turns = bool(pooled and surely)
        # Mirror images are looked for in any case: whatever else there is matters more.
        best, members = (surely or ranking or [(0, np.array([0]))])[0]
        upright_by = ballot.upright(fits.other) & (choice == 0)
        upright, (count, chance, p) = int(upright_by[best].sum()), votes_for(members)
        upright, count, clear = (upright, count, p < SURE / len(group)) if best else (0, 0, False)
        turned_twins, upright_twins = int(np.isin(twins, members).sum()) if best else 0, int((twins == 0).sum())
        mean, mean_turned = fits.mean_correlation(0), fits.mean_correlation(best)
        harmless = group.members[best].is_left_right
        many_twins = turned_twins >= FEWEST_TWINS and not harmless
        believable = mean_turned > max(mean, MEANS_ALIKE) or many_twins
        only_twins = turned_twins >= 2 * FEWEST_TWINS and 4 * upright_twins <= turned_twins and not harmless
        most_votes = clear and believable and _lower(weight * count, weight * (count + upright)) > MOST
        if most_votes or (only_twins and (not ballot.told[best] or upright < FEWEST_VOTES)):
            status = "otherwise"
        elif many_twins or several_turns or (clear and count / n - chance > SOME):
            status = "mixed"
        else:
            status = "same"
        evidence = {
            "images": float(n), "fit_better": float(count), "upright": float(upright), "twins": float(turned_twins),
            "twins_upright": float(upright_twins), "mean": round(mean, 4), "mean_turned": round(mean_turned, 4),
            "share": round(count / (count + upright), 4) if count + upright else 0.0,
        }  # fmt: skip
        needed = max(FEWEST_VOTES, SHOWS * n)
        asked = [k for k in np.flatnonzero(ballot.told) if k and not group.members[k].is_left_right]
        unanswered = any(upright_by[k].sum() < needed for k in asked)
        evidence["near_twins"] = float((likely >= 0).sum())
        classes = {int(member): place for place, alike in ranking if place in (best, *turned) for member in alike}
        fitting = [classes.get(int(twin if twin > 0 else vote), 0) for twin, vote in zip(twins, choice, strict=True)]
        return cls(
            fits, ballot, best, status, evidence, unanswered, tuple(turned),
            tuple((int(at), place) for at, place in zip(fits.places, fitting, strict=True) if place),
            tuple((int(fits.places[i]), int(fits.partners[likely[i], i])) for i in np.flatnonzero(likely >= 0)),
        )  # fmt: skip


def _ranking(
    fits: Fits, ballot: _Ballot, choice: NDArray[np.int64], twins: NDArray[np.int64]
) -> list[tuple[int, NDArray[np.int64]]]:
    """The symmetries that have votes, most first, each with those that are not told from it (these once only).

    A twin is worth three votes.
    """
    classes = {tuple(int(place) for place in ballot.alike(place)): place for place in range(len(fits.group) - 1, 0, -1)}
    found = []
    for members, place in classes.items():
        votes = int(np.isin(choice, members).sum() + 3 * np.isin(twins, members).sum())
        if votes:
            alike = np.array(members)
            found.append((-votes, place, _likeliest(fits, alike, choice, twins) if len(alike) > 1 else place, alike))
    return [(best, alike) for _, _, best, alike in sorted(found, key=lambda item: item[:2])]


def _likeliest(fits: Fits, members: NDArray[np.int64], choice: NDArray[np.int64], twins: NDArray[np.int64]) -> int:
    """Of those that are not told apart: by their twins, else by correlation, no mirror image counting as a bit more."""
    voters = np.isin(choice, members) | np.isin(twins, members)
    found = np.array([np.isin(twins, [place]).sum() for place in members])
    near = fits.other.nearest[members][:, voters].mean(axis=1)
    near = near + TIE * np.array([fits.group.members[place].is_rotation for place in members])
    return int(members[(found if found.max() >= FEWEST_TWINS else near).argmax()])


def compare_orientation(
    reference: PreparedCohort, other: PreparedCohort, seed: int = 0, applied: str | None = None
) -> OrientationFinding:
    """Compare the orientations of two prepared cohorts, under all 8 or 48 symmetries.

    Args:
        reference: the training cohort.
        other: the synthetic or the held-out cohort.
        seed: of the samples that are looked at.
        applied: orientation that ``other`` was turned by already, so that the remedy names both turns in one.
    """
    names = reference.cohort.name, other.cohort.name
    fits = measure(reference.pixels, reference.cohort.patient_ids, other.pixels, seed)
    if fits is None:
        evidence = {"images": float(len(other.pixels))}
        return OrientationFinding(
            *names, "cannot_tell", None, evidence,
            f"Whether the {title_of(names[1])} images have the same orientation as the {title_of(names[0])} images "
            f"cannot be told: there are fewer than {FOLDS} {title_of(names[0])} patients.",
            LOOK,
        )  # fmt: skip
    judged = _Judgement.of(fits)
    found = _finding(judged, *names, applied)
    ids, others = ([image.image_id for image in item.cohort.images] for item in (reference, other))
    named = [(others[at], words_for(fits.group.members[turn])) for at, turn in judged.turned_images]
    return replace(
        found,
        turned_images=tuple(named) if found.turned else (),
        twins=tuple((others[at], ids[twin]) for at, twin in judged.twins),
    )


def title_of(name: str) -> str:
    """A cohort's name in a sentence."""
    return "held-out" if name == "heldout" else name


def _finding(judged: _Judgement, reference: str, other: str, applied: str | None) -> OrientationFinding:
    """In words."""
    members, ballot = judged.fits.group.members, judged.ballot
    before = orientation(applied, members[0].dims) if applied else members[0]
    lost = [members[k] for k in np.flatnonzero(~ballot.told) if not members[k].is_left_right]
    best, evidence, status = members[judged.best], judged.evidence, judged.status
    n, who, whom = int(evidence["images"]), title_of(other), title_of(reference)
    name = name_of(best.after(before))
    if status == "same" and (lost or judged.unanswered or n < FEWEST_VOTES):
        status = "cannot_tell"
    if status == "same":
        sentence = (
            f"The {who} images have the same orientation as the {whom} images ({n} were compared in {len(members)} "
            "orientations)."
        )
        remedy = ""
    elif status == "cannot_tell":
        why = (
            f"{len(lost)} of {len(members) - 1} other orientations look alike in the {whom} images themselves"
            if lost
            else f"too few of {n} images that were looked at resemble the {whom} images clearly enough"
        )
        sentence, remedy = (
            f"Whether the {who} images have the same orientation as the {whom} images cannot be told: {why}.", LOOK
        )  # fmt: skip
    else:
        turned = [members[k] for k in judged.turned]
        sentence = _evidence_sentence(evidence, best, who, whom, status, applied)
        further = [words_for(one) for one in turned if one != best]
        if further:
            sentence += f" Others fit better {' or '.join(further[:3])}{', ...' if len(further) > 3 else ''}"
            if len(further) > 1:
                sentence += f" ({len(judged.turned_images)} of {n} images fit better turned in one way or another)"
            sentence += "."
        remedy = _remedy(status, other, name, [best, *turned])
    occurring = dict.fromkeys([best, *(members[k] for k in judged.turned)]) if status in ("otherwise", "mixed") else ()
    return OrientationFinding(
        reference, other, status, name if occurring else None, evidence, sentence, remedy,
        tuple(name_of(one) for one in lost), tuple(name_of(one) for one in occurring),
    )  # fmt: skip


def _evidence_sentence(
    evidence: Mapping[str, float], best: Symmetry, who: str, whom: str, status: str, applied: str | None
) -> str:
    n, words = int(evidence["images"]), words_for(best)
    unturned = f"as turned by --orientation {applied}" if applied else "as stored"
    parts = []
    if evidence["fit_better"]:
        text = f"{evidence['fit_better']:.0f} of {n} {who} images fit the {whom} images clearly better {words}, and "
        text += f"{evidence['upright']:.0f} {unturned}"
        if status == "otherwise":  # of a part of the images the cohort's mean says nothing
            text += (
                f" (correlation of the mean images {evidence['mean_turned']:.2f} turned, {evidence['mean']:.2f} "
                f"{unturned})"
            )
        parts.append(text)
    if evidence["twins"] >= FEWEST_TWINS:  # a single one can be chance
        parts.append(
            f"{evidence['twins']:.0f} of {n} {who} images have a near twin among the {whom} images {words}, and "
            f"{evidence['twins_upright']:.0f} {unturned}"
        )
    return ". ".join(parts) + "."


def _remedy(status: str, other: str, name: str, turned: Sequence[Symmetry]) -> str:
    if other != "synthetic":
        return (
            f"Write the {title_of(other)} files and the training files in the same orientation (data.orientation calls "
            f"what brings the {title_of(other)} images there {name}), or go on as they are with --orientation as_is."
        )
    if status == "otherwise":
        return (
            f"Go on with --orientation {name}, which turns the synthetic images before they are compared, or with "
            "--orientation as_is if they are meant to be so."
        )
    if all(one.is_left_right for one in turned):
        return "Left-right mirror images are looked for in any case."
    wider = "mirror" if all(one.axes == tuple(range(one.dims)) for one in turned) else "all"
    return (
        "If these files were stored in another orientation by mistake, save them like the others; if the generator was "
        f"trained with turned or mirrored images, add --symmetries {wider}, which looks every image up turned as well. "
        "Copies in another orientation are missed without it."
    )
