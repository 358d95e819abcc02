# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the images of a cohort are: a folder, a CSV, or a MONAI datalist."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monai_memo.data.cohort import CohortImage, SkippedImage
from monai_memo.data.dicom import DicomImage, dicom_files, files_of_folder, group_dicom, is_dicom
from monai_memo.errors import CohortError, UnusableImageError

__all__ = ["Source", "dicom_files", "is_dicom", "read_source"]

ENDINGS = (".png", ".jpg", ".jpeg", ".npy", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm")
ACCEPTED = "PNG, JPEG, npy, NIfTI, NRRD, MHA/MHD, DICOM files or folders of DICOM series"


@dataclass(frozen=True)
class Source:
    """What a folder or table holds. The attributes are those of ``Cohort``."""

    images: list[CohortImage]
    patients_known: bool
    skipped: tuple[SkippedImage, ...] = ()
    notes: tuple[str, ...] = ()


def read_source(source: str | Path, name: str, patient_pattern: str | None = None) -> Source:
    """What the source of a cohort holds. See ``Cohort.from_source``."""
    text = str(source)
    match = re.fullmatch(r"(.+\.json):([\w-]+)", text)
    path, key = (Path(match.group(1)), match.group(2)) if match else (Path(text), "training")
    if not path.exists():
        raise CohortError(f"the {name} cohort does not exist: {path}")
    if path.is_dir():
        return _read_folder(path, name, patient_pattern)
    if path.suffix.lower() == ".csv":
        return _read_table(_csv_rows(path), path, name, patient_pattern)
    if path.suffix.lower() == ".json":
        return _read_table(_datalist_rows(path, key), path, name, patient_pattern)
    raise CohortError(
        f"the {name} cohort must be a folder, a .csv (columns image, patient_id) or a .json datalist, got {path}"
    )


def _read_folder(folder: Path, name: str, pattern: str | None) -> Source:
    files, dicoms = [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if is_dicom(path):
            dicoms.append(path)
        elif path.name.lower().endswith(ENDINGS):
            files.append(path)
    found = group_dicom(dicoms)
    # The folder itself may be the one DICOM series.
    own = folder.resolve().name

    def id_of(path: Path, suffix: str = "") -> str:
        base = own if path == folder else path.relative_to(folder).as_posix()
        return f"{base}/{suffix}" if suffix else base

    ids = {id_of(path): DicomImage(path) for path in files}
    ids |= {id_of(image.path, image.suffix): image for image in found.images}
    skipped = tuple(SkippedImage(id_of(path), reason) for path, reason in found.set_aside)
    if not ids:
        aside = f" ({skipped[0].image_id} {skipped[0].reason})" if skipped else ""
        raise CohortError(f"no images in the {name} folder {folder}{aside}: put {ACCEPTED} there")
    patients = {image_id: image.patient for image_id, image in ids.items() if image.patient}
    if pattern is not None:
        patients = _patients_by_pattern(ids, pattern)
    # A damaged file is skipped later; it must not make the patients of all others unknown.
    known = bool(patients) and all(image_id in patients or image.damaged for image_id, image in ids.items())
    images = [
        CohortImage(image.path, image_id, patients.get(image_id, image_id) if known else image_id, files=image.files)
        for image_id, image in sorted(ids.items())
    ]
    return Source(images, known, skipped, found.notes)


def _patients_by_pattern(ids: Iterable[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CohortError(f"patient_pattern {pattern!r} is not a regular expression: {error}") from error
    matches = {image_id: compiled.search(image_id) for image_id in ids}
    found = {image_id: match.group(min(compiled.groups, 1)) for image_id, match in matches.items() if match}
    missed = [image_id for image_id in matches if not found.get(image_id)]  # an empty match names no patient
    if missed:
        more = ", ..." if len(missed) > 3 else ""
        raise CohortError(
            f"patient_pattern {pattern!r} finds no patient in {len(missed)} of {len(matches)} images, for example "
            f"{', '.join(missed[:3])}{more}. It is applied to the path of each image as written here."
        )
    return found


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames is None or "image" not in reader.fieldnames:
                raise CohortError(
                    f"{path} needs a column 'image'; its columns are: {', '.join(reader.fieldnames or ['none'])}"
                )
            rows = list(reader)
            lines = reader.line_num
    except (UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{path} is not a CSV in UTF-8: {error}. Save it again with that encoding.") from error
    blank = sum(1 for row in rows if not (row["image"] or "").strip())
    if blank:
        raise CohortError(
            f"{path} leaves the column 'image' empty in {blank} of {lines - 1} lines. Fill or remove them."
        )
    return rows


def _datalist_rows(path: Path, key: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CohortError(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, dict):
        if key not in content:
            raise CohortError(f"{path} has no list {key!r}; it has: {', '.join(content)}. Name one as {path}:NAME")
        content = content[key]
    rows = [{"image": row} if isinstance(row, str) else row for row in content] if isinstance(content, list) else []
    if not rows and content == []:
        raise CohortError(f"{path} lists no images under {key!r}")
    if not rows or not all(isinstance(row, dict) and str(row.get("image") or "").strip() for row in rows):
        raise CohortError(f"{path}: every entry of the datalist needs an 'image' with one path")
    if not all(isinstance(row["image"], str) for row in rows):
        raise CohortError(f"{path}: an 'image' of the datalist has to be one path, lists are not supported")
    return rows


def _read_table(rows: list[dict[str, Any]], path: Path, name: str, pattern: str | None) -> Source:
    if not rows:
        raise CohortError(f"the {name} cohort {path} lists no images")
    # "./a.png" and "a.png" are one image and get one id.
    ids = [Path(os.path.normpath(row["image"].strip())).as_posix() for row in rows]
    given = [str(row.get("patient_id") if row.get("patient_id") is not None else "").strip() for row in rows]
    if any(given) and not all(given):
        raise CohortError(f"{path} gives a patient_id for some images only; it is missing for {ids[given.index('')]}")
    # An absolute path stays as it is when joined.
    paths = [path.parent / row["image"].strip() for row in rows]
    if not any(item.exists() for item in paths):
        raise CohortError(
            f"none of the {len(rows)} images of {path} exists, for example {paths[0]}. "
            "Paths are relative to the folder of the table."
        )
    known = all(given) or pattern is not None
    patients = given if all(given) else ids
    if pattern is not None and not all(given):
        found = _patients_by_pattern(ids, pattern)
        patients = [found[image_id] for image_id in ids]
    columns = [{str(k): str(v) for k, v in row.items() if k not in ("image", "patient_id", None)} for row in rows]
    images = [CohortImage(*image) for image in zip(paths, ids, patients, columns, strict=True)]
    skipped: list[SkippedImage] = []
    notes: Counter[str] = Counter()
    for position, image in enumerate(images):
        if image.path.is_dir():
            try:
                files, aside, further = files_of_folder(image.path)
            except UnusableImageError:
                continue  # named with its reason when it is read
            images[position] = replace(image, files=files)
            skipped += [SkippedImage(f"{image.image_id}/{item.name}", reason) for item, reason in aside]
            notes.update(further)
    return Source(images, known, tuple(skipped), tuple(notes))
