# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One door for every kind of generator: a function, a folder of images, a bundle, a pipeline, a TorchScript file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from monai_memo.errors import ConfigurationError
from monai_memo.generators.bundle_model import AUTOENCODER_FILES, DIFFUSION_FILES, config_file, read_bundle
from monai_memo.generators.diffusers import INDEX, DiffusersGenerator
from monai_memo.generators.folder import FolderGenerator
from monai_memo.generators.guarded import OF_SAMPLING, load_guarded
from monai_memo.generators.torchscript import TorchScriptGenerator
from monai_memo.image_arrays import Images
from monai_memo.sampling import Generator, as_generator

TABLES = (".csv", ".tsv", ".json")


def load_generator(source: Generator | Callable[[Sequence[int]], Images] | str | Path, **options: object) -> Generator:
    """A ``Generator`` of whatever people have.

    Args:
        source: a function of seeds or an object with ``sample``; or a path: the folder of a MONAI bundle
            (``configs/inference.json`` or ``.yaml``), of a pipeline of ``diffusers`` (``model_index.json``) or of
            images, a table of images, or a TorchScript file.
        options: of ``load_bundle``, ``DiffusersGenerator.from_folder``, ``FolderGenerator`` or
            ``TorchScriptGenerator``.

    Raises:
        MemoError: nothing there that draws images; the message says what was looked for.

    Example:
        >>> import numpy as np
        >>> load_generator(lambda seeds: np.zeros((len(seeds), 1, 8, 8))).sample([1, 2]).shape
        (2, 1, 8, 8)
    """
    if not isinstance(source, str | Path):
        if options:
            raise ConfigurationError(f"{', '.join(options)}: a generator of Python takes no options")
        return as_generator(source)
    path, given = Path(source), cast(dict[str, Any], options)
    made: Callable[..., Generator] = FolderGenerator
    kind = "images that were drawn earlier"
    if path.is_file():
        if path.suffix.lower() not in TABLES:
            made, kind = TorchScriptGenerator, "a TorchScript file"
    elif not path.is_dir():
        raise ConfigurationError(f"there is no generator at {path}: name a folder or a file")
    elif (path / INDEX).is_file():
        made, kind = DiffusersGenerator.from_folder, "a pipeline of diffusers"
    elif config_file(path, "inference").is_file():
        made, kind = load_guarded, "a bundle"
    try:
        inspect.signature(made).bind(path, **given)
    except TypeError as error:
        takes = ", ".join(list(inspect.signature(made).parameters)[1:])
        raise ConfigurationError(f"{path} was taken for {kind}, which takes the options {takes}: {error}") from None
    if made is load_guarded:
        _require_known(path, given)
    return made(path, **given)


def _require_known(folder: Path, options: dict[str, Any]) -> None:
    """Refuse what a bundle's config does not have: it would change nothing, and nobody would know."""
    ours = inspect.signature(load_guarded).parameters
    known = {
        *ours, *read_bundle(folder, options.get("profile")).get(), *AUTOENCODER_FILES, *DIFFUSION_FILES, *OF_SAMPLING,
        "scale_factor", "latent_shape",
    }  # fmt: skip
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f". Did you mean {close[0]}?" if close else ""
            raise ConfigurationError(f"{folder}: its config has no {name}, so that it would change nothing{hint}")
