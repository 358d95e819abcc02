# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The switch ``privacy_epsilon`` of the generator bundles: DP-SGD of the diffusion model (``training.private``)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from monai_memo.data.cohort import Cohort
from monai_memo.errors import ConfigurationError
from monai_memo.generators.weights import read_record
from monai_memo.training.batches import SeededLoader
from monai_memo.training.private import PRIVACY, PrivacyBudget, PrivateTraining

logger = logging.getLogger(__name__)


def most_of_a_patient(cohort: Cohort) -> int | None:
    """Images of the patient with the most; None where patients are not known."""
    if not cohort.patients_known:
        return None
    return max(Counter(image.patient_id for image in cohort.images).values())


def tell_of_samples(weights: str | Path, switches: Sequence[str] = ()) -> None:
    """Log what the privacy of weights, if they have any, means for samples that are drawn from them.

    Args:
        weights: file of the diffusion model.
        switches: of the sampling that compare samples with training images.
    """
    record = read_record(weights).get(PRIVACY) if Path(weights).is_file() else None
    if record is None:
        return
    if switches:
        logger.warning(
            "%s compares samples with training images: the differential privacy of the weights does not cover these "
            "samples",
            ", ".join(switches),
        )
    else:
        logger.info("%s", record["statement"])


class BundlePrivacy:
    """Privacy of one training of a bundle, as its config puts it together; without a budget it changes nothing.

    Args:
        cohort: of the training.
        budget: None trains as usual.
        first_stage: kind of the first stage.
        detector_file: of a monitor of the copy rate.
        told: whether the model has conditions.
        stops: whether the held-out loss decides when to stop.
        removed: whether images that stand twice were left out.

    Raises:
        ConfigurationError: Opacus is missing, a budget that no noise keeps, several processes, or a monitor of the copy
            rate.
    """

    def __init__(
        self,
        cohort: Cohort,
        budget: PrivacyBudget | None = None,
        first_stage: str = "autoencoder",
        detector_file: str | Path | None = None,
        told: bool = False,
        stops: bool = False,
        removed: bool = False,
    ) -> None:
        self.training: PrivateTraining | None = None
        if budget is None:
            return
        if detector_file is not None:
            raise ConfigurationError(
                "a monitor of the copy rate looks at training images without noise while the model trains, which "
                "privacy_epsilon does not cover: leave detector_file out, and audit the samples of the trained model"
            )
        if idist.get_world_size() > 1:
            raise ConfigurationError("privacy_epsilon trains in one process: leave multi_gpu_train_diffusion out")
        not_covered = (
            "" if first_stage == "none" else f"the first stage ({first_stage}), if it saw these patients",
            "the scale factor of the latents",
            "names, counts, means and quantiles of the conditions, which stand beside the weights" if told else "",
            "which images were left out because they stand twice" if removed else "",
            "held-out patients, whose loss decided when to stop" if stops else "",
            "the choice of settings",
            "logs, curves and tables of the training",
            "samples that were compared with training images while they were drawn (repel, dissimilarity, "
            "reject_detector)",
        )
        self.training = PrivateTraining(budget, most_of_a_patient(cohort), not_covered)
        logger.info("%s", self.training.record()["statement"])

    @property
    def iteration(self) -> Any:
        """What MONAI's trainer does in a step; None leaves that to the trainer."""
        return None if self.training is None else self._step

    def loader(self, dataset: Dataset[dict[str, Tensor]], batch_size: int, seed: int, steps: int) -> Any:
        """Batches of a training: drawn image by image where it is private, else in a seeded order."""
        if self.training is None:
            return SeededLoader(dataset, batch_size, seed, steps)
        return PoissonLoader(dataset, self.training, steps)

    def beside(self, record: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
        """Gives, when weights are written, what stands beside them."""

        def told() -> dict[str, Any]:
            return {**record, **({} if self.training is None else {PRIVACY: self.training.record()})}

        return told

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {} if self.training is None else self.training.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the budget; see ``PrivateTraining``."""
        if self.training is not None:
            self.training.load_state_dict(state)

    def _step(self, engine: Any, batch: dict[str, Tensor]) -> dict[str, float]:
        assert self.training is not None
        if engine.amp and self.training.taken == 0:
            logger.info("mixed precision is off: gradients are clipped in full precision")
        network = engine.network.train()

        def loss_of(part: slice) -> Tensor:
            some = {name: values[part] for name, values in batch.items()}
            inputs, target, arguments, further = engine.prepare_batch(some, engine.state.device, engine.non_blocking)
            loss: Tensor = engine.loss_function(engine.inferer(inputs, network, *arguments, **further), target)
            return loss.mean()

        n = len(next(iter(batch.values()))) if batch else 0
        return {"loss": self.training.step(network, engine.optimizer, n, loss_of)}


class PoissonLoader(DataLoader[dict[str, Tensor]]):
    """Batches to which each image belongs on its own, with the probability that is accounted for; some are empty.

    Args:
        dataset: as in ``SeededLoader``.
        training: that draws.
        steps: batches per epoch.
    """

    def __init__(self, dataset: Dataset[dict[str, Tensor]], training: PrivateTraining, steps: int) -> None:
        drawn = _Drawn(training, steps, bool(getattr(dataset, "draws", False)))
        super().__init__(dataset, batch_sampler=drawn, collate_fn=_collated)

    def attach(self, _: Engine) -> None:
        """Nothing: the order does not depend on the epoch."""


class _Drawn(Sampler[list[Any]]):
    def __init__(self, training: PrivateTraining, steps: int, draws: bool) -> None:
        self.training, self.steps, self.draws = training, steps, draws

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Any]]:
        for _ in range(self.steps):
            images = self.training.chosen()
            numbers = self.training.versions(images * 0, 2**31).tolist()
            positions = images.tolist()
            yield list(zip(positions, numbers, strict=True)) if self.draws else positions


def _collated(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return default_collate(items) if items else {}
