# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Everything that lies in a folder: what is read, what should be and cannot, and what was not looked at."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_memo.data.cohort import SkippedImage
from monai_memo.data.formats import BY_ENDING, DICOM, Format, ending_of
from monai_memo.data.links import BAD_NAME, EMPTY, data_reason, failure_reason, status_reason
from monai_memo.files import data_files_of

# Files that lie beside images and hold none: told in the notes, not worth a warning.
# fmt: off
SIDECARS = frozenset((
    ".json", ".jsonl", ".txt", ".text", ".csv", ".tsv", ".bval", ".bvec", ".bvals", ".bvecs", ".md", ".rst", ".xml",
    ".yaml", ".yml", ".toml", ".ini", ".cfg", ".pdf", ".html", ".htm", ".log", ".md5", ".sha1", ".sha256",
    ".sha512", ".py", ".sh", ".ipynb", ".r", ".xls", ".xlsx", ".ods", ".doc", ".docx", ".dvc", ".bib", ".cff",
    ".lock",
))
PLAIN_NAMES = frozenset((
    "readme", "license", "licence", "copying", "changes", "changelog", "citation", "authors", "source", "makefile",
    "manifest", "dataset_description", "md5sums", "sha1sums", "sha256sums", "version", "dockerfile",
))
# fmt: on
QUIET = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "dicomdir"))  # written by systems, hold no image
QUIET_FOLDERS = frozenset(("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"))
READ = "PNG, TIFF, npy, NIfTI or DICOM"
SEVERAL = (".hdr", ".hdr.gz", ".img", ".img.gz", ".mhd", ".nhdr")  # images in more than one file
SELDOM_SEVERAL = (".mha", ".nrrd")


@dataclass
class Inventory:
    """What lies in a folder.

    Attributes:
        files: image id (path relative to the folder) and path of each file of a format that its ending tells.
        unnamed: files without an ending that tells something; some may be DICOM.
        absent: ids of what should be images and is not, with the reason.
        others: id and path of each file that is not read.
        hidden: how many hidden files have an ending of images.
        notes: further sentences.
        warnings: those of them that a person has to see.
    """

    files: dict[str, tuple[Path, Format]] = field(default_factory=dict)
    unnamed: dict[str, Path] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    others: dict[str, Path] = field(default_factory=dict)
    hidden: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def skipped(self) -> tuple[SkippedImage, ...]:
        return tuple(SkippedImage(*item) for item in sorted(self.absent.items()))

    def left(self) -> Counter[str]:
        """How many files of each kind were not looked at."""
        return Counter(_kind(name) for name in self.others)

    def unread(self) -> Counter[str]:
        """How many of these files, of each kind, may be images."""
        return Counter(_kind(name) for name in self.others if not _is_sidecar(name))


def plural(number: int, thing: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def not_looked_at(left: Counter[str], unread: Counter[str] | None = None) -> str:
    """``37 files were not looked at: 20 .svs, 17 .txt``, and why.

    Args:
        left: how many files of each kind.
        unread: those of them that may be images.
    """
    kinds = sorted(left.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{number} {kind}" for kind, number in kinds[:10]]
    if len(kinds) > 10:
        shown.append(f"{sum(number for _, number in kinds[10:])} of other kinds")
    total = sum(left.values())
    text = f"{plural(total, 'file')} {'was' if total == 1 else 'were'} not looked at: {', '.join(shown)}"
    if not unread:
        return text
    known = sorted(unread, key=lambda kind: (-unread[kind], kind))
    what = "not a format that is read" if len(known) == 1 else "not formats that are read"
    listed = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    return f"{text} ({what}: {listed}; if these are images, convert them to one that is, such as {READ})"


def _kind(name: str) -> str:
    ending = ending_of(name.rpartition("/")[2])
    if len(ending) > 9:
        return "with odd endings"  # may be names
    return ending or "without ending"


def _is_sidecar(name: str) -> bool:
    name = name.rpartition("/")[2].lower()
    return ending_of(name) in SIDECARS or name in PLAIN_NAMES


class _Walk:
    """One walk through a folder. Linked folders come last, so that an image keeps the name that is its own."""

    def __init__(self, folder: Path) -> None:
        self.found = Inventory()
        self.root = os.path.realpath(folder)
        self.pending = [(str(folder), "")]
        self.linked: list[tuple[str, str]] = []
        self.seen: set[tuple[int, int]] = set()
        self.own: set[str] = set()  # where files really lie, to know links to them
        self.links: dict[str, str] = {}  # id to where a link leads
        self.repeated = self.loops = self.hidden_folders = 0

    def run(self) -> Inventory:
        while self.pending or self.linked:
            while self.pending:
                self._enter(*self.pending.pop())
            if self.linked:
                self.linked.sort(key=lambda item: item[1], reverse=True)
                path, prefix = self.linked.pop()
                if self._leads_up(path):
                    self.loops += 1
                else:
                    self._enter(path, prefix)
        twice = 0
        for image_id, target in self.links.items():
            if target in self.own:
                twice += 1
                self.found.files.pop(image_id, None)
                self.found.unnamed.pop(image_id, None)
                self.found.others.pop(image_id, None)
            else:
                self.own.add(target)
        self._tell(twice)
        return self.found

    def _leads_up(self, path: str) -> bool:
        target = os.path.realpath(path)
        return self.root == target or self.root.startswith(os.path.join(target, ""))

    def _enter(self, path: str, prefix: str) -> None:
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in self.seen:
                self.repeated += 1
                return
            self.seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.found.absent[prefix.rstrip("/") or "."] = f"a folder that is {failure_reason(path, error)}"
            return
        real = os.path.join(os.path.realpath(path), "")
        for entry in listed:
            self._look_at(entry, prefix + entry.name, real)

    def _look_at(self, entry: os.DirEntry[str], image_id: str, real: str) -> None:
        name = entry.name
        if name.startswith(".") or name.lower() in QUIET:
            if name.startswith(".") and not name.startswith("._"):
                if entry.is_dir(follow_symlinks=False):
                    self.hidden_folders += name not in (".git", ".dvc", ".svn", ".hg", ".datalad", ".ipynb_checkpoints")
                elif ending_of(name.lstrip(".")) in BY_ENDING:
                    self.found.hidden += 1
            return
        try:
            name.encode()
        except UnicodeEncodeError:
            self.found.absent[image_id.encode(errors="backslashreplace").decode()] = BAD_NAME
            return
        ending = ending_of(name)
        form = BY_ENDING.get(ending)
        link = entry.is_symlink()
        try:
            status = entry.stat()
        except OSError as error:
            # What a dangling link was meant to be is told by its name alone; without an ending it may be a folder.
            if form is not None or (link and not _is_sidecar(name)):
                self.found.absent[image_id] = failure_reason(entry.path, error)
            else:
                self.found.others[image_id] = Path(entry.path)
            return
        if stat.S_ISDIR(status.st_mode):
            if name.lower() not in QUIET_FOLDERS:
                (self.linked if link else self.pending).append((entry.path, image_id + "/"))
            return
        reason = status_reason(entry.path, status) if form is not None else None
        # An empty slice belongs to its series, which then cannot be used.
        if reason is not None and not (reason == EMPTY and form is DICOM):
            self.found.absent[image_id] = reason
            return
        if link:
            self.links[image_id] = os.path.realpath(entry.path)
        else:
            self.own.add(real + name)
        if form is not None:
            self.found.files[image_id] = (Path(entry.path), form)
        elif not ending and stat.S_ISREG(status.st_mode):
            self.found.unnamed[image_id] = Path(entry.path)
        else:
            self.found.others[image_id] = Path(entry.path)

    def _tell(self, twice: int) -> None:
        def tell(number: int, thing: str, text: str) -> str:
            self.found.notes.append(f"{plural(number, thing)} {'was' if number == 1 else 'were'} {text}")
            return self.found.notes[-1]

        if twice:
            tell(twice, "link", "left out: the images that they lead to are there by their own names")
        if self.repeated:
            tell(self.repeated, "linked folder", "not read again: the same folder is there by another name")
        if self.loops:
            tell(self.loops, "linked folder", "not followed: the link leads back to the folder itself or above it")
        if self.hidden_folders:
            tell(self.hidden_folders, "hidden folder", "not looked at")
        if self.found.hidden:
            self.found.warnings.append(tell(self.found.hidden, "hidden file", "not looked at, with endings of images"))


def walk(folder: Path) -> Inventory:
    """Look at everything in a folder and its folders, linked ones as well. Nothing is opened but very small files."""
    found = _Walk(folder).run()
    _give_data_to_headers(found, folder)
    return found


def _give_data_to_headers(found: Inventory, folder: Path) -> None:
    """Data files are part of the image that names them: neither images of their own nor "not looked at"."""
    suspects = {name: path for name, (path, _) in found.files.items() if ending_of(name) in SEVERAL}
    if found.others or found.unnamed:
        suspects |= {name: path for name, (path, _) in found.files.items() if ending_of(name) in SELDOM_SEVERAL}
    if not suspects:
        return
    by_path = {os.path.normpath(folder / name): name for name in (*found.files, *found.absent)}
    by_path |= {os.path.normpath(path): name for name, path in (found.unnamed | found.others).items()}
    owned: set[str] = set()
    for name in sorted(suspects, key=lambda item: ending_of(item).startswith(".img")):
        if name in owned:
            continue  # an .img whose .hdr came first
        path = suspects[name]
        reason = data_reason(path)
        if reason is not None:
            found.absent[name] = reason
            del found.files[name]
        owned |= {by_path[key] for key in map(os.path.normpath, data_files_of(path)) if key in by_path} - {name}
    for name in owned:
        found.files.pop(name, None)
        found.unnamed.pop(name, None)
        found.others.pop(name, None)
        found.absent.pop(name, None)


def incomplete_volumes(volumes: Mapping[str, Iterable[str]], found: Inventory) -> set[str]:
    """Name DICOM volumes that lack slices because of dangling links or the like, instead of the single slices.

    Args:
        volumes: id of each, and the folders (relative, ``"."`` for the folder itself) where its slices lie.
        found: gets the volumes in place of their slices.

    Returns:
        Ids of the volumes that cannot be used.
    """
    slices: dict[str, list[str]] = defaultdict(list)
    for name in found.absent:
        form = BY_ENDING.get(ending_of(name))
        if form is DICOM or not ending_of(name):
            slices[name.rpartition("/")[0] or "."].append(name)
    reasons, named = {}, set()
    for image_id, folders in volumes.items():
        lost = [name for folder in folders for name in slices.get(folder, ())]
        if lost:
            reasons[image_id] = f"{plural(len(lost), 'slice')} not there: {found.absent[lost[0]]}"
            named.update(lost)
    for name in named:
        del found.absent[name]
    found.absent.update(reasons)
    return set(reasons)
