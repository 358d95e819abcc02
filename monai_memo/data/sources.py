# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the images of a cohort are: a folder, a CSV, or a MONAI datalist."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_memo.data.cohort import CohortImage, SkippedImage
from monai_memo.data.columns import SERIES
from monai_memo.data.dicom import dicom_files, files_of_folder, group_dicom, is_dicom, series_of
from monai_memo.data.folders import Inventory, incomplete_volumes, not_looked_at, plural, walk
from monai_memo.data.formats import ACCEPTED, DICOM, ending_of
from monai_memo.data.links import NOT_REGULAR, absence_reason, failure_reason
from monai_memo.data.masks import check_masks
from monai_memo.data.patients import ROUNDED, near_misses, patient_of, without_placeholders
from monai_memo.data.tables import CSV_ENDINGS, Table, read_table
from monai_memo.errors import CohortError, UnusableImageError
from monai_memo.files import parts_of
from monai_memo.settings.patterns import found_by

__all__ = ["Source", "dicom_files", "is_dicom", "read_source"]


@dataclass(frozen=True)
class Source:
    """What a folder or table holds. The attributes are those of ``Cohort``."""

    images: list[CohortImage]
    patients_known: bool
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    placeholder: str | None = None


OPTIONS = {"training": "train"}  # of the command line, where it is called otherwise than the cohort


def option_of(name: str) -> str:
    """The option with which a cohort is named."""
    return f"--{OPTIONS.get(name, name)}"


def _path_and_key(source: str) -> tuple[Path, str]:
    match = re.fullmatch(r"(.+\.json):([^/:]+)", source, re.IGNORECASE)
    given, key = (match.group(1), match.group(2)) if match else (source, "training")
    path = Path(given)
    if given.startswith("~") and not path.exists():
        path = path.expanduser()  # shells leave --train=~/scans as it is
    return path, key


def _status(path: Path, name: str, option: str | None = None) -> os.stat_result:
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        reason = failure_reason(str(path), error) if isinstance(error, OSError) else "not a path"
        detail = "" if reason == "missing" else f" (it is {reason})"
        told = f"the {name} cohort does not exist: {path}{detail}"
        plain = f"no such file or folder{detail}"
        raise CohortError(
            told if option is None else f"--{option}: {told}",
            f"{option_of(name) if option is None else '--' + option}: {plain}",
        ) from error


def require_sources(options: Mapping[str, str | None]) -> None:
    """Refuse cohorts that are not there, before the first one is read.

    Args:
        options: source of each cohort by the name of its option.

    Raises:
        CohortError: naming the option.
    """
    names = {option: name for name, option in OPTIONS.items()}
    for option, source in options.items():
        if source is not None and not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source):
            _status(_path_and_key(source)[0], names.get(option, option), option)


def read_source(source: str | Path, name: str, patient_pattern: str | None = None) -> Source:
    """What the source of a cohort holds. See ``Cohort.from_source``."""
    text = str(source)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        text = f"the {name} cohort is an address, {text}: only files are read. Fetch the images first"
        raise CohortError(text, f"{option_of(name)}: an address; only files are read. Fetch the images first")
    path, key = _path_and_key(text)
    status = _status(path, name)
    ending = path.suffix.lower()
    if stat.S_ISDIR(status.st_mode):
        return _read_folder(path, name, patient_pattern)
    if not stat.S_ISREG(status.st_mode):
        told = "Write the list to a file and name that"
        raise CohortError(
            f"the {name} cohort is {NOT_REGULAR}: {path}. {told}", f"{option_of(name)}: {NOT_REGULAR}. {told}"
        )
    if ending in (*CSV_ENDINGS, ".json"):
        return _read_table(read_table(path, key), path, name, patient_pattern)
    hints = {
        ".jsonl": " (JSON lines are not read: write them as one list)",
        ".ndjson": " (JSON lines are not read: write them as one list)",
        ".xlsx": " (save the spreadsheet as CSV in UTF-8)",
        ".xls": " (save the spreadsheet as CSV in UTF-8)",
    }
    must = "must be a folder, a .csv (columns image, patient_id) or a .json datalist"
    hint = hints.get(ending, "")
    raise CohortError(f"the {name} cohort {must}, got {path}{hint}", f"{option_of(name)} {must}{hint}")


def _read_folder(folder: Path, name: str, pattern: str | None) -> Source:
    found = walk(folder)
    dicoms = [path for path, form in found.files.values() if form is DICOM]
    for image_id, path in sorted((found.unnamed | found.others).items()):
        if is_dicom(path):  # opens none but those whose ending tells nothing
            dicoms.append(path)
            found.others.pop(image_id, None)
        else:
            found.others[image_id] = path
    images = [
        CohortImage(path, image_id, image_id) for image_id, (path, form) in found.files.items() if form is not DICOM
    ]
    patients = {image.image_id: "" for image in images}
    volumes = {}
    grouped = group_dicom(dicoms)
    homes = Counter(group.path if group.files else group.path.parent for group in grouped.images)
    own = folder.resolve().name  # the folder itself may be the one DICOM series

    def id_of(path: Path, suffix: str = "") -> str:
        base = own if path == folder else path.relative_to(folder).as_posix()
        return f"{base}/{suffix}" if suffix else base

    for group in grouped.images:
        image_id = id_of(group.path, group.suffix)
        named = {SERIES: group.series} if group.files and group.series and homes[group.path] > 1 else {}
        images.append(CohortImage(group.path, image_id, image_id, named, group.files))
        if not group.damaged:  # skipped later; it must not make the patients of all others unknown
            patients[image_id] = patient_of(group.patient)
        if len(group.files) > 1:
            volumes[image_id] = {path.parent.relative_to(folder).as_posix() for path in group.files}
    incomplete = incomplete_volumes(volumes, found)
    images = [image for image in images if image.image_id not in incomplete]
    found.absent.update((id_of(path), reason) for path, reason in grouped.set_aside)
    if not images:
        why = "no image there can be read" if found.absent else "no images there"
        raise CohortError(_nothing_in(folder, name, found), f"{option_of(name)}: {why}. Put {ACCEPTED} there")
    ids = sorted(image.image_id for image in images)
    warnings = [*found.warnings, *check_masks(folder, name, ids)]
    notes = [*found.notes, *grouped.notes, *(text for text in warnings if text not in found.notes)]
    left = found.left()
    if left:
        unread = found.unread()
        notes.append(not_looked_at(left, unread))
        warnings += [notes[-1]] if unread else []
    placeholder = None
    if pattern is not None:
        patients = _patients_by_pattern(ids, pattern)
    else:
        asked = [image_id for image_id in ids if image_id in patients]
        given, placeholder = without_placeholders([patients[image_id] for image_id in asked])
        patients = dict(zip(asked, given, strict=True))
        missing = given.count("")
        if placeholder is None and 0 < missing < len(given) and name != "synthetic":
            notes.append(f"{missing} of {len(given)} images carry no PatientID, so that patients are not known")
            warnings.append(notes[-1])
    known = bool(patients) and all(patients.values())
    if known:
        images = [replace(image, patient_id=patients.get(image.image_id, image.image_id)) for image in images]
    return Source(images, known, found.skipped(), tuple(notes), tuple(warnings), placeholder)


def _nothing_in(folder: Path, name: str, found: Inventory) -> str:
    text = f"no images in the {name} folder {folder}"
    if found.absent:
        examples = {reason: image_id for image_id, reason in sorted(found.absent.items(), reverse=True)}
        reasons = Counter(found.absent.values()).most_common(3)
        kinds = (f"{number} like {examples[reason]}: {reason}" for reason, number in reasons)
        text += " can be read: " + "; ".join(kinds)
    else:
        text += f": put {ACCEPTED} there"
    if found.others:
        text += f". {not_looked_at(found.left())}"
    if folder.suffix.lower() in (*CSV_ENDINGS, ".json"):
        text += ". By its name it should be a table, but it is a folder"
    return text


def _patients_by_pattern(ids: Iterable[str], pattern: str) -> dict[str, str]:
    matches = {image_id: found_by(pattern, image_id) for image_id in ids}
    found = {image_id: match for image_id, match in matches.items() if match}
    missed = [image_id for image_id in matches if not found.get(image_id)]  # an empty match names no patient
    if missed:
        more = ", ..." if len(missed) > 3 else ""
        raise CohortError(
            f"patient_pattern {pattern!r} finds no patient in {len(missed)} of {len(matches)} images, for example "
            f"{', '.join(missed[:3])}{more}. It is applied to the path of each image as written here.",
            f"--patient_pattern: finds no patient in {len(missed)} of {len(matches)} images. It is applied to the path "
            "of each image below its cohort's folder, or as the table writes it.",
        )
    return found


def _locate(folder: Path, written: str) -> tuple[Path, str]:
    """Where an image of a table lies, and its path as it should have been written.

    Backslashes and other ways to write the same letters are tried only where there is no file as it was written.
    """
    slashes = written.replace("\\", "/")
    forms = [written, slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))]
    for form in dict.fromkeys(forms):
        # An absolute path stays as it is when joined.
        path = folder / (os.path.expanduser(form) if form.startswith("~") else form)
        if os.path.lexists(folder / form):
            return folder / form, form
        if os.path.lexists(path):
            return path, form
    return folder / slashes, slashes


def _read_table(table: Table, path: Path, name: str, pattern: str | None) -> Source:
    written = [row["image"].strip() for row in table.rows]
    located = [_locate(path.parent, text) for text in written]
    paths = [item for item, _ in located]
    # "./a.png" and "a.png" are one image and get one id.
    ids = [Path(os.path.normpath(text)).as_posix() for _, text in located]
    named = [str(row.get(SERIES) or "").strip() for row in table.rows]
    # os.path, since names that are too long for the file system are a skip of their own and no error here
    series = [uid if os.path.isdir(item) else "" for uid, item in zip(named, paths, strict=True)]
    ids = [f"{image_id}/{uid}" if uid else image_id for image_id, uid in zip(ids, series, strict=True)]
    _require_each_once(path, [item / uid for item, uid in zip(paths, series, strict=True)], ids)
    reasons = [absence_reason(item) for item in paths]
    if all(reasons):
        raise CohortError(_nothing_listed(path, paths, ids, reasons, written))
    given, placeholder = _given_patients(table, path, ids)
    notes, warnings = list(table.notes), []
    turned = sum(1 for text, (item, _) in zip(written, located, strict=True) if "\\" in text and "\\" not in str(item))
    if turned:
        were = "was" if turned == 1 else "were"
        notes.append(
            f"{plural(turned, 'path')} of the table {were} written with backslashes and read with forward slashes"
        )
    known = all(given) or pattern is not None
    patients = given if all(given) else ids
    if pattern is not None and not all(given):
        by_id = _patients_by_pattern(ids, pattern)
        patients, placeholder = [by_id[image_id] for image_id in ids], None
    near = near_misses(table.columns, "patient_id")
    if not known and near and name != "synthetic" and placeholder is None:
        empty = "is empty" if "patient_id" in table.columns else "is not there"
        warnings.append(
            f"the table has a column {near[0]!r} but patient_id {empty}, so that patients are not known: rename the "
            "column to patient_id"
        )
    rounded = sum(1 for patient in given if ROUNDED.fullmatch(patient))
    if rounded and name != "synthetic":
        warnings.append(
            f"{plural(rounded, 'image')} of the table carry a patient_id like 1.2E+11: a spreadsheet rounded long "
            "numbers, so that different patients may have become one. Write the ids anew, as text"
        )
    columns = [{str(k): str(v) for k, v in row.items() if k not in ("image", "patient_id", None)} for row in table.rows]
    images, skipped = [], []
    folder_notes: Counter[str] = Counter()
    for image, reason in zip(map(CohortImage, paths, ids, patients, columns), reasons, strict=True):
        # What is plainly missing is named by the reader.
        if reason is None or reason == "missing":
            if image.path.is_dir():
                image, aside, further = _of_folder(image)
                skipped += aside
                folder_notes.update(further)
            images.append(image)
        else:
            skipped.append(SkippedImage(image.image_id, reason))
    return Source(images, known, tuple(skipped), (*notes, *folder_notes, *warnings), tuple(warnings), placeholder)


def _of_folder(image: CohortImage) -> tuple[CohortImage, list[SkippedImage], tuple[str, ...]]:
    """A DICOM series that a table lists by its folder: with its files, those set aside, and notes."""
    try:
        files, aside, notes = files_of_folder(image.path, series_of(image))
    except UnusableImageError:
        return image, [], ()  # named with its reason when it is read
    set_aside = [SkippedImage(f"{image.image_id}/{item.name}", reason) for item, reason in aside]
    return replace(image, files=files), set_aside, notes


def _given_patients(table: Table, path: Path, ids: Sequence[str]) -> tuple[list[str], str | None]:
    """The table's own patients, empty where it has none."""
    raw = [row.get("patient_id") for row in table.rows]
    for image_id, value in zip(ids, raw, strict=True):
        if isinstance(value, list | dict):
            raise CohortError(f"{path}: the patient_id of {image_id} has to be a text or a number, got {value!r:.60}")
    given, placeholder = without_placeholders([patient_of(value) for value in raw])
    if any(given) and not all(given):
        first = given.index("")
        says = str(raw[first] if raw[first] is not None else "").strip()
        raise CohortError(
            f"{path} gives a patient_id for some images only; it is missing for {ids[first]}"
            + (f" ({says!r} is no patient)" if says else "")
        )
    return given, placeholder


def _require_each_once(path: Path, paths: Sequence[Path], ids: Sequence[str]) -> None:
    """The same file under two paths, or a pair of header and data listed as two images."""
    pairs = (".hdr", ".hdr.gz", ".img", ".img.gz")
    files = [os.path.abspath(parts_of(item)[0] if ending_of(item.name) in pairs else item) for item in paths]
    numbers = Counter(files)
    repeated = [image_id for image_id, item in zip(ids, files, strict=True) if numbers[item] > 1]
    if repeated:
        raise CohortError(
            f"{path} lists {len({item for item in files if numbers[item] > 1})} images more than once, for example "
            f"{repeated[0]}. List each image once."
        )


def _nothing_listed(
    path: Path, paths: Sequence[Path], ids: Sequence[str], reasons: Sequence[str | None], written: Sequence[str]
) -> str:
    cause, _ = Counter(reasons).most_common(1)[0]
    if cause != "missing":
        return f"none of the {len(paths)} images of {path} can be read, for example {ids[0]}: {reasons[0]}"
    text = (
        f"none of the {len(paths)} images of {path} exists, for example {paths[0]}. "
        "Paths are relative to the folder of the table."
    )
    if any(re.match(r"[A-Za-z]:[\\/]|\\\\", item) for item in written):
        text += " They are paths of Windows: write where the files lie here, with forward slashes."
    elif any("\\" in item for item in written):
        text += " They hold backslashes: write forward slashes."
    if all(os.path.exists(item) for item in ids):
        text += " They are there relative to the current folder: move the table here, or write its paths anew."
    return text
