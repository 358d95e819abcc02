# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Draw samples from a generator bundle, through MONAI's bundle command and a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from monai_memo.data.formats import ENDINGS
from monai_memo.errors import ConfigurationError, MemoError

CONFIG = "inference.json"


def check_bundle(bundle: str | Path) -> Path:
    """The bundle's folder.

    Raises:
        ConfigurationError: it lacks ``configs/inference.json``.
    """
    root = Path(bundle).resolve()
    if not (root / "configs" / CONFIG).is_file():
        raise ConfigurationError(f"{root} is no generator bundle: configs/{CONFIG} is missing")
    return root


def sample_from_bundle(
    bundle: str | Path, out: str | Path, n: int = 1, seed: int = 0, timeout: float = 600
) -> list[Path]:
    """Let a bundle write ``n`` samples to the folder ``out``.

    The bundle takes ``n_samples``, ``seed`` and ``output_dir``, as those of this project do.

    Returns:
        Files of the samples, in order of their names.

    Raises:
        MemoError: the bundle fails, takes longer than ``timeout`` seconds, or writes no image.
    """
    root = check_bundle(bundle)
    # Some bundles keep what their configs share in a file of its own.
    shared = [path for path in [root / "configs" / "common.json"] if path.is_file()]
    configs = ",".join(f"'{path}'" for path in [*shared, root / "configs" / CONFIG])
    command = [
        sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(root), "--config_file", f"[{configs}]",
        "--n_samples", str(int(n)), "--seed", str(int(seed)), "--output_dir", str(out),
    ]  # fmt: skip
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise MemoError(f"{root.name} drew no sample within {timeout:g} seconds") from error
    if run.returncode != 0:
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        raise MemoError(f"{root.name} drew no sample: {lines[-1] if lines else 'it ended without a message'}")
    found = sorted(path for path in Path(out).rglob("*") if path.is_file() and path.name.lower().endswith(ENDINGS))
    if not found:
        raise MemoError(f"{root.name} wrote no image")
    return found
