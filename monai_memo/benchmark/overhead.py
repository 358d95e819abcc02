# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit costs over the bare forward pass of the encoder: ``python -m monai_memo.benchmark.overhead``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_memo.audit.audit import Audit
from monai_memo.audit.record import software_versions
from monai_memo.data.cohort import Cohort
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.files import write_json


def forward_seconds(detector: Detector, pixels: np.ndarray, batch_size: int) -> float:
    """Wall time of the encoder alone over preprocessed images that already lie in memory."""
    images = torch.from_numpy(np.asarray(pixels, dtype=np.float32))
    with torch.inference_mode():
        detector.network.embed(images[:batch_size])  # warm up
        start = time.perf_counter()
        for first in range(0, len(images), batch_size):
            detector.network.embed(images[first : first + batch_size])
        return time.perf_counter() - start


def overhead(
    train: str, heldout: str, synthetic: str, detector: str, out: str, repeats: int = 3, batch_size: int = 64
) -> dict[str, Any]:
    """Time whole audits with a ready detector against the bare forward pass over the same images, in turns.

    Args:
        train, heldout, synthetic, detector: as for an audit.
        out: folder for the audits and ``overhead.json``.
        repeats: pairs of measurements.

    Returns:
        Medians in seconds of the audit, of its steps and of the forward pass, and the median ratio.
    """
    loaded = Detector.load(detector)
    sources = {"training": train, "heldout": heldout, "synthetic": synthetic}
    parts = [
        prepare(Cohort.from_source(source, name), loaded.preprocessing, Path(out) / "pixels", progress=False).pixels
        for name, source in sources.items()
    ]
    pixels = np.concatenate(parts)
    audits, forwards, steps = [], [], []
    for _ in range(repeats):
        forwards.append(forward_seconds(loaded, pixels, batch_size))
        start = time.perf_counter()
        result = Audit(
            train=train, heldout=heldout, synthetic=synthetic, detector=detector, out=str(Path(out) / "audit"),
            batch_size=batch_size, progress=False,
        ).run()  # fmt: skip
        audits.append(time.perf_counter() - start)
        steps.append(result.timing["seconds"])
    record = {
        "images": len(pixels),
        "recipe": loaded.recipe.name,
        "image_size": list(loaded.preprocessing.size),
        "forward_seconds": float(np.median(forwards)),
        "audit_seconds": float(np.median(audits)),
        "ratio": float(np.median(np.array(audits) / np.array(forwards))),
        "steps": {name: float(np.median([step[name] for step in steps])) for name in steps[0]},
        "threads": torch.get_num_threads(),
        "software": software_versions(),
    }
    write_json(Path(out) / "overhead.json", record)
    return record


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m monai_memo.benchmark.overhead", description=str(__doc__))
    for name in ("train", "heldout", "synthetic", "detector", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=64)
    print(json.dumps(overhead(**vars(parser.parse_args())), indent=2))
