# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Generator bundles made from one template and a file of parameters each.

``python -m monai_memo.generators.template bundles/template bundles`` writes those of the repository. A bundle for
another modality is one more file in ``parameters``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, TemplateError, meta

from monai_memo.errors import ConfigurationError
from monai_memo.files import write_text
from monai_memo.generators.latents import latent_shape

TREE, PARAMETERS, ENDING = "bundle", "parameters", ".jinja"
COMMON = "configs/common.json"  # begins every config below, so that each is complete in itself
COMPLETE = tuple(f"configs/{name}.json" for name in ("train_autoencoder", "train_diffusion", "inference", "evaluate"))
PROFILES = {"full": "common", "small": "small"}  # a section of the parameters, and the config that has its values
DERIVED = ("bundle", "latent_channel_names", "full_latents", "small_latents")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent)


def _environment() -> Environment:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["json"] = _json
    return environment


def read_parameters(path: str | Path) -> dict[str, Any]:
    """Parameters of a bundle, with what follows from them: the name of the file is that of the bundle.

    Raises:
        ConfigurationError: the file cannot be read, or has no sections ``full`` and ``small`` with the numbers that the
            shape of the latents follows from.
    """
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} is no file of parameters: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} is no file of parameters: it holds {type(found).__name__} and no names")
    derived: dict[str, Any] = {"bundle": path.stem}
    for section in PROFILES:
        try:
            numbers = found[section]
            shape = latent_shape(
                numbers["image_size"], numbers["latent_channels"], len(numbers["autoencoder_channels"])
            )
        except (KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{path}: the section {section} needs image_size, latent_channels and autoencoder_channels ({error})"
            ) from error
        derived[f"{section}_latents"] = shape
    derived["latent_channel_names"] = {str(channel): "latent" for channel in range(derived["full_latents"][0])}
    return {**found, **derived}


def render_bundle(template: str | Path, parameters: str | Path) -> dict[str, str]:
    """The files of a bundle, by their path in it.

    Args:
        template: folder with the tree ``bundle``. Files that end in ``.jinja`` are filled in, the others stay as they
            are.
        parameters: YAML file.

    Raises:
        ConfigurationError: the template asks for what the parameters do not have, parameters that it does not
            ask for (a misspelt name), or a config that would be no JSON.

    What ``configs/common.json`` of the template holds comes to stand in every config that is run by itself.
    """
    tree, values = Path(template) / TREE, read_parameters(parameters)
    paths = sorted(path for path in tree.rglob("*") if path.is_file())
    if not paths:
        raise ConfigurationError(f"{template} is no template: there is no folder {TREE} with files in it")
    environment, files, asked = _environment(), {}, set()
    for path in paths:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(tree).as_posix()
        if name.endswith(ENDING):
            name = name.removesuffix(ENDING)
            try:
                asked |= meta.find_undeclared_variables(environment.parse(text))
                text = environment.from_string(text).render(values)
            except (TemplateError, TypeError) as error:
                raise ConfigurationError(f"{parameters} does not fill {path}: {error}") from error
        files[name] = text
    if unknown := sorted(set(values) - asked - {*DERIVED}):
        raise ConfigurationError(f"{parameters}: nothing in the template asks for {', '.join(unknown)}")
    _check(files, values, parameters)
    return completed(files)


def completed(files: dict[str, str]) -> dict[str, str]:
    """The files with what all configs share in each of them, and without the file that held it."""
    if COMMON not in files:
        return files
    common, found = json.loads(files[COMMON]), {name: text for name, text in files.items() if name != COMMON}
    for name in COMPLETE:
        if name in found:
            found[name] = as_text({**common, **json.loads(found[name])})
    return found


def as_text(config: dict[str, Any]) -> str:
    """A config as JSON, with plain lists on one line."""
    text = json.dumps(config, indent=4, ensure_ascii=False)
    short = re.sub(r"\[\s*\n\s*([^\[\]{}\n]+(?:,\n[^\[\]{}\n]+)*)\n\s*\]", _on_one_line, text)
    return f"{short if json.loads(short) == config else text}\n"


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{', '.join(line.strip().removesuffix(',') for line in found[1].splitlines())}]"


def _check(files: dict[str, str], values: dict[str, Any], parameters: str | Path) -> None:
    configs = {}
    for name, text in files.items():
        if name.endswith(".json"):
            try:
                configs[Path(name).stem] = json.loads(text)
            except ValueError as error:
                raise ConfigurationError(f"{parameters}: {name} would be no JSON ({error})") from error
    for section, name in PROFILES.items():
        for key, value in values[section].items():
            if key not in configs[name] or configs[name][key] != value:
                raise ConfigurationError(f"{parameters}: {section}.{key} comes to stand in no place of {name}.json")


def write_bundles(template: str | Path, out: str | Path) -> list[Path]:
    """Write the bundle of every file of parameters to a folder of its name in ``out``; return these folders.

    Other files in them (weights, say) are left as they are.
    """
    paths = sorted((Path(template) / PARAMETERS).glob("*.yaml"))
    if not paths:
        raise ConfigurationError(f"{template} is no template: there is no *.yaml in its folder {PARAMETERS}")
    bundles = {Path(out) / path.stem: render_bundle(template, path) for path in paths}  # all, before one is written
    for folder, files in bundles.items():
        for name, text in files.items():
            write_text(folder / name, text)
    return list(bundles)


if __name__ == "__main__":
    write_bundles(sys.argv[1], sys.argv[2])
