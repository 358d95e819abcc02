# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


def anatomy(number: int = 0, shape: tuple[int, int] = (16, 12)) -> np.ndarray:
    """Stored values of one slice, another for each number, alike from slice to slice and nowhere symmetric."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows * shape[1] + columns + 10 * number).astype(np.uint16)


class WriteDicom(Protocol):
    def __call__(self, path: Path, pixels: np.ndarray | None = ..., **tags: Any) -> Path: ...


def _write(
    path: Path, pixels: np.ndarray | None = None, *, syntax: str = "", preamble: bool = True, **tags: Any
) -> Path:
    """Write one DICOM file: a CT slice unless the tags say otherwise. A tag of None is left out."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    pixels = anatomy() if pixels is None else pixels
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    bits = 8 * pixels.itemsize
    given: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.840.1",
        "StudyInstanceUID": "1.2.3",
        "PatientID": "anna",
        "Modality": "CT",
        "Rows": pixels.shape[-3] if colour else pixels.shape[-2],
        "Columns": pixels.shape[-2] if colour else pixels.shape[-1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "PlanarConfiguration": 0 if colour else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2.0,
        "ImageOrientationPatient": list(AXIAL),
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "InstanceNumber": 1,
        **tags,
    }
    syntax = syntax or ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = given["SOPClassUID"], syntax
    meta.MediaStorageSOPInstanceUID = given["SOPInstanceUID"] or generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128 if preamble else None)
    little, implicit = syntax != "1.2.840.10008.1.2.2", syntax == "1.2.840.10008.1.2"
    if not hasattr(data, "pixel_array_options"):  # pydicom before 3.0
        data.is_little_endian, data.is_implicit_VR = little, implicit
    for keyword, value in given.items():
        if value is not None:
            setattr(data, keyword, value)
    if "PixelData" not in given:
        stored = pixels.astype(pixels.dtype.newbyteorder(">")) if not little else pixels
        data.PixelData = stored.tobytes() + b"\0" * (pixels.nbytes % 2)
        data["PixelData"].VR = "OB" if bits == 8 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    if preamble:
        pydicom.dcmwrite(path, data)
        return path
    del data.file_meta
    order = {"little_endian": little, "implicit_vr": implicit} if hasattr(data, "pixel_array_options") else {}
    pydicom.dcmwrite(path, data, **order)
    return path


@pytest.fixture
def write_dicom() -> WriteDicom:
    return _write


@pytest.fixture
def write_series(write_dicom: WriteDicom) -> Any:
    """Slices of one series, ``distance`` mm apart, in files whose names do not tell their order."""

    def write(folder: Path, count: int = 5, *, distance: float = 2.0, start: int = 0, **tags: Any) -> list[Path]:
        written = []
        for number in range(start, start + count):
            given = {"ImagePositionPatient": [0.0, 0.0, distance * number], "InstanceNumber": number + 1, **tags}
            written.append(write_dicom(folder / f"{7 * number % 31:02d}_{number}.dcm", anatomy(number), **given))
        return written

    return write


@pytest.fixture
def write_enhanced(write_dicom: WriteDicom) -> Any:
    """An enhanced file: one item of functional groups for each frame."""
    from pydicom.dataset import Dataset

    def write(
        path: Path,
        positions: Sequence[Sequence[float]],
        *,
        slopes: Sequence[float] | None = None,
        content: Sequence[dict[str, Any]] | None = None,
        orientation: Sequence[float] = AXIAL,
        **tags: Any,
    ) -> Path:
        frames = []
        for number, position in enumerate(positions):
            frame, place, scaling = Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient = list(position)
            frame.PlanePositionSequence = [place]
            if slopes is not None:
                scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = slopes[number], -5, "US"
                frame.PixelValueTransformationSequence = [scaling]
            told = Dataset()
            for keyword, value in (content[number] if content else {}).items():
                setattr(told, keyword, value)
            frame.FrameContentSequence = [told]
            frames.append(frame)
        shared, plane, measures = Dataset(), Dataset(), Dataset()
        plane.ImageOrientationPatient = list(orientation)
        measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2.0
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
        given = {
            "SOPClassUID": ENHANCED_MR,
            "Modality": "MR",
            "NumberOfFrames": len(positions),
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
            **dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")),
            **tags,
        }
        return write_dicom(path, np.stack([anatomy(number) for number in range(len(positions))]), **given)

    return write
