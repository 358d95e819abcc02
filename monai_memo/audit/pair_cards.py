# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairs as pages show them: pictures with captions that name nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monai_memo.audit.evidence import PairEvidence
from monai_memo.audit.partial_evidence import PartialEvidence, outlined
from monai_memo.audit.parts import Match, PartialMatch
from monai_memo.audit.pictures import AGREEMENT, DIFFERENCE, Picture, coloured, picture_of
from monai_memo.audit.slices import DIFFERS, Plane

MAP_LENGTH = 112  # pixels at most of the maps in a long list: they are smooth, and read by their colours
OTHERS = 8  # pairs of the same training image that are named
SAYS = {"agrees": "agrees most", DIFFERS: "differs most", "": "through the middle"}


@dataclass(frozen=True)
class Row:
    """Pictures side by side, of one plane where it is a volume.

    Attributes:
        says: what is written before them; empty for pictures.
        differs: shown where the pair differs most.
    """

    pictures: tuple[Picture, ...]
    says: str = ""
    differs: bool = False


@dataclass(frozen=True)
class PairCard:
    """One pair, ready for a page.

    Attributes:
        number: row in ``matches.csv``.
        match: what the record says of it.
        rows: for a long list; ``page_rows`` for the page of the pair, without any loss.
        others: further pairs with the same training image, as numbers, and how many more there are.
        original: the same for all pairs with the same training image.
    """

    number: int
    match: Match
    rows: tuple[Row, ...]
    page_rows: tuple[Row, ...]
    mirrored: str
    turned: str
    correlation: float
    aligned: bool
    others: tuple[int, ...] = ()
    more: int = 0
    original: int = 0

    @property
    def name(self) -> str:
        """How pages call it."""
        return f"Pair {self.number}"


@dataclass(frozen=True)
class Originals:
    """Which pairs share a training image."""

    pairs: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, matches: Sequence[Match]) -> Originals:
        pairs: dict[str, list[int]] = {}
        for number, match in enumerate(matches, 1):
            pairs.setdefault(match.nearest_training, []).append(number)
        return cls(pairs)

    def of_match(self, match: Match) -> list[int]:
        """Numbers of the pairs with this training image."""
        return self.pairs.get(match.nearest_training, [])


def _row(pair: PairEvidence, name: str, place: int, plane: Plane | None, lossless: bool) -> Row:
    most = None if lossless else MAP_LENGTH
    where = "" if plane is None else f", {plane.name} slice {plane.place + 1} of {plane.of}"
    ends = () if plane is None else plane.ends
    rows, columns = pair.synthetic[place].shape
    brought = "brought to lie on the synthetic one" if pair.agreement is not None else "as it is"
    synthetic, training = pair.shown(place)
    sources = [
        ("synthetic", "synthetic image", picture_of(synthetic, lossless)),
        ("training", f"nearest training image, {brought}", picture_of(training, lossless)),
        ("difference", "difference of the two", coloured(pair.difference[place], DIFFERENCE, -1, most)),
    ]
    if pair.agreement is not None:
        words = "where the two agree"
        sources.append(("agreement", words, coloured(pair.agreement[place], AGREEMENT, 0, most)))
    pictures = tuple(
        Picture(source, columns, rows, what, f"{name}: {words}{where}", ends) for what, words, source in sources
    )
    says = (
        "" if plane is None else f"{plane.name.capitalize()} slice {plane.place + 1} of {plane.of}: {SAYS[plane.shows]}"
    )
    return Row(pictures, says, plane is not None and plane.shows == DIFFERS)


def pair_card(pair: PairEvidence, number: int, originals: Originals, with_page: bool = True) -> PairCard:
    """One pair for pages.

    Args:
        with_page: whether it gets a page of its own, with pictures without loss.
    """
    planes: list[Plane | None] = [*pair.planes] if pair.planes else [None]
    name = f"Pair {number}"
    rows = tuple(_row(pair, name, place, plane, False) for place, plane in enumerate(planes))
    full = tuple(_row(pair, name, place, plane, True) for place, plane in enumerate(planes)) if with_page else ()
    shared = originals.of_match(pair.match)
    others = [other for other in shared if other != number]
    return PairCard(
        number, pair.match, rows, full, pair.mirrored, pair.turned, pair.correlation, pair.agreement is not None,
        tuple(others[:OTHERS]), max(0, len(others) - OTHERS), shared[0] if shared else number,
    )  # fmt: skip


def pair_cards(
    evidence: Iterable[PairEvidence], matches: Sequence[Match], with_page: Iterable[int] | None = None
) -> list[PairCard]:
    """Cards of all pairs that could be read, in the order of ``matches``.

    Args:
        with_page: numbers of the pairs that get a page; all by default.
    """
    numbers = {match.synthetic: number for number, match in enumerate(matches, 1)}
    originals, chosen = Originals.of(matches), None if with_page is None else set(with_page)
    cards = []
    for pair in evidence:
        number = numbers.get(pair.match.synthetic, len(numbers) + 1)
        cards.append(pair_card(pair, number, originals, chosen is None or number in chosen))
    return sorted(cards, key=lambda card: card.number)


@dataclass(frozen=True)
class Orders:
    """In which order cards stand when they are sorted in a page: by similarity, by pixels, by training image."""

    similarity: int
    correlation: int
    original: int


def orders_of(cards: Sequence[PairCard]) -> dict[int, Orders]:
    """Places of each card, by its number. The first of many with one training image comes first."""
    correlation = np.argsort([-card.correlation for card in cards], kind="stable")
    shared = {card.original: sum(other.original == card.original for other in cards) for card in cards}
    original = sorted(
        range(len(cards)), key=lambda at: (-shared[cards[at].original], cards[at].original, cards[at].number)
    )
    by_correlation = {int(at): place for place, at in enumerate(correlation)}
    by_original = {at: place for place, at in enumerate(original)}
    return {card.number: Orders(at, by_correlation[at], by_original[at]) for at, card in enumerate(cards)}


@dataclass(frozen=True)
class PartCard:
    """One copy in part, ready for a page; ``number`` is its row in ``partial.csv``."""

    number: int
    match: PartialMatch
    rows: tuple[Row, ...]


def part_cards(parts: Iterable[PartialEvidence], names: Sequence[str]) -> list[PartCard]:
    """Cards of copies in part.

    Args:
        names: synthetic images in the order of ``partial.csv``.
    """
    numbers = {name: number for number, name in enumerate(names, 1)}
    cards = []
    for pair in parts:
        number = numbers.get(pair.match.synthetic, len(numbers) + 1)
        cards.append(PartCard(number, pair.match, tuple(_part_row(planes, number) for planes in outlined(pair))))
    return cards


WORDS = (
    ("synthetic", "synthetic image, the common region outlined"),
    ("training", "training image, the common region outlined"),
    ("region, synthetic", "the region of the synthetic image"),
    ("region, training", "the region of the training image, brought to lie on it"),
)


def _part_row(planes: Sequence[tuple[np.ndarray, Plane | None, str]], number: int) -> Row:
    pictures = []
    for (what, words), (image, plane, outline) in zip(WORDS, planes, strict=True):
        rows, columns = image.shape[:2]
        # The region alone is counted from its own beginning: no slice of the whole image is named there.
        where = f", {plane.name} slice {plane.place + 1} of {plane.of}" if plane is not None and outline else ""
        pictures.append(Picture(
            picture_of(image), columns, rows, what, f"Copy in part {number}: {words}{where}",
            () if plane is None or not outline else plane.ends, outline,
        ))  # fmt: skip
    first = planes[0][1]
    return Row(tuple(pictures), "" if first is None else f"{first.name.capitalize()}, through the region")
