# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The attack itself: images of both cohorts under a model and a reference model, one number for each patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.errors import ConfigurationError
from monai_memo.membership.blind import blind_scores, condition_statistics, pixel_statistics
from monai_memo.membership.denoiser import Denoiser
from monai_memo.membership.scores import DENOISING, Probe, score_images
from monai_memo.sealing import array_sha256
from monai_memo.statistics.membership import Separation, by_patient, separations

Floats = NDArray[np.float64]
CALIBRATED, REFERENCE, PIXELS, CONDITIONS = "calibrated", "reference alone", "pixels alone", "conditions alone"
LEVEL = 0.05


@dataclass(frozen=True)
class Group:
    """Images of one cohort with their patients.

    Attributes:
        pixels: ``(n, channels, *spatial)`` in [0, 1], as the generator saw images in its training.
        patients: of each image.
        conditions: of each image, the columns of its table by name, which a model that was trained with some of them
            is told; None: it is not.
    """

    pixels: NDArray[np.floating]
    patients: Sequence[str]
    conditions: Sequence[Mapping[str, str]] | None = None

    def names(self) -> list[str]:
        """Of the images: hashes, so that an image meets the same noise wherever it stands."""
        return [array_sha256(np.ascontiguousarray(image, dtype=np.float32)) for image in self.pixels]


@dataclass(frozen=True)
class Attack:
    """What was found.

    Attributes:
        main: name of the score that was chosen before anything was looked at.
        model: each score of the model; where there is a reference, the ``calibrated`` ones go first.
        p_any: p-value of the one that tells the cohorts apart best, in either direction.
        pixels: cohorts told apart by pixel statistics alone, without the model.
        reference: told apart by a reference model alone, which should not know any of them; None without one.
        conditions: told apart by the conditions alone that the model was told; None where it was told none.
        scores: by patient, of all scores of ``model``: names, members, others.
        patients: of training and held-out cohort, in the order of ``scores``.
    """

    main: str
    model: dict[str, Separation]
    p_any: float
    pixels: Separation
    reference: Separation | None
    conditions: Separation | None
    scores: dict[str, tuple[Floats, Floats]] = field(repr=False)
    patients: tuple[list[str], list[str]] = field(repr=False)

    @property
    def cohorts_differ(self) -> list[str]:
        """What tells the cohorts apart though it has no memory of either."""
        blind = {PIXELS: self.pixels, CONDITIONS: self.conditions}
        found = [name for name, one in blind.items() if one is not None and one.auc.low > 0.5]
        if self.reference is not None and not self.reference.auc.low <= 0.5 <= self.reference.auc.high:
            found.append(REFERENCE)
        return found

    @property
    def shown(self) -> bool:
        """Whether the score chosen beforehand, or the best after paying for the choice, is beyond chance.

        Either is asked at half the level, so that chance alone says so no more often than the level.
        """
        return min(self.model[self.main].p_value, self.p_any) < LEVEL / 2

    @property
    def reversed(self) -> bool:
        """Whether unseen patients look like members by the score chosen beforehand, more than chance allows.

        No memory raises the denoising error of members; the one-query score can be turned round, see the warnings.
        """
        return self.model[self.main].auc.high < 0.5

    @property
    def level(self) -> str:
        """``"cohorts_differ"``, ``"members_told"``, ``"inconclusive"`` or ``"not_shown"``."""
        if self.shown and not self.reversed:
            return "cohorts_differ" if self.cohorts_differ else "members_told"
        return "inconclusive" if self.cohorts_differ or self.reversed else "not_shown"


def attack_model(
    denoiser: Denoiser,
    training: Group,
    heldout: Group,
    reference: Denoiser | None = None,
    probe: Probe | None = None,
    progress: bool = True,
) -> Attack:
    """Try to tell training from held-out patients by what a model says of their images.

    Args:
        denoiser: the model that might be shared.
        training, heldout: what it was trained on, and images of other patients of the same source.
        reference: a model of the same kind that was trained on neither. What an image is like in itself then cancels.
        probe: what is asked.

    Raises:
        ConfigurationError: conditions of one group alone, or others than the model was trained with.

    .. versionadded:: 0.2.0
    """
    chosen = probe or Probe()
    groups = {"training": training, "heldout": heldout}
    names = {name: group.names() for name, group in groups.items()}
    told = told_of(denoiser, groups, members="training")
    found = {name: score_images(denoiser, group.pixels, names[name], chosen, f"ask, {name}", progress, told[name])
             for name, group in groups.items()}  # fmt: skip
    columns = {name: (found["training"][:, i], found["heldout"][:, i]) for i, name in enumerate(chosen.names)}
    main, alone = DENOISING, None
    if reference is not None:
        also = told_of(reference, groups)
        known = {
            name: score_images(reference, group.pixels, names[name], chosen, f"ask reference, {name}", progress,
                               also[name])
            for name, group in groups.items()
        }  # fmt: skip
        differences = {name: found[name] - known[name] for name in groups}
        columns = {
            **{f"{name}, {CALIBRATED}": (differences["training"][:, i], differences["heldout"][:, i])
               for i, name in enumerate(chosen.names)},
            **columns,
        }  # fmt: skip
        main = f"{DENOISING}, {CALIBRATED}"
        alone = _separation(known["training"][:, 0], known["heldout"][:, 0], groups, chosen.seed)

    def blind(ours: Floats, theirs: Floats) -> Separation:
        return _blind(ours, theirs, groups, chosen.seed)

    pixels = by_pixels(training, heldout, chosen.seed)
    conditions = (
        blind(*(condition_statistics(told[name], denoiser.code) for name in groups)) if any(told.values()) else None
    )
    people = [by_patient(np.zeros(len(group.patients)), group.patients)[1] for group in groups.values()]
    scores = {name: (by_patient(ours, training.patients)[0], by_patient(theirs, heldout.patients)[0])
              for name, (ours, theirs) in columns.items()}  # fmt: skip
    model, p_any = separations(
        {name: pair[0] for name, pair in scores.items()}, {name: pair[1] for name, pair in scores.items()},
        seed=chosen.seed, either_way=True,
    )  # fmt: skip
    return Attack(main, model, p_any, pixels, alone, conditions, scores, (people[0], people[1]))


def told_of(
    denoiser: Denoiser, groups: Mapping[str, Group], members: str | None = None
) -> dict[str, dict[str, Tensor]]:
    """What the network is told of each group; empty where nothing is.

    Args:
        members: name of the group that it was trained on.

    Raises:
        ConfigurationError: conditions of one group alone, or others than the model was trained with.
    """
    without = [name for name, group in groups.items() if group.conditions is None]
    if without and len(without) < len(groups):
        raise ConfigurationError(f"conditions of both groups, or of none: the {without[0]} group has none")
    return {
        name: {} if group.conditions is None else denoiser.told(group.conditions, f"the {name} images", name == members)
        for name, group in groups.items()
    }


def by_pixels(training: Group, heldout: Group, seed: int) -> Separation:
    """How well two cohorts are told apart by pixel statistics, without any model."""
    statistics = pixel_statistics(training.pixels), pixel_statistics(heldout.pixels)
    return _blind(*statistics, {"training": training, "heldout": heldout}, seed)


def _blind(ours: Floats, theirs: Floats, groups: dict[str, Group], seed: int) -> Separation:
    people = groups["training"].patients, groups["heldout"].patients
    return _separation(*blind_scores(ours, theirs, people, seed), groups, seed)


def _separation(members: Floats, others: Floats, groups: dict[str, Group], seed: int) -> Separation:
    ours, theirs = (by_patient(one, groups[name].patients)[0]
                    for name, one in (("training", members), ("heldout", others)))  # fmt: skip
    return separations({"": ours}, {"": theirs}, seed=seed)[0][""]
