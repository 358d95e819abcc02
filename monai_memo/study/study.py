# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The study: train, sample and audit every run of a grid, once, and tabulate."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.record import software_versions
from monai_memo.audit.run import resolve_device
from monai_memo.data.cohort import Cohort
from monai_memo.data.writing import save_image
from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.files import sha256_of, write_json
from monai_memo.generators.cohorts import GeneratorCohorts
from monai_memo.generators.evaluation import sheet
from monai_memo.generators.guarded import OF_SAMPLING
from monai_memo.generators.latent_diffusion import sample_seeds
from monai_memo.progress import following
from monai_memo.sampling import TrainedGenerator
from monai_memo.sealing import fingerprint, is_sealed, read_sealed_json, write_sealed, write_sealed_json
from monai_memo.search.copy_search import VERSION
from monai_memo.study.audit import Groups, RunAudit
from monai_memo.study.conditioning import BUNDLE_COLUMN, COLUMN, Told, labelled, labels_of, table_of
from monai_memo.study.configuration import GeneratorEntry, Planned, Run, StudyConfiguration
from monai_memo.study.data import StudyData, generator_preprocessing, open_study_data, require_same_images
from monai_memo.study.figures import write_figures
from monai_memo.study.gan import train_gan
from monai_memo.study.latent_diffusion import BundleTraining
from monai_memo.study.pixel_training import PixelTraining
from monai_memo.study.principal import PrincipalAutoencoder, PrincipalTraining
from monai_memo.study.settings import PrincipalDiffusionSettings, StudySettings
from monai_memo.study.tables import write_tables
from monai_memo.study.variational_autoencoder import train_variational_autoencoder
from monai_memo.workspace.output_folder import OutputFolder

logger = logging.getLogger(__name__)

FORMAT = 4  # raise it when the same run would come to have another result: earlier ones are then done again
SAMPLES_SHOWN = 24


class GeneratorStudy:
    """Train, sample and audit a grid of generators.

    Every run has a folder ``<out>/runs/<name>-<key>`` of its own with ``result.json`` (written last, in one step),
    ``samples.npy``, ``samples.png`` and ``pairs.png``. The key is a hash of everything that decides the result. The
    same command goes on where it was interrupted; a run that has a result is not done again. A run that fails is
    listed with its error (``failed.json``) and the next one begins; the next start tries it again.

    Runs that differ in their steps alone are one training: it is halted at each of these steps, sampled and audited,
    and goes on.

    Args:
        arguments: see ``StudySettings``.
    """

    def __init__(self, **arguments: Any) -> None:
        settings = StudySettings(**arguments)
        sources = {name: getattr(settings, name) for name in ("dataset", "heldout", "detector", "autoencoder")}
        self.configuration = StudyConfiguration.read(settings.config, **sources)
        self.out, self.device = Path(settings.out), resolve_device(settings.device)
        self.report_only, self.workers, self.progress = settings.report_only, settings.workers, settings.progress
        self._spaces: dict[int, PrincipalAutoencoder] = {}

    def run(self) -> list[dict[str, Any]]:
        """Do what is missing; write tables and figures; return one record for each planned run.

        A record has ``run``, ``levels``, ``status`` (``"finished"``, ``"failed"``, ``"not run"``), and the result or
        the error.

        Raises:
            MemoError: shared input that cannot be used. What goes wrong in one run is listed instead.
        """
        settings = self.configuration
        cohorts = {"dataset": settings.dataset, "heldout": settings.heldout}
        with OutputFolder(self.out, "study", cohorts, ["study.csv", "study.md"]) as output:
            records = self._run()
            output.clear()
        return records

    def _run(self) -> list[dict[str, Any]]:
        plan = self.configuration.plan()
        data = self.opened()
        audit = self.audit_of(data)
        folders = {planned.run: self._folder(planned.run, data) for planned in plan}
        if not self.report_only:
            for planned in following(plan, "study", shown=self.progress):
                folder = folders[planned.run]
                if result_in(folder) is None:
                    self._attempt(planned.run, folder, data, audit)
                    write_tables(self.out, records_of(plan, folders))
        records = records_of(plan, folders)
        write_tables(self.out, records)
        write_figures(self.out / "figures", records, self.configuration)
        return records

    def opened(self, only_look: bool = False) -> StudyData:
        """What all runs share.

        Args:
            only_look: at a study that was run: nothing is trained for it, and its lists of images are to stay.
        """
        shared = self.out / "shared"
        if only_look:
            require_same_images(self.configuration, shared)
        return open_study_data(self.configuration, shared, self.device, self.workers, self.progress)

    def audit_of(self, data: StudyData) -> RunAudit:
        """How every run is audited."""
        return RunAudit(data.detector, data.prepared(data.heldout_cohort()), self.out / "shared", 1000, self.progress)

    def finished(self, data: StudyData) -> list[tuple[Run, Path, dict[str, Any]]]:
        """Runs that have a result, with their folder and that result.

        Raises:
            ConfigurationError: none; whether there are results of other settings.
        """
        folders = [(planned.run, self._folder(planned.run, data)) for planned in self.configuration.plan()]
        finished = [(run, folder, found) for run, folder in folders if (found := result_in(folder)) is not None]
        if not finished:
            others = len(list((self.out / "runs").glob("*/result.json")))
            raise ConfigurationError(
                f"{self.out}: none of the {len(folders)} planned runs is finished. "
                + (
                    f"{others} finished runs there were made with other settings or files: name the --config, "
                    "--detector and --autoencoder that monai-memo study was given"
                    if others
                    else "Run monai-memo study first"
                )
            )
        return finished

    def alike_but_for_sampling(self, run: Run, data: StudyData) -> list[Run]:
        """The planned runs that share the training of a latent diffusion model, this one among them."""
        wanted = self._identity(run, data, trained=True)
        planned = [planned.run for planned in self.configuration.plan()]
        return [one for one in planned if one.steps == run.steps and self._identity(one, data, trained=True) == wanted]

    def memorizer(self, run: Run, data: StudyData) -> TrainedGenerator:
        """The sampling of a run, with its switches, around a closed-form model that knows its training images only."""
        folder = self._training_folder(run, data)
        if self._entry(run).kind == "principal_diffusion":
            return self._principal(run, data, folder).generator(memorizer=True)
        preprocessing = generator_preprocessing(data.detector, tuple(self.configuration.image_size))
        pixels = data.prepared(data.training_cohort(run.n_patients, run.seed), preprocessing).pixels
        return self._bundle(run, data).memorizer(run.steps, folder, pixels)

    def _principal(self, run: Run, data: StudyData, folder: Path) -> PrincipalTraining:
        preprocessing = generator_preprocessing(data.detector, tuple(self.configuration.image_size))
        cohorts = GeneratorCohorts(data.training_cohort(run.n_patients, run.seed), data.heldout_cohort())
        settings = self._entry(run).settings_of(run.network)
        components = PrincipalDiffusionSettings(**settings).components
        if components not in self._spaces:
            pool = data.prepared(Cohort.from_source(data.pool, "training"), preprocessing)
            self._spaces[components] = PrincipalAutoencoder(pool.pixels, components).eval()
        known = data.prepared(cohorts.training, preprocessing)
        training, heldout = known.pixels, data.prepared(cohorts.heldout, preprocessing).pixels
        return PrincipalTraining(
            self._spaces[components],
            training,
            heldout,
            cohorts,
            run.augmentation,
            run.steps,
            run.seed,
            folder,
            settings,
            self._told(run, data, known.cohort),
        )  # fmt: skip

    def _attempt(self, run: Run, folder: Path, data: StudyData, audit: RunAudit) -> None:
        logger.info("%s ...", run.name)
        try:
            result = self._one(run, folder, data, audit)
        except Exception as error:
            logger.warning("%s failed: %s", run.name, error)
            details = {"error": str(error), "kind": type(error).__name__, "traceback": traceback.format_exc()}
            write_json(folder / "failed.json", details)
            return
        write_sealed_json(folder / "result.json", result)
        (folder / "failed.json").unlink(missing_ok=True)
        excess = result["rates"]["size_matched"]["excess_copies"]
        logger.info(
            "%s: %d of %d samples are copies, excess over control %.3f (%.3f to %.3f)",
            run.name, result["rates"]["size_matched"]["n_copies"], result["n_synthetic"], *excess,
        )  # fmt: skip

    def _one(self, run: Run, folder: Path, data: StudyData, audit: RunAudit) -> dict[str, Any]:
        training = data.training_cohort(run.n_patients, run.seed)
        seconds: dict[str, float] = {}
        store, start = folder / "samples.npy", time.perf_counter()
        identity = self._run_identity(run, data)
        parameters = read_sealed_json(folder / "parameters.json")
        if parameters is None or not is_sealed(store, identity):
            generator = self._train(run, data)
            seconds["training"] = round(time.perf_counter() - start, 1)
            parameters = {"parameters": generator.parameters}
            write_sealed_json(folder / "parameters.json", parameters)
            start = time.perf_counter()
            seeds = sample_seeds(run.seed, range(self.configuration.n_samples))
            ask = getattr(generator, "conditions_of", None)
            told = {} if ask is None else ask(seeds)
            write_sealed_json(folder / "conditions.json", {"identity": identity, "told": told})
            drawn = generator.sample(seeds)
            if not np.isfinite(drawn).all():
                raise GeneratorError("the samples are not finite: train with a lower learning rate")
            write_sealed(store, lambda temporary: np.save(temporary, drawn.astype(np.float16)), identity)
            seconds["sampling"] = round(time.perf_counter() - start, 1)
        samples: NDArray[np.float16] = np.load(store, allow_pickle=False)
        save_image(folder / "samples.png", sheet(samples[:SAMPLES_SHOWN]))
        start = time.perf_counter()
        known = data.prepared(training)
        record = audit(samples, known, run.seed, folder / "pairs.png", self._groups(run, folder, known.cohort))
        seconds["audit"] = round(time.perf_counter() - start, 1)
        return {
            "format": FORMAT,
            "run": asdict(run),
            "parameters": parameters["parameters"],
            "fingerprint": identity,
            **record,
            "detector_sha256": data.detector.sha256,
            "seconds": seconds,
            "software": software_versions(),
        }

    def _groups(self, run: Run, folder: Path, training: Cohort) -> Groups | None:
        """Classes of samples, training and held-out images, where samples were drawn by class."""
        column = self.configuration.condition
        found = read_sealed_json(folder / "conditions.json")
        if run.conditioning != "class" or column is None or found is None or COLUMN not in found["told"]:
            return None
        return Groups(column, tuple(found["told"][COLUMN]), tuple(labels_of(training, column)))

    def _entry(self, run: Run) -> GeneratorEntry:
        return self.configuration.generators[run.generator]

    def _bundle(self, run: Run, data: StudyData, told: bool = True) -> BundleTraining:
        """How a run trains its bundle; its settings alone where nothing is ``told`` of the training images."""
        values = {
            "dataset_dir": str(data.pool),
            "heldout_dir": str(data.heldout),
            "n_training_patients": run.n_patients,
            "augmentation": run.augmentation,
            "image_size": list(self.configuration.image_size),
            "autoencoder_file": str(self._autoencoder_file(run)),
            "detector_file": None,
            "seed": run.seed,
            "device": self.device,
            "amp": self.device.startswith("cuda"),
            "workers": self.workers,
            "progress": self.progress,
        }
        if told and run.conditioning != "none":
            table = table_of(self._labelled(run, data), self.out / "shared" / "labels")
            values |= {"dataset_dir": str(table), "n_training_patients": None, "conditions": [BUNDLE_COLUMN]}
            values |= {"guidance_scale": run.guidance}
        return BundleTraining(self._entry(run), run.network, values)

    def _told(self, run: Run, data: StudyData, usable: Cohort) -> Told | None:
        """What a run tells of the training images that could be read."""
        if run.conditioning == "none":
            return None
        there = {image.image_id for image in usable.images}
        whole = self._labelled(run, data)
        return Told.of(whole.subset(i for i, image in enumerate(whole.images) if image.image_id in there), run.guidance)

    def _labelled(self, run: Run, data: StudyData) -> Cohort:
        """The training images of a run, with what it tells of them."""
        cohort = data.training_cohort(run.n_patients, run.seed)
        return labelled(cohort, run.conditioning, self.configuration.condition, run.seed)

    def _autoencoder_file(self, run: Run) -> Path:
        if self.configuration.autoencoder is not None:
            return Path(self.configuration.autoencoder)
        return self.out / "shared" / "autoencoders" / run.generator / "model_autoencoder.pt"

    def _identity(self, run: Run, data: StudyData, trained: bool = False) -> dict[str, Any]:
        """What decides the samples, or where ``trained`` the weights alone, of a training, however long it is."""
        entry = self._entry(run)
        # Entries of a bundle that differ in how they sample are one training, whatever they are called.
        samples_apart = entry.kind in ("latent_diffusion", "principal_diffusion")
        left: tuple[str, ...] = ("steps", "generator", "guidance") if trained and samples_apart else ("steps",)
        if entry.settings_of(run.network).get("privacy_epsilon") is not None:  # the noise is chosen for all steps
            left = tuple(key for key in left if key != "steps")
        parts = {key: value for key, value in run.deciding().items() if key not in left}
        if run.conditioning in ("class", "random"):
            parts |= {"condition": self.configuration.condition, "labels": data.labels}
        parts |= {"kind": entry.kind, "images": data.identity, "image_size": list(self.configuration.image_size)}
        if entry.kind == "principal_diffusion" and trained:
            settings = {key: value for key, value in entry.settings_of(run.network).items() if key not in OF_SAMPLING}
            return {**parts, "settings": settings}
        if entry.kind != "latent_diffusion":
            return {**parts, "settings": entry.settings_of(run.network)}
        given = self.configuration.autoencoder
        weights = sha256_of(given) if given is not None and Path(given).is_file() else self.configuration.seed
        return {**parts, "autoencoder": weights, "bundle": self._bundle(run, data, told=False).identity(trained)}

    def _run_identity(self, run: Run, data: StudyData) -> str:
        audited = [FORMAT, VERSION, run.steps, self.configuration.n_samples, data.detector.sha256]
        # Whatever is installed: a result says with which packages it was made, and is not made again for newer ones.
        return fingerprint("run of a study", [self._identity(run, data), audited], packages=())

    def _folder(self, run: Run, data: StudyData) -> Path:
        return self.out / "runs" / f"{run.name}-{self._run_identity(run, data)[:8]}"

    def _training_folder(self, run: Run, data: StudyData) -> Path:
        trained = self._identity(run, data, trained=True)
        folder = self.out / "trainings" / fingerprint("training of a study", trained, packages=())[:16]
        if (read_sealed_json(folder / "steps.json") or {"steps": 0})["steps"] > run.steps:
            # A level that was added later: a training cannot go back, so this one is done again from the start.
            return folder.with_name(f"{folder.name}-{run.steps}")
        return folder

    def _train(self, run: Run, data: StudyData) -> TrainedGenerator:
        """Train for the steps of a run, going on with a shorter training of the same identity."""
        folder = self._training_folder(run, data)
        longest = folder / "steps.json"
        write_sealed_json(longest, {"steps": run.steps})
        entry = self._entry(run)
        if entry.kind == "latent_diffusion":
            bundle, path = self._bundle(run, data), self._autoencoder_file(run)
            if self.configuration.autoencoder is None and not path.is_file():
                bundle.train_autoencoder(path, self.configuration.seed)
            return bundle.train(run.steps, folder)
        if entry.kind == "principal_diffusion":
            return self._principal(run, data, folder).generator()
        cohort = data.training_cohort(run.n_patients, run.seed)
        preprocessing = generator_preprocessing(data.detector, tuple(self.configuration.image_size))
        training = PixelTraining(
            data.prepared(cohort, preprocessing).pixels, run.augmentation, run.steps, run.seed, folder,
            entry.settings_of(run.network), self.device,
        )  # fmt: skip
        return train_gan(training) if entry.kind == "gan" else train_variational_autoencoder(training)


def samples_of(folder: Path, result: Mapping[str, Any]) -> NDArray[np.float16]:
    """The samples that a result was counted on.

    Raises:
        ConfigurationError: they are missing or damaged.
    """
    if not is_sealed(folder / "samples.npy", result["fingerprint"]):
        raise ConfigurationError(
            f"{folder / 'samples.npy'} is missing or damaged: remove {folder / 'result.json'} and run monai-memo study "
            "again, which draws these samples anew"
        )
    samples: NDArray[np.float16] = np.load(folder / "samples.npy", allow_pickle=False)
    return samples


def result_in(folder: Path) -> dict[str, Any] | None:
    """The result of a run; None where there is none yet, or one that was damaged since (said in the log)."""
    return read_sealed_json(folder / "result.json")


def records_of(plan: list[Planned], folders: dict[Run, Path]) -> list[dict[str, Any]]:
    """What is known of every planned run."""
    records = []
    for planned in plan:
        record: dict[str, Any] = {"run": asdict(planned.run), "name": planned.run.name, "levels": planned.levels}
        folder = folders[planned.run]
        found, failed = result_in(folder), folder / "failed.json"
        if found is not None:
            record |= {"status": "finished", "result": found}
        elif failed.is_file():
            record |= {"status": "failed", "error": json.loads(failed.read_text(encoding="utf-8"))["error"]}
        else:
            record |= {"status": "not run"}
        records.append({**record, "folder": str(folder)})
    return records
