# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What membership inference, a targeted search and the copy rate see of one model, halted along its training.

The patients are dealt into four groups: of the model, of a reference model by the same recipe, held-out ones, and those
that the autoencoder of both is trained on, which therefore knows none of the others.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from monai_memo.audit.record import software_versions
from monai_memo.data.cohort import Cohort
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.data.writing import write_cohort
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json, write_text
from monai_memo.generators.latent_diffusion import LatentDiffusion, sample_seeds
from monai_memo.membership.attack import Attack, attack_model
from monai_memo.membership.denoiser import Denoiser
from monai_memo.membership.extraction import search_on_purpose
from monai_memo.membership.inputs import ModelInputs
from monai_memo.membership.membership import record_of
from monai_memo.membership.scores import DENOISING, ONE_QUERY, Probe
from monai_memo.membership.settings import ExtractSettings
from monai_memo.sealing import fingerprint, read_sealed_json, write_sealed_json
from monai_memo.search.copy_search import VERSION
from monai_memo.settings import Refused, Several, Whole
from monai_memo.settings.refusals import refusals
from monai_memo.study.audit import RunAudit
from monai_memo.study.configuration import GeneratorEntry
from monai_memo.study.data import generator_preprocessing
from monai_memo.study.latent_diffusion import BundleTraining

logger = logging.getLogger(__name__)

FORMAT = 1
GROUPS = ("model", "reference", "heldout", "first_stage")
SETTINGS: dict[str, Any] = {  # those of docs/studies, a network of medium size
    "autoencoder_channels": [16, 32, 64, 64], "latent_channels": 8, "diffusion_attention": [False, True],
    "diffusion_head_channels": [0, 32], "diffusion_channels": [32, 64], "diffusion_batch_size": 16,
    "diffusion_learning_rate": 0.001, "ema_momentum": 0.005, "beta_start": 0.00085, "beta_end": 0.012,
}  # fmt: skip
NOT_FOUND = "-"

STEPS = Several(Whole(1, 10_000_000), 1, 100, rising=True, example="500,1500")


@dataclass(frozen=True)
class Plan:
    """How large everything is.

    Attributes:
        cohort: table of images with patients.
        bundle: folder of the bundle that is trained.
        detector: file of a copy detector that suits the images.
        out: folder for the result; what is done is kept there.
        steps: of the diffusion models, rising.
        patients: of model and reference each.
        heldout, first_stage: patients of these groups.
        samples: drawn from each model.
        targets: patients that the targeted search aims at.
        settings: of the bundle, over ``SETTINGS``.
        size: of the images.
        seed: of everything.
        progress: show how far it is.
    """

    cohort: str
    bundle: str
    detector: str
    out: str
    steps: tuple[int, ...] = (500, 1500, 3000, 6000)
    patients: int = 60
    heldout: int = 200
    first_stage: int = 200
    samples: int = 100
    targets: int = 40
    settings: Mapping[str, Any] | None = None
    size: tuple[int, ...] = (64, 64)
    seed: int = 0
    progress: bool = True


class MembershipStudy:
    """Train, and look at the weights in three ways.

    Args:
        plan: of it.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.out = plan, Path(plan.out)
        self.detector = Detector.given(plan.detector)
        self.preprocessing = generator_preprocessing(self.detector, plan.size)

    def run(self) -> list[dict[str, Any]]:
        """Do what is missing; write ``membership_study.json`` and ``membership_study.md``; one record a stage."""
        cohorts = self._cohorts()
        prepared = {
            name: prepare(cohort, self.preprocessing, self.out / "pixels" / name, None, self.plan.progress)
            for name, cohort in cohorts.items() if name != "first_stage"
        }  # fmt: skip
        seen = {
            name: prepare(cohorts[name], self.detector.preprocessing, self.out / "seen" / name, None, False)
            for name in ("model", "heldout")
        }
        audit = RunAudit(self.detector, seen["heldout"], self.out / "audit", 1000, self.plan.progress)
        contents = [one.content_sha256 for one in prepared.values()]
        rows = []
        for steps in self.plan.steps:
            made_from = [FORMAT, VERSION, steps, contents, self.detector.sha256, SETTINGS]
            made_from += [dict(self.plan.settings or {}), self.plan.samples, self.plan.targets, self.plan.seed]
            path = (
                self.out / "stages" / f"{steps}-{fingerprint('stage of membership', made_from, packages=())[:16]}.json"
            )
            row = read_sealed_json(path) if path.is_file() else None
            if row is None:
                logger.info("%d steps ...", steps)
                row = self._stage(steps, prepared, seen["model"], audit)
                write_sealed_json(path, row)
            rows.append(row)
            write_json(self.out / "membership_study.json", {"stages": rows, "software": software_versions()})
            write_text(self.out / "membership_study.md", table(rows))
        return rows

    def _cohorts(self) -> dict[str, Cohort]:
        """Patients dealt at random; tables of them for the trainings."""
        plan, whole = self.plan, Cohort.from_source(self.plan.cohort, "training")
        names = np.random.default_rng([plan.seed, 51]).permutation(np.unique(whole.patient_ids))
        sizes = [plan.patients, plan.patients, plan.heldout, plan.first_stage]
        if sum(sizes) > len(names):
            raise ConfigurationError(f"{plan.cohort} has {len(names)} patients: {sum(sizes)} are needed ({sizes})")
        found, start = {}, 0
        for name, size in zip(GROUPS, sizes, strict=True):
            chosen = set(names[start : start + size].tolist())
            rows = [row for row, patient in enumerate(whole.patient_ids) if patient in chosen]
            cohort = whole.subset(rows)
            write_cohort(cohort, self.out / f"{name}.csv")
            found[name] = Cohort(name, cohort.images, cohort.source, cohort.patients_known)
            start += size
        return found

    def _training(self, name: str) -> BundleTraining:
        settings = {**SETTINGS, **(self.plan.settings or {})}
        settings["diffusion_steps_per_epoch"] = int(np.gcd.reduce(self.plan.steps))
        entry = GeneratorEntry("latent_diffusion", settings, bundle=self.plan.bundle, profile="small")
        values = {
            "dataset_dir": str(self.out / f"{name}.csv"), "heldout_dir": str(self.out / "heldout.csv"),
            "n_training_patients": None, "augmentation": "none", "image_size": list(self.plan.size),
            "autoencoder_file": str(self.out / "first_stage" / "model_autoencoder.pt"), "detector_file": None,
            "seed": self.plan.seed, "device": "cpu", "amp": False, "workers": None, "progress": self.plan.progress,
        }  # fmt: skip
        return BundleTraining(entry, "", values)

    def _trained(self, name: str, steps: int) -> LatentDiffusion:
        first_stage = self.out / "first_stage" / "model_autoencoder.pt"
        if not first_stage.is_file():
            self._training("first_stage").train_autoencoder(first_stage, self.plan.seed)
        return cast(LatentDiffusion, self._training(name).train(steps, self.out / name))

    def _stage(
        self,
        steps: int,
        prepared: Mapping[str, PreparedCohort],
        seen: PreparedCohort,
        audit: RunAudit,
    ) -> dict[str, Any]:
        plan = self.plan
        model, reference = self._trained("model", steps), Denoiser(self._trained("reference", steps))
        denoiser, probe = Denoiser(model), Probe(seed=plan.seed)
        inputs = ModelInputs(denoiser, self.preprocessing, prepared["model"], prepared["heldout"], "cpu")
        found: Attack = attack_model(denoiser, *inputs.groups(), reference, probe, plan.progress)
        settings = ExtractSettings(
            bundle=plan.bundle, train=str(self.out / "model.csv"), heldout=str(self.out / "heldout.csv"),
            detector=plan.detector, out=str(self.out / "extraction"), targets=plan.targets, levels=(0.7, 0.9), tries=1,
            seed=plan.seed, progress=plan.progress,
        )  # fmt: skip
        samples = model.sample(sample_seeds(plan.seed, range(plan.samples)))
        copies = audit(samples, seen, plan.seed, self.out / "pairs" / f"{steps}.png")
        return {
            "steps": steps, "membership": record_of(found, inputs, reference, probe),
            "extraction": search_on_purpose(inputs, self.detector, settings, self.out / "aimed"),
            "copies": {name: copies[name] for name in ("rates", "reference", "n_synthetic", "softened")},
        }  # fmt: skip


def _three(values: Sequence[float] | Mapping[str, float], percent: bool = True) -> str:
    value, low, high = values.values() if isinstance(values, Mapping) else values
    scale, digits = (100, 0) if percent else (1, 2)
    return f"{scale * value:.{digits}f} ({scale * low:.{digits}f} to {scale * high:.{digits}f})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown, one line for each stage."""
    lines = [
        "| steps | copies in an audit | excess over control, % | reference control: excess, % | membership: AUC with "
        "reference | found at 1 % false positives, % | p | AUC without reference | one query, with reference: AUC "
        "| came back from 90 % noise: training, held-out | drawn towards it: training, held-out |",
        "| --- " * 11 + "|",
    ]
    for row in rows:
        rates, member = row["copies"]["rates"]["size_matched"], row["membership"]
        scores, ways = member["scores"], {way["way"]: way for way in row["extraction"]["ways"]}
        main, targets = scores[member["main"]], row["extraction"]["targets"]
        at = main["found_at"][0]
        back = [
            f"{way['training_back']}, {way['heldout_back']} of {targets}" if way is not None else NOT_FOUND
            for way in (ways.get("from 90 % noise"), ways.get("drawn towards it"))
        ]
        lines.append(
            f"| {row['steps']:,} | {rates['n_copies']} of {row['copies']['n_synthetic']} "
            f"| {_three(rates['excess_copies'])} | {_three(row['copies']['reference']['excess'])} "
            f"| {_three(main['auc'], percent=False)} | {_three(at['found']) if at['resolved'] else NOT_FOUND} "
            f"| {main['p_value']:.2g} | {_three(scores[DENOISING]['auc'], percent=False)} "
            f"| {_three(scores[f'{ONE_QUERY}, calibrated']['auc'], percent=False)} | {back[0]} | {back[1]} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, look, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--cohort", required=True, help="table of images with patients (image, patient_id)")
    parser.add_argument("--bundle", required=True, help="folder of the generator bundle")
    parser.add_argument("--detector", required=True, help="copy detector that suits the images")
    parser.add_argument("--out", required=True, help="folder for the results, and for what is done")
    parser.add_argument("--steps", default="500,1500,3000,6000", help="at which the models are halted, rising")
    for name in ("patients", "heldout", "first_stage", "samples", "targets", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    parser.add_argument("--noprogress", action="store_true")
    given = parser.parse_args(arguments)
    try:
        given.steps = STEPS.read(given.steps)
    except Refused:
        parser.error(f"--steps must be {STEPS.allowed}, got {given.steps}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    plan = Plan(
        given.cohort, given.bundle, given.detector, given.out, given.steps,
        given.patients, given.heldout, given.first_stage, given.samples, given.targets, seed=given.seed,
        progress=not given.noprogress,
    )  # fmt: skip
    with refusals(parser):
        print(table(MembershipStudy(plan).run()))


if __name__ == "__main__":
    main()
