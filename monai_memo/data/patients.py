# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which words stand for a patient, which for none, and which two may be the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

MISSING = (
    "", "-", "--", ".", "?", "??", "nan", "-nan", "na", "n/a", "n.a.", "n.a", "#n/a", "<na>", "nat", "none", "null",
    "nil", "missing", "not available", "undefined", "tbd", "#name?", "#value!", "#ref!", "#null!", "#num!", "#div/0!",
)  # fmt: skip
"""What stands for "no patient given" in tables and headers, in any case."""

PLACEHOLDER = re.compile(
    r"(anon(y(m(i[sz]e?d?|ous)?)?)?|de-?identified|redacted|removed|withheld|hidden|unknown|not ?known|unnamed|no ?name"
    r"|no ?id|patient|subject|x{2,})([ _^-]*(patient|subject|id|name|anon(ymous)?))*",
    re.IGNORECASE,
)
EVERYWHERE = re.compile(r"0+(\.0+)?|9{4,}|-[19]+|x", re.IGNORECASE)  # patients of their own where there are others

SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,]\d+)?e[+-]?\d{1,3}", re.IGNORECASE)
ROUNDED = re.compile(r"\d[.,]\d+E\+\d{2,3}")  # as spreadsheets write long numbers; what they cut off is lost

# fmt: off
IMAGE_LIKE = frozenset((
    "image", "images", "img", "imgs", "file", "files", "path", "filepath", "filename", "imagepath", "imagefile",
    "imagefilepath", "imagefilename", "imagename", "imgpath", "imgfile", "scan", "scanpath", "volume", "picture",
))
PATIENT_LIKE = frozenset((
    "patientid", "patient", "patients", "patientids", "patientname", "patientnumber", "patientkey", "subjectid",
    "subject", "subjects", "subjectname", "subjectkey", "caseid", "case", "pid", "ptid", "participantid",
    "participant", "personid",
))
# fmt: on


def patient_of(value: Any) -> str:
    """The patient as text, as it was written; empty where the value says that there is none.

    Example:
        >>> [patient_of(value) for value in (" 007 ", 7, "NaN", float("nan"), None, "N/A", "-", "ANONYMOUS")]
        ['007', '7', '', '', '', '', '', 'ANONYMOUS']
    """
    text = "" if value is None else str(value).strip()
    return "" if text.casefold() in MISSING else text


def placeholder_of(patients: Sequence[str]) -> str | None:
    """The word that stands where the patient should be, if it is the same in every image and no patient.

    Example:
        >>> placeholder_of(["ANONYMOUS"] * 3), placeholder_of(["0", "0"]), placeholder_of(["0", "1"])
        ('ANONYMOUS', '0', None)
    """
    if len(patients) < 2 or len(set(patients)) != 1:
        return None
    word = patients[0]
    return word if PLACEHOLDER.fullmatch(word) or EVERYWHERE.fullmatch(word) else None


def is_placeholder(patient: str) -> bool:
    """Whether this is never a patient, whatever stands elsewhere ("ANONYMOUS")."""
    return PLACEHOLDER.fullmatch(patient) is not None


def alike(column: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", column).casefold())


def near_misses(columns: Iterable[str], wanted: str) -> list[str]:
    """Columns that were probably meant to be ``image`` or ``patient_id``, the likeliest first."""
    words = sorted(IMAGE_LIKE if wanted == "image" else PATIENT_LIKE)
    exact = alike(wanted)
    found = [
        column
        for column in columns
        if column != wanted
        and (alike(column) in words or ("." in column and alike(column.rpartition(".")[2]) in words))
    ]
    return sorted(found, key=lambda column: alike(column) != exact)


def identity(patient: str) -> tuple[str, ...]:
    """What is left of a patient's id without case, width, spaces, signs and leading zeros, and as a plain number.

    Example:
        >>> identity("007") == identity("7") == identity("7.0"), identity("sub-01") == identity("1")
        (True, True)
        >>> identity("1.20E+03") == identity("1200") == identity("1,200")
        True
        >>> identity("1-12") == identity("11-2")
        False
    """
    text = unicodedata.normalize("NFKC", patient).casefold().strip()
    if SCIENTIFIC.fullmatch(text):
        value = Decimal(text.replace(",", "."))
        text = f"{value:f}" if value == value.to_integral_value() else text
    if re.fullmatch(r"\d{1,3}(,\d{3})+", text):
        text = text.replace(",", "")
    if re.fullmatch(r"\d+[.,]0*", text):
        text = re.split(r"[.,]", text)[0]
    text = re.sub(r"^(sub|subject|patient)(?=[\W_]*\d+$)", "", text)  # BIDS and its tables: sub-01 and 01
    parts = re.findall(r"[^\W\d_]+|\d+", text)
    return tuple(part.lstrip("0") or "0" if part.isdecimal() else part for part in parts) or (text,)


def without_placeholders(given: Sequence[str]) -> tuple[list[str], str | None]:
    """Patients with an empty text where a placeholder stands, and the placeholder if nothing else stands anywhere.

    Example:
        >>> without_placeholders(["ANON", "ANON"]), without_placeholders(["ANON", "7", "0"])
        ((['', ''], 'ANON'), (['', '7', '0'], None))
    """
    words = sorted({patient for patient in given if patient})
    if words and (all(is_placeholder(word) for word in words) or placeholder_of(given)):
        return [""] * len(given), max(words, key=list(given).count)
    return ["" if is_placeholder(patient) else patient for patient in given], None
