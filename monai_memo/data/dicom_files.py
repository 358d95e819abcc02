# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""DICOM files: how they are recognised, and what their headers say of where an image lies and what it belongs to."""

from __future__ import annotations

import functools
import math
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_memo.errors import UnusableImageError

ENDINGS = (".dcm", ".dicom", ".ima")
PROJECTIONS = ("CR", "DX", "IO", "MG", "PX", "RG")  # their images never are slices of a volume

# Tags by which a series that holds several images of each place can be told apart, the most telling first.
SPLITTING = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "InversionTime",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "FrameReferenceTime",
    "ComplexImageComponent",
    "ImageType",
    "FrameType",
    "KVP",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "StackID",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
)
TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "SliceThickness",
    "InstanceNumber",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "PixelRepresentation",
    "SharedFunctionalGroupsSequence",
)
SHARED = TAGS[-1]
# Their values are no text.
BINARY = frozenset(
    [
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "BitsAllocated",
        "PixelRepresentation",
        "TemporalPositionIndex",
        "DiffusionBValue",
        "EffectiveEchoTime",
        "NominalCardiacTriggerDelayTime",
        "NominalPercentageOfCardiacPhase",
        "FrameAcquisitionNumber",
    ]
)
# Objects that hold no image of the patient, by the start of their SOP class. Some of them hold pixels all the same.
STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_IMAGES = {
    "66.4": "a segmentation",
    "66.5": "a segmentation",
    "66.7": "a segmentation",
    "66": "raw or spatial data",
    "67": "a mapping of values",
    "68": "a surface scan",
    "88": "a report",
    "9": "a waveform",
    "11": "a presentation state",
    "104": "a document",
    "481.2": "a radiotherapy dose",
    "481.3": "radiotherapy structures",
    "481.5": "a radiotherapy plan",
}
NO_IMAGE_MODALITIES = {
    "SEG": "a segmentation",
    "RTDOSE": "a radiotherapy dose",
    "RTSTRUCT": "radiotherapy structures",
    "RTPLAN": "a radiotherapy plan",
    "SR": "a report",
    "KO": "a report",
    "PR": "a presentation state",
}
SECONDARY_CAPTURE = STORAGE + "7"
CMS = bytes.fromhex("2a864886f70d0107")  # the envelope of encrypted files names itself so
_VR = re.compile(rb"AE|AS|AT|CS|DA|DS|DT|FD|FL|IS|LO|LT|OB|OW|PN|SH|SL|SQ|SS|ST|TM|UI|UL|UN|US|UT")


def _starts_as_dataset(head: bytes) -> bool:
    """A file without preamble begins with its meta information or with its first elements, group 0002 or 0008."""
    if len(head) < 16 or head[:4] == b"\0\0\0\0":
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))  # type: ignore[arg-type]
        if group not in (2, 8) or element > 0x0100:
            continue
        if _VR.fullmatch(head[4:6]):
            return True
        length = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        if group == 8 and order == "little" and length % 2 == 0 and length <= 256:
            return True
    return False


def has_dicom_content(path: Path) -> bool:
    """The magic word after the preamble, or the first elements of a file without preamble."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _starts_as_dataset(head)


def is_dicom(path: Path) -> bool:
    """By the ending, or by the content of a file without one. A DICOMDIR is a list of files and holds no image.

    Series whose files end in ``.0001`` or in a UID are known by their content; files with any other ending are not
    opened, so that a folder of pictures is searched quickly.
    """
    if path.name.upper() == "DICOMDIR":
        return False
    suffix = path.suffix.lower()
    if suffix in ENDINGS:
        return True
    # "IM 1.MR", "scan.ct1" and the like: modalities as endings.
    if suffix and not re.fullmatch(r"\.(\d+|(mr|ct|pt|us|cr|dx|mg|nm|dc3|acr|dic|dcim)\d*)", suffix):
        return False
    return path.is_file() and has_dicom_content(path)


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, hidden ones left out, in the order of their names."""
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file() and is_dicom(path)
    )


@dataclass(frozen=True)
class SliceHeader:
    """What the header of one file, or of one frame, says.

    Attributes:
        orientation: ImageOrientationPatient; None where no slice of a volume is described.
        position: ImagePositionPatient; None likewise.
        spacing: between rows and between columns, mm.
        enhanced: its frames are described one by one.
        in_patient: position and orientation are those of the patient and not of a probe.
        splitting: values of the tags in ``SPLITTING`` that the header gives.
    """

    path: Path
    frame: int = 0
    sop_class: str = ""
    sop_uid: str = ""
    series: str = ""
    patient: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
    frames: int = 1
    colour: bool = False
    dtype: str = "uint16"
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    number: int | None = None
    enhanced: bool = False
    in_patient: bool = True
    splitting: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_slice(self) -> bool:
        """It says where it lies, and may so be one slice of a volume."""
        return self.orientation is not None and self.position is not None

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.image_type

    @property
    def is_derived(self) -> bool:
        return self.image_type[:2] == ("DERIVED", "SECONDARY")

    @property
    def no_image(self) -> str | None:
        """What the file holds instead of an image of the patient; None if it is one."""
        kind = self.sop_class.removeprefix(STORAGE)
        if kind != self.sop_class:
            for start, what in NO_IMAGES.items():
                if kind == start or kind.startswith(start + "."):
                    return what
        if self.modality in NO_IMAGE_MODALITIES:
            return NO_IMAGE_MODALITIES[self.modality]
        return None if self.rows and self.columns else "no pixels"


def value_of(dataset: Any, keyword: str) -> Any:
    """The value of an element; None where it is missing, empty, or damaged."""
    try:
        value = dataset.get(keyword)
    except Exception:
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def numbers_of(dataset: Any, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """Finite numbers, as many as asked for; None where they are not there."""
    value = value_of(dataset, keyword)
    if value is None:
        return None
    try:
        found = tuple(float(item) for item in _items(value))
    except (TypeError, ValueError):
        return None
    return found if all(map(math.isfinite, found)) and count in (None, len(found)) else None


def _text(dataset: Any, keyword: str) -> str:
    value = value_of(dataset, keyword)
    return "" if value is None else str(value).strip().strip("\0").strip()


def _items(value: Any) -> list[Any]:
    """The values of an element that may have several, one, or none."""
    if value is None:
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)


def _parts(value: Any) -> list[str]:
    return [str(part) for part in _items(value)]


def _count(dataset: Any, keyword: str, default: int = 0) -> int:
    found = numbers_of(dataset, keyword, 1)
    return int(found[0]) if found else default


def orientation_of(dataset: Any, keyword: str = "ImageOrientationPatient") -> tuple[float, ...] | None:
    found = numbers_of(dataset, keyword, 6)
    if found is None:
        return None
    row, column = found[:3], found[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    across = sum(a * b for a, b in zip(row, column, strict=True))
    return found if all(0.9 < length < 1.1 for length in lengths) and abs(across) < 0.1 else None


def spacing_of(dataset: Any) -> tuple[float, ...] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = numbers_of(dataset, keyword, 2)
        if found and min(found) > 0:
            return found
    return None


def splitting_of(*datasets: Any) -> dict[str, str]:
    """Values of the tags that tell images of one place apart; earlier datasets go first."""
    found: dict[str, str] = {}
    for dataset in datasets:
        for keyword in SPLITTING:
            if keyword not in found and (value := value_of(dataset, keyword)) is not None:
                found[keyword] = "/".join(_parts(value))
    return found


@functools.cache
def _wanted() -> dict[int, str]:
    from pydicom.datadict import tag_for_keyword

    return {int(tag_for_keyword(keyword) or 0): keyword for keyword in TAGS + SPLITTING}


@functools.cache
def _tags(splitting: bool) -> list[int]:
    return [tag for tag, keyword in _wanted().items() if splitting or keyword in TAGS]


def _told(dataset: Any) -> dict[str, Any]:
    """The wanted elements that are there, by keyword.

    Most are not there, and most of those that are hold plain text: asking pydicom for each takes three times as long,
    which counts with a hundred thousand slices.
    """
    wanted = _wanted()
    found: dict[str, Any] = {}
    for tag in list(dataset.keys()):
        keyword = wanted.get(tag)
        if keyword is None:
            continue
        raw = dataset.get_item(tag).value
        try:
            if keyword == SHARED:
                found[keyword] = True
            elif isinstance(raw, bytes) and keyword not in BINARY and raw.isascii():
                parts = [part.strip(" \0") for part in raw.decode("ascii").split("\\")]
                found[keyword] = parts if len(parts) > 1 else parts[0]
            else:
                found[keyword] = dataset[tag].value
        except Exception:  # a damaged element
            continue
    return found


def header_of(dataset: Any, path: Path) -> SliceHeader:
    """What a dataset says, whether read with its pixels or without."""
    dataset = _told(dataset)
    bits, signed = _count(dataset, "BitsAllocated", 16), _count(dataset, "PixelRepresentation")
    # An X-ray or a film may name a position all the same; it is no slice.
    is_projection = _text(dataset, "Modality") in PROJECTIONS
    number = numbers_of(dataset, "InstanceNumber", 1)
    thickness = numbers_of(dataset, "SliceThickness", 1)
    photometric = _text(dataset, "PhotometricInterpretation")
    return SliceHeader(
        path=path,
        sop_class=_text(dataset, "SOPClassUID"),
        sop_uid=_text(dataset, "SOPInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        patient=_text(dataset, "PatientID"),
        modality=_text(dataset, "Modality"),
        image_type=tuple(part.upper() for part in _parts(value_of(dataset, "ImageType"))),
        rows=_count(dataset, "Rows"),
        columns=_count(dataset, "Columns"),
        frames=max(1, _count(dataset, "NumberOfFrames", 1)),
        colour=_count(dataset, "SamplesPerPixel", 1) > 1 or photometric == "PALETTE COLOR",
        dtype=f"{'' if signed else 'u'}int{max(8, bits)}",
        orientation=orientation_of(dataset),
        position=None if is_projection else numbers_of(dataset, "ImagePositionPatient", 3),
        spacing=spacing_of(dataset),
        thickness=thickness[0] if thickness else None,
        number=int(number[0]) if number else None,
        enhanced=SHARED in dataset,
        splitting=splitting_of(dataset),
    )


def read_dataset(path: Path, pixels: bool = True, tags: list[int] | None = None) -> Any:
    """Read a file with pydicom.

    Raises:
        UnusableImageError: missing, or no DICOM file, or damaged.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with warnings.catch_warnings():
            # Of pydicom, about odd values, which they show; what matters is checked where it is used.
            warnings.filterwarnings("ignore", category=UserWarning)
            if path.stat().st_size == 0:
                raise UnusableImageError(path, "an empty file")
            chosen = {"stop_before_pixels": not pixels, "specific_tags": tags}
            try:
                return pydicom.dcmread(path, **chosen)
            except InvalidDicomError:
                if not has_dicom_content(path):
                    raise
            return pydicom.dcmread(path, force=True, **chosen)
    except UnusableImageError:
        raise
    except FileNotFoundError as error:
        raise UnusableImageError(path, "missing") from error
    except InvalidDicomError as error:
        with open(path, "rb") as stream:
            if CMS in stream.read(64):
                raise UnusableImageError(path, "encrypted (a secure DICOM file): decrypt it first") from error
        raise UnusableImageError(path, "no DICOM file, whatever its name says") from error
    except (EOFError, struct.error) as error:
        raise UnusableImageError(path, "the DICOM file is cut short") from error
    except Exception as error:
        raise UnusableImageError(path, "a damaged DICOM header") from error


def read_header(path: Path, splitting: bool = False) -> SliceHeader:
    """The header of one file, without its pixels; of an enhanced file with one frame, that frame's.

    Args:
        splitting: also what tells images of one place apart.

    Raises:
        UnusableImageError: missing, or no DICOM file, or damaged.
    """
    from monai_memo.data.dicom_frames import frame_headers

    dataset = read_dataset(path, pixels=False, tags=_tags(splitting))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # they would show values of the header
        header = header_of(dataset, path)
    if not any((header.sop_class, header.series, header.rows, header.modality)):
        raise UnusableImageError(path, "a damaged DICOM header")
    if header.frames == 1 and header.position is None and header.enhanced:
        try:
            return frame_headers(read_dataset(path, pixels=False), path)[0]
        except UnusableImageError:
            raise
        except Exception as error:
            raise UnusableImageError(path, "a damaged DICOM header") from error
    return header
