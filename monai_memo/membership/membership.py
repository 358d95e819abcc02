# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo membership``: do the weights betray who was in the training data?"""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.audit.record import software_versions
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import csv_text, write_text
from monai_memo.membership.attack import Attack, attack_model
from monai_memo.membership.denoiser import Denoiser, load_denoiser
from monai_memo.membership.inputs import PIXELS, ModelInputs, described, read_inputs, require_conditions
from monai_memo.membership.scores import Probe
from monai_memo.membership.settings import MembershipSettings
from monai_memo.membership.words import asked, found_sentence, headline, unheard, untold, warnings
from monai_memo.membership.writing import in_audit, write_result
from monai_memo.statistics.membership import Separation
from monai_memo.workspace.output_folder import OutputFolder

logger = logging.getLogger(__name__)

SCHEMA_VERSION = "1.0"
METHOD = (
    "Every image is encoded, noise is added at {levels} of the timesteps, {draws} times each, and the model is asked "
    "for it; the score is minus the logarithm of its error, averaged over the levels. With a reference model, which "
    "sees the same noise, the difference of both counts. The one-query score adds the noise that the model itself sees "
    "in the clean image. A patient counts once, with the mean over their images. Intervals: the wider of a bootstrap "
    "of patients and Newcombe's for an area; p-values: patients put into the cohorts at random."
)


class Membership:
    """A membership test of the weights of a model.

    .. versionadded:: 0.2.0

    Args:
        options: see ``MembershipSettings``.

    Example:
        >>> from monai_memo.membership import Membership
        >>> Membership(bundle="chest_xray_ldm", train="train.csv", heldout="heldout.csv", out="membership").run()
        ... # doctest: +SKIP
    """

    def __init__(self, **options: Any) -> None:
        self.settings = MembershipSettings(**options)
        self.out = Path(self.settings.out)
        self.skipped = 0

    def run(self) -> dict[str, Any]:
        """Test, and write ``membership.json`` and ``membership.html``; with ``audit`` a chapter there as well.

        Returns:
            The record, which names nobody.

        Raises:
            MemoError: no model with weights, cohorts that cannot be used, or a folder that cannot be written.
        """
        settings = self.settings
        files = ["membership.json", "membership.html", *(["membership.csv"] if settings.patients else [])]
        with OutputFolder(
            self.out, "membership", settings.cohort_options(), files, settings.to_dict()
        ) as output, in_audit(settings.audit, "membership", self.out) as chapter:  # fmt: skip
            inputs = read_inputs(settings, output.work / PIXELS)
            self.skipped = inputs.skipped
            reference = self._reference(inputs)
            probe = Probe(settings.levels, settings.draws, settings.query_level, settings.seed)
            training, heldout = inputs.groups()
            found = attack_model(inputs.denoiser, training, heldout, reference, probe, settings.progress)
            record = record_of(found, inputs, reference, probe)
            if chapter is not None:
                record["warnings"] += chapter.compare(record["cohorts"]["training"])
            staging = output.staging()
            write_result(staging, "membership", record)
            if settings.patients:
                write_text(staging / "membership.csv", _table(found))
            output.publish()
            if chapter is not None:
                chapter.publish(record)
            output.clear()
        return record

    def _reference(self, inputs: ModelInputs) -> Denoiser | None:
        settings = self.settings
        files = (settings.reference_autoencoder_file, settings.reference_diffusion_file)
        if settings.reference_bundle is None:
            if any(files):
                raise ConfigurationError("reference_diffusion_file takes a reference_bundle that describes its network")
            return None
        found, _ = load_denoiser(
            settings.reference_bundle, settings.reference_profile, inputs.device, settings.batch_size,
            "reference_bundle", autoencoder_file=files[0], diffusion_file=files[1],
        )  # fmt: skip
        try:
            found.latents(inputs.training.pixels[:1])
        except MemoError as error:
            raise ConfigurationError(
                f"--reference_bundle {settings.reference_bundle} cannot be asked about the images of the model: {error}"
            ) from error
        if described(found)["weights_sha256"] == described(inputs.denoiser)["weights_sha256"]:
            raise ConfigurationError(
                "the reference model has the very weights of the model: name one that was trained on other patients"
            )
        if inputs.told:
            require_conditions(found, [inputs.training.cohort, inputs.heldout.cohort], model="reference model: ")
        return found


def record_of(found: Attack, inputs: ModelInputs, reference: Denoiser | None, probe: Probe) -> dict[str, Any]:
    """The record: numbers, hashes and sentences, no name and no path."""
    sizes = [len(one.cohort) / one.cohort.n_patients for one in (inputs.training, inputs.heldout)]
    cohorts = inputs.cohorts()
    models = {"model": described(inputs.denoiser, inputs.told)}
    if reference is not None:
        models["reference model"] = described(reference, inputs.told)
    levels = ", ".join(f"{100 * level:g}" for level in probe.levels)
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "confidence": 0.95,
        "headline": headline(found),
        "level": found.level,
        "main": found.main,
        "p_any": found.p_any,
        "scores": {name: plain(one) for name, one in found.model.items()},
        "pixels_alone": plain(found.pixels),
        "reference_alone": None if found.reference is None else plain(found.reference),
        "conditions_alone": None if found.conditions is None else plain(found.conditions),
        "found": [
            *(found_sentence(one, len(found.patients[1])) for one in found.model[found.main].found_at),
            *untold(models),
        ],
        "warnings": warnings(found, cohorts, (sizes[0], sizes[1])) + unheard(inputs.unheard),
        "method": " ".join([METHOD.format(levels=f"{levels} %", draws=probe.draws), *asked(models)]),
        "cohorts": cohorts,
        "model": models["model"],
        "reference": models.get("reference model"),
        "probe": asdict(probe),
        "software": software_versions(),
    }


def plain(found: Separation) -> dict[str, Any]:
    """Numbers as JSON has them."""
    return asdict(found)


def _table(found: Attack) -> str:
    columns = ["patient", "cohort", *found.scores]
    rows = []
    for number, cohort in enumerate(("training", "heldout")):
        values = np.stack([pair[number] for pair in found.scores.values()], axis=1)
        for name, row in zip(found.patients[number], values, strict=True):
            rows.append([name, cohort, *(f"{value:.6f}" for value in row)])
    return csv_text(columns, rows)
