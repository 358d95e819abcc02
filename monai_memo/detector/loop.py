# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The one loop that trains detectors: for ``train_detector``, for the bundle on one rank and on many, for fine-tuning.

Guards, learning rate, logs, checkpoints, validation and the seeds of every step are put together here and nowhere else;
MONAI's trainer runs the steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.detector.pairs import ViewPairs
from monai_memo.detector.recipe import Recipe
from monai_memo.losses.nt_xent import NTXentLoss
from monai_memo.networks.copy_detector import CopyDetector
from monai_memo.training.batches import SeededLoader
from monai_memo.training.checkpoints import CheckpointFolder, GradScalers
from monai_memo.training.guards import StopAtNaN

SMALLEST_COHORT = 8


class Handler(Protocol):
    """Whatever can be attached to a trainer, as MONAI's handlers can."""

    def attach(self, engine: Engine) -> None:
        """Follow the events of an engine."""


class HalfPrecisionInferer(SimpleInferer):
    """Runs the network in bfloat16 on a CPU, where MONAI's trainer has no mixed precision of its own."""

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """The network's output in float32."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result: Tensor = super().__call__(inputs, network, *args, **kwargs)
        return result.float()


@dataclass(frozen=True)
class TrainingPlan:
    """What decides, beside the images and the first weights, which weights a training ends with.

    Attributes:
        recipe: network, views and optimisation.
        seed: of order, views and dropout.
        device: that is trained on.
        amp: mixed precision: float16 on a GPU, bfloat16 on a CPU that has it.
    """

    recipe: Recipe
    seed: int = 0
    device: str | torch.device = "cpu"
    amp: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether the training runs on a CPU, where mixed precision works otherwise."""
        return torch.device(self.device).type == "cpu"

    def place(self, network: CopyDetector) -> CopyDetector:
        """Move a network to the device, in the memory format that is fast there."""
        network = network.to(self.device)
        if self.amp and self.recipe.network["spatial_dims"] == 2:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def loader(self, dataset: Dataset[dict[str, Tensor]]) -> SeededLoader:
        """Batches of the recipe's size in a seeded order."""
        return SeededLoader(dataset, self.recipe.batch_size, self.seed)

    def learner(self, network: nn.Module, steps: int) -> Learner:
        """Optimiser, learning rate over ``steps`` steps and loss of the recipe, for a network."""
        optimizer = self.recipe.build_optimizer(network)
        scheduler = self.recipe.build_scheduler(optimizer, steps)
        inferer = HalfPrecisionInferer() if self.amp and self.on_cpu else SimpleInferer()
        return Learner(network, optimizer, scheduler, NTXentLoss(self.recipe.temperature), inferer)


@dataclass(frozen=True)
class Learner:
    """A network and all that a step of its training needs.

    Attributes:
        network: that learns; wrapped by ``DistributedDataParallel`` where there are several ranks.
        optimizer: of its weights.
        scheduler: of the learning rate, step by step.
        loss: of embeddings and the number of each row's pair.
        inferer: how the network is run in training.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    loss: nn.Module
    inferer: Inferer


class ContrastiveEvaluator(SupervisedEvaluator):
    """Contrastive loss on patients kept out of training, always with the same views.

    Args:
        val_data_loader: images of these patients.
        learner: its network and loss are looked at.
        plan: recipe, seed and device.
        checkpoints: of the training; its logs stand beside them.
        interval: epochs between two validations; by default twenty validations in a training.
        val_handlers: further handlers.
    """

    def __init__(
        self,
        val_data_loader: SeededLoader,
        learner: Learner,
        plan: TrainingPlan,
        checkpoints: CheckpointFolder | None = None,
        interval: int | None = None,
        val_handlers: Sequence[Handler] = (),
    ) -> None:
        self.interval = interval
        pairs = ViewPairs(plan.recipe.views, plan.seed + 1, plan.recipe.both_views, repeat=True)
        logs: list[Handler] = []
        if checkpoints is not None and idist.get_rank() == 0:
            logs = [TensorBoardStatsHandler(log_dir=checkpoints.logs, iteration_log=False)]
        super().__init__(
            device=torch.device(plan.device),
            val_data_loader=val_data_loader,
            network=learner.network,
            inferer=SimpleInferer(),
            prepare_batch=pairs,
            decollate=False,
            key_val_metric={
                "validation_loss": Loss(learner.loss, output_transform=lambda out: (out["pred"], out["label"]))
            },
            metric_cmp_fn=lambda current, best: current < best,
            val_handlers=[pairs, *val_handlers, *logs],
        )

    def loss_now(self) -> float:
        """The loss with the weights of this moment."""
        self.run()
        return round(float(self.state.metrics["validation_loss"]), 6)


class ContrastiveTrainer(SupervisedTrainer):
    """MONAI's trainer with everything that the training of a detector needs.

    It stops at a loss that is no number, logs to TensorBoard, validates, writes a checkpoint after every epoch, and
    goes on where a training that was interrupted stood. Order, views and dropout depend on seed, epoch and step alone,
    so that an interrupted training ends with the same weights as one that was not (on the same machine).

    Args:
        max_epochs: passes over the training images.
        train_data_loader: training images; each item may have a ``"partner"`` (see ``ViewPairs``).
        learner: network, optimiser, learning rate, loss.
        plan: recipe, seed, device and precision.
        evaluator: of the validation loss; None without validation.
        checkpoints: folder of this training alone; None keeps nothing.
        train_handlers: further handlers, for example what shows progress.
    """

    def __init__(
        self,
        max_epochs: int,
        train_data_loader: SeededLoader,
        learner: Learner,
        plan: TrainingPlan,
        evaluator: ContrastiveEvaluator | None = None,
        checkpoints: CheckpointFolder | None = None,
        train_handlers: Sequence[Handler] = (),
    ) -> None:
        self.learner, self.plan, self.evaluator = learner, plan, evaluator
        pairs = ViewPairs(plan.recipe.views, plan.seed, plan.recipe.both_views)
        handlers: list[Handler] = [
            pairs,
            train_data_loader,
            StopAtNaN(),
            LrScheduleHandler(learner.scheduler, print_lr=False, epoch_level=False),
            *train_handlers,
        ]
        if evaluator is not None:
            interval = evaluator.interval or max(1, max_epochs // 20)
            handlers.append(ValidationHandler(interval=interval, validator=evaluator))
        if checkpoints is not None and idist.get_rank() == 0:
            handlers.append(
                TensorBoardStatsHandler(
                    log_dir=checkpoints.logs,
                    tag_name="train_loss",
                    output_transform=lambda out: float(out["loss"].detach()),
                )
            )
        super().__init__(
            device=torch.device(plan.device),
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=learner.network,
            optimizer=learner.optimizer,
            loss_function=learner.loss,
            inferer=learner.inferer,
            prepare_batch=pairs,
            decollate=False,
            train_handlers=handlers,
            amp=plan.amp and not plan.on_cpu,
        )
        if checkpoints is not None:
            state = {
                "network": learner.network,
                "optimizer": learner.optimizer,
                "scheduler": learner.scheduler,
                "trainer": self,
                **({"scalers": GradScalers(self)} if self.amp else {}),
            }
            checkpoints.keep(self, state, plan.device)

    def run(self) -> None:
        """Train, or go on with a training that was interrupted; one that has finished ends at once."""
        with warnings.catch_warnings():
            # The order of two scheduler calls at a resume.
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            super().run()

    def summary(self) -> dict[str, Any]:
        """What the detector's file says of this training. Computes the validation loss: call it on every rank."""
        held = 0 if self.evaluator is None else len(self.evaluator.data_loader.dataset)
        return {
            "epochs": self.state.epoch,
            "images": len(self.data_loader.dataset),
            "validation_images": held,
            "validation_loss": None if self.evaluator is None else self.evaluator.loss_now(),
            **({"mixed_precision": True} if self.plan.amp else {}),
        }

    def detector(self, preprocessing: Preprocessing, **further: Any) -> Detector:
        """The detector that was trained. Call it on every rank.

        Args:
            preprocessing: how the images were prepared.
            further: for its training summary.
        """
        network: Any = getattr(self.learner.network, "module", self.learner.network)
        return Detector(network, self.plan.recipe, preprocessing, self.plan.seed, {**self.summary(), **further})


def contrastive_trainer(
    network: CopyDetector,
    dataset: Dataset[dict[str, Tensor]],
    plan: TrainingPlan,
    validation: Dataset[dict[str, Tensor]] | None = None,
    checkpoints: CheckpointFolder | None = None,
    train_handlers: Sequence[Handler] = (),
) -> ContrastiveTrainer:
    """A trainer with loader, optimiser, learning rate and loss of the plan's recipe.

    Args:
        network: placed on the plan's device (``TrainingPlan.place``).
        dataset: training images.
        plan: recipe, seed, device and precision.
        validation: images of other patients; None without validation.
        checkpoints: folder of this training alone; None keeps nothing.
        train_handlers: further handlers, for example what shows progress.
    """
    loader, epochs = plan.loader(dataset), plan.recipe.epochs
    learner = plan.learner(network, epochs * len(loader))
    evaluator = (
        None if validation is None else ContrastiveEvaluator(plan.loader(validation), learner, plan, checkpoints)
    )
    return ContrastiveTrainer(epochs, loader, learner, plan, evaluator, checkpoints, train_handlers)
