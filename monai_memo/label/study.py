# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pairs a review shows, with what chance each was drawn, and how sure the detector's call on each is.

The file is for the statistics and is never served: raters do not see similarities.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from monai_memo.audit.result import Estimate, Match
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.files import write_json
from monai_memo.label.names import rater_key
from monai_memo.settings.keywords import with_defaults
from monai_memo.statistics.reader_study import draw_sample, score_strata

VERSION = 1


@dataclass(frozen=True)
class StudyPair:
    """One pair.

    Attributes:
        pair_id: says nothing about the similarity: ids are a random permutation.
        similarity, copy: of the audit.
        certainty: 0.5 to 1, the chance that the detector's call stays the same when tau is estimated anew.
        stratum: of the similarity; -1 for pairs that are not part of the sample.
        inclusion: chance of having been drawn for the sample; 0 for pairs that are not part of it.
        missing: why the pair cannot be shown; empty if it can.
    """

    pair_id: str
    synthetic: str
    training: str
    similarity: float
    copy: bool
    certainty: float
    stratum: int
    inclusion: float
    missing: str = ""

    @property
    def sampled(self) -> bool:
        return self.stratum >= 0


@dataclass(frozen=True)
class Study:
    """The plan of a review.

    Attributes:
        audit: identity of the audit.
        seed: of the draw and of the order for each rater.
        spatial_dims: 2 or 3.
        tau: threshold of the audit.
        stratum_sizes: synthetic images in each stratum, shown or not.
        stratum_copies: whether the detector calls the images of each stratum copies.
        pairs: the sample, and further pairs close to tau.
        shape: of each image as shown.
    """

    audit: str
    seed: int
    spatial_dims: int
    tau: float
    stratum_sizes: tuple[int, ...]
    stratum_copies: tuple[bool, ...]
    pairs: tuple[StudyPair, ...]
    shape: tuple[int, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, StudyPair]:
        return {pair.pair_id: pair for pair in self.pairs}

    @property
    def sample(self) -> list[StudyPair]:
        """Pairs of the sample that can be shown."""
        return [pair for pair in self.pairs if pair.sampled and not pair.missing]

    @property
    def uncertain(self) -> list[StudyPair]:
        """Further pairs that can be shown, closest to tau first."""
        rest = [pair for pair in self.pairs if not pair.sampled and not pair.missing]
        return sorted(rest, key=lambda pair: (abs(pair.similarity - self.tau), pair.pair_id))

    def save(self, path: str | Path) -> Path:
        """Write JSON, atomically."""
        return write_json(path, {"version": VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Inverse of ``save``.

        Raises:
            MemoError: no such file, or not a review's plan.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError(f"a JSON object is expected, not {type(record).__name__}")
            if record.pop("version") != VERSION:
                raise ValueError(f"this version of monai_memo reads version {VERSION}")
            record["pairs"] = tuple(_checked(StudyPair(**pair)) for pair in record["pairs"])
            for name in ("stratum_sizes", "stratum_copies", "shape"):
                record[name] = tuple(record[name])
            return _checked(cls(**record))
        except FileNotFoundError as error:
            raise MemoError(
                f"no review has been prepared: {path} is missing. Run monai-memo review-prepare."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MemoError(f"{path} is not the plan of a review: {error}") from error


KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}
IDENTIFIER = re.compile(r"[A-Za-z0-9_]{1,40}")  # it becomes a part of names of files
Checked = TypeVar("Checked", "StudyPair", "Study")


def _checked(found: Checked) -> Checked:
    """Values of a file have the types that were written.

    Raises:
        ValueError: another type, or an id of a pair that is none.
    """
    for known in fields(found):
        value, kinds = getattr(found, known.name), KINDS.get(str(known.type))
        if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise ValueError(f"{known.name} must be {known.type}, not {type(value).__name__}")
    if isinstance(found, StudyPair) and not IDENTIFIER.fullmatch(found.pair_id):
        raise ValueError(f"{found.pair_id[:60]!r} is no id of a pair")
    if isinstance(found, Study) and not all(type(n) is int for n in (*found.stratum_sizes, *found.shape)):
        raise ValueError("stratum_sizes and shape must be whole numbers")
    return found


def certainty_of(similarity: NDArray[np.float64], tau: Estimate, confidence: float) -> NDArray[np.float64]:
    """Chance that the call on each pair stays the same when tau is estimated anew, from 0.5 to 1.

    Args:
        similarity: ``(n,)``.
        tau: with its interval, whose width stands for a normal distribution of tau.
        confidence: of that interval.

    Example:
        >>> certainty_of(np.array([0.9, 0.7]), Estimate(0.7, 0.65, 0.75), 0.95).round(2).tolist()
        [1.0, 0.5]
    """
    spread = max((tau.high - tau.low) / (2 * float(norm.ppf(0.5 + confidence / 2))), 1e-9)
    return np.asarray(norm.cdf(np.abs(similarity - tau.value) / spread), dtype=np.float64)


class DrawOptions(TypedDict, total=False):
    """How many pairs a review has, and which.

    Attributes:
        n: pairs of the sample, drawn over the whole range of similarities.
        n_uncertain: further pairs, those closest to tau; they do not enter the estimates.
        seed: of the draw and of the order for each rater.
        confidence: of the interval of tau.
    """

    n: int
    n_uncertain: int
    seed: int
    confidence: float


DEFAULTS = DrawOptions(n=100, n_uncertain=20, seed=0, confidence=0.95)


def draw_study(
    matches: Sequence[Match], tau: Estimate, identity: str, spatial_dims: int, **options: Unpack[DrawOptions]
) -> Study:
    """Draw the pairs of a review.

    Args:
        matches: of all synthetic images.
        tau: of the audit.
        identity: of the audit.
        spatial_dims: 2 or 3.
        options: n, n_uncertain, seed, confidence; see ``DrawOptions``.

    Raises:
        ConfigurationError: numbers out of range, or no matches.
    """
    chosen = with_defaults(DEFAULTS, options, "draw_study")
    n, n_uncertain, seed = chosen["n"], chosen["n_uncertain"], chosen["seed"]
    for name, value, smallest in (("n", n, 1), ("n_uncertain", n_uncertain, 0), ("seed", seed, 0)):
        if not isinstance(value, int) or value < smallest:
            raise ConfigurationError(f"{name} must be a whole number of at least {smallest}, got {value!r}")
    if not matches:
        raise ConfigurationError("the audit has no matches to review")
    rng = np.random.default_rng([seed, 11])
    similarity = np.array([match.similarity for match in matches])
    called = np.array([match.copy for match in matches])
    # The table holds six digits: what it calls a copy decides, not a comparison of rounded numbers.
    border = similarity[~called].max() if not called.all() else float(np.nextafter(similarity.min(), -np.inf))
    strata = score_strata(np.where(called, np.maximum(similarity, np.nextafter(border, np.inf)), similarity), border)
    positions, inclusion = draw_sample(strata, n, rng)
    rest = np.setdiff1d(np.arange(len(matches)), positions)
    closest = rest[np.argsort(np.abs(similarity[rest] - tau.value), kind="stable")[:n_uncertain]]
    certainty = certainty_of(similarity, tau, chosen["confidence"])
    shown = [*zip(positions, strata[positions], inclusion, strict=True), *((i, -1, 0.0) for i in closest)]
    numbers = rng.permutation(len(shown)) + 1
    width = max(3, len(str(len(shown))))
    pairs = [
        StudyPair(
            pair_id=f"pair_{number:0{width}d}",
            synthetic=matches[int(i)].synthetic,
            training=matches[int(i)].nearest_training,
            similarity=float(similarity[i]),
            copy=bool(called[i]),
            certainty=round(float(certainty[i]), 6),
            stratum=int(stratum),
            inclusion=float(chance),
        )
        for number, (i, stratum, chance) in zip(numbers, shown, strict=True)
    ]
    n_strata = int(strata.max()) + 1
    return Study(
        audit=identity,
        seed=seed,
        spatial_dims=spatial_dims,
        tau=tau.value,
        stratum_sizes=tuple(np.bincount(strata, minlength=n_strata).tolist()),
        stratum_copies=tuple(bool(called[strata == h].all()) for h in range(n_strata)),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.pair_id)),
    )


def order_for(study: Study, rater: str) -> list[str]:
    """The sample in an order of the rater's own, so that tiredness and learning do not fall on the same pairs."""
    key = [study.seed, 13, *rater_key(rater).encode("utf-8")]
    order = np.random.default_rng(key).permutation(len(study.sample))
    return [study.sample[int(i)].pair_id for i in order]
