# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copy rate of synthetic images with verified matches, as in an audit: images in, rates out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import ignite.distributed as idist
import numpy as np
import torch
from monai.utils import evenly_divisible_all_gather
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.audit.comparison import patient_codes
from monai_memo.audit.reference import joint_gallery, nearest_patients
from monai_memo.audit.repeats import nearly_repeated
from monai_memo.audit.sharpness import fine_detail, match_sharpness
from monai_memo.audit.verified_comparison import gallery_looked_through, search_in
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.detector.detector import Detector
from monai_memo.errors import ConfigurationError
from monai_memo.image_arrays import Images, Taken
from monai_memo.metrics.copy_rate import RateOptions, flat_record, reference_record
from monai_memo.metrics.images import ImageMetric, taken_for, usable_images
from monai_memo.metrics.reference import DEFAULTS as FROM_COHORTS
from monai_memo.metrics.reference import KINDS as OF_COHORTS
from monai_memo.metrics.reference import ReferenceOptions
from monai_memo.sealing import array_sha256
from monai_memo.search.copy_search import CopySearch, MakeSearch
from monai_memo.search.runner import Runner
from monai_memo.settings import Flag
from monai_memo.settings.keywords import with_defaults
from monai_memo.statistics.calibration import require_heldout, threshold_copies
from monai_memo.statistics.hubs import best_without_hubs, usual_nearness
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.reference import NearestPatients
from monai_memo.statistics.similarities import Similarities

Found = tuple[NDArray[np.int64], NDArray[np.float64]]  # candidates and similarities of some queries


class VerifiedOptions(ReferenceOptions, total=False):
    """How cohorts are read and samples judged. The defaults are those of an audit.

    Attributes:
        match_sharpness: where the samples are softer than the held-out images, blur these to the same sharpness before
            the threshold is taken from them; True by default.
        reference: the reference control: look the samples up among training and held-out patients together as well,
            and among held-out patients alone, which takes twice as long again; False by default. It tells copies from
            look-alikes, which soft samples are, and raises tau where these would pass.
    """

    match_sharpness: bool
    reference: bool


DEFAULTS = VerifiedOptions(**FROM_COHORTS, match_sharpness=True, reference=False)
KINDS = {**OF_COHORTS, "match_sharpness": Flag(), "reference": Flag()}


def _share() -> tuple[int, int]:
    """This process' number, and how many there are."""
    return idist.get_rank(), idist.get_world_size()


@dataclass
class _Reference:
    """The real cohorts, made ready when they are asked for."""

    detector: Detector
    cohorts: tuple[Cohort, Cohort]
    folder: Path
    device: torch.device
    options: VerifiedOptions
    make: MakeSearch = CopySearch.default

    @property
    def progress(self) -> bool:
        return self.options["progress"] and idist.get_rank() == 0

    @cached_property
    def _prepared(self) -> tuple[PreparedCohort, PreparedCohort]:
        with idist.one_rank_first():
            training, heldout = (
                prepare(cohort, self.detector.preprocessing, self.folder, self.options["workers"], self.progress)
                for cohort in self.cohorts
            )
        return training, heldout

    @property
    def heldout(self) -> NDArray[np.float16]:
        """Pixels, memory-mapped."""
        return self._prepared[1].pixels

    @cached_property
    def codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the patients of training and held-out images."""
        training, heldout = self._prepared
        return patient_codes(training.cohort.patient_ids), patient_codes(heldout.cohort.patient_ids)

    def _name(self, one: PreparedCohort) -> str:
        return f"{one.cohort.name}-{self.detector.sha256[:12]}-{one.content_sha256[:12]}"

    def _embedded(self, one: PreparedCohort) -> NDArray[np.float32]:
        """Kept in the folder."""
        store = self.folder / f"{self._name(one)}.npy"
        with idist.one_rank_first():
            return self.detector.embed(one.pixels, self.options["batch_size"], self.device, self.progress, store)

    def _runner(self) -> Runner:
        return Runner(self.device, seed=self.options["seed"], progress=self.progress)

    @cached_property
    def search(self) -> CopySearch:
        """In the training cohort."""
        training = self._prepared[0]
        embeddings = self._embedded(training)
        return search_in(training, embeddings, self.detector, self._runner(), self.options["batch_size"], self.make)

    @cached_property
    def joint(self) -> CopySearch:
        """In the training and the held-out cohort together."""
        prepared = dict(zip(("training", "heldout"), self._prepared, strict=True))
        embeddings = {name: self._embedded(one) for name, one in prepared.items()}
        search = self.make(self.detector.network, self.options["batch_size"])
        return search.fit(joint_gallery(prepared, embeddings), self._runner())

    @cached_property
    def unseen(self) -> CopySearch:
        """In held-out images alone, no more of them than there are training images."""
        training, heldout = self._prepared
        search = self.make(self.detector.network, self.options["batch_size"])
        embeddings, seed = self._embedded(heldout), self.options["seed"]
        gallery = gallery_looked_through(heldout, embeddings, len(training.cohort), seed)
        return search.fit(gallery, self._runner())

    def own(self, pixels: NDArray[np.floating], usual: float) -> OwnReferences:
        """How near images come to these; ``usual`` of ``hubs.usual_nearness``."""
        candidates, similarity, by_places = self._found(pixels, self.unseen)
        patients, n_training = self.unseen.gallery.patients, len(self._prepared[0].cohort)
        return OwnReferences.among((candidates, similarity), patients, n_training, by_places, usual)

    def nearest(self, pixels: NDArray[np.floating]) -> NearestPatients:
        """Patients of either cohort."""
        patients = self.joint.gallery.patients
        candidates, similarity = best_without_hubs(*self.look_up(pixels, search=self.joint), patients)
        return nearest_patients(similarity[:, 0], candidates[:, 0], patients, len(self._prepared[0].cohort))

    @cached_property
    def found(self) -> Found:
        """What the held-out images, as they are, find. Kept in the folder: a restart does not look them up again."""
        training, heldout = self._prepared
        rank, world = _share()
        name = f"{self._name(heldout)}-in-{training.content_sha256[:12]}-{rank}-of-{world}.npz"
        return self.look_up(heldout.pixels, self.folder / name)

    def look_up(
        self, pixels: NDArray[np.floating], store: Path | None = None, search: CopySearch | None = None
    ) -> Found:
        """Each rank looks its share up; all get what all have found."""
        return self._found(pixels, search or self.search, store)[:2]

    def _found(
        self, pixels: NDArray[np.floating], search: CopySearch, store: Path | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Also how far each image agrees with its best candidate place by place."""
        rank, world = _share()
        if len(pixels) < world:  # nothing to share
            rank, world = 0, 1
        found = search.search(pixels[Runner(shard=(rank, world)).mine(len(pixels))], store)
        if world == 1:
            return found.candidates, found.similarity, found.by_places()
        # Numbers of images are whole in float64 up to 2 ** 53.
        columns = found.candidates.astype(np.float64), found.similarity, found.by_places()[:, None]
        every = torch.from_numpy(np.concatenate(columns, axis=1))
        whole = evenly_divisible_all_gather(every.to(idist.device()), concat=True).cpu().numpy()
        candidates, similarity = np.split(whole[:, :-1], 2, axis=1)
        return candidates.astype(np.int64), np.ascontiguousarray(similarity), np.ascontiguousarray(whole[:, -1])


class VerifiedCopyRate(ImageMetric):
    """Copy rate of all synthetic images seen since the last ``reset``, by the search of an audit.

    .. versionadded:: 0.2.0

    The numbers are those that an audit of the same images, with the same detector and settings, would give; without
    ``reference`` (the default, which is quicker) those of an audit without it, whose tau comes from held-out images
    alone, so that soft look-alikes pass more often. Nothing is read, embedded or looked up before the first
    ``summary``. Images of several ranks are gathered, and each rank looks
    its share up, so that the rate does not depend on the number of ranks.

    Works with ``monai.handlers.IgniteMetricHandler`` and ``handlers.CopyRateMonitor``.

    Args:
        detector: trained on (at least) the training cohort.
        training, heldout: what the generator was trained on, and images of unseen patients.
        folder: for prepared images, embeddings and matches of the held-out images, which the next call finds again.
        device: where the search runs.
        search: makes the search for copies, as in ``audit.Audit``.
        options: see ``VerifiedOptions``, ``ReferenceOptions`` and ``RateOptions``.

    Attributes:
        n_unusable: images of this process since the last reset that could not be used (constant, NaN).

    Raises:
        CalibrationError: too few held-out patients.
        ConfigurationError: the paper's calibration, which is defined on embeddings.
    """

    def __init__(
        self,
        detector: Detector,
        training: Cohort,
        heldout: Cohort,
        folder: str | Path,
        device: str | torch.device = "cpu",
        search: MakeSearch = CopySearch.default,
        **options: Unpack[VerifiedOptions],
    ) -> None:
        super().__init__()
        chosen = with_defaults(DEFAULTS, options, "VerifiedCopyRate", KINDS)
        if chosen["mode"] == "paper":
            raise ConfigurationError(
                "the paper's calibration is defined on embeddings: take metrics.CopyRate, or mode size_matched"
            )
        require_heldout(heldout.n_patients, chosen["quantile"])
        self.detector, self.quantity, self.match_sharpness = detector, chosen["quantity"], chosen["match_sharpness"]
        self.reference, self.quantile = chosen["reference"], chosen["quantile"]
        self.settings = RateOptions(
            mode=chosen["mode"], quantile=chosen["quantile"], confidence=chosen["confidence"],
            n_bootstrap=chosen["n_bootstrap"], seed=chosen["seed"],
        )  # fmt: skip
        self._reference = _Reference(detector, (training, heldout), Path(folder), torch.device(device), chosen, search)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self.n_unusable = 0

    def image_preprocessing(self) -> Preprocessing:
        """See ``ImageMetric``."""
        return self.detector.preprocessing

    def take(self, images: Images | Taken) -> int:
        """See ``ImageMetric``."""
        return self.add(images)

    def add(self, images: Images | Taken) -> int:
        """Take images in memory, as an audit takes those of files. ``update`` is stricter, and says more.

        Args:
            images: see ``monai_memo.image_arrays``; scaled and resized as the detector's training images were.

        Returns:
            How many of them are usable; the others are counted in ``n_unusable``, and a warning names each.
        """
        usable, unusable = usable_images(self.detector.preprocessing, images)
        self.n_unusable += unusable
        # An audit keeps prepared images in half precision.
        self.extend(torch.from_numpy(usable.astype(np.float16).astype(np.float32)))
        return len(usable)

    def extend(self, *data: Tensor) -> None:  # type: ignore[override]
        """See MONAI's ``Cumulative``, which cannot take a batch without images."""
        if len(data[0]):
            several = idist.get_world_size() > 1
            super().extend(*(one.to(idist.device()) if several else one for one in data))

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        """Images ``(batch, channels, *spatial)``; ``y`` is not looked at."""
        usable, unusable = usable_images(self.detector.preprocessing, y_pred)
        self.n_unusable += unusable
        return torch.from_numpy(usable.astype(np.float16).astype(np.float32))

    def threshold(self) -> float:
        """Similarity above which an audit would call a sample a copy, by the held-out images as they are."""
        return float(threshold_copies(self._reference.found[1][:, 0], quantile=self.quantile)[0])

    def similarity_of(self, images: Images) -> NDArray[np.float64]:
        """Similarity of each image to its nearest training image; NaN for unusable ones."""
        taken = taken_for(self.detector.preprocessing, images, strict=False)
        one_by_one = [usable_images(self.detector.preprocessing, replace(taken, arrays=[a]))[0] for a in taken.arrays]
        found = np.full(len(taken), np.nan)
        places = [number for number, usable in enumerate(one_by_one) if len(usable)]
        if places:
            usable = np.concatenate([one_by_one[place] for place in places])
            found[places] = self._reference.look_up(usable.astype(np.float16))[1][:, 0]
        return found

    def summary(self) -> dict[str, float]:
        """The numbers of ``copy_rates``; the same on every rank.

        Beside them, with the reference control, ``n_copies_of_heldout``: samples that seem to be copies of held-out
        images, more than chance makes; the generator has seen these then; and ``n_near_many``: samples above tau that
        are not called since their patient is near to many of them, look-alikes or soft copies. ``fine_detail`` and
        ``fine_detail_heldout``: medians of the share of an image's contrast that lies in detail finer than two pixels.
        Samples with less of it are soft. ``softened`` is 1 where the held-out images were softened to match, which
        looks them up again, and else 0.

        Raises:
            ValueError: no images since the last reset.
        """
        gathered = self.get_buffer()
        if not isinstance(gathered, Tensor) or len(gathered) == 0:
            raise ValueError("no usable synthetic images were given since the last reset")
        synthetic, reference = gathered.cpu().numpy().astype(np.float16), self._reference
        softening = match_sharpness(synthetic, reference.heldout) if self.match_sharpness else None
        synthetic_found = reference.look_up(synthetic)
        own, as_found = None, synthetic_found[1][:, 0]
        if self.reference:
            own = reference.own(synthetic, usual_nearness(synthetic_found[1]))
            synthetic_found = best_without_hubs(*synthetic_found, reference.codes[0])
        heldout_found = reference.found if softening is None else reference.look_up(softening(reference.heldout))
        sims = Similarities.from_candidates(synthetic_found, heldout_found, *reference.codes)
        record = flat_record(sims, own, **self.settings)
        if self.reference:
            record |= reference_record(reference.nearest(synthetic), record["tau"], **self.settings)
            kept_below = (as_found > record["tau"]) & (sims.synthetic_to_training <= record["tau"])
            record["n_near_many"] = float(kept_below.sum())
        return {
            **record,
            "fine_detail": float(np.median(fine_detail(synthetic))),
            "fine_detail_heldout": float(np.median(fine_detail(reference.heldout))),
            "softened": float(softening is not None),
        }

    def repeated(self) -> tuple[int, int]:
        """See ``ImageMetric``; as an audit tells."""
        gathered = self.get_buffer()
        if not isinstance(gathered, Tensor) or len(gathered) == 0:
            return 0, 0
        images = gathered.cpu().numpy()
        looked_at, nearly = nearly_repeated(
            images, self._reference.heldout, self._reference.codes[1], self.settings["seed"]
        )
        return looked_at, max(nearly, len(images) - len({array_sha256(image) for image in images}))

    def aggregate(self) -> Tensor:  # type: ignore[override]
        """The chosen quantity, a scalar.

        Raises:
            ConfigurationError: a quantity that ``summary`` does not have, or not for cohorts of this size.
        """
        record = self.summary()
        if self.quantity not in record:
            raise ConfigurationError(f"quantity must be one of {', '.join(record)}, got {self.quantity!r}")
        return torch.tensor(record[self.quantity], dtype=torch.float64)
