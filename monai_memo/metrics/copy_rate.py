# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copy rate of synthetic images as a MONAI cumulative metric: embeddings or images in, rates out.

Embeddings alone are quick and coarse. ``metrics.verified`` takes images and verifies matches, as an audit does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack, cast

import ignite.distributed as idist
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.audit.comparison import compare, patient_codes
from monai_memo.audit.reference import joint_patients, nearest_patients
from monai_memo.audit.repeats import MOST, over_again
from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.image_arrays import Images, Taken, take_images
from monai_memo.metrics.images import ImageMetric, embed_images
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.settings import Choice, Number, Whole
from monai_memo.settings.keywords import with_defaults
from monai_memo.statistics.calibration import MODES, require_heldout
from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.rates import audit_rates
from monai_memo.statistics.reference import NearestPatients, reference_control
from monai_memo.statistics.similarities import Similarities

logger = logging.getLogger(__name__)

INTERVALS = ("copies", "memorized", "control_copies", "excess_copies", "excess_memorized")


class RateOptions(TypedDict, total=False):
    """How rates are calibrated: see ``audit_rates``, which has the defaults.

    Attributes:
        mode: ``"size_matched"`` or ``"paper"``.
        quantile: level of the thresholds.
        confidence: of the intervals.
        n_bootstrap: resamples of patients.
        seed: of the resamples.
    """

    mode: str
    quantile: float
    confidence: float
    n_bootstrap: int
    seed: int


RATE_DEFAULTS = RateOptions(mode="size_matched", quantile=0.95, confidence=0.95, n_bootstrap=1000, seed=0)
RATE_KINDS = {
    "mode": Choice(*MODES), "quantile": Number(0, 1, open_ends=True), "confidence": Number(0, 1, open_ends=True),
    "n_bootstrap": Whole(1, 1_000_000), "seed": Whole(0, 2**63 - 1),
}  # fmt: skip


def copy_rates(
    training: NDArray[np.float32],
    heldout: NDArray[np.float32],
    synthetic: NDArray[np.float32],
    training_patients: Sequence[str] | None = None,
    heldout_patients: Sequence[str] | None = None,
    **settings: Unpack[RateOptions],
) -> dict[str, float]:
    """The numbers of an audit (``statistics.rates.audit_rates``) as one flat record.

    Args:
        training, heldout, synthetic: embeddings ``(n, dim)`` by one copy detector.
        training_patients, heldout_patients: patient of each image; without them every image is a patient of its own.
        settings: mode, quantile, confidence, n_bootstrap, seed; see ``RateOptions``.

    Returns:
        ``n_synthetic``, ``n_copies``, ``n_mem``, ``tau``; rates between 0 and 1 ``copies``, ``memorized``,
        ``control_copies`` and the excess over the control ``excess_copies``, ``excess_memorized`` (-1 to 1), each with
        ``_low`` and ``_high``; ``nearest_similarity`` (median over synthetic images of the similarity to the nearest
        training image, -1 to 1) and ``nearest_similarity_95`` (95th percentile). ``reference_excess`` (with ``_low``
        and ``_high``) and ``reference_p`` of the reference control: what is copied beyond look-alikes, from the same
        synthetic images looked up among training and held-out images together (``statistics.reference``). What cannot
        be had from cohorts of this size is left out.

    Raises:
        CalibrationError: too few held-out patients.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> training, heldout = rng.normal(size=(40, 16)), rng.normal(size=(40, 16))
        >>> copy_rates(training, heldout, training[:10], n_bootstrap=20)["n_copies"]
        10.0
    """
    settings = with_defaults(RATE_DEFAULTS, settings, "copy_rates", RATE_KINDS)
    patients = _patients(training_patients, len(training)), _patients(heldout_patients, len(heldout))
    sims = compare({"training": training, "heldout": heldout, "synthetic": synthetic}, *patients).sims
    record = flat_record(sims, **settings)
    similarity, image = EmbeddingIndex(np.concatenate([training, heldout])).search(synthetic)
    codes = joint_patients(*patients)
    nearest = nearest_patients(similarity[:, 0], image[:, 0], codes, len(training))
    return record | reference_record(nearest, record["tau"], **settings)


def flat_record(
    sims: Similarities, own: OwnReferences | None = None, **settings: Unpack[RateOptions]
) -> dict[str, float]:
    """``copy_rates`` of similarities that were measured already, by embeddings or by a search.

    Args:
        own: how near the synthetic images come to unseen patients, where that was searched.
    """
    rates = audit_rates(sims, **settings, own=own)
    record = {
        "n_synthetic": float(sims.n_synthetic),
        "n_copies": float(rates.n_copies),
        "n_mem": float(rates.n_memorized),
        "tau": rates.tau.value,
        "nearest_similarity": float(np.median(sims.synthetic_to_training)),
        "nearest_similarity_95": float(np.percentile(sims.synthetic_to_training, 95)),
    }
    if own is not None:
        record["n_copies_of_heldout"] = float(rates.of_heldout)
    for name in INTERVALS:
        interval: Interval | None = getattr(rates, name)
        if interval is not None:
            record |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return record


def reference_record(nearest: NearestPatients, tau: float, **settings: Unpack[RateOptions]) -> dict[str, float]:
    """The reference control as flat numbers."""
    found = reference_control(nearest, tau, settings.get("confidence", 0.95), settings.get("seed", 0))
    excess = {"": found.excess.value, "_low": found.excess.low, "_high": found.excess.high}
    return {**{f"reference_excess{end}": value for end, value in excess.items()}, "reference_p": found.p_value}


def _patients(patients: Sequence[str] | None, n: int) -> Sequence[str]:
    if patients is not None and len(patients) != n:
        raise ConfigurationError(f"{len(patients)} patient ids for {n} embeddings: one for each is needed")
    return [str(i) for i in range(n)] if patients is None else patients


def _finite(embeddings: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """A single NaN would be nearest to every image."""
    bad = np.flatnonzero(~np.isfinite(embeddings).reshape(len(embeddings), -1).all(axis=1))
    if len(bad):
        raise ConfigurationError(
            f"{what} must be finite numbers, {len(bad)} of {len(embeddings)} are not, for example number {bad[0]}: "
            "look at images without any variation and at divisions by 0"
        )
    return embeddings


class CopyRate(ImageMetric):
    """Copy rate of all synthetic images seen since the last ``reset``, by embeddings.

    With a detector it takes images themselves, by ``update``; without one their embeddings, by a call.
    Works with ``monai.handlers.IgniteMetricHandler``; embeddings of several ranks are gathered before anything is
    counted, so that the rate does not depend on the number of ranks.

    Args:
        training, heldout: embeddings ``(n, dim)`` of the generator's training images and of unseen patients; with a
            detector also the images themselves, in any form of ``monai_memo.image_arrays`` but a single one.
        training_patients, heldout_patients: patient of each image.
        quantity: what ``aggregate`` and ``compute`` return: a key of ``copy_rates``.
        detector: embeds images.
        settings: of ``copy_rates``.

    Raises:
        CalibrationError: too few held-out patients.
        ConfigurationError: what are no embeddings of one detector.

    Attributes:
        device: of the detector.
        n_unusable: images of this process since the last reset that could not be used (constant).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> training, heldout = rng.normal(size=(40, 16)), rng.normal(size=(40, 16))
        >>> metric = CopyRate(training, heldout, n_bootstrap=20)
        >>> _ = metric(torch.as_tensor(training[:6]))
        >>> _ = metric(torch.as_tensor(training[6:10]))
        >>> float(metric.aggregate())
        1.0
    """

    def __init__(
        self,
        training: NDArray[np.floating] | Images,
        heldout: NDArray[np.floating] | Images,
        training_patients: Sequence[str] | None = None,
        heldout_patients: Sequence[str] | None = None,
        quantity: str = "copies",
        detector: Detector | None = None,
        **settings: Unpack[RateOptions],
    ) -> None:
        super().__init__()
        self.detector, self.device = detector, torch.device("cpu")
        self.training = self._embedded(training, "training")
        self.heldout = self._embedded(heldout, "heldout")
        if self.training.ndim != 2 or self.heldout.ndim != 2 or self.training.shape[1] != self.heldout.shape[1]:
            raise ConfigurationError(
                "training and heldout must be embeddings (n, dim) of one detector, got "
                f"{self.training.shape} and {self.heldout.shape}"
            )
        self.training_patients = _patients(training_patients, len(self.training))
        self.heldout_patients = _patients(heldout_patients, len(self.heldout))
        self.quantity = quantity
        self.settings = with_defaults(RATE_DEFAULTS, settings, "CopyRate", RATE_KINDS)
        if self.settings["mode"] == "size_matched":  # not after hours of training
            require_heldout(len(set(self.heldout_patients)), self.settings["quantile"])

    def _embedded(self, real: Any, name: str) -> NDArray[np.float32]:
        """Embeddings as they are, and those of images."""
        if self.detector is None or getattr(real, "ndim", 0) == 2:
            real = np.asarray(real.detach().cpu() if isinstance(real, Tensor) else real, dtype=np.float32)
            return _finite(real, f"{name} embeddings")
        taken = take_images(real, f"{name} images", self.detector.preprocessing.spatial_dims)
        logger.info("%s images: %s", name, taken.sentence)
        embeddings, unusable = embed_images(self.detector, taken, self.device)
        if unusable:  # patients stand in the order of the images
            raise ConfigurationError(f"{name} images: {unusable} of {len(taken)} are constant: leave them out")
        return embeddings

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.n_unusable = 0

    def image_preprocessing(self) -> Preprocessing:
        """See ``ImageMetric``.

        Raises:
            ConfigurationError: there is no detector.
        """
        if self.detector is None:
            raise ConfigurationError(
                "this CopyRate compares embeddings and has no detector to make them of images: give it one "
                "(detector=...), or call it with embeddings"
            )
        return self.detector.preprocessing

    def take(self, images: Images | Taken) -> int:
        """See ``ImageMetric``."""
        self.image_preprocessing()
        embeddings, unusable = embed_images(cast(Detector, self.detector), images, self.device)
        self.n_unusable += unusable
        if len(embeddings):
            self(torch.from_numpy(embeddings).to(idist.device()))
        return len(embeddings)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        """Embeddings ``(batch, dim)`` of synthetic images, or images; ``y`` is not looked at."""
        if y_pred.ndim == 2 and y_pred.shape[1] == self.training.shape[1]:
            _finite(y_pred.detach().cpu().numpy(), "synthetic embeddings")
            return y_pred.float()
        if self.detector is not None and y_pred.ndim > 2:
            embeddings, unusable = embed_images(self.detector, y_pred, self.device)
            self.n_unusable += unusable
            return torch.from_numpy(embeddings)
        raise ValueError(
            f"y_pred must be embeddings (batch, {self.training.shape[1]}), got {tuple(y_pred.shape)}; images are taken "
            "by a CopyRate that has a detector"
        )

    def summary(self) -> dict[str, float]:
        """All numbers of ``copy_rates``; the same on every rank.

        Raises:
            ValueError: no embeddings since the last reset.
        """
        gathered = self.get_buffer()
        if not isinstance(gathered, Tensor) or len(gathered) == 0:
            raise ValueError("no synthetic embeddings were given since the last reset")
        return copy_rates(
            self.training,
            self.heldout,
            gathered.cpu().numpy(),
            self.training_patients,
            self.heldout_patients,
            **self.settings,
        )

    def repeated(self) -> tuple[int, int]:
        """See ``ImageMetric``; by embeddings, of the first images where there are many."""
        gathered = self.get_buffer()
        if not isinstance(gathered, Tensor) or len(gathered) == 0:
            return 0, 0
        ours, codes = gathered.cpu().numpy()[:MOST], patient_codes(self.heldout_patients)
        same = len(ours) - len(np.unique(ours, axis=0))
        looked_at, nearly = over_again(ours, self.heldout[:MOST], codes[:MOST])
        return looked_at, max(same, nearly)

    def aggregate(self) -> Tensor:  # type: ignore[override]
        """The chosen quantity, a scalar.

        Raises:
            ConfigurationError: a quantity that ``copy_rates`` does not have, or not for cohorts of this size.
        """
        record = self.summary()
        if self.quantity not in record:
            raise ConfigurationError(f"quantity must be one of {', '.join(record)}, got {self.quantity!r}")
        return torch.tensor(record[self.quantity], dtype=torch.float64)
