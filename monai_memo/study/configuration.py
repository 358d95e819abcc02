# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The grid of a study: one base run, factors whose levels replace one value of it each, seeds, and generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai_memo.errors import ConfigurationError
from monai_memo.study.grid import bundle_values, read_grid
from monai_memo.study.settings import PIXEL_SETTINGS

CONDITIONED = ("latent_diffusion", "principal_diffusion")


@dataclass(frozen=True)
class Run:
    """One training and its audit.

    Attributes:
        generator: name of an entry of the configuration's generators.
        n_patients: training patients.
        augmentation: ``"none"``, ``"flips"`` or ``"flips and rotations"``.
        network: name of a size in the generator's entry.
        steps: optimiser steps.
        seed: of the choice of patients, of the training and of the samples.
        conditioning: ``"none"``, ``"class"``, ``"random"`` or ``"unique"``, see ``study.conditioning``.
        guidance: scale of classifier-free guidance.
    """

    generator: str
    n_patients: int
    augmentation: str
    network: str
    steps: int
    seed: int
    conditioning: str = "none"
    guidance: float = 1.0

    def deciding(self) -> dict[str, Any]:
        """What makes the run, for its identity; of conditions nothing where there are none, as before there were."""
        left = [key for key, value in (("conditioning", "none"), ("guidance", 1.0)) if getattr(self, key) == value]
        return {key: value for key, value in asdict(self).items() if key not in left}

    @property
    def name(self) -> str:
        """Short, for folders and tables."""
        words = [self.generator, f"{self.n_patients}p", self.augmentation, self.network, str(self.steps)]
        words += [] if self.conditioning == "none" else [f"{self.conditioning}_labels"]
        words += [] if self.guidance == 1.0 else [f"guidance_{self.guidance:g}"]
        return "-".join([*(word.replace(" ", "_") for word in words), f"seed{self.seed}"])


@dataclass(frozen=True)
class GeneratorEntry:
    """How one generator of a study is trained.

    Attributes:
        kind: ``"latent_diffusion"``, ``"variational_autoencoder"`` or ``"gan"``.
        settings: of its training; for ``latent_diffusion`` values of the bundle's config.
        networks: further settings by name of the network size.
        bundle: folder of the bundle (``latent_diffusion``), relative to the configuration file.
        profile: config file of the bundle that goes on top of its ``common``, such as ``"small"``.
        base: values in which this generator's base run differs from that of the study.
    """

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bundle: str | None = None
    profile: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)

    def settings_of(self, network: str) -> dict[str, Any]:
        """Settings with those of a network size on top; a generator without sizes has the same for every name."""
        return {**self.settings, **self.networks.get(network, {})}

    def steps_per_epoch(self, network: str) -> int:
        """Optimiser steps between two checkpoints: where a training can be halted."""
        settings = self.settings_of(network)
        if self.kind in PIXEL_SETTINGS:
            return int(PIXEL_SETTINGS[self.kind](**settings).steps_per_epoch)  # type: ignore[attr-defined]
        return int({**bundle_values(Path(str(self.bundle)), self.profile), **settings}["diffusion_steps_per_epoch"])


@dataclass(frozen=True)
class StudyConfiguration:
    """A study as its file describes it.

    Attributes:
        base: the run that all others are compared with (without its seed).
        factors: levels by name of the factor.
        seeds: every run is done once for each.
        generators: by name.
        further: runs beyond one factor at a time, as values in which they differ from the base run.
        n_samples: images drawn from each generator.
        heldout_patients: of the held-out cohort, a random choice that is the same for all runs; None takes all.
        detector_epochs: of the detector, where none is named; None takes the recipe's.
        image_size: pixels or voxels per axis, of generators and of a detector that is trained here.
        dataset, heldout, detector, autoencoder: sources; those left out are given on the command line. Without a
            detector or an autoencoder of the latent diffusion model one is trained on all patients of ``dataset``.
        condition: column of the dataset's table with the class of each image, for the factor conditioning.
        seed: of detector, autoencoder and choice of held-out patients.
    """

    base: Mapping[str, Any]
    factors: Mapping[str, Sequence[Any]]
    seeds: Sequence[int]
    generators: Mapping[str, GeneratorEntry]
    image_size: Sequence[int]
    further: Sequence[Mapping[str, Any]] = ()
    n_samples: int = 200
    heldout_patients: int | None = None
    detector_epochs: int | None = None
    dataset: str | None = None
    heldout: str | None = None
    detector: str | None = None
    autoencoder: str | None = None
    condition: str | None = None
    seed: int = 0

    @classmethod
    def read(cls, path: str | Path, **sources: str | None) -> StudyConfiguration:
        """Read a YAML or JSON file.

        Args:
            sources: ``dataset``, ``heldout``, ``detector`` and ``autoencoder`` from elsewhere; None leaves the file's.

        Raises:
            ConfigurationError: a file or value that is not allowed.
        """
        path = Path(path)
        grid = read_grid(path, {key: str(value) for key, value in sources.items() if value is not None})
        entries = {name: GeneratorEntry(**entry) for name, entry in grid.pop("generators").items()}
        configuration = cls(generators=entries, **grid)
        try:
            configuration.check()
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from error
        return configuration

    def check(self) -> None:
        """Raises ConfigurationError for runs that could not be done, which would only be found out hours later."""
        if "guidance" in self.factors and self.base.get("conditioning", "none") == "none":
            raise ConfigurationError("the factor guidance needs a base run with a conditioning that it can follow")
        for run in (planned.run for planned in self.plan()):
            entry = self.generators[run.generator]
            if entry.networks and run.network not in entry.networks:
                raise ConfigurationError(
                    f"generator {run.generator} has the networks {', '.join(entry.networks)}, got {run.network!r}"
                )
            if run.conditioning != "none" and entry.kind not in CONDITIONED:
                raise ConfigurationError(
                    f"conditioning {run.conditioning} is for generators of the kind {' or '.join(CONDITIONED)}, "
                    f"{run.generator} is of the kind {entry.kind}"
                )
            if run.conditioning in ("class", "random") and self.condition is None:
                raise ConfigurationError(
                    f"conditioning {run.conditioning} needs classes: name a column of the dataset's table as condition"
                )
            length = entry.steps_per_epoch(run.network)
            if run.steps % length:
                raise ConfigurationError(
                    f"steps of {run.generator} must be a multiple of its steps_per_epoch ({length}), got {run.steps}"
                )

    def _run(self, changed: Mapping[str, Any], seed: int) -> Run:
        name = changed.get("generator", self.base["generator"])
        if name not in self.generators:
            raise ConfigurationError(f"generator must be one of {', '.join(self.generators)}, got {name!r}")
        values = {**self.base, **self.generators[name].base, **changed}
        if values.get("conditioning", "none") == "none":
            values.pop("guidance", None)  # of nothing
        return Run(**values, seed=seed)

    def _level(self, name: str, level: Any) -> tuple[str, Any] | None:
        return (name, level) if level in self.factors.get(name, ()) else None

    def plan(self) -> list[Planned]:
        """All runs in the order in which they are done, seed by seed: shorter trainings than the base run's, the base
        run, the other factors, and longer trainings last.

        A run that several factors share stands there once. Runs that differ in their steps alone are one training.
        """
        plan: dict[Run, list[tuple[str, Any]]] = {}
        for seed in self.seeds:
            base = self._run({}, seed)
            lengths = [
                (self._run({"steps": steps}, seed), self._level("steps", steps))
                for steps in sorted({*self.factors.get("steps", ()), base.steps})
            ]
            runs = [(run, level) for run, level in lengths if run.steps <= base.steps]
            for name in self.factors:
                if name != "steps":
                    runs += [(self._run({name: level}, seed), (name, level)) for level in self.factors[name]]
            runs += [(run, level) for run, level in lengths if run.steps > base.steps]
            runs += [(self._run(changed, seed), None) for changed in self.further]
            for run, level in runs:
                plan.setdefault(run, [])
                if level is not None:
                    plan[run].append(level)
        return [Planned(run, tuple(levels)) for run, levels in plan.items()]


@dataclass(frozen=True)
class Planned:
    """A run and the levels of factors that it stands for; none for runs beyond one factor at a time."""

    run: Run
    levels: tuple[tuple[str, Any], ...]
