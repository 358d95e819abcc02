# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates that lie elsewhere: finer than templates, every shift against all training images.

Half a small pixel off, the template of one chest is as near to a hundred others. All shifts of the query, in three
sizes and, for 2D images, turned as well, are tried at twice the resolution.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.registration.coarse import CoarseSearch, transforms
from monai_memo.registration.filters import structured

ZOOMS = (0.87, 1.0, 1.14)
ROTATIONS = {2: (-20.0, -10.0, 10.0, 20.0), 3: ()}  # degrees; three planes would cost more than they found
BLOCK = 128  # training images that are correlated at once: what a processor keeps at hand


class ShiftSearch:
    """Correlation of a query, its mirror image and their versions with all training images under every shift.

    Args:
        search: of images of this shape; its largest shift holds here.
        features: ``(n, *coarse)`` what ``search`` looks at, of the training cohort, in order.
    """

    def __init__(self, search: CoarseSearch, features: Tensor) -> None:
        self.search = search
        self.spectra = search.spectra(features)
        dims = len(search.shape)
        views = transforms(dims, (), ZOOMS), transforms(dims, ROTATIONS[dims], (1.0,))
        self.transforms = torch.cat(views).unique(dim=0)

    def __call__(self, query: Tensor, k: int) -> NDArray[np.int64]:
        """The ``k`` training images that correlate best with the query under any shift.

        Args:
            query: ``(1, 1, *spatial)`` in [0, 1].
        """
        features = self.search.features(query, structured(query))[0]
        spectra = self.search.spectra(self.search.views(features, self.transforms))
        peaks = []
        for block in self.spectra.split(BLOCK):
            within, _ = self.search.within_reach(self.search.correlation(spectra, block))
            peaks.append(within.flatten(1).amax(dim=1))
        return torch.cat(peaks).topk(min(k, len(self.spectra))).indices.numpy().astype(np.int64)
