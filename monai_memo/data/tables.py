# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Rows of a CSV or a MONAI datalist, and clear words about what is wrong with them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_memo.data.patients import near_misses
from monai_memo.errors import CohortError

CSV_ENDINGS = (".csv", ".tsv")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


@dataclass(frozen=True)
class Table:
    """What a table lists.

    Attributes:
        rows: each with a text ``image``; other columns as given.
        columns: every column's name that occurs, in order.
        notes: what was done that a person may want to know, without names.
    """

    rows: list[dict[str, Any]]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_table(path: Path, key: str) -> Table:
    """Read a ``.csv``, ``.tsv`` or ``.json``.

    Args:
        path: the table.
        key: which list of a datalist.

    Raises:
        CohortError: it cannot be read, or does not say where each image is.
    """
    table = _read_csv(path) if path.suffix.lower() in CSV_ENDINGS else _read_datalist(path, key)
    if not table.rows:
        raise CohortError(f"{path} lists no images")
    for number, row in enumerate(table.rows, 1):
        _require_path(path, number, row["image"])
    return table


def _require_path(path: Path, number: int, image: str) -> None:
    if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]+://", image):
        raise CohortError(
            f"{path} lists an address, {image.strip()} (image {number}). Only files are read: fetch the images first "
            "and list their paths."
        )
    try:
        image.encode()
    except UnicodeEncodeError:
        pass
    else:
        if "\0" not in image:
            return
    raise CohortError(f"{path}: the path of image {number} holds a character that no file's name can have: {image!r}")


def _text(path: Path, kind: str) -> str:
    """The file's text; says what it is instead where it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CohortError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content.strip():
        raise CohortError(f"{path} is empty: it lists no images")
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise CohortError(f"{path} is a spreadsheet or an archive, not {kind}: save it as CSV in UTF-8")
    if content.startswith((*UTF_16, *UTF_32)) or content[:2].count(0) == 1 or content[:4].count(0) == 3:
        raise CohortError(f"{path} is in UTF-16 or UTF-32, not {kind} in UTF-8. Save it again with that encoding.")
    if b"\0" in content:
        raise CohortError(f"{path} holds NUL bytes: it is damaged, or not {kind}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CohortError(f"{path} is not {kind} in UTF-8: {error}. Save it again with that encoding.") from error


def _delimiter(line: str, ending: str) -> str:
    """What separates the columns: the first of , ; tab | with which the header has a column ``image``."""
    order = sorted(DELIMITERS, key=lambda item: item != "\t") if ending == ".tsv" else list(DELIMITERS)
    columns = {item: next(csv.reader([line], delimiter=item), []) for item in order}
    for wanted in (lambda names: "image" in names, lambda names: near_misses(names, "image")):
        for delimiter, names in columns.items():
            if wanted(names):
                return delimiter
    return max(order, key=lambda item: len(columns[item]))


def _read_csv(path: Path) -> Table:
    text = _text(path, "a CSV")
    lines = text.lstrip("\r\n").splitlines() or [""]
    declared = re.fullmatch(r'"?sep=(.)"?', lines[0])  # Excel's way to name the delimiter
    header = lines[1] if declared and len(lines) > 1 else lines[0]
    delimiter = declared.group(1) if declared else _delimiter(header, path.suffix.lower())
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        for fields in reader:
            if any(field.strip() for field in fields):  # an empty line is no row, nor what Excel leaves of one (;;)
                records.append((reader.line_num, fields))
    except csv.Error as error:
        raise CohortError(
            f"{path} is not a CSV: {error} in line {reader.line_num}. Is a quotation mark missing there or before?"
        ) from error
    if declared:
        records = records[1:]
    columns = records[0][1] if records else []
    _require_columns(path, columns)
    rows = [_row(path, line, fields, columns) for line, fields in records[1:]]
    blank = sum(1 for row in rows if not row.get("image", "").strip())
    if blank:
        raise CohortError(
            f"{path} leaves the column 'image' empty in {blank} of {len(rows)} lines. Fill or remove them."
        )
    for line, fields in records[1:]:
        if len(fields) < len(columns):
            raise CohortError(
                f"{path}: line {line} has {_fields(len(fields))}, the header {len(columns)}. Fill it up, or put fields "
                "that hold line breaks or quotation marks in quotation marks."
            )
    notes = () if delimiter == "," else (f"the columns of the table are separated by {_delimiter_name(delimiter)}",)
    return Table(rows, tuple(columns), notes)


def _delimiter_name(delimiter: str) -> str:
    return DELIMITERS.get(delimiter, repr(delimiter))


def _fields(number: int) -> str:
    return f"{number} field{'s' if number != 1 else ''}"


def _require_columns(path: Path, columns: list[str]) -> None:
    if "image" not in columns:
        shown = ", ".join(repr(name) if name != name.strip() else name for name in columns if name.strip())
        raise CohortError(f"{path} needs a column 'image'; its columns are: {shown or 'none'}{_hint(columns)}")
    repeated = [name for name, number in Counter(columns).items() if name.strip() and number > 1]
    if repeated:
        raise CohortError(f"{path} has more than one column {repeated[0]!r}: rename or remove all but one")


def _hint(columns: list[str]) -> str:
    near = near_misses(columns, "image")
    return f". {near[0]!r} looks like it: rename it to image" if near else ""


def _row(path: Path, line: int, fields: list[str], columns: list[str]) -> dict[str, Any]:
    if any(field.strip() for field in fields[len(columns) :]):
        raise CohortError(
            f"{path}: line {line} has {_fields(len(fields))}, the header {len(columns)}. A path or another field that "
            "holds the separator has to stand in quotation marks."
        )
    return {name: field for name, field in zip(columns, fields, strict=False) if name}


def _read_datalist(path: Path, key: str) -> Table:
    text = _text(path, "JSON")
    try:
        content = json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        each = len(lines) > 1 and all(line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines)
        hint = ". One object a line (JSON lines) is not read: write them as one list" if each else ""
        raise CohortError(f"{path} is not valid JSON: {error}{hint}") from error
    except RecursionError as error:
        raise CohortError(f"{path} is not a datalist: it is nested too deeply") from error
    if isinstance(content, dict):
        content = _list_of(content, key, path)
    if content == []:
        raise CohortError(f"{path} lists no images under {key!r}")
    if not isinstance(content, list):
        raise CohortError(f"{path} is not a datalist: {key!r} has to be a list of images, not {_kind(content)}")
    rows = []
    for number, entry in enumerate(content, 1):
        row = {"image": entry} if isinstance(entry, str) else entry
        rows.append({**row, "image": _path_in(row, number, path)} if isinstance(row, dict) else {})
        if not rows[-1]:
            raise CohortError(
                f"{path}: every entry of the datalist needs an 'image' with one path; entry {number} is {_kind(entry)}"
            )
    return Table(rows, tuple(dict.fromkeys(name for row in rows for name in _columns(row))))


def _columns(row: dict[str, Any]) -> list[str]:
    """Names of an entry's values, also of those one level deeper ("meta.patient_id"), so that hints see them."""
    deeper = [f"{name}.{inner}" for name, value in row.items() if isinstance(value, dict) for inner in value]
    return [*map(str, row), *deeper]


def _list_of(content: dict[str, Any], key: str, path: Path) -> Any:
    if key in content:
        return content[key]
    lists = [name for name, value in content.items() if isinstance(value, list)]
    if not lists and {"numTraining", "file_ending", "channel_names"} & content.keys():
        raise CohortError(
            f"{path} has no list {key!r}: it is the dataset.json of nnU-Net, which lists no images. "
            f"Name the folder {path.parent / 'imagesTr'}"
        )
    raise CohortError(
        f"{path} has no list {key!r}; it has: {', '.join(lists or content) or 'nothing'}. Name one as {path}:NAME"
    )


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _path_in(row: dict[str, Any], number: int, path: Path) -> str:
    image = row.get("image")
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    if isinstance(image, list) and image:
        raise CohortError(
            f"{path}: an 'image' of the datalist has to be one path, lists are not supported (entry {number} has "
            f"{len(image)}). If they are channels, list one of them, or write them into one file and name --channel"
        )
    if image is not None and not isinstance(image, str):
        raise CohortError(f"{path}: an 'image' of the datalist has to be one path; entry {number} has {_kind(image)}")
    if not image or not image.strip():
        raise CohortError(
            f"{path}: every entry of the datalist needs an 'image' with one path; entry {number} has none"
            f"{_hint(list(row))}"
        )
    return image
