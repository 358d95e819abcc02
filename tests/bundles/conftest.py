# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Images that bundles are trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.writing import save_image


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chests")
    for i in range(44):
        save_image(folder / f"p{i:02d}.png", chest_phantom(i, (32, 32)))
    return folder
