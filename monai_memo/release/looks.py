# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Looks at synthetic images, with the steps of an audit: once more by its own detector, and by a second one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.certainty import Calibrated
from monai_memo.audit.configuration import AuditConfiguration
from monai_memo.audit.controls import Controls
from monai_memo.audit.in_part import InPart
from monai_memo.audit.inputs import Inputs, read_inputs, recipe_for
from monai_memo.audit.looking_up import look_up
from monai_memo.audit.record import build_result
from monai_memo.audit.result import AuditResult
from monai_memo.audit.run import Run
from monai_memo.audit.searching import Searched
from monai_memo.audit.self_check import positive_control
from monai_memo.data.planted_files import ReadBack, through_files
from monai_memo.data.prepared import PreparedCohort
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.detector.training import train_detector
from monai_memo.sealing import fingerprint
from monai_memo.views import Views

# What a second detector is trained on: views that differ from those of the first one in kind and strength, so that
# both do not share what they cannot see. Boxes of other images are replaced more often, and intensities change more.
OTHER_VIEWS = Views.other()  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Synthetic images, looked up by one detector.

    Attributes:
        run: settings and folders.
        inputs: the cohorts.
        searched: what was found.
        calibrated: the numbers.
        in_part: copies in part; None where they were not looked for.
        result: the record, with names.
        planted: similarity of each planted copy, -inf where it could not be read back.
    """

    run: Run
    inputs: Inputs
    searched: Searched
    calibrated: Calibrated
    in_part: InPart | None
    result: AuditResult
    planted: NDArray[np.float64]

    @property
    def tau(self) -> float:
        return self.calibrated.rates.tau.value

    @property
    def heldout_called(self) -> NDArray[np.bool_]:
        """Held-out images above the threshold, as a whole or in part: the control of a removal loses them as well."""
        called = self.searched.comparison.sims.heldout_to_training > self.tau
        part = self.in_part
        return called if part is None or part.heldout is None else called | (part.heldout > part.numbers.tau.value)

    def called(self) -> dict[str, str]:
        """Synthetic images that are called copies, as a whole or in part, with the patient."""
        found = {match.synthetic: match.nearest_patient for match in self.result.matches if match.copy}
        for part in self.result.partial_matches:
            if part.in_part:
                found.setdefault(part.synthetic, part.patient)
        return found


def configuration(recorded: Mapping[str, Any], **changes: Any) -> AuditConfiguration:
    """The settings of an audit's record, with some of them changed; None takes one out.

    What a detector that is given decides (recipe, epochs, size, spacing) is left to it.
    """
    known = {name: value for name, value in recorded.items() if name in AuditConfiguration.model_fields}
    asked = {**known, **changes}
    if asked.get("detector") is not None:
        for name in ("recipe", "epochs", "size", "spacing"):
            asked.pop(name, None)
    return AuditConfiguration(**{name: value for name, value in asked.items() if value is not None})


def narrowed(inputs: Inputs, name: str, kept: NDArray[np.bool_]) -> Inputs:
    """Inputs with some images of one cohort only."""
    if kept.all():
        return inputs
    whole = inputs.prepared[name]
    places = np.flatnonzero(kept)
    part = PreparedCohort(
        cohort=whole.cohort.subset(places),
        pixels=np.asarray(whole.pixels[places]),
        skipped=whole.skipped,
        notes=whole.notes,
        content_sha256=fingerprint("part of a cohort", [whole.content_sha256, places.tolist()]),
    )
    return replace(inputs, prepared={**inputs.prepared, name: part})


def second_recipe(run: Run, inputs: Inputs) -> Recipe:
    """Of the second detector: other views."""
    recipe = recipe_for(run.settings, len(inputs.training.pixels), inputs.preprocessing)
    return replace(recipe, views=OTHER_VIEWS)


def train_second(run: Run, inputs: Inputs) -> Detector:
    """A second detector, by the seed of the run and other views."""
    with run.timed("train second detector"):
        return train_detector(
            inputs.training.pixels,
            second_recipe(run, inputs),
            inputs.preprocessing,
            run.work / "training",
            seed=run.settings.seed,
            device=run.device,
            patient_ids=inputs.training.cohort.patient_ids,
            progress=run.settings.progress,
        )


def read(settings: AuditConfiguration, out: Path, work: Path) -> tuple[Run, Inputs]:
    """Read and prepare the cohorts."""
    run = Run(settings, out, work)
    return run, read_inputs(run)


def look(run: Run, inputs: Inputs, detector: Detector, planted: int) -> Look:
    """Look the synthetic images up, and plant copies as a check.

    Args:
        planted: copies.
    """
    searched, calibrated, in_part = look_up(run, inputs, detector)
    similarities: list[NDArray[np.float64]] = []
    readable: list[NDArray[np.bool_]] = []

    def similarity_of(images: NDArray[np.floating]) -> NDArray[np.float64]:
        similarities.append(searched.similarity_of(searched.matched.soften(images)))
        return similarities[-1]

    def through(copies: NDArray[np.float32]) -> ReadBack:
        like = inputs.prepared["synthetic"].cohort
        back = through_files(copies, like, detector.preprocessing, run.work / "planted", run.settings.seed)
        readable.append(back.readable)
        return back

    with run.timed("positive control"):
        sensitivity = positive_control(
            similarity_of, inputs.training.pixels, calibrated.rates.tau.value, planted, run.settings.seed,
            run.settings.confidence, through,
        )  # fmt: skip
    result = build_result(run, inputs, searched, calibrated, Controls(sensitivity, None), in_part)
    scores = np.where(readable[0], similarities[0], -np.inf) if similarities else np.empty(0)
    return Look(run, inputs, searched, calibrated, in_part, result, scores)


def positions(cohort_ids: Sequence[str], kept: Sequence[str]) -> NDArray[np.bool_]:
    """Which images of a cohort are among ``kept``."""
    wanted = set(kept)
    return np.array([name in wanted for name in cohort_ids], dtype=bool)
