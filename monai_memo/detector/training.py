# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive training of a detector with MONAI's trainer and handlers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from ignite.handlers import Checkpoint, ProgressBar
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler
from monai.inferers import SimpleInferer
from numpy.typing import NDArray

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.detector.fingerprint import fingerprint
from monai_memo.detector.pairs import ViewPairs
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import DetectorError, TrainingError
from monai_memo.losses.nt_xent import NTXentLoss
from monai_memo.training.batches import PixelDataset, SeededLoader
from monai_memo.training.checkpoints import AtomicCheckpointSaver, GradScalers, last_checkpoint
from monai_memo.training.guards import StopAtNaN

logger = logging.getLogger(__name__)

SMALLEST_COHORT = 8


class HalfPrecisionInferer(SimpleInferer):
    """Runs the network in bfloat16 on a CPU, where MONAI's trainer has no mixed precision of its own."""

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The network's output in float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result: torch.Tensor = super().__call__(inputs, network, *args, **kwargs)
        return result.float()


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Seed torch and ask for deterministic algorithms; restore both afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.set_rng_state(state)


def split_validation(patient_ids: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of training and validation images, split by patient; no validation where it would be under 4 images."""
    patients = np.unique(np.asarray(patient_ids))
    chosen = set(np.random.default_rng([seed, 3]).permutation(patients)[: round(fraction * len(patients))].tolist())
    validation = [i for i, patient in enumerate(patient_ids) if patient in chosen]
    if len(validation) < 4:
        return list(range(len(patient_ids))), []
    return [i for i, patient in enumerate(patient_ids) if patient not in chosen], validation


def train_detector(
    pixels: NDArray[np.floating],
    recipe: Recipe,
    preprocessing: Preprocessing,
    folder: str | Path,
    seed: int = 0,
    device: str = "cpu",
    patient_ids: Sequence[str] | None = None,
    validation_fraction: float = 0.1,
    progress: bool = True,
    start_from: Detector | None = None,
    amp: bool = False,
) -> Detector:
    """Train a detector, or go on with a training that was interrupted.

    A checkpoint is written after every epoch. Since order, views and weights depend on seed and epoch alone, a training
    that is killed and started again ends with the same weights as one that is not (on the same machine).

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        recipe: network, views and optimisation.
        preprocessing: how the pixels were made; kept in the detector.
        folder: for checkpoints and TensorBoard logs of this training alone; those of another training are moved to its
            ``superseded``.
        seed: of weights, order and views.
        patient_ids: patient of each image, for a validation split by patient.
        validation_fraction: share of patients kept for the validation loss; 0 trains on all.
        progress: show a progress bar.
        start_from: a trained detector whose weights are the first ones; of the same network and preprocessing.
        amp: mixed precision: float16 on a GPU, bfloat16 on a CPU that has it. Large networks train up to three times
            as fast; the weights differ a little from those of single precision.

    Raises:
        DetectorError: ``start_from`` has another network or preprocessing.
        TrainingError: fewer than 8 images, a loss that is not a number, or a folder with files of another origin.
    """
    if len(pixels) < SMALLEST_COHORT:
        raise TrainingError(
            f"{len(pixels)} training images are too few for a detector: at least {SMALLEST_COHORT} are needed. "
            "Use a ready one with --detector."
        )
    folder = Path(folder)
    ids = [str(i) for i in range(len(pixels))] if patient_ids is None else list(patient_ids)
    kept, held = split_validation(ids, validation_fraction, seed)
    origin = None if start_from is None else start_from.sha256
    identity = fingerprint(pixels, recipe, preprocessing, seed, (kept, held), origin, amp, device)
    checkpoint = last_checkpoint(folder, identity)
    with deterministic(seed), warnings.catch_warnings():
        # The order of two scheduler calls at a resume, and a notice of ignite about its own folders.
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        network = recipe.build_network().to(device)
        if amp and recipe.network["spatial_dims"] == 2:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if start_from is not None:
            _take_weights(network, start_from, preprocessing)
        loader = SeededLoader(PixelDataset(pixels, kept), recipe.batch_size, seed)
        optimizer = recipe.build_optimizer(network)
        scheduler = recipe.build_scheduler(optimizer, recipe.epochs * len(loader))
        loss = NTXentLoss(recipe.temperature)
        pairs = ViewPairs(recipe.views, seed, recipe.both_views)
        handlers: list[Any] = [
            pairs,
            loader,
            StopAtNaN(),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            TensorBoardStatsHandler(
                log_dir=str(folder / "tensorboard"), output_transform=lambda out: float(out["loss"].detach())
            ),
        ]
        evaluator = (
            _evaluator(network, loss, PixelDataset(pixels, held), recipe, seed, device, folder) if held else None
        )
        if evaluator is not None:
            handlers.append(ValidationHandler(interval=max(1, recipe.epochs // 20), validator=evaluator))
        trainer = SupervisedTrainer(
            device=torch.device(device),
            max_epochs=recipe.epochs,
            train_data_loader=loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss,
            inferer=HalfPrecisionInferer() if amp and device == "cpu" else SimpleInferer(),
            prepare_batch=pairs,
            decollate=False,
            train_handlers=handlers,
            amp=amp and device != "cpu",
        )
        state = {
            "network": network,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "scalers": GradScalers(trainer),
            "trainer": trainer,
        }
        AtomicCheckpointSaver(str(folder), state, save_interval=1, n_saved=2).attach(trainer)
        if progress:
            _attach_progress(trainer)
        if checkpoint is not None:
            Checkpoint.load_objects(state, checkpoint=torch.load(checkpoint, map_location=device, weights_only=True))
            logger.info("training goes on after epoch %d of %d", trainer.state.epoch, recipe.epochs)
        if trainer.state.epoch < recipe.epochs:
            trainer.run()
        summary = {
            "epochs": recipe.epochs,
            "images": len(kept),
            "validation_images": len(held),
            "validation_loss": _final_loss(evaluator),
            **({} if origin is None else {"started_from": origin}),
            **({"mixed_precision": True} if amp else {}),
        }
    return Detector(network.to("cpu").eval(), recipe, preprocessing, seed, summary)


def _take_weights(network: torch.nn.Module, detector: Detector, preprocessing: Preprocessing) -> None:
    if detector.preprocessing != preprocessing:
        raise DetectorError(
            f"the detector to start from prepares images otherwise ({detector.preprocessing.describe()}); "
            "leave size and spacing to it"
        )
    try:
        network.load_state_dict(detector.network.state_dict())
    except RuntimeError as error:
        raise DetectorError("the detector to start from has another network; name its recipe") from error


def _attach_progress(trainer: SupervisedTrainer) -> None:
    """One bar over all epochs, on a terminal only."""
    bar = ProgressBar(
        desc="train detector",
        disable=None,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
    )
    bar.attach(
        trainer,
        event_name=Events.EPOCH_COMPLETED,
        closing_event_name=Events.COMPLETED,
        output_transform=lambda out: {"loss": float(out["loss"].detach())},
    )


def _evaluator(
    network: torch.nn.Module,
    loss: NTXentLoss,
    dataset: PixelDataset,
    recipe: Recipe,
    seed: int,
    device: str,
    folder: Path,
) -> SupervisedEvaluator:
    """Contrastive loss on patients kept out of training, always with the same views."""
    pairs = ViewPairs(recipe.views, seed + 1, recipe.both_views, repeat=True)
    return SupervisedEvaluator(
        device=torch.device(device),
        val_data_loader=SeededLoader(dataset, recipe.batch_size, seed),
        network=network,
        inferer=SimpleInferer(),
        prepare_batch=pairs,
        decollate=False,
        key_val_metric={"validation_loss": Loss(loss, output_transform=lambda out: (out["pred"], out["label"]))},
        metric_cmp_fn=lambda current, best: current < best,
        val_handlers=[
            pairs,
            TensorBoardStatsHandler(log_dir=str(folder / "tensorboard"), iteration_log=False),
        ],
    )


def _final_loss(evaluator: SupervisedEvaluator | None) -> float | None:
    """Loss on the validation patients with the final weights."""
    if evaluator is None:
        return None
    evaluator.run()
    return round(float(evaluator.state.metrics["validation_loss"]), 6)
