# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The same random numbers and the same algorithms in every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from monai.utils import set_determinism


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch and ask for deterministic algorithms; restore both afterwards.

    Example:
        >>> with deterministic(0):
        ...     first = torch.rand(1)
        >>> with deterministic(0):
        ...     assert torch.rand(1) == first
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_rng_state(state)


def seed_process(seed: int) -> None:
    """The same for a whole process, which a bundle's config has to itself: nothing is restored."""
    set_determinism(seed=seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
