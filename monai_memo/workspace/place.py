# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Where a result may be written: not into a cohort, not over somebody's folders, not just anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from monai_memo.errors import ConfigurationError, OutputError

WORK = ".monai_memo_work"
EARLIER = "earlier"
KEPT = (WORK, EARLIER, "figures", "pairs", "review", "review.old")  # folders of a result in which images can lie


def check_place(out: str | Path, cohorts: Mapping[str, str | Path | None] | None = None, option: str = "out") -> Path:
    """Refuse an output folder that would do harm, before anything is written.

    Args:
        out: as the user named it.
        cohorts: source of each cohort by the name of its option; sources that are no folders are not looked at here.
        option: name of the output folder's option.

    Raises:
        ConfigurationError: empty, the root or the home folder, or within a cohort (links resolved).
        OutputError: a file, or a link to nothing.
    """
    text = str(out)
    if not text.strip() or "\0" in text:
        raise ConfigurationError(
            f"--{option} is {text!r}, which names no folder: name one for the result with --{option}"
        )
    if text.startswith("~"):
        # A shell expands it at the beginning of a word alone: --out=~/result would make a folder that is called ~.
        raise ConfigurationError(f"--{option} is {text!r}: write out the name of the home folder that ~ stands for")
    try:
        folder = Path(text).resolve()
        home = Path.home().resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot use {text} for --{option}: {error}") from error
    if link := next((way for way in (Path(text), *Path(text).parents) if way.is_symlink() and not way.exists()), None):
        raise OutputError(
            f"--{option} {text} goes through the link {link}, whose target does not exist: make the folder that it "
            f"names, or name another one with --{option}.",
            f"--{option} goes through a link whose target does not exist: make that folder, or name another one.",
        )
    if folder == Path(folder.anchor) or folder == home:
        raise ConfigurationError(f"--{option} is {folder}, where much else lies: name a folder of its own below it")
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write to {text}: it is a file. Name a writable folder with --{option}.",
            f"cannot write to the folder named with --{option}: it is a file. Name a writable folder.",
        )
    for name, source in (cohorts or {}).items():
        if source is not None and Path(str(source)).is_dir():
            _check_cohort(folder, Path(str(source)).resolve(), name, option)
    return folder


def _check_cohort(folder: Path, cohort: Path, name: str, option: str) -> None:
    if folder == cohort or cohort in folder.parents:
        raise ConfigurationError(
            f"--{option} {folder} lies in the folder of --{name} ({cohort}): the next run would take figures of this "
            f"one for images of the cohort. Name a folder outside of it with --{option}.",
            f"--{option} lies in the folder of --{name}: the next run would take figures of this one for images of "
            f"the cohort. Name a folder outside of it with --{option}.",
        )
    for kept in KEPT:
        ours = folder / kept
        if cohort == ours or ours in cohort.parents:
            raise ConfigurationError(
                f"--{name} {cohort} lies where results are written: {ours} belongs to --{option}. Move the images, or "
                f"name another folder with --{option}.",
                f"--{name} lies where results are written, in the folder {kept} of --{option}. Move the images, or "
                f"name another folder with --{option}.",
            )


def check_images(out: Path, images: Iterable[Path], writes: Iterable[str]) -> None:
    """Refuse a run that would write over an image of a cohort, wherever its table or links say that it is.

    Args:
        out: output folder.
        images: every file of every cohort.
        writes: files of the result, relative to ``out``.

    Raises:
        ConfigurationError: one of them would be overwritten or moved away.
    """
    folder = out.resolve()
    written = set(writes)
    for image in images:
        path = image.resolve()
        if folder not in path.parents:
            continue
        inside = path.relative_to(folder)
        if inside.parts[0] in KEPT or inside.as_posix() in written:
            raise ConfigurationError(
                f"{image} is an image of a cohort and lies where results are written. Move it, or name another folder "
                "with --out.",
                "an image of a cohort lies where results are written. Move it, or name another folder with --out.",
            )


def check_targets(out: Path, writes: Iterable[str]) -> None:
    """Refuse where a file of the result would have to replace a folder, or go through a link.

    Raises:
        OutputError: naming what is in the way.
    """
    for name in writes:
        target = out / name
        for parent in reversed([*Path(name).parents][:-1]):
            way = out / parent
            if way.is_symlink() or (way.exists() and not way.is_dir()):
                raise _in_the_way(out, str(parent), "a link" if way.is_symlink() else "a file", "a folder")
        if target.is_dir() and not target.is_symlink():
            raise _in_the_way(out, name, "a folder", "a file")


def _in_the_way(out: Path, name: str, found: str, wanted: str) -> OutputError:
    rest = f"{name} is {found}, and the result needs {wanted} of that name. Nothing was changed. Move it away, or name "
    return OutputError(f"cannot write to {out}: {rest}another folder with --out.", f"{rest}another folder with --out.")
