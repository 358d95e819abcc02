# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A release that is killed at one point; ``COMMAND`` with POINT ROOT OUT, from the folder of the repository."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_memo.data.phantoms import chest_phantom
from monai_memo.release import release, topping
from monai_memo.workspace import output_folder, transaction
from tests.audit.small import SIZE
from tests.release.conftest import options

# Other packages may have installed a package "tests".
COMMAND = (
    "import runpy, sys, types; tests = types.ModuleType('tests'); tests.__path__ = ['tests']; "
    "sys.modules['tests'] = tests; runpy.run_module('tests.release.killed', run_name='__main__')"
)
# What has just ended, whose attribute it is, and after how many calls.
POINTS: dict[str, tuple[Any, str, int]] = {
    "a batch was drawn": (topping, "_batch", 2),
    "a batch was looked up": (topping, "_let_in", 1),
    "all were drawn": (release, "top_up", 1),
    "some images were written": (release, "write_clean", 9),
    "the first second look": (release, "look", 2),
    "the last second look": (release, "look", 3),
    "the key was written": (release, "write_private", 1),
    "the release was written": (release, "write_public", 1),
    "the key was put in place": (output_folder, "move_all", 1),
    "half of the release was put in place": (transaction.os, "replace", 0),
    "all was put in place": (output_folder, "move_all", 2),
}


class Named:
    """A generator that says what decides its images."""

    def identity(self) -> str:
        return "phantoms"

    def sample(self, seeds: Sequence[int], conditions: object = None) -> np.ndarray:
        print("drew", *seeds, flush=True)
        return np.stack([chest_phantom(5000 + seed, SIZE) for seed in seeds])


def given(root: Path, out: Path) -> dict[str, Any]:
    """Arguments of the release."""
    return options(root, out, top_up_to=60)


def killing(real: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """The same, and the process ends by SIGKILL right after so many calls."""
    left = [calls]

    def wrapped(*arguments: Any, **named: Any) -> Any:
        found = real(*arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return wrapped


def half_way(out: Path) -> Callable[..., Any]:
    """``os.replace`` that kills after five files of the release were put in place."""
    real, left = os.replace, [5]

    def replace(source: Any, target: Any, **named: Any) -> None:
        real(source, target, **named)
        left[0] -= Path(target).is_relative_to(out) and ".monai_memo_work" not in str(target)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return replace


if __name__ == "__main__":
    point, root, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    place, name, calls = POINTS[point]
    setattr(place, name, killing(getattr(place, name), calls) if calls else half_way(out))
    release.Release(Named(), **given(root, out)).run()
