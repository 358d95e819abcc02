# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo bundles list | copy NAME DIR | check [BUNDLE]``."""

from __future__ import annotations

from pathlib import Path

from monai_memo.errors import ConfigurationError
from monai_memo.shipped.content import METADATA, READY, bundles_in
from monai_memo.shipped.places import bundle_folder, bundle_title, bundles_folder, copy_bundle, ready_detectors


def list_bundles() -> None:
    """Print what comes with the library, and where it lies."""
    folder = bundles_folder()
    found = {bundle.name: bundle_title(bundle) for bundle in bundles_in(folder)}
    widest = max(map(len, (*found, *READY)))
    lines = ["bundles", *(f"  {name.ljust(widest)}  {title}" for name, title in found.items())]
    lines += ["ready detectors (--detector NAME)"]
    lines += [f"  {name.ljust(widest)}  {READY[name].images}" for name in ready_detectors()]
    print("\n".join([*lines, f"they lie in {folder}", "copy one with: monai-memo bundles copy NAME DIR"]))


def copy(name: str, dir: str) -> None:
    """Copy a bundle, and say where it is and where to read on."""
    target = copy_bundle(name, dir)
    print(f"bundle    {target}\nread on   {target / 'docs' / 'README.md'}")


def check(bundle: str | None = None) -> None:
    """Print what the model zoo would find.

    Raises:
        ConfigurationError: something it would refuse.
    """
    from monai_memo.shipped.zoo_checks import check_bundle

    folders = bundles_in(bundles_folder()) if bundle is None else [_named(bundle)]
    failed = []
    for folder in folders:
        found = check_bundle(folder)
        print("\n".join([folder.name, *(f"  {finding}" for finding in found)]))
        failed += [folder.name for finding in found if finding.problems]
    if failed:
        raise ConfigurationError(f"the model zoo would refuse {', '.join(dict.fromkeys(failed))}: see above")


def _named(bundle: str) -> Path:
    """A folder goes before a name."""
    folder = Path(bundle)
    return folder if (folder / METADATA).is_file() or len(folder.parts) > 1 else bundle_folder(bundle)
