# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the images of a cohort are: a folder, a CSV, or a MONAI datalist."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from monai_memo.data.cohort import CohortImage
from monai_memo.errors import CohortError

ENDINGS = (".png", ".jpg", ".jpeg", ".npy", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm")
ACCEPTED = "PNG, JPEG, npy, NIfTI, NRRD, MHA/MHD, DICOM files or folders of DICOM series"


def is_dicom(path: Path) -> bool:
    """By the ending, or by the magic word after the preamble of a file without one."""
    if path.suffix.lower() == ".dcm":
        return True
    if path.suffix and not re.fullmatch(r"\.\d+", path.suffix):  # series often end in .0001 or in a UID
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_source(source: str | Path, name: str, patient_pattern: str | None = None) -> tuple[list[CohortImage], bool]:
    """Images of a cohort and whether their patients are known. See ``Cohort.from_source``."""
    text = str(source)
    match = re.fullmatch(r"(.+\.json):([\w-]+)", text)
    path, key = (Path(match.group(1)), match.group(2)) if match else (Path(text), "training")
    if not path.exists():
        raise CohortError(f"the {name} cohort does not exist: {path}")
    if path.is_dir():
        return _read_folder(path, name, patient_pattern)
    if path.suffix.lower() == ".csv":
        return _read_table(_csv_rows(path), path, name)
    if path.suffix.lower() == ".json":
        return _read_table(_datalist_rows(path, key), path, name)
    raise CohortError(
        f"the {name} cohort must be a folder, a .csv (columns image, patient_id) or a .json datalist, got {path}"
    )


def _read_folder(folder: Path, name: str, pattern: str | None) -> tuple[list[CohortImage], bool]:
    files, dicoms = [], []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if is_dicom(path):
            dicoms.append(path)
        elif path.name.lower().endswith(ENDINGS):
            files.append(path)
    series, patients = _dicom_series(dicoms)
    paths = sorted([*files, *series])
    if not paths:
        raise CohortError(f"no images in the {name} folder {folder}: put {ACCEPTED} there")
    ids = {path: path.relative_to(folder).as_posix() or path.name for path in paths}
    if pattern is not None:
        patients = _patients_by_pattern(ids, pattern)
    known = bool(patients) and all(path in patients for path in paths)
    return [CohortImage(path, ids[path], patients[path] if known else ids[path]) for path in paths], known


def _patients_by_pattern(ids: Mapping[Path, str], pattern: str) -> dict[Path, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CohortError(f"patient_pattern {pattern!r} is not a regular expression: {error}") from error
    found = {path: compiled.search(image_id) for path, image_id in ids.items()}
    missed = [ids[path] for path, match in found.items() if match is None]
    if missed:
        raise CohortError(
            f"patient_pattern {pattern!r} does not match {len(missed)} of {len(ids)} images, for example {missed[0]}"
        )
    return {path: match.group(1) if compiled.groups else match.group(0) for path, match in found.items() if match}


def _dicom_series(paths: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Group DICOM files: a folder that holds one series of several slices is one image, other files stand alone."""
    import pydicom

    by_folder: dict[Path, list[tuple[Path, str, str]]] = defaultdict(list)
    for path in paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "PatientID"])
            series, patient = str(header.get("SeriesInstanceUID", "")), str(header.get("PatientID", ""))
        except Exception:  # a damaged header: the image is kept and skipped by name when it is loaded
            series, patient = "", ""
        by_folder[path.parent].append((path, series, patient))
    found: list[Path] = []
    patients: dict[Path, str] = {}
    for folder, rows in by_folder.items():
        uids = {series for _, series, _ in rows}
        images = [folder] if len(rows) > 1 and len(uids) == 1 and "" not in uids else [path for path, _, _ in rows]
        by_image = {folder: rows[0][2]} if images == [folder] else {path: patient for path, _, patient in rows}
        found += images
        patients.update({image: patient for image, patient in by_image.items() if patient})
    return found, patients


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames is None or "image" not in reader.fieldnames:
            raise CohortError(
                f"{path} needs a column 'image'; its columns are: {', '.join(reader.fieldnames or ['none'])}"
            )
        return list(reader)


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
    if not rows or not all(isinstance(row, dict) and isinstance(row.get("image"), str) for row in rows):
        raise CohortError(f"{path}: every entry of the datalist needs an 'image' with one path")
    return rows


def _read_table(rows: list[dict[str, Any]], path: Path, name: str) -> tuple[list[CohortImage], bool]:
    if not rows:
        raise CohortError(f"the {name} cohort {path} lists no images")
    known = all(str(row.get("patient_id") or "").strip() for row in rows)
    images = []
    for row in rows:
        image_id = row["image"].strip()
        # An absolute path stays as it is when joined.
        patient = str(row["patient_id"]).strip() if known else image_id
        columns = {str(k): str(v) for k, v in row.items() if k not in ("image", "patient_id")}
        images.append(CohortImage(path.parent / image_id, image_id, patient, columns))
    if not any(image.path.exists() for image in images):
        raise CohortError(
            f"none of the {len(images)} images of {path} exists, for example {images[0].path}. "
            "Paths are relative to the folder of the table."
        )
    if not known and any(str(row.get("patient_id") or "").strip() for row in rows):
        missing = next(row["image"] for row in rows if not str(row.get("patient_id") or "").strip())
        raise CohortError(f"{path} gives a patient_id for some images only; it is missing for {missing}")
    return images, known
