# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From ratings to numbers: the detector against the raters, and the raters against one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from monai_memo.label.names import rater_key
from monai_memo.label.ratings import RATINGS, Entry, settled, standing_by_rater
from monai_memo.label.study import Study, StudyPair
from monai_memo.statistics.agreement import cohen_kappa, fleiss_kappa, stratified_bootstrap
from monai_memo.statistics.intervals import Interval
from monai_memo.statistics.reader_study import DetectionRates, detection_rates

# What counts as a copy. Showing the same patient is a leak as well; the narrow reading stands beside it.
DEFINITIONS: dict[str, tuple[str, ...]] = {
    "copy_or_same_patient": ("copy", "same_patient"),
    "copy_only": ("copy",),
}
UNSURE = "unsure"
Standing = Mapping[str, Mapping[str, Entry]]


def plain(interval: Interval | None) -> dict[str, float] | None:
    """For JSON."""
    return None if interval is None else asdict(interval)


def consensus(ratings: Sequence[str], positive: Sequence[str]) -> bool | None:
    """Majority of the decided ratings; None for a tie or where nobody has decided.

    Example:
        >>> consensus(["copy", "novel", "copy"], ["copy"]), consensus(["copy", "novel"], ["copy"])
        (True, None)
    """
    votes = [1 if rating in positive else -1 for rating in ratings if rating != UNSURE]
    balance = sum(votes)
    return None if balance == 0 else balance > 0


def decision(entries: Sequence[Entry], positive: Sequence[str]) -> bool | None:
    """What counts for a pair: what settled a disagreement, and the majority where nothing did.

    Example:
        >>> ratings = [Entry("copy", "anna", ""), Entry("novel", "bert", "")]
        >>> decision(ratings, ["copy"]), decision([*ratings, Entry("copy", "eva", "", "adjudication")], ["copy"])
        (None, True)
    """
    last = settled(entries)
    if last is not None and last.rating != UNSURE:
        return last.rating in positive
    return consensus([entry.rating for entry in standing_by_rater(entries).values()], positive)


class Analysis:
    """The numbers of one review.

    Args:
        study: its plan.
        history: entries of each pair.
        confidence: of all intervals.
    """

    def __init__(self, study: Study, history: Mapping[str, Sequence[Entry]], confidence: float = 0.95) -> None:
        self.study, self.history, self.confidence = study, history, confidence
        self.standing: Standing = {pair_id: standing_by_rater(entries) for pair_id, entries in history.items()}
        # One rater's name may be written in several ways.
        written = sorted({rater for ratings in self.standing.values() for rater in ratings}, reverse=True)
        self._names = {rater_key(name): name for name in written}
        self.raters = sorted(set(self._names.values()), key=rater_key)

    def _of(self, pair: StudyPair) -> dict[str, Entry]:
        return {self._names[rater_key(name)]: entry for name, entry in self.standing.get(pair.pair_id, {}).items()}

    def _majority(self, pair: StudyPair, positive: Sequence[str]) -> bool | None:
        return decision(self.history.get(pair.pair_id, ()), positive)

    @property
    def finished(self) -> list[str]:
        """Raters who have rated every pair of the sample."""
        return [name for name in self.raters if all(name in self._of(pair) for pair in self.study.sample)]

    def disputed(self, raters: Sequence[str] | None = None) -> list[str]:
        """Pairs that at least two of these raters (all) rate differently, in the order of the plan."""
        chosen = set(self.raters if raters is None else raters)
        given = {
            pair.pair_id: {entry.rating for name, entry in self._of(pair).items() if name in chosen}
            for pair in self.study.pairs
            if not pair.missing
        }
        return [pair_id for pair_id, ratings in given.items() if len(ratings) > 1]

    def adjudication(self) -> dict[str, Any]:
        """How many pairs raters differ on, how many of them were settled, and by whom."""
        disputed = self.disputed()
        found = [entry for pair_id in disputed if (entry := settled(self.history.get(pair_id, ()))) is not None]
        names = {rater_key(entry.rater): entry.rater for entry in found}
        return {"disputed": len(disputed), "settled": len(found), "by": sorted(names.values(), key=rater_key)}

    def _rates(self, decide: Callable[[StudyPair], bool | None]) -> dict[str, Any]:
        """The detector against one decision for each pair of the sample."""
        n_strata = len(self.study.stratum_sizes)
        rated, positive = np.zeros(n_strata, dtype=np.int64), np.zeros(n_strata, dtype=np.int64)
        table = Counter[tuple[bool, bool]]()
        for pair in self.study.sample:
            decided = decide(pair)
            if decided is not None:
                rated[pair.stratum] += 1
                positive[pair.stratum] += decided
                table[pair.copy, decided] += 1
        rates: DetectionRates = detection_rates(
            np.array(self.study.stratum_sizes), np.array(self.study.stratum_copies), rated, positive, self.confidence
        )
        return {
            "pairs": int(rated.sum()),
            "table": {
                "detector_copy_raters_copy": table[True, True],
                "detector_copy_raters_not": table[True, False],
                "detector_not_raters_copy": table[False, True],
                "detector_not_raters_not": table[False, False],
            },
            **{name: plain(getattr(rates, name)) for name in ("sensitivity", "specificity", "precision", "prevalence")},
        }

    def _against(self, positive: Sequence[str], rater: str | None) -> dict[str, Any]:
        """Against one rater, or against the consensus. With what undecided pairs would have changed."""

        def decide(pair: StudyPair) -> bool | None:
            if rater is None:
                return self._majority(pair, positive)
            ratings = self._of(pair)
            return consensus([ratings[rater].rating], positive) if rater in ratings else None

        def seen(pair: StudyPair) -> bool:
            ratings = self._of(pair)
            return rater in ratings if rater is not None else bool(ratings)

        def filled(value: bool) -> Callable[[StudyPair], bool | None]:
            return lambda pair: (value if decide(pair) is None else decide(pair)) if seen(pair) else None

        result = self._rates(decide)
        result["undecided"] = sum(seen(pair) and decide(pair) is None for pair in self.study.sample)
        if result["undecided"]:
            for name, value in (("undecided_as_copies", True), ("undecided_as_novel", False)):
                other = self._rates(filled(value))
                result[name] = {key: other[key] for key in ("sensitivity", "specificity")}
        return result

    def detector(self) -> dict[str, Any]:
        """Sensitivity, specificity and more, for each definition of a copy: consensus, and each rater."""
        return {
            name: {
                "consensus": self._against(positive, None),
                "raters": {rater: self._against(positive, rater) for rater in self.raters},
            }
            for name, positive in DEFINITIONS.items()
        }

    def rater_table(self) -> list[dict[str, Any]]:
        """How many pairs of the sample each rater has rated, and how."""
        rows = []
        for rater in self.raters:
            entries = [ratings[rater] for pair in self.study.sample if rater in (ratings := self._of(pair))]
            seconds = [entry.seconds for entry in entries if entry.seconds is not None]
            counts = Counter(entry.rating for entry in entries)
            rows.append(
                {
                    "rater": rater,
                    "rated": len(entries),
                    **{rating: counts[rating] for rating in RATINGS},
                    "median_seconds": round(float(np.median(seconds)), 1) if seconds else None,
                    "with_difference_map": sum(entry.evidence for entry in entries),
                }
            )
        return rows

    def _kappa(self, raters: Sequence[str], codes: Mapping[str, int], fleiss: bool, quick: bool) -> dict[str, Any]:
        """Kappa over the pairs of the sample that these raters have rated, within the categories of ``codes``.

        Args:
            quick: the value alone, instead of a bootstrap of seconds.
        """
        rows, weights, strata = [], [], []
        for pair in self.study.sample:
            ratings = self._of(pair)
            row = [codes[ratings[rater].rating] for rater in raters
                   if rater in ratings and ratings[rater].rating in codes]  # fmt: skip
            if len(row) >= 2:
                rows.append(row)
                weights.append(1 / pair.inclusion)
                strata.append(pair.stratum)
        result: dict[str, Any] = {"raters": list(raters), "pairs": len(rows), "kappa": None}
        if len(rows) < 2:
            return result
        share = np.array(weights)
        if fleiss:
            n = max(codes.values()) + 1
            counts = np.array([np.bincount(row, minlength=n) for row in rows])
            statistic = lambda at: fleiss_kappa(counts[at], share[at])  # noqa: E731
        else:
            both = np.array(rows)
            statistic = lambda at: cohen_kappa(both[at, 0], both[at, 1], share[at])  # noqa: E731
        if quick:
            value = statistic(np.arange(len(rows)))
            result["kappa"] = round(value, 4) if np.isfinite(value) else None
            return result
        result["kappa"] = plain(
            stratified_bootstrap(statistic, np.array(strata), self.confidence, seed=self.study.seed)
        )
        return result

    def agreement(self, raters: Sequence[str] | None = None, quick: bool = False) -> dict[str, Any]:
        """Cohen's kappa of every two of these raters (all); Fleiss' kappa of three or more.

        What settled a disagreement plays no part. ``four`` has all four ratings as categories; ``two`` has copy or same
        patient against novel, without unsure.

        Args:
            raters: all by default.
            quick: values without intervals.
        """
        four = {rating: code for code, rating in enumerate(RATINGS)}
        two = {rating: int(rating in DEFINITIONS["copy_or_same_patient"]) for rating in RATINGS if rating != UNSURE}
        chosen = self.raters if raters is None else list(raters)
        result: dict[str, Any] = {}
        for name, codes in (("two", two), ("four", four)):
            result[name] = {
                "cohen": [self._kappa(pair, codes, False, quick) for pair in combinations(chosen, 2)],
                "fleiss": self._kappa(chosen, codes, True, quick) if len(chosen) > 2 else None,
            }
        return result

    def near_tau(self) -> dict[str, int]:
        """Ratings of the further pairs close to tau, which are no random sample and enter no estimate."""
        counts: Counter[str] = Counter()
        for pair in self.study.uncertain:
            decided = self._majority(pair, DEFINITIONS["copy_or_same_patient"])
            if decided is not None:
                counts["rated"] += 1
                counts["agree"] += decided == pair.copy
        return {"rated": counts["rated"], "agree": counts["agree"]}

    def disagreements(self) -> list[dict[str, Any]]:
        """Pairs where consensus and detector differ, most certain calls first."""
        rows = []
        for pair in self.study.pairs:
            decided = self._majority(pair, DEFINITIONS["copy_or_same_patient"])
            if decided is not None and decided != pair.copy:
                rows.append((pair, {rater: entry.rating for rater, entry in self._of(pair).items()}))
        rows.sort(key=lambda row: (-row[0].certainty, row[0].pair_id))
        return [
            {
                "pair": pair.pair_id,
                "synthetic": pair.synthetic,
                "training": pair.training,
                "similarity": pair.similarity,
                "detector": "copy" if pair.copy else "no copy",
                "ratings": ratings,
            }
            for pair, ratings in rows
        ]
