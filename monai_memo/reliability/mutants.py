# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Whole files of every format that is read, and damage to them that knows where headers lie."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from monai_memo.data.loading import Preprocessing
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.writing import save_image
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.generators.weights import save_weights
from monai_memo.sealing import save_torch, write_sealed

HEADER = 512  # bytes in which most damage is done
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
WORDS = (
    b"-1",
    b"0",
    b"999999999",
    b"1e308",
    b"nan",
    b"inf",
    b'"',
    b"\x00",
    b"\xff\xfe",
    b"[" * 200,
    b"../../x",
    b"1" * 400,
)


def seeds_of_files(folder: Path) -> dict[str, Path]:
    """One whole file of each format, by the name that results have."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, volume = chest_phantom(1, (24, 24)), knee_phantom(1, (12, 12, 12))
    grey = Image.fromarray((picture[0] * 255).astype(np.uint8))
    found = {}
    for name in ("png", "jpg", "tif", "bmp"):
        grey.save(folder / f"picture.{name}")
        found[name] = folder / f"picture.{name}"
    np.save(folder / "array.npy", picture)
    np.savez(folder / "array.npz", picture)
    found |= {"npy": folder / "array.npy", "npz": folder / "array.npz"}
    for name in ("nii", "nii.gz"):
        found[name] = save_image(folder / f"volume.{name}", volume)
    found |= _itk_files(folder, volume[0])
    found["dcm"] = _dicom(folder / "image.dcm", picture[0])
    found["csv"] = folder / "cohort.csv"
    with open(found["csv"], "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["image", "patient_id"], ["picture.png", "p1"], ["picture.jpg", "p2"]])
    found["datalist"] = folder / "datalist.json"
    found["datalist"].write_text(json.dumps({"training": [{"image": "picture.png", "patient_id": "p1"}]}))
    torch.manual_seed(0)
    recipe = Recipe.named("default", 2, (16, 16), epochs=1, batch_size=8)
    network = recipe.build_network()
    found["detector"] = Detector(network, recipe, Preprocessing(2, (16, 16)), 0, {}).save(folder / "detector.pt")
    found["weights"] = save_weights(folder / "weights.pt", torch.nn.Linear(8, 8))
    state = {"network": torch.nn.Linear(8, 8).state_dict()}
    found["checkpoint"] = write_sealed(folder / "checkpoint_epoch=1.pt", lambda path: save_torch(path, state), "a" * 64)
    return found


def _itk_files(folder: Path, volume: np.ndarray) -> dict[str, Path]:
    import itk

    image = itk.image_from_array(np.ascontiguousarray(volume.T.astype(np.float32)))
    found = {}
    for name in ("nrrd", "mha", "mhd"):
        found[name] = folder / f"volume_{name}.{name}"
        itk.imwrite(image, str(found[name]))
    return found


def _dicom(path: Path, picture: np.ndarray) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid(None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.Modality, data.SeriesInstanceUID = "p1", "DX", generate_uid(None)
    data.Rows, data.Columns = picture.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = (picture * 4095).astype(np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def mutated(original: Path, folder: Path, rng: np.random.Generator) -> Path:
    """A damaged copy in a folder of its own, with what belongs to it (data of a header, images of a table)."""
    folder.mkdir(parents=True, exist_ok=True)
    if original.suffix in (".csv", ".json", ".mhd"):
        for beside in original.parent.iterdir():
            if beside.suffix in (".png", ".jpg", ".raw", ".zraw"):
                shutil.copyfile(beside, folder / beside.name)
    content = bytearray(original.read_bytes())
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 8]))):
        _damage(content, rng)
    path = folder / original.name
    path.write_bytes(bytes(content))
    if original.suffix == ".pt" and original.stem.startswith("checkpoint"):
        (folder / "run.json").write_text(json.dumps({"fingerprint": "a" * 64}))
    return path


def _damage(content: bytearray, rng: np.random.Generator) -> None:
    """One change: most often in the header, where sizes, offsets and kinds stand."""
    if not content:
        content += bytes(rng.integers(0, 256, 20, dtype=np.uint8))
        return
    within = min(len(content), HEADER) if rng.random() < 0.75 else len(content)
    place = int(rng.integers(within))
    kind = int(rng.integers(9))
    if kind == 0:
        del content[int(rng.integers(len(content))) :]
    elif kind == 1:
        content[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        content[place] = int(rng.choice(EXTREMES))
    elif kind == 3:  # a 16 or 32 bit number of either byte order at its largest, or negative
        width = int(rng.choice([2, 4, 8]))
        largest = 2 ** (8 * width - 1)
        value = (0, 1, largest - 1, largest, largest + 1)[int(rng.integers(5))]
        content[place : place + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")
    elif kind == 4:
        content[place:place] = bytes(rng.integers(0, 256, int(rng.integers(1, 64)), dtype=np.uint8))
    elif kind == 5:
        end = min(len(content), place + int(rng.integers(1, 64)))
        content[place:end] = bytes(end - place)
    elif kind == 6:
        other = int(rng.integers(len(content)))
        content[place], content[other] = content[other], content[place]
    elif kind == 7:
        word = WORDS[int(rng.integers(len(WORDS)))]
        content[place : place + int(rng.integers(len(word) + 1))] = word
    else:
        del content[place : place + int(rng.integers(1, 64))]
