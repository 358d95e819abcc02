# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What training a generator bundle takes: ``python -m monai_memo.benchmark.training_cost``.

Both stages of the bundle run as they stand in its configs, on images of yours, for a few steps at full size. Nothing
else is measured: no monitor, no checkpoint of use.
"""

from __future__ import annotations

import argparse
import gc
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

from monai_memo.audit.record import software_versions
from monai_memo.files import write_json
from monai_memo.generators.bundle_model import config_files
from monai_memo.settings.refusals import refusals

WARM_UP = 5  # steps that are not timed
STAGES = {"train_autoencoder": "autoencoder", "train_diffusion": "diffusion"}


class Clock:
    """When each step of a training ended."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.ends = device, list[float]()

    def __call__(self, _: Engine) -> None:
        """Note the time, after the card has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Median of a step, after the first ones."""
        between = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        return median(between[WARM_UP:] or between)


def time_stage(
    bundle: Path, stage: str, data: str, out: Path, steps: int, device: str, **values: Any
) -> dict[str, Any]:
    """Train one stage for a few steps.

    Args:
        bundle: folder of a generator bundle.
        stage: ``"train_autoencoder"`` or, after it, ``"train_diffusion"``.
        data: images, as the bundle's ``dataset_dir``.
        out: gets what the bundle writes.
        steps: of training.
        device: such as ``"cuda"``.
        values: further values of the bundle's config.

    Returns:
        Seconds of a step, batch size, parameters and, on a card, the most memory that was held, in GiB.
    """
    name, place = STAGES[stage], torch.device(device)
    on_card = place.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats(place)
    short = {f"{name}_steps_per_epoch": steps, f"{name}_epochs": 1, "device": device, "progress": False}
    paths = {"bundle_root": str(bundle), "dataset_dir": data, "output_dir": str(out), "model_dir": str(out)}
    flow = ConfigWorkflow(
        config_file=[str(path) for path in config_files(bundle, stage, values.pop("profile", None))],
        workflow_type="train", logging_file=False, **{**short, **paths, **values},
    )  # fmt: skip
    flow.initialize()
    trainer: Any = flow.parser.get_parsed_content("train#trainer")
    clock = Clock(place)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, clock)
    flow.run()
    network = flow.parser.get_parsed_content("network")
    return {
        "bundle": bundle.name, "stage": stage, "steps": len(clock.ends), "seconds_a_step": round(clock.seconds, 4),
        "batch_size": flow.parser.get_parsed_content(f"{name}_batch_size"),
        "image_size": list(flow.parser.get_parsed_content("image_size")),
        "million_parameters": round(sum(one.numel() for one in network.parameters()) / 1e6, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated(place) / 2**30, 2) if on_card else None,
        "device": torch.cuda.get_device_name(place) if on_card else platform.processor() or "cpu",
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both stages of one bundle and write ``training_cost_<bundle>.json``."""
    parser = argparse.ArgumentParser("python -m monai_memo.benchmark.training_cost", description=__doc__)
    parser.add_argument("--bundle", required=True, help="folder of a generator bundle")
    parser.add_argument("--data", required=True, help="images: the bundle's dataset_dir")
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--profile", help="a further config, such as small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    bundle, out, rows = Path(given.bundle).resolve(), Path(given.out), []
    further = {"profile": given.profile} if given.profile else {}
    for stage in STAGES:
        with refusals(parser):
            rows.append(time_stage(bundle, stage, given.data, out / bundle.name, given.steps, given.device, **further))
        print(rows[-1], flush=True)
        gc.collect()
    record = {"arguments": vars(given), "rows": rows, "software": software_versions(), "machine": platform.machine()}
    print(write_json(out / f"training_cost_{bundle.name}.json", record))


if __name__ == "__main__":
    main()
