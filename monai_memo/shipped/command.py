# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""``monai-memo bundles list | copy NAME DIR | check [BUNDLE]``."""

from __future__ import annotations

from collections.abc import Sequence

from monai_memo.errors import ConfigurationError
from monai_memo.settings.model import shown_name
from monai_memo.shipped.content import READY, bundles_in
from monai_memo.shipped.places import bundle_title, bundles_folder, copy_bundle, ready_detectors

GROUP = "bundles"
ORDER: dict[str, tuple[str, ...]] = {"list": (), "copy": ("name", "dir"), "check": ("bundle",)}


def as_options(words: Sequence[str]) -> list[str]:
    """``bundles copy NAME DIR`` as ``bundles-copy --name NAME --dir DIR``; any other command line as it is.

    Example:
        >>> as_options(["bundles", "copy", "chest_xray_ldm", "here"])
        ['bundles-copy', '--name', 'chest_xray_ldm', '--dir', 'here']
        >>> as_options(["audit", "--out", "here"])
        ['audit', '--out', 'here']

    Raises:
        ConfigurationError: no such command, or more words than it takes.
    """
    if not words or words[0] != GROUP:
        return list(words)
    if words[1:2] in (["--help"], ["-h"], []):
        return [f"{GROUP}-list", *words[1:]]
    name, rest = words[1], list(words[2:])
    if name not in ORDER:
        raise ConfigurationError(f"unknown command {GROUP} {shown_name(name)}. Known: {_known()}")
    first_option = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    given, options = rest[:first_option], rest[first_option:]
    if len(given) > len(ORDER[name]):
        raise ConfigurationError(f"{GROUP} {name} takes {len(ORDER[name])} words, got {len(given)}. Known: {_known()}")
    pairs = [word for pair in zip(ORDER[name], given, strict=False) for word in (f"--{pair[0]}", pair[1])]
    return [f"{GROUP}-{name}", *pairs, *options]


def _known() -> str:
    return ", ".join(" ".join([GROUP, name, *map(str.upper, words)]) for name, words in ORDER.items())


def list_bundles() -> None:
    """Print what comes with the library, and where it lies."""
    folder = bundles_folder()
    found = {bundle.name: bundle_title(bundle) for bundle in bundles_in(folder)}
    widest = max(map(len, (*found, *READY)))
    lines = ["bundles", *(f"  {name.ljust(widest)}  {title}" for name, title in found.items())]
    lines += ["ready detectors (--detector NAME)"]
    lines += [f"  {name.ljust(widest)}  {READY[name].images}" for name in ready_detectors()]
    print("\n".join([*lines, f"they lie in {folder}", f"copy one with: monai-memo {GROUP} copy NAME DIR"]))


def copy(name: str, dir: str) -> None:
    """Copy a bundle, and say where it is and where to read on."""
    target = copy_bundle(name, dir)
    print(f"bundle    {target}\nread on   {target / 'docs' / 'README.md'}")
