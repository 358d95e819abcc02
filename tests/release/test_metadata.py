# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A patient's name, a date and the place of a scan stand in every field of volumes, and in no file of a release."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, TiffImagePlugin

from monai_memo.audit.audit import Audit
from monai_memo.data.clean_files import write_clean
from monai_memo.data.cohort import CohortImage
from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import knee_phantom
from monai_memo.data.reading import read_image
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.release.release import Release
from tests.audit.small import settings
from tests.audit.test_redaction import everything

NAME, DATE, PLACE = b"Zorgmarke^Anna", b"19630214", -123.456
SIZE = (16, 16, 16)
ORIGIN = [struct.pack(f"{order}{kind}", PLACE) for order in "<>" for kind in "fd"] + [b"-123.456", b"-123.45"]


def require_clean(name: str, content: bytes) -> None:
    for word in (b"zorgmarke", DATE):
        assert word not in content.lower(), (name, word)
    for number in ORIGIN:
        assert number not in content, (name, number)


def write_volume(path: Path, number: int) -> None:
    """A volume whose header has a word in every field that takes one, from an oblique scan far from the centre."""
    affine = np.diag([1.5, 1.0, 2.0, 1.0])
    affine[:3, :3] = nibabel.eulerangles.euler2mat(0.1, 0.05, 0.02) @ affine[:3, :3]
    affine[:3, 3] = PLACE
    volume = nibabel.Nifti1Image((knee_phantom(number, SIZE)[0] * 999).astype(np.int16), affine)
    header = volume.header
    header["descrip"], header["aux_file"], header["intent_name"] = NAME + b" " + DATE, NAME, NAME
    header["db_name"], header["data_type"] = NAME, DATE
    header["toffset"] = header["cal_max"] = header["intent_p1"] = PLACE
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", NAME + DATE))
    header.extensions.append(nibabel.nifti1.Nifti1Extension("afni", b"<x>" + NAME + b"</x>"))
    volume.set_qform(affine, code=1)
    volume.set_sform(affine, code=4)
    stream = io.BytesIO()
    with gzip.GzipFile(f"{NAME.decode()}.nii", "wb", fileobj=stream, mtime=0) as packed:  # the name of the old file
        packed.write(volume.to_bytes())
    path.write_bytes(stream.getvalue())
    assert all(word in gzip.decompress(stream.getvalue()) for word in (NAME, DATE, ORIGIN[0]))


def test_no_field_of_a_volume_is_in_any_file_of_a_release(tmp_path: Path) -> None:
    root = tmp_path / "Zorgmarke clinic"
    for cohort, first, count in (("train", 0, 12), ("heldout", 100, 24), ("synthetic", 200, 8)):
        folder = root / cohort / DATE.decode()
        folder.mkdir(parents=True)
        for number in range(count):
            write_volume(folder / f"Zorgmarke{number:02d}.nii.gz", first + number)
    for seed in (0, 7):
        torch.manual_seed(seed)
        recipe = Recipe.named("default", 3, SIZE, epochs=1)
        Detector(recipe.build_network(), recipe, Preprocessing(3, SIZE), seed, {"epochs": 1}).save(root / f"{seed}.pt")
    Audit(**settings(root, root / "audit", root / "0.pt", planted=4)).run()
    out = root / "given"
    second = {"second_detector": str(root / "7.pt"), "planted": 20, "progress": False, "workers": 1}
    done = Release(audit=str(root / "audit"), out=str(out), **second).run()
    assert done.statement.released > 0
    for name, content in everything(out):
        require_clean(name, content)
    for path in (out / "images").iterdir():
        header = nibabel.load(path).header
        assert not header.extensions and np.allclose(header.get_zooms(), (1.5, 1.0, 2.0))
        assert int(header["sform_code"]) == int(header["qform_code"]) == 1, "of no template"
    assert "origin and tilt are not" in (out / "RELEASE.md").read_text()
    assert NAME[:9].decode() in (done.private / "key.csv").read_text(), "the key has them"


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31), dtype=np.uint8))


def write_png(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", NAME.decode())
    text.add_text("Author", NAME.decode(), zip=True)
    text.add_itxt("Title", NAME.decode(), "nl", NAME.decode(), zip=True)
    text.add(b"tIME", struct.pack(">HBBBBB", 1963, 2, 14, 1, 2, 3))
    text.add(b"zoRg", NAME + DATE, after_idat=True)
    picture().save(path, pnginfo=text, exif=exif(), icc_profile=NAME)
    path.write_bytes(path.read_bytes() + NAME + DATE)  # behind the end


def exif() -> Image.Exif:
    found = Image.Exif()
    for tag in (0x010E, 0x010F, 0x013B, 0x8298):
        found[tag] = NAME.decode()
    found[0x0132] = DATE.decode()
    found.get_ifd(0x8769)[0x9003] = DATE.decode()
    found.get_ifd(0x8825)[0x001D] = DATE.decode()
    return found


def write_jpeg(path: Path) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + NAME + b"</x:xmpmeta>"
    picture().save(path, exif=exif(), comment=NAME + DATE, icc_profile=NAME, xmp=xmp)


def write_tiff(path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in (269, 270, 271, 272, 285, 305, 315, 316, 33432):
        tags[tag] = NAME.decode()
    tags[306] = DATE.decode()
    tags[65000] = NAME + DATE
    picture().save(path, tiffinfo=tags)


def write_array(path: Path) -> None:
    np.savez(path, **{NAME.decode(): np.asarray(picture())})


def write_nrrd(path: Path) -> None:
    head = (
        f"NRRD0004\n# {NAME.decode()}\ntype: uint8\ndimension: 3\nsizes: 5 6 7\nspace: left-posterior-superior\n"
        f"space directions: (1.5,0,0) (0,1,0) (0,0,2)\nspace origin: ({PLACE},{PLACE},{PLACE})\nencoding: raw\n"
        f"content: {NAME.decode()}\nPatient:={NAME.decode()} {DATE.decode()}\n\n"
    )
    path.write_bytes(head.encode() + bytes(range(210)))


def write_meta_image(path: Path) -> None:
    head = (
        f"ObjectType = Image\nNDims = 3\nComment = {NAME.decode()}\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"Name = {NAME.decode()}\nAcquisitionDate = {DATE.decode()}\nOffset = {PLACE} {PLACE} {PLACE}\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = 1 1 2\nDimSize = 5 6 7\nElementType = MET_UCHAR\n"
        "ElementDataFile = LOCAL\n"
    )
    path.write_bytes(head.encode() + bytes(range(210)))


WRITERS = {
    "png": write_png, "jpg": write_jpeg, "tiff": write_tiff, "npz": write_array, "nrrd": write_nrrd,
    "mha": write_meta_image, "nii.gz": lambda path: write_volume(path, 0),
}  # fmt: skip


@pytest.mark.parametrize("ending", WRITERS)
def test_no_format_keeps_a_word_of_the_old_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"Zorgmarke {DATE.decode()}.{ending}"
    WRITERS[ending](path)
    image = CohortImage(path, path.name, path.name)
    written = write_clean(image, tmp_path / "out", "0001")
    assert np.array_equal(read_image(image).array, read_image(written).array)
    looked = list(everything(tmp_path / "out"))
    assert len(looked) >= 2
    for name, content in looked:
        require_clean(name, content)
