# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of a study that differ in their seed as twins of one another.

    python -m monai_memo.study.crossed --study STUDY --config study.yaml --dataset POOL.csv --heldout HELDOUT.csv \
        --detector detector.pt --autoencoder model_autoencoder.pt --samples 100 --out OUT

A study draws the patients of each seed anew. So the samples of one seed are looked up among its own patients and among
those of the next seed, whom its generator never saw: what ``monai-memo twins`` does, and nothing is trained for it.
Patients whom both seeds drew are left out of the other's gallery, which is smaller by them. An autoencoder that all
runs share has seen both sides alike.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_memo.audit.record import software_versions
from monai_memo.benchmark.baselines import paper_detector
from monai_memo.data.cohort import Cohort
from monai_memo.errors import ConfigurationError
from monai_memo.files import write_json, write_text
from monai_memo.sealing import fingerprint, read_sealed_json, write_sealed_json
from monai_memo.search.copy_search import VERSION
from monai_memo.settings.refusals import refusals
from monai_memo.statistics.twins import summarise
from monai_memo.study.arguments import add_study, study_of
from monai_memo.study.configuration import Run
from monai_memo.study.mitigation import arm_of
from monai_memo.study.study import GeneratorStudy, samples_of
from monai_memo.study.twins import (
    FORMAT,
    Half,
    as_the_detector_sees,
    half_of,
    look_up,
    require_patients,
    strangers_of,
    table,
)
from monai_memo.workspace.output_folder import OutputFolder
from monai_memo.workspace.place import check_place

logger = logging.getLogger(__name__)


class CrossedStudy:
    """Look the samples of every finished run up among its own patients and among those of the next seed.

    Args:
        study: with the same arguments as when it was run.
        out: folder for ``crossed.json``, ``crossed.md`` and ``units``, each of which is done once.
        samples: of each run, the first ones.
        baselines: look samples up by older methods as well.
        paper: file of a detector by the paper's recipe, looked up with as well.

    Attributes:
        left_out: runs that have no part in the result, each with the reason.

    Raises:
        MemoError: a study that is none, was made with other images, or whose patients are not known.
    """

    def __init__(
        self,
        study: GeneratorStudy,
        out: str | Path,
        samples: int = 100,
        baselines: bool = True,
        paper: str | Path | None = None,
    ) -> None:
        check_place(out)
        self.study, self.out, self.samples, self.baselines = study, Path(out), samples, baselines
        self.left_out: list[str] = []
        self.data = study.opened(only_look=True)
        heldout = self.data.heldout_cohort()
        require_patients(Cohort.from_source(self.data.pool, "training"), study.configuration.dataset)
        require_patients(heldout, study.configuration.heldout)
        self.paper = None if paper is None else paper_detector(paper, self.data.detector.preprocessing)
        self.unseen = self.data.prepared(heldout)
        self._halves: dict[tuple[int, int, int], Half] = {}

    def run(self) -> list[dict[str, Any]]:
        """Do what is missing; one row for each arm.

        Raises:
            MemoError: no two finished runs differ in their seed alone, or a folder that cannot be written to.
        """
        configuration = self.study.configuration
        cohorts = {"dataset": configuration.dataset, "heldout": configuration.heldout}
        with OutputFolder(self.out, "crossed", cohorts, ["crossed.json", "crossed.md"]) as output:
            units = list(self._units())
            for words in self.left_out:
                logger.warning("left out: %s", words)
            if not units:
                raise ConfigurationError(
                    f"{self.study.out}: no two finished runs differ in their seed alone and can be compared. Left out: "
                    + "; ".join(self.left_out)
                )
            summary = summarise(units, configuration.seed)
            record = {
                "summary": summary, "units": units, "samples": self.samples, "left_out": self.left_out,
                "software": software_versions(),
            }  # fmt: skip
            told = [f"{len(self.left_out)} left out:", "", *(f"* {words}" for words in self.left_out), ""]
            staging = output.staging()
            write_json(staging / "crossed.json", record)
            write_text(staging / "crossed.md", table(summary) + ("\n".join(["", *told]) if self.left_out else ""))
            output.publish()
            output.clear()
        return summary

    def _units(self) -> Iterator[dict[str, Any]]:
        finished = {run: (folder, result) for run, folder, result in self.study.finished(self.data)}
        self.left_out = []
        groups: dict[tuple[str, int], list[Run]] = {}
        for run in (planned.run for planned in self.study.configuration.plan()):
            if run not in finished:
                self.left_out.append(f"{run.name}: not finished")
                continue
            arm = f"{arm_of(run, self.study.configuration.base)}, {run.n_patients} patients"
            groups.setdefault((arm, run.steps), []).append(run)
        for (arm, steps), runs in groups.items():
            if len(runs) == 1:
                self.left_out.append(f"{runs[0].name}: no finished run differs from it in its seed alone")
                continue
            for place, run in enumerate(runs):
                try:
                    yield self._unit(arm, steps, run, finished[run], runs[(place + 1) % len(runs)])
                except ConfigurationError as error:  # of this run; the others have their twins
                    self.left_out.append(f"{run.name}: {error}")

    def _unit(
        self, arm: str, steps: int, run: Run, finished: tuple[Path, Mapping[str, Any]], other: Run
    ) -> dict[str, Any]:
        every = samples_of(*finished)
        drawn = every[: self.samples]
        if len(every) < self.samples:
            logger.warning(
                "%s has %d samples, fewer than --samples %d: all are taken", run.name, len(every), self.samples
            )
        asked = [FORMAT, VERSION, run.name, other.seed, self.data.identity, self.data.detector.sha256, self.baselines]
        asked += [] if self.paper is None else [self.paper.sha256]
        identity = fingerprint("crossed unit", asked, [drawn], packages=())
        path = self.out / "units" / f"{run.name}.json"
        kept = read_sealed_json(path) if path.exists() else None
        if kept is not None and kept["identity"] == identity:
            return dict(kept["unit"])
        logger.info("%s among its own patients and those of seed %d ...", run.name, other.seed)
        own, twin = self._half(run, run), self._half(run, other)
        most = min(len(own.pixels), len(twin.pixels))
        strangers = strangers_of(self.unseen, self.data.detector, most, "cpu", run.seed)
        samples = as_the_detector_sees(drawn, self.data.detector)
        unit = {"split": run.seed, "generator": arm, "steps": steps, "half": "A"}
        unit |= look_up(samples, own, twin, strangers, run.seed)
        write_sealed_json(path, {"identity": identity, "unit": unit})
        return unit

    def _half(self, run: Run, other: Run) -> Half:
        """Images of ``other``'s patients, without those of ``run`` unless it is the same.

        Raises:
            ConfigurationError: less than half of the patients are left, in whom nobody would find as much.
        """
        key = run.n_patients, run.seed, other.seed
        if key not in self._halves:
            cohort = self.data.training_cohort(other.n_patients, other.seed)
            if other.seed != run.seed:
                known = set(self.data.training_cohort(run.n_patients, run.seed).patient_ids)
                cohort = cohort.subset(i for i, name in enumerate(cohort.patient_ids) if name not in known)
                if 2 * cohort.n_patients < run.n_patients:
                    raise ConfigurationError(
                        f"of the {other.n_patients} patients of seed {other.seed} {cohort.n_patients} are strangers to "
                        "it, fewer than half: a study of twins draws its patients from a pool at least twice as large"
                    )
            prepared = self.data.prepared(cohort)
            self._halves[key] = half_of(prepared, self.data.detector, "cpu", run.seed, self.baselines, self.paper)
        return self._halves[key]


def main(arguments: Sequence[str] | None = None) -> None:
    """Look up and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    add_study(parser)
    parser.add_argument("--samples", type=int, default=100, help="of each run")
    parser.add_argument("--paper_detector", help="file of a detector by the paper's recipe, looked up with as well")
    parser.add_argument("--nobaselines", action="store_true", help="this search and embeddings alone")
    parser.add_argument("--out", required=True, help="folder for the results")
    given = parser.parse_args(arguments)
    if given.samples < 10:
        parser.error(f"--samples must be at least 10, got {given.samples}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    with refusals(parser):
        study = study_of(given, progress=False)
        CrossedStudy(study, given.out, given.samples, not given.nobaselines, given.paper_detector).run()
        print((Path(given.out) / "crossed.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
