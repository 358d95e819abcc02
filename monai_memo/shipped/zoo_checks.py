# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the CI of MONAI's model zoo asks of a bundle, asked here without a download.

Where the zoo lets a bundle off by a list in its ``ci/bundle_custom_data.py``, the list is named: whoever hands the
bundle in adds its name there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monai_memo.shipped.content import METADATA

LARGEST = 25 * 2**20  # bytes of a file that the zoo's repository takes
LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
HEADINGS = ("Model Description", "Data", "Performance", "System Configuration")  # of the zoo's template, not optional
INFERENCE_KEYS = ("bundle_root", "device", "network_def", "inferer", "output_dir")
TRAINING_KEYS = ("bundle_root", "device", "dataset_dir", "output_dir")
VERSIONS = ("monai_version", "pytorch_version", "numpy_version")
PINNED = re.compile(r"(==|>=|<=|>|<|~=|!=)?\s*[0-9]+(\.[0-9a-z*]+)*")
PERSONAL = re.compile(r"/(home|root|Users|work|tmp)/")
REFERENCE = re.compile(r"@(\w+)")


@dataclass(frozen=True)
class Finding:
    """One check of one bundle.

    Attributes:
        check: what was looked at.
        problems: what is wrong; empty where nothing is.
        exempt: the zoo's list that lets the bundle off; empty where it needs none.
    """

    check: str
    problems: tuple[str, ...] = ()
    exempt: str = ""

    def __str__(self) -> str:
        if self.problems:
            return f"failed  {self.check}: {'; '.join(self.problems)}"
        return f"exempt  {self.check}: add the bundle to {self.exempt}" if self.exempt else f"ok      {self.check}"


class Bundle:
    """A bundle as the checks see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.configs: dict[str, Any] = {}
        self.broken: list[str] = []
        for path in sorted((folder / "configs").glob("*.json")):
            try:
                self.configs[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                self.broken.append(f"configs/{path.name} is no JSON ({error})")

    @property
    def metadata(self) -> Mapping[str, Any]:
        found = self.configs.get("metadata")
        return found if isinstance(found, dict) else {}

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def path(self, config: str) -> str:
        return str(self.folder / "configs" / f"{config}.json")

    def runs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Configs that are run by themselves: not those that only change another one."""
        for name, config in self.configs.items():
            if isinstance(config, dict) and "run" in config and not name.startswith("multi_gpu"):
                yield name, config

    def linked(self) -> list[str]:
        """Files that the zoo downloads."""
        for name in LARGE_FILES:
            if self.has(name):
                record = yaml.safe_load((self.folder / name).read_text(encoding="utf-8"))
                return [str(item["path"]) for item in record["large_files"]]
        return []

    def exempt(self) -> bool:
        """Whether it comes without weights."""
        return not (self.has("models/model.pt") or "models/model.pt" in self.linked())


def _files(bundle: Bundle) -> Iterator[str]:
    yield from bundle.broken
    for name in (METADATA, "LICENSE", "docs/README.md", "docs/data_license.txt", "configs/inference.json"):
        if not bundle.has(name):
            yield f"{name} is missing"
    linked = bundle.linked()
    for path in bundle.folder.rglob("*"):
        name = path.relative_to(bundle.folder).as_posix()
        if path.is_file() and path.stat().st_size > LARGEST and name not in linked:
            yield f"{name} has more than 25 MB: name it in large_files.yml, with a link"


def _weights(bundle: Bundle) -> Iterator[str]:
    for name in bundle.linked():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield f"large_files.yml: {name} lies outside of the bundle"


def _name(bundle: Bundle) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]+(_[A-Za-z0-9]+)+", bundle.folder.name):
        yield f"{bundle.folder.name} should say data and task, such as chest_xray_classification"


def _version(bundle: Bundle) -> Iterator[str]:
    version, changes = bundle.metadata.get("version"), bundle.metadata.get("changelog")
    if not isinstance(changes, Mapping) or version not in changes:
        yield f"version {version} is not in changelog"


def _requirements(bundle: Bundle) -> Iterator[str]:
    further = bundle.metadata.get("required_packages_version", {})
    named = {key: bundle.metadata.get(key, "") for key in VERSIONS} | dict(further)
    for name, version in named.items():
        if not PINNED.fullmatch(str(version)):
            yield f"{name} has no version that pip understands: {version!r}"


def _schema(bundle: Bundle) -> Iterator[str]:
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    if not str(bundle.metadata.get("schema", "")).startswith("https://"):
        yield "metadata.json names no schema"
    schema = bundle.configs.get("schema")
    if schema is None:
        yield "configs/schema.json is missing: verify_metadata would download one"
        return
    try:
        validator = validator_for(schema)
        validator.check_schema(schema)
    except SchemaError as error:
        yield f"configs/schema.json is no schema ({error.message})"
        return
    for wrong in validator(schema).iter_errors(bundle.metadata):
        yield f"metadata.json: {'/'.join(map(str, wrong.path)) or 'top'}: {wrong.message}"


def _readme(bundle: Bundle) -> Iterator[str]:
    path = bundle.folder / "docs" / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for heading in HEADINGS:
        if not re.search(rf"^#+ \**{re.escape(heading)}\**\s*$", text, re.MULTILINE):
            yield f"docs/README.md has no heading {heading}"
    for link in re.findall(r"\]\(([^)\s#]+)\)", text):
        inside = (path.parent / link).resolve()
        if "://" not in link and not (inside.is_file() and inside.is_relative_to(bundle.folder)):
            yield f"docs/README.md links to {link}, which is not in the bundle"


def _keys(bundle: Bundle) -> Iterator[str]:
    for name, config in bundle.runs():
        wanted = INFERENCE_KEYS if name == "inference" else TRAINING_KEYS if name.startswith("train") else ()
        for key in wanted:
            if key not in config:
                yield f"{name}.json has no {key}"


def _complete(bundle: Bundle) -> Iterator[str]:
    for name, config in bundle.runs():
        missing = sorted(set(REFERENCE.findall(json.dumps(config))) - set(config))
        if missing:
            yield f"{name}.json refers to {', '.join(missing)}, which it does not hold"


def _paths(bundle: Bundle) -> Iterator[str]:
    for name, config in bundle.configs.items():
        for place in PERSONAL.findall(json.dumps(config)):
            yield f"{name}.json names a folder in /{place}"


def _properties(bundle: Bundle) -> Iterator[str]:
    from monai.bundle import ConfigParser
    from monai.bundle.properties import InferProperties, TrainProperties

    for name, config in bundle.runs():
        asked = InferProperties if name == "inference" else TrainProperties if name.startswith("train") else {}
        parser = ConfigParser(dict(config))
        for prop, what in asked.items():
            if what["required"] and what["id"] not in parser:
                yield f"{name}.json has no {what['id']}, which MONAI's property {prop} is"


def _shapes(bundle: Bundle) -> Iterator[str]:
    from monai.bundle import verify_net_in_out

    try:
        verify_net_in_out(
            net_id="network_def", meta_file=bundle.path("metadata"), config_file=bundle.path("inference"),
            bundle_root=str(bundle.folder), device="cpu",
        )  # fmt: skip
    except Exception as error:  # whatever the network raises is what the zoo would see
        yield f"network_def does not do what metadata.json says ({error})"


CHECKS: dict[str, Callable[[Bundle], Iterator[str]]] = {
    "files": _files,
    "weights": _weights,
    "name": _name,
    "version and changelog": _version,
    "requirements": _requirements,
    "metadata": _schema,
    "README": _readme,
    "keys": _keys,
    "each config complete in itself": _complete,
    "no personal paths": _paths,
    "properties": _properties,
    "data shape": _shapes,
}


def is_latent_diffusion(bundle: Bundle) -> bool:
    """Whether the network wants more than one tensor, as the zoo's latent diffusion models do."""
    return "DiffusionModelUNet" in json.dumps(bundle.configs.get("inference", {}).get("network_def", ""))


def check_bundle(folder: str | Path) -> list[Finding]:
    """Look at one bundle.

    Returns:
        One finding for each check, in the order of ``CHECKS``, and one for TorchScript.
    """
    bundle, found = Bundle(Path(folder)), []
    for check, look in CHECKS.items():
        if check == "data shape" and is_latent_diffusion(bundle):
            found.append(Finding(check, exempt="exclude_verify_shape_list"))
        elif found and found[0].problems and check in ("properties", "data shape"):
            continue  # MONAI would only say in its own words that files are missing
        else:
            problems = tuple(look(bundle))
            exempt = "exclude_verify_preferred_files_list" if check == "weights" and bundle.exempt() else ""
            found.append(Finding(check, problems, exempt))
    if bundle.exempt() or is_latent_diffusion(bundle):
        found.append(Finding("TorchScript", exempt="exclude_verify_torchscript_list"))
    return found
