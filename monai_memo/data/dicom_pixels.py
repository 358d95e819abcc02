# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pixels of one DICOM file: decoded, without padding, in the file's own units, bright where the patient is bright."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_memo.data.dicom_files import numbers_of, value_of
from monai_memo.data.dicom_frames import scaling_of
from monai_memo.errors import UnusableImageError

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
FILMS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 110))  # MPEG-2, MPEG-4, HEVC
ELSEWHERE = ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205")
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # not compressed
NEEDED = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
OF_INTEGERS = NEEDED[3:]  # pixels in floating point do without
LARGE = 2**28  # bytes of a frame from which on the size has to fit the data
YBR = ("YBR_FULL", "YBR_FULL_422")


class Values(NamedTuple):
    """One frame.

    Attributes:
        array: ``(rows, columns)``, or with three colours at the end.
        padding: where there is no image; None where everything is.
    """

    array: np.ndarray
    padding: np.ndarray | None


def compression_of(dataset: Any) -> str:
    """Name and UID of the way in which the pixels are stored."""
    from pydicom.uid import UID

    uid = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    name = uid.name if uid.name != uid else "an unknown way"
    shown = uid if re.fullmatch(r"[0-9.]{1,64}", uid) else "no valid UID"  # a damaged one may hold anything
    return f"{name.split(' (')[0].split(':')[0]} ({shown})"


def _transfer_syntax(dataset: Any) -> str:
    """The transfer syntax; of a file without meta information, the one it was read with."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    uid = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    if not uid:
        implicit, little = (
            dataset.original_encoding
            if hasattr(dataset, "original_encoding")
            else (dataset.is_implicit_VR, dataset.is_little_endian)  # pydicom before 3.0
        )
        chosen = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = chosen
        uid = str(chosen)
    return uid


def refuse_films(dataset: Any, path: Path) -> None:
    """Name the transfer syntaxes whose data are no images.

    Raises:
        UnusableImageError: a film, or pixels that lie elsewhere.
    """
    uid = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    if uid in FILMS:
        raise UnusableImageError(path, f"compressed as {compression_of(dataset)}: a film, no image")
    if uid in ELSEWHERE:
        raise UnusableImageError(path, f"its pixels lie on a server ({compression_of(dataset)})")


def _check(dataset: Any, path: Path, uid: str) -> None:
    """Name what no decoder can mend before one is asked, so that it does not take memory for what is not there."""
    for keyword in NEEDED:
        if value_of(dataset, keyword) is None and not (keyword in OF_INTEGERS and "PixelData" not in dataset):
            raise UnusableImageError(path, f"lacks {keyword}, without which its pixels cannot be told")
    found = next((keyword for keyword in PIXELS if keyword in dataset), None)
    if found is None:
        raise UnusableImageError(path, "holds no pixels")
    data = dataset[found].value
    if data is None or len(data) == 0:
        raise UnusableImageError(path, "holds no pixels")
    rows, columns, samples, bits, frames = (
        int((numbers_of(dataset, keyword, 1) or (default,))[0])
        for keyword, default in (
            ("Rows", 0),
            ("Columns", 0),
            ("SamplesPerPixel", 1),
            ("BitsAllocated", 0),
            ("NumberOfFrames", 1),
        )
    )
    if min(rows, columns, samples, bits) <= 0:
        raise UnusableImageError(path, "does not say how large its image is")
    frame = rows * columns * samples * bits / 8
    if uid in NATIVE:
        if value_of(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
            frame = frame * 2 / 3
        expected = int(np.ceil(frame * max(1, frames)))
        if len(data) < expected:
            raise UnusableImageError(path, f"cut short: {len(data)} of {expected} bytes of pixels")
    elif frame > LARGE and frame > 1000 * len(data):
        raise UnusableImageError(path, f"says it has {rows} x {columns} pixels, for which its data are too few")


def _decoded(dataset: Any, path: Path) -> np.ndarray:
    """``(frames, rows, columns)``, with the colours at the end where there are some."""

    uid = _transfer_syntax(dataset)
    _check(dataset, path, uid)
    recent = hasattr(dataset, "pixel_array_options")  # pydicom 3.0
    if recent and uid in NATIVE and int(dataset.SamplesPerPixel) == 1:
        # pydicom would move the bits as if the highest one stored were always the one after the last bit left free.
        dataset.pixel_array_options(correct_unused_bits=False)
    photometric = str(value_of(dataset, "PhotometricInterpretation") or "MONOCHROME2")
    attempts: list[Callable[[], np.ndarray]] = [lambda: dataset.pixel_array]
    if recent:

        def earlier_way() -> np.ndarray:
            dataset.pixel_array_options(use_v2_backend=True)  # it decodes JPEG of 12 bits, which the newer refuses
            return _to_rgb(dataset.pixel_array, photometric)

        attempts.append(earlier_way)
    else:
        attempts = [lambda: _to_rgb(dataset.pixel_array, photometric)]
    array, cause = None, None
    for attempt in attempts:
        try:
            with warnings.catch_warnings():
                # Of decoders that are tried in turn: only what the last one says counts, as the cause of a skip.
                warnings.filterwarnings("ignore", category=UserWarning)
                warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"pydicom\.")
                array = np.asarray(attempt())
            break
        except Exception as error:
            cause = error
    if array is None:
        supported = uid in _decodable()
        what = (
            f"pixels that cannot be decoded, compressed as {compression_of(dataset)}: damaged or cut short"
            if supported
            else f"compressed as {compression_of(dataset)}, which nothing here decodes: save it uncompressed"
        )
        raise UnusableImageError(path, what) from cause
    if photometric == "PALETTE COLOR" and array.ndim in (2, 3):
        array = _palette()(array, dataset)
    colour = array.shape[-1] if int(dataset.get("SamplesPerPixel", 1)) > 1 or photometric == "PALETTE COLOR" else 0
    expected_axes = 3 if colour else 2
    if array.ndim == expected_axes:
        array = array[None]
    if array.ndim != expected_axes + 1:
        raise UnusableImageError(path, f"holds pixels of shape {array.shape}")
    return array[..., :3] if colour else array


def _to_rgb(array: np.ndarray, photometric: str) -> np.ndarray:
    from pydicom.pixel_data_handlers.util import convert_color_space

    return convert_color_space(array, photometric, "RGB") if photometric in YBR else array


def _palette() -> Callable[[np.ndarray, Any], np.ndarray]:
    try:
        from pydicom.pixels import apply_color_lut
    except ImportError:  # pydicom before 3.0
        from pydicom.pixel_data_handlers.util import apply_color_lut
    return apply_color_lut  # type: ignore[no-any-return]


def _decodable() -> frozenset[str]:
    from pydicom import uid as known

    return frozenset(
        str(item)
        for item in (
            known.ImplicitVRLittleEndian, known.ExplicitVRLittleEndian, known.DeflatedExplicitVRLittleEndian,
            known.ExplicitVRBigEndian, known.JPEGBaseline8Bit, known.JPEGExtended12Bit, known.JPEGLossless,
            known.JPEGLosslessSV1, known.JPEGLSLossless, known.JPEGLSNearLossless, known.JPEG2000Lossless,
            known.JPEG2000, known.RLELossless,
        )
    )  # fmt: skip


def _stored(array: np.ndarray, dataset: Any) -> tuple[np.ndarray, int, int]:
    """Without the bits that hold overlays.

    Returns:
        The values and their lowest and highest possible.
    """
    allocated = int(dataset.BitsAllocated)
    stored = int((numbers_of(dataset, "BitsStored", 1) or (allocated,))[0])
    high = int((numbers_of(dataset, "HighBit", 1) or (stored - 1,))[0])
    signed = int((numbers_of(dataset, "PixelRepresentation", 1) or (0,))[0]) == 1
    if not 0 < stored <= allocated:
        stored, high = allocated, allocated - 1
    low, top = (-(1 << (stored - 1)), (1 << (stored - 1)) - 1) if signed else (0, (1 << stored) - 1)
    shift = high + 1 - stored
    native = _transfer_syntax(dataset) in NATIVE
    if native and 1 < stored < allocated:
        bits = array.astype(np.int64) & ((1 << allocated) - 1)
        bits = (bits >> shift if shift > 0 else bits) & ((1 << stored) - 1)
        values = np.where(bits > top, bits - (1 << stored), bits) if signed else bits
        return values.astype(array.dtype.newbyteorder("=")), low, top
    return array.astype(array.dtype.newbyteorder("="), copy=False), low, top


def _padding(raw: np.ndarray, values: np.ndarray, dataset: Any) -> np.ndarray | None:
    """Where stored values are padding. Writers give the value as signed or unsigned, whatever the pixels are."""
    if raw.dtype.kind == "f":
        prefix = "Float" if "FloatPixelData" in dataset else "DoubleFloat"
        one = numbers_of(dataset, f"{prefix}PixelPaddingValue", 1)
        limit = numbers_of(dataset, f"{prefix}PixelPaddingRangeLimit", 1)
        if one is None:
            return None
        ends = sorted((one[0], (limit or one)[0]))
        return (values >= ends[0]) & (values <= ends[1])
    given = _integer(dataset, "PixelPaddingValue")
    if given is None:
        return None
    other_end = _integer(dataset, "PixelPaddingRangeLimit")
    signed, allocated, stored = raw.dtype.kind == "i", int(dataset.BitsAllocated), int(dataset.BitsStored)
    mask = np.zeros(values.shape, dtype=bool)
    for pixels, bits in ((raw, allocated), (values, stored)):
        pad, end = (_as_stored(value, bits, signed) for value in (given, given if other_end is None else other_end))
        if pad is None or end is None:
            continue
        low, high = sorted((pad, end))
        mask |= (pixels >= low) & (pixels <= high)
    return mask


def _integer(dataset: Any, keyword: str) -> int | None:
    """A number whose element may have been read as bytes because its kind was not clear."""
    value = value_of(dataset, keyword)
    if isinstance(value, bytes):
        return int.from_bytes(value[:2], "little") if len(value) >= 2 else None
    found = numbers_of(dataset, keyword)
    return int(found[0]) if found else None


def _as_stored(value: int, bits: int, signed: bool) -> int | None:
    """A padding value as the pixels would hold it; None where they cannot."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    for candidate in (value, value - (1 << bits), value + (1 << bits)):
        if low <= candidate <= high:
            return candidate
    return None


def _lookup(item: Any, values: np.ndarray, signed: bool) -> tuple[np.ndarray, float, float]:
    """A table of values: what lies below its first entry becomes the first, what lies above its last the last."""
    count, first, depth = (int(number) for number in item.LUTDescriptor)
    count = count or 1 << 16
    if signed and first > 32767:
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, dtype=np.uint8 if len(data) < 2 * count else np.uint16)
    else:
        table = np.asarray(data if hasattr(data, "__iter__") else [data])
        if len(table) < count and depth <= 8:  # two entries in one word
            table = table.astype("<u2").view(np.uint8)
    table = table[:count].astype(np.int64)
    index = np.clip(values.astype(np.int64) - first, 0, len(table) - 1)
    return table[index].astype(np.int32), 0.0, float((1 << max(depth, 1)) - 1)


def _rescaled(values: np.ndarray, scaling: Any, ends: tuple[float, float]) -> tuple[np.ndarray, float, float]:
    slope = (numbers_of(scaling, "RescaleSlope", 1) or (1.0,))[0] or 1.0  # 0 would leave nothing
    intercept = (numbers_of(scaling, "RescaleIntercept", 1) or (0.0,))[0]
    low, high = sorted(end * slope + intercept for end in ends)
    if slope == 1 and intercept == 0:
        return values, low, high
    if values.dtype.kind in "iu" and slope == int(slope) and intercept == int(intercept) and max(-low, high) < 2**31:
        return values.astype(np.int32) * np.int32(slope) + np.int32(intercept), low, high
    return values.astype(np.float64) * slope + intercept, low, high


def values_of(dataset: Any, path: Path) -> list[Values]:
    """Every frame of a file in the file's own units: HU in CT, not windowed for display.

    Raises:
        UnusableImageError: no pixels, cut short, or compressed in a way that nothing here decodes; the reason says
            which.
    """
    array = _decoded(dataset, path)
    return [_frame(dataset, array[frame], frame) for frame in range(len(array))]


def _frame(dataset: Any, raw: np.ndarray, frame: int) -> Values:
    if raw.ndim == 3:
        return Values(raw, None)
    photometric = str(value_of(dataset, "PhotometricInterpretation") or "MONOCHROME2")
    ends: tuple[float, float]
    if raw.dtype.kind == "f":
        values = raw
        ends = (float(np.nanmin(raw)), float(np.nanmax(raw)))
    else:
        values, low, top = _stored(raw, dataset)
        ends = (low, top)
    padding = _padding(raw, values, dataset)
    if padding is not None and not padding.any():
        padding = None
    tables = value_of(dataset, "ModalityLUTSequence")
    if tables:
        scaled, low_end, high_end = _lookup(tables[0], values, raw.dtype.kind == "i")
    else:
        scaled, low_end, high_end = _rescaled(values, scaling_of(dataset, frame), ends)
    # INVERSE belongs to MONOCHROME1 in X-ray images: together they say it once.
    if photometric == "MONOCHROME1" or value_of(dataset, "PresentationLUTShape") == "INVERSE":
        scaled = _inverted(scaled, low_end + high_end)
    return Values(scaled, padding)


def _inverted(values: np.ndarray, total: float) -> np.ndarray:
    if values.dtype.kind in "iu":
        return (np.int64(total) - values.astype(np.int64)).astype(np.int64 if values.itemsize > 2 else np.int32)
    return total - values


def without_padding(frames: list[Values]) -> list[np.ndarray]:
    """The frames of one image with padding at the lowest value that is none: the background of what is shown."""
    images = [frame.array if frame.padding is None else frame.array[~frame.padding] for frame in frames]
    lowest = min((image.min() for image in images if image.size), default=None)
    if lowest is None:  # nothing but padding: it is found to be constant
        return [frame.array for frame in frames]
    return [
        frame.array if frame.padding is None else np.where(frame.padding, lowest, frame.array).astype(frame.array.dtype)
        for frame in frames
    ]
