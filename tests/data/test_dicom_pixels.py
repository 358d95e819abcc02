# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_memo.data.dicom import dicom_header
from monai_memo.data.reading import as_image, read_image
from monai_memo.errors import UnusableImageError

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


def read(path: Path) -> np.ndarray:
    array = read_image(path).array
    assert array.ndim == 3
    return array[0] if len(array) == 1 else array


def reason_of(path: Path) -> str:
    with pytest.raises(UnusableImageError) as error:
        read_image(path)
    return error.value.reason


def independent(path: Path) -> np.ndarray:
    import itk

    return np.asarray(itk.imread(str(path))).squeeze()


@pytest.mark.parametrize("slope", [1, 2, 0.25, -1])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 80}])
def test_values_are_rescaled_and_not_windowed(
    tmp_path: Path, write_dicom: Any, slope: float, window: dict[str, Any]
) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=slope, RescaleIntercept=-1024, **window)
    np.testing.assert_array_equal(read(path), RAMP.astype(float) * slope - 1024)
    np.testing.assert_array_equal(read(path), independent(path))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize("preamble", [True, False])
def test_every_byte_order_is_read_with_and_without_preamble(
    tmp_path: Path, write_dicom: Any, syntax: str, preamble: bool
) -> None:
    pixels = RAMP.astype(np.int16) * 500 - 16000
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax=syntax, preamble=preamble)
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", True),
    ],
)
@pytest.mark.parametrize("scale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -100}])
def test_the_negative_is_turned_once(
    tmp_path: Path, write_dicom: Any, photometric: str, shape: str | None, inverted: bool, scale: dict[str, int]
) -> None:
    tags = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape, "Modality": "DX"}
    path = write_dicom(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=11, **tags, **scale)
    expected = (4095 - RAMP.astype(int)) if inverted else RAMP.astype(int)
    np.testing.assert_array_equal(
        read(path), expected * scale.get("RescaleSlope", 1) + scale.get("RescaleIntercept", 0)
    )


def test_the_negative_of_signed_values_and_of_bytes(tmp_path: Path, write_dicom: Any) -> None:
    pixels = RAMP.astype(np.int16) - 30
    path = write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(path), -1 - pixels)
    path = write_dicom(tmp_path / "b.dcm", RAMP.astype(np.uint8), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(path), 255 - RAMP.astype(int))


@pytest.mark.parametrize(
    ("dtype", "tag", "stored"),
    [
        (np.int16, -32768, -32768),
        (np.int16, -3024, -3024),
        (np.int16, -2000, -2000),
        (np.uint16, 63536, 63536),
        (np.uint16, 0, 0),
        (np.int16, 63536, -2000),  # given as unsigned
        (np.uint16, -2000, 63536),  # given as signed
    ],
)
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
def test_padding_becomes_the_lowest_value_that_is_none(
    tmp_path: Path, write_dicom: Any, dtype: Any, tag: int, stored: int, syntax: str
) -> None:
    from pydicom.dataelem import DataElement

    pixels = (RAMP + 100).astype(dtype)
    pixels[:2] = stored
    path = write_dicom(tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=-1000, syntax=syntax)
    import pydicom

    dataset = pydicom.dcmread(path)
    if syntax == "1.2.840.10008.1.2.1":
        dataset.add(DataElement(0x00280120, "SS" if tag < 0 else "US", tag))
    else:
        dataset.add(DataElement(0x00280120, "SS" if np.dtype(dtype).kind == "i" and tag < 2**15 else "US", tag % 2**16))
        if dataset[0x00280120].VR == "SS":
            dataset[0x00280120].value = tag
    dataset.save_as(path)
    expected = (RAMP.astype(int) + 100) * 2 - 1000
    expected[:2] = expected[2].min()
    np.testing.assert_array_equal(read(path), expected)


def test_a_range_of_padding(tmp_path: Path, write_dicom: Any) -> None:
    pixels = RAMP.astype(np.int16) + 100
    pixels[0], pixels[1] = -2000, -1500
    for limits in ((-2000, -1500), (-1500, -2000)):
        path = write_dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=limits[0], PixelPaddingRangeLimit=limits[1])
        expected = RAMP.astype(int) + 100
        expected[:2] = 116
        np.testing.assert_array_equal(read(path), expected)


def test_padding_of_a_negative_is_dark_as_on_a_screen(tmp_path: Path, write_dicom: Any) -> None:
    pixels = RAMP + np.uint16(100)
    pixels[0] = 4095
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE", "Modality": "MG"}
    path = write_dicom(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11, PixelPaddingValue=4095, **tags)
    expected = 4095 - (RAMP.astype(int) + 100)
    expected[0] = expected[1:].min()
    np.testing.assert_array_equal(read(path), expected)


def test_an_image_of_padding_alone_is_constant(tmp_path: Path, write_dicom: Any) -> None:
    from monai_memo.data.loading import Preprocessing

    path = write_dicom(tmp_path / "a.dcm", np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)
    with pytest.raises(UnusableImageError, match="constant"):
        Preprocessing(2, (8, 8))(path)


def test_padding_of_floating_point_pixels(tmp_path: Path, write_dicom: Any) -> None:
    pixels = RAMP.astype(np.float32) / 8
    pixels[0] = -1e30
    path = write_dicom(
        tmp_path / "a.dcm",
        pixels,
        PixelData=None,
        FloatPixelData=pixels.tobytes(),
        FloatPixelPaddingValue=float(np.float32(-1e30)),
        BitsStored=None,
        HighBit=None,
        PixelRepresentation=None,
    )
    expected = RAMP / 8
    expected[0] = 1
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_table_of_values_is_applied(tmp_path: Path, write_dicom: Any, as_bytes: bool) -> None:
    from pydicom.dataset import Dataset

    table = (np.arange(32) ** 2 + 5).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [32, 10, 12], "US"
    item.LUTData = table.tobytes() if as_bytes else [int(value) for value in table]
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW" if as_bytes else "US"
    path = write_dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=[item])
    np.testing.assert_array_equal(read(path), table[np.clip(RAMP.astype(int) - 10, 0, 31)])
    path = write_dicom(tmp_path / "b.dcm", RAMP, ModalityLUTSequence=[item], PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(path), 4095 - table[np.clip(RAMP.astype(int) - 10, 0, 31)].astype(int))


def test_bits_beside_the_stored_ones_are_overlays_and_no_intensity(tmp_path: Path, write_dicom: Any) -> None:
    overlay = (RAMP % 3 == 0).astype(np.uint16) << 12
    path = write_dicom(tmp_path / "a.dcm", RAMP * 30 | overlay, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(path), RAMP * 30)
    signed = (RAMP.astype(np.int16) - 32) * 30
    stored = (signed.view(np.uint16) & 0x0FFF | overlay).view(np.int16)
    path = write_dicom(tmp_path / "b.dcm", stored, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(path), signed)
    path = write_dicom(tmp_path / "c.dcm", RAMP << np.uint16(4) | np.uint16(5), BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read(path), RAMP)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_stored_bits_may_lie_at_the_upper_end(tmp_path: Path, write_dicom: Any, syntax: str) -> None:
    values = RAMP * np.uint16(65)  # 0 to 4095
    stored = values << np.uint16(4) | np.uint16(5)
    path = write_dicom(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=15, syntax=syntax)
    np.testing.assert_array_equal(read(path), values)
    signed = values.astype(np.int16) - 2048
    path = write_dicom(tmp_path / "b.dcm", signed << np.int16(4), BitsStored=12, HighBit=15, syntax=syntax)
    np.testing.assert_array_equal(read(path), signed)


def test_padding_beyond_the_stored_bits_is_found(tmp_path: Path, write_dicom: Any) -> None:
    values = RAMP.astype(np.int16) + 7
    padded = np.where(RAMP < 3, -32768, values).astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", padded, BitsStored=12, HighBit=11, PixelPaddingValue=-32768)
    np.testing.assert_array_equal(read(path), np.maximum(values, 10))


@pytest.mark.parametrize(
    "keyword", ["SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation"]
)
def test_what_the_header_lacks_is_named(tmp_path: Path, write_dicom: Any, keyword: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, **{keyword: None})
    assert reason_of(path) == f"lacks {keyword}, without which its pixels cannot be told"


def test_colours_are_channels(tmp_path: Path, write_dicom: Any) -> None:
    from pydicom.pixel_data_handlers.util import convert_color_space

    rgb = np.stack([RAMP, RAMP[::-1] * 2, RAMP.T * 3], axis=-1).astype(np.uint8)
    plain = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "Modality": "ES"}
    path = write_dicom(tmp_path / "rgb.dcm", rgb, **plain)
    np.testing.assert_array_equal(read(path), np.moveaxis(rgb, -1, 0))
    header = dicom_header(as_image(path))
    assert header.channels == 3 and header.colour and header.shape == (8, 8)
    planes = np.ascontiguousarray(np.moveaxis(rgb, -1, 0)).tobytes()
    path = write_dicom(tmp_path / "planes.dcm", rgb, PlanarConfiguration=1, PixelData=planes, **plain)
    np.testing.assert_array_equal(read(path), np.moveaxis(rgb, -1, 0))
    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    path = write_dicom(tmp_path / "ybr.dcm", ybr, PhotometricInterpretation="YBR_FULL", **plain)
    np.testing.assert_allclose(read(path), np.moveaxis(rgb, -1, 0), atol=3)
    assert np.corrcoef(read(path)[2].ravel(), rgb[..., 2].ravel())[0, 1] > 0.999


def test_palettes_are_colours(tmp_path: Path, write_dicom: Any) -> None:
    tables = [((np.arange(256) * factor) % 256 * 257).astype(np.uint16) for factor in (1, 3, 7)]
    tags = {}
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = table.tobytes()
    path = write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint8), PhotometricInterpretation="PALETTE COLOR", **tags)
    np.testing.assert_array_equal(read(path), np.stack([table[RAMP] for table in tables]))


def _compressed(source: Path, target: Path, syntax: Any) -> Path:
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target


@pytest.mark.parametrize(
    "syntax",
    ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless", "DeflatedExplicitVRLittleEndian"],
)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_compression_gives_the_same_pixels(
    tmp_path: Path, write_dicom: Any, syntax: str, signed: bool
) -> None:
    import gdcm

    pixels = RAMP.astype(np.int16) * 40 - 1000 if signed else RAMP * np.uint16(40)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -5, "PixelPaddingValue": int(pixels[0, 0])}
    source = write_dicom(tmp_path / "a.dcm", pixels, **tags)
    packed = _compressed(source, tmp_path / "b.dcm", getattr(gdcm.TransferSyntax, syntax))
    expected = pixels.astype(int) * 2 - 5
    expected[0, 0] = expected[0, 1]
    np.testing.assert_array_equal(read(source), expected)
    np.testing.assert_array_equal(read(packed), expected)


@pytest.mark.parametrize(
    "name",
    [
        "JPEG-lossy.dcm",  # JPEG of 12 bits
        "JPEGLSNearLossless_16.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_small_odd_jpeg.dcm",
        "SC_rgb_rle.dcm",
        "examples_overlay.dcm",
        "image_dfl.dcm",
        "MR_small_bigendian.dcm",
        "ExplVR_BigEnd.dcm",
    ],
)
def test_files_of_pydicom_are_read_as_itk_reads_them(name: str) -> None:
    import pydicom.data

    path = Path(pydicom.data.__file__).parent / "test_files" / name
    if not path.exists():
        pytest.skip("not shipped with this version of pydicom")
    expected = independent(path)
    expected = np.moveaxis(expected, -1, 0) if expected.ndim == 3 else expected
    np.testing.assert_allclose(read(path), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        ("1.2.840.10008.1.2.4.100", r"compressed as MPEG2 .*\(1\.2\.840\.10008\.1\.2\.4\.100\): a film, no image"),
        ("1.2.840.10008.1.2.4.102", r"compressed as MPEG-4 .*\(1\.2\.840\.10008\.1\.2\.4\.102\): a film, no image"),
        ("1.2.840.10008.1.2.4.107", r"compressed as HEVC.*\(1\.2\.840\.10008\.1\.2\.4\.107\): a film, no image"),
        ("1.2.840.10008.1.2.4.201", r"compressed as .*1\.2\.840\.10008\.1\.2\.4\.201\), which nothing here decodes"),
        ("1.2.840.10008.1.2.4.94", r"its pixels lie on a server \(JPIP Referenced"),
        ("1.2.3.4.5", r"compressed as an unknown way \(1\.2\.3\.4\.5\), which nothing here decodes"),
        ("1.2.840.10008.1.2.4.90", r"cannot be decoded, compressed as JPEG 2000 .*: damaged or cut short"),
    ],
)
def test_compression_that_cannot_be_read_is_named(tmp_path: Path, write_dicom: Any, syntax: str, reason: str) -> None:
    from pydicom.encaps import encapsulate

    path = _encapsulated(write_dicom(tmp_path / "a.dcm", RAMP, PixelData=encapsulate([b"\0\0\1\xb3" * 20])), syntax)
    assert re.search(reason, reason_of(path)), reason_of(path)


def _encapsulated(path: Path, syntax: str) -> Path:
    """Say that the pixels are compressed. The name of the syntax is put in by hand: pydicom refuses unknown ones."""
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100" if len(syntax) > 22 else "1.2.840.10008.1.2.4.50"
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(path, dataset)
    written = str(dataset.file_meta.TransferSyntaxUID).encode()
    assert len(syntax) <= len(written)
    path.write_bytes(path.read_bytes().replace(written, syntax.encode().ljust(len(written), b"\0"), 1))
    return path


def test_a_film_of_many_frames_is_named_by_its_compression(tmp_path: Path, write_dicom: Any) -> None:
    from pydicom.encaps import encapsulate

    data = encapsulate([b"\0\0\1\xb3" * 20])
    path = write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint8), NumberOfFrames=50, PixelData=data, Modality="ES")
    assert reason_of(_encapsulated(path, "1.2.840.10008.1.2.4.102")) == (
        "compressed as MPEG-4 AVC/H.264 High Profile / Level 4.1 (1.2.840.10008.1.2.4.102): a film, no image"
    )


def test_encrypted_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(bytes.fromhex("3080 0609 2a864886f70d010703 a080") + b"\1" * 300)
    assert reason_of(tmp_path / "a.dcm") == "encrypted (a secure DICOM file): decrypt it first"


def test_damage_is_named(tmp_path: Path, write_dicom: Any) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    assert reason_of(path) == "cut short: 28 of 128 bytes of pixels"
    path.write_bytes(content[:-130])
    assert "pixels" in reason_of(path) or "cut short" in reason_of(path)
    path.write_bytes(b"")
    assert reason_of(path) == "an empty file"
    path.write_bytes(bytes(range(128, 256)) * 4)
    assert reason_of(path) == "no DICOM file, whatever its name says"
    write_dicom(path, RAMP, PixelData=None)
    assert reason_of(path) == "holds no pixels"
    write_dicom(path, RAMP, BitsAllocated=0)
    assert reason_of(path) == "does not say how large its image is"
    write_dicom(path, RAMP, Rows=65000, Columns=65000)
    assert reason_of(path) == "cut short: 128 of 8450000000 bytes of pixels"


def test_enormous_declared_sizes_of_compressed_data_take_no_memory(tmp_path: Path, write_dicom: Any) -> None:
    from pydicom.encaps import encapsulate

    path = write_dicom(tmp_path / "a.dcm", RAMP, Rows=65000, Columns=65000, PixelData=encapsulate([b"\0" * 64]))
    assert reason_of(_encapsulated(path, "1.2.840.10008.1.2.5")) == (
        "says it has 65000 x 65000 pixels, for which its data are too few"
    )
