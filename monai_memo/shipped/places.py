# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Where what is shipped lies: in an installed package inside it, in a checkout at its top."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from pathlib import Path

from monai_memo.errors import ConfigurationError, DetectorError, OutputError
from monai_memo.shipped.content import CONSTRAINTS, METADATA, READY, bundles_in, files_of

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def bundles_folder() -> Path:
    """The folder that holds the bundles.

    Raises:
        ConfigurationError: an installation without them.
    """
    for folder in (HERE / "bundles", CHECKOUT / "bundles"):
        if bundles_in(folder):
            return folder
    raise ConfigurationError("this installation of monai_memo has no bundles: install it again from its wheel")


def constraints_file(name: str = "constraints.txt") -> Path:
    """One of the lists of tested versions, for ``pip install --constraint``."""
    if name not in CONSTRAINTS:
        raise ConfigurationError(f"constraints must be one of {', '.join(CONSTRAINTS)}, got {name!r}")
    inside = HERE / name
    return inside if inside.is_file() else CHECKOUT / name


def bundle_names() -> list[str]:
    """Names of the bundles."""
    return [folder.name for folder in bundles_in(bundles_folder())]


def bundle_folder(name: str) -> Path:
    """Folder of a bundle by its name.

    Raises:
        ConfigurationError: there is none of this name; the message lists them.
    """
    known = bundle_names()
    plain = name.strip().lower().replace("-", "_")
    if plain not in known:
        raise ConfigurationError(f"no bundle is called {name!r}{_nearest(plain, known)}. Bundles: {', '.join(known)}")
    return bundles_folder() / plain


def bundle_title(folder: Path) -> str:
    """What a bundle is for, in its own words."""
    return str(json.loads((folder / METADATA).read_text(encoding="utf-8"))["task"])


def copy_bundle(name: str, place: str | Path) -> Path:
    """Copy a bundle into a folder, under its own name: ``place/name``. It comes in whole or not at all.

    Nothing that trainings or samplings left in the shipped one goes along.

    Raises:
        ConfigurationError: no such bundle.
        OutputError: something of that name is there already, or the folder cannot be written.
    """
    source, target = bundle_folder(name), Path(place).resolve() / bundle_folder(name).name
    if os.path.lexists(target):
        raise OutputError(f"{target} is there already: it may hold work of yours. Name another folder, or move it away")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            whole = Path(scratch) / target.name
            for file in files_of(source):
                (whole / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, whole / file)  # an installed package may be read-only, a copy is not
            os.rename(whole, target)
    except OSError as error:
        raise OutputError(f"cannot copy the bundle to {target}: {error.strerror or error}") from error
    return target


def ready_detectors() -> dict[str, Path]:
    """Files of the detectors that come with the library, by name."""
    return {name: bundles_folder() / ready.bundle / ready.file for name, ready in READY.items()}


def detector_place(named: str | Path) -> Path:
    """The file of a detector that was named by its path, or by the name of a ready one. A file goes before a name.

    Example:
        >>> detector_place("chest_xray").name
        'chest_xray_64.pt'

    Raises:
        DetectorError: a plain word that is neither; the message lists the names.
    """
    path, word = Path(named), str(named).strip().lower().replace("-", "_")
    if path.is_file() or path.name != str(named) or path.suffix:
        return path
    names = {also: name for name, ready in READY.items() for also in (name, *ready.also)}
    if word in names:
        return ready_detectors()[names[word]]
    known = ", ".join(READY)
    hint = _nearest(word, list(names))
    raise DetectorError(
        f"no detector file at {named}, and no ready detector is called that{hint}. Ready detectors: {known}. Train one "
        "of your own with: monai-memo train-detector",
        f"no such file, and no ready detector is called that. Ready detectors: {known}. Train one of your own with: "
        "monai-memo train-detector",
    )


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
