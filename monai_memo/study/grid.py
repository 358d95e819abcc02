# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Read the file of a study: every key and value by its type, all that is wrong in one message, before any work."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from monai_memo.errors import ConfigurationError
from monai_memo.generators.settings import GeneratorSettings
from monai_memo.settings import Settings, SettingsError
from monai_memo.settings.bundles import check_config
from monai_memo.settings.model import Problem, shown_name, shown_value
from monai_memo.study.settings import FACTORS, PIXEL_SETTINGS, REQUIRED, EntrySettings, GridSettings, RunSettings

AUTOENCODER, DIFFUSION = "train_autoencoder", "train_diffusion"
OF_THE_STUDY = {  # keys of a bundle that a study sets itself, and where it takes them from
    "dataset_dir": "dataset", "heldout_dir": "heldout", "n_training_patients": "n_patients", "seed": "seeds",
    "augmentation": "augmentation", "image_size": "image_size", "autoencoder_file": "autoencoder",
    "diffusion_epochs": "steps", "detector_file": "detector", "output_dir": "", "diffusion_file": "", "bundle_root": "",
    "device": "", "amp": "", "workers": "", "progress": "", "conditions": "conditioning", "guidance_scale": "guidance",
    "condition_table": "",
}  # fmt: skip


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key that stands twice: the first one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {shown_name(key.value)} stands there twice: leave one out", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_grid(path: Path) -> dict[str, Any]:
    """What a YAML or JSON file holds, as it stands there.

    Raises:
        ConfigurationError: it cannot be read, or holds no keys.
    """
    try:
        record = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigurationError(f"cannot read the study {path}: {reason}") from error
    if not isinstance(record, dict):
        raise ConfigurationError(f"{path} must hold keys and values, such as base, factors, seeds, generators")
    return {str(key): value for key, value in record.items()}


def read_grid(path: Path, sources: Mapping[str, str]) -> dict[str, Any]:
    """Values of ``StudyConfiguration`` in their types; ``generators`` as values of ``GeneratorEntry``.

    Args:
        path: of the file.
        sources: values given elsewhere, which go before those of the file.

    Raises:
        ConfigurationError: all that is wrong, one line for each problem.
    """
    reader = _Reader()
    grid = reader.typed(GridSettings, {**load_grid(path), **sources}, "")
    if grid is not None:
        for key in ("dataset", "heldout"):
            if grid.get(key) is None:
                reader.problem(f"{key} is missing: name it there or with --{key}")
        reader.once(grid["seeds"], "seeds")
        grid["base"] = reader.typed(RunSettings, grid["base"], "base.")
        if grid["base"] is not None and (left := sorted(set(REQUIRED) - set(grid["base"]))):
            reader.problem(f"base must have all of {', '.join(REQUIRED)}: {', '.join(left)} is missing")
        grid["further"] = [
            reader.typed(RunSettings, run, f"further.{number}.")
            for number, run in enumerate(grid.get("further", ()), 1)
        ]
        grid["factors"] = {name: reader.levels(name, levels) for name, levels in grid["factors"].items()}
        grid["generators"] = {
            name: reader.entry(entry, f"generators.{shown_name(name)}.", path.resolve().parent, grid["image_size"])
            for name, entry in grid["generators"].items()
        }
        if not grid["generators"]:
            reader.problem("generators must have one entry at least")
    if reader.problems:
        raise ConfigurationError("\n".join(f"{path}: {text}" for text in reader.problems))
    assert grid is not None  # or there would be a problem
    return grid


def bundle_values(bundle: Path, profile: str | None) -> dict[str, Any]:
    """The values that both trainings of a generator bundle share.

    Raises:
        ConfigurationError: it is none.
    """
    from monai.bundle import ConfigParser  # seconds

    from monai_memo.generators.bundle_model import config_files

    stages = [config_files(bundle, stage, profile) for stage in (AUTOENCODER, DIFFUSION)]
    for file in (file for files in stages for file in files):
        if not file.is_file():
            raise ConfigurationError(f"{bundle} is no generator bundle: it has no configs/{file.name}")
    try:
        first, second = (ConfigParser.load_config_files([str(file) for file in files]) for files in stages)
        values = {key: value for key, value in first.items() if key in second and second[key] == value}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{bundle}: the configs cannot be read: {error}") from error
    return values


class _Reader:
    """Collects what is wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def refused(self, error: SettingsError, where: str, places: Mapping[str, str] | None = None) -> None:
        """Every problem by the whole name of its key; ``places`` are those of single keys."""
        for item in error.problems:
            at = (places or {}).get(item.name, where)
            if item.kind == "unknown":
                near = difflib.get_close_matches(item.name, error.known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(error.known)}"
                self.problem(f"unknown key {at}{shown_name(item.name)}: {hint}")
            elif item.kind == "missing":
                self.problem(f"{at}{item.name} is missing")
            elif item.kind == "rule":
                self.problem(f"{where.removesuffix('.')}: {item.text}" if where else item.text)
            else:
                self.problem(f"{at}{item.name} {item.text}")

    def typed(self, model: type[Settings], record: Any, where: str) -> dict[str, Any] | None:
        """What was given, in its types; None where something is wrong."""
        if not isinstance(record, Mapping):
            self.problem(f"{where.removesuffix('.')} must be keys with values, got {shown_value(record)}")
            return None
        try:
            return _plain(model(**{str(key): value for key, value in record.items()}))
        except SettingsError as error:
            self.refused(error, where)
            return None

    def once(self, values: Sequence[Any], where: str) -> None:
        for value in dict.fromkeys(values):
            if list(values).count(value) > 1:
                self.problem(f"{where} has {shown_value(value)} more than once: leave one out")

    def levels(self, name: str, levels: Any) -> list[Any]:
        """Levels of a factor in their type."""
        if name not in FACTORS:
            near = difflib.get_close_matches(name, FACTORS, n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]}?)" if near else ""
            self.problem(f"factors must be among {', '.join(FACTORS)}, got {shown_value(name)}{hint}")
            return []
        if not isinstance(levels, list | tuple) or not levels:
            self.problem(f"factor {name} needs a list of levels, got {shown_value(levels)}")
            return []
        found = [self.typed(RunSettings, {name: level}, "factors.") for level in levels]
        values = [run[name] for run in found if run is not None]
        self.once(values, f"factors.{name}")
        return values

    def entry(self, record: Any, where: str, folder: Path, image_size: Sequence[int]) -> dict[str, Any]:
        """A generator: its settings by its kind, with those of each network size on top."""
        entry = self.typed(EntrySettings, record, where)
        if entry is None:
            return {}
        entry["base"] = self.typed(RunSettings, entry.get("base", {}), f"{where}base.")
        settings, networks = entry.get("settings", {}), entry.get("networks", {})
        for name in [name for name, values in networks.items() if not isinstance(values, Mapping)]:
            self.problem(f"{where}networks.{shown_name(name)} must be keys with values, got {networks.pop(name)!r}")
        known: dict[str, Any] = {}
        if entry["kind"] in PIXEL_SETTINGS:
            for key in ("bundle", "profile"):
                if entry.get(key) is not None:
                    self.problem(f"{where}{key} is for latent_diffusion alone: leave it out")
        elif entry.get("bundle") is None:
            self.problem(f"{where}bundle is missing: name the folder of its bundle")
            return {}
        else:
            entry["bundle"] = str(folder / entry["bundle"])
            try:
                known = bundle_values(Path(entry["bundle"]), entry.get("profile"))
            except ConfigurationError as error:
                self.problem(f"{where}bundle: {error}")
                return {}
        typed: dict[str, Any] = {}
        of_networks: dict[str, dict[str, Any]] = {}
        for name, further in networks.items() if networks else [("", {})]:
            further = {str(key): value for key, value in further.items()}
            at = f"{where}networks.{shown_name(name)}."
            places = dict.fromkeys(settings, f"{where}settings.") | dict.fromkeys(further, at)
            merged = {**settings, **further}
            found = self._of_kind(entry["kind"], merged, known, f"{where}settings.", places, image_size)
            typed |= {key: found.get(key, value) for key, value in settings.items() if key not in further}
            of_networks[name] = {key: found.get(key, value) for key, value in further.items()}
        entry["settings"] = {**settings, **typed}
        if networks:
            entry["networks"] = of_networks
        return entry

    def _of_kind(
        self,
        kind: str,
        given: dict[str, Any],
        known: dict[str, Any],
        where: str,
        places: Mapping[str, str],
        image_size: Sequence[int],
    ) -> dict[str, Any]:
        """Settings of a training in their types; empty where something is wrong."""
        try:
            if kind in PIXEL_SETTINGS:
                settings = PIXEL_SETTINGS[kind](**given)
                if hasattr(settings, "channels"):
                    _require_whole_levels(settings.channels, image_size)
                return _plain(settings)
            return _plain(_bundle_settings(given, known, image_size))
        except SettingsError as error:
            self.refused(error, where, places)
            return {}


def _bundle_settings(given: dict[str, Any], known: dict[str, Any], image_size: Sequence[int]) -> Settings:
    """Values for a bundle.

    Raises:
        SettingsError: keys that it does not have or that the study sets, values out of range alone or with its own.
    """
    free = [key for key in known if key not in OF_THE_STUDY and not key.startswith("_")]
    problems = [Problem("unknown", key, "") for key in given if key not in known and key not in OF_THE_STUDY]
    for key in set(given) & set(OF_THE_STUDY):
        source = f" from {OF_THE_STUDY[key]}" if OF_THE_STUDY[key] else ""
        problems.append(Problem("value", key, f"is set by the study{source}: leave it out"))
    dims = known.get("spatial_dims")
    if isinstance(dims, int) and dims != len(image_size):
        problems.append(Problem("rule", "", f"the bundle is for {dims}D, image_size {list(image_size)} is not"))
    if problems:
        raise SettingsError(problems, free)
    settings = check_config(GeneratorSettings, given)
    fields = GeneratorSettings.model_fields
    check_config(GeneratorSettings, {key: value for key, value in {**known, **given}.items() if key in fields})
    return settings


def _require_whole_levels(channels: Sequence[int], image_size: Sequence[int]) -> None:
    factor = 2 ** len(channels)
    if any(length % factor for length in image_size):
        rule = f"{len(channels)} levels of channels need an image_size that {factor} divides, got {list(image_size)}"
        raise SettingsError([Problem("rule", "", rule)])


def _plain(settings: Settings) -> dict[str, Any]:
    """What was given, with lists as YAML has them: a run's fingerprint does not depend on who read it."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.given().items()}
