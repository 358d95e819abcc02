# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Infer tasks: the evidence map of a pair, and a new sample of the generator."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from monai_memo.data.formats import ENDINGS
from monai_memo.errors import MemoError
from monai_memo.label.generator import check_bundle, sample_from_bundle
from monai_memo.label.pictures import evidence_picture, evidence_volume
from monai_memo.label.study import Study


def _temporary(ending: str) -> Path:
    """A file that MONAI Label removes after sending it."""
    with tempfile.NamedTemporaryFile(suffix=ending, delete=False) as stream:
        return Path(stream.name)


class EvidenceTask(InferTask):
    """Where the two images of a pair differ.

    2D: a picture. 3D: a volume of the difference (synthetic minus training, -1 to 1), or, with ``plane`` and ``slice``
    in the parameters, a picture of one slice.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(InferType.OTHERS, None, study.spatial_dims, "Difference map of a pair")
        self.study = study

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        shape = self.study.shape
        try:
            if self.study.spatial_dims == 3 and "plane" not in request:
                path = evidence_volume(request["image"], shape, _temporary(".nii.gz"))
            else:
                picture = evidence_picture(request["image"], shape, request.get("plane"), request.get("slice"))
                path = _temporary(".png")
                path.write_bytes(picture)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return str(path), {}


class SampleTask(InferTask):
    """A new sample of the generator, drawn by its bundle. The image named in the request plays no part.

    The server waits until the sample is there.

    Args:
        bundle: folder of the generator bundle.
    """

    def __init__(self, bundle: str | Path, dimension: int) -> None:
        super().__init__(InferType.OTHERS, None, dimension, "New sample of the generator")
        self.bundle = check_bundle(bundle)

    def is_valid(self) -> bool:
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        seed = request.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise HTTPException(400, f"seed must be a whole number from 0, got {str(seed)[:40]!r}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                sample = sample_from_bundle(self.bundle, folder, 1, seed)[0]
            except MemoError as error:
                raise HTTPException(502, str(error)) from error
            path = _temporary(next(ending for ending in ENDINGS[::-1] if sample.name.lower().endswith(ending)))
            shutil.copyfile(sample, path)
        return str(path), {"bundle": self.bundle.name, "seed": seed}
