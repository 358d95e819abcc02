# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every argument of ``monai-memo bundles list``, ``bundles copy`` and ``bundles check``."""

from __future__ import annotations

from typing import Annotated

from monai_memo.settings import Folder, Place, Settings, Text


class BundlesListSettings(Settings):
    """The bundles and the ready detectors that come with monai_memo, and where they lie."""


class BundlesCopySettings(Settings):
    """Copy a bundle to a folder of yours: ``monai-memo bundles copy NAME DIR``.

    Attributes:
        name: of the bundle, as ``bundles list`` tells it.
        dir: folder; the bundle becomes ``<dir>/<name>``.
    """

    name: Annotated[str, Text(100)]
    dir: Folder


class BundlesCheckSettings(Settings):
    """Check a bundle as MONAI's model zoo does, without a download: ``monai-memo bundles check [BUNDLE]``.

    Attributes:
        bundle: name or folder of one; by default all that come with monai_memo.
    """

    bundle: Annotated[str, Place("a bundle")] | None = None
