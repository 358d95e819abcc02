# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The pairs of a report: in the report itself, on pages of further copies, and each on a page of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from monai_memo.audit.evidence import PairEvidence
from monai_memo.audit.pages import environment
from monai_memo.audit.pair_cards import PairCard, orders_of, pair_cards
from monai_memo.audit.result import AuditResult
from monai_memo.audit.shown_pairs import FOLDER, ShownPairs, choose_pairs, page_of, page_of_copies
from monai_memo.files import write_text


@dataclass(frozen=True)
class CopyPage:
    """A page of further copies; ``file`` is relative to the report."""

    file: str
    first: int
    last: int


def shown_pairs(result: AuditResult) -> ShownPairs:
    """The pairs that the report of an audit shows."""
    from monai_memo.audit.configuration import AuditConfiguration

    default = AuditConfiguration.model_fields["gallery"].default
    settings, dims = result.configuration, result.detector["spatial_dims"]
    return choose_pairs(result.matches, int(settings.get("gallery", default)), int(settings.get("seed", 0)), dims)


@dataclass(frozen=True)
class Gallery:
    """Every pair that is shown, ready for pages.

    Attributes:
        shown: what was chosen.
        cards: of the pairs that could be read, in order.
    """

    shown: ShownPairs = field(default_factory=ShownPairs)
    cards: Sequence[PairCard] = ()

    @classmethod
    def of(cls, result: AuditResult, evidence: Iterable[PairEvidence]) -> Gallery:
        """The gallery of a report.

        Args:
            evidence: of the chosen pairs, or of those at hand.
        """
        shown = shown_pairs(result)
        return cls(shown, pair_cards(evidence, result.matches, shown.aligned))

    @property
    def pages(self) -> dict[int, str]:
        """Where the page of each pair lies that has one, relative to the report."""
        return {card.number: page_of(card.number) for card in self.cards if card.page_rows}

    def _further(self) -> list[tuple[CopyPage, list[PairCard]]]:
        found = []
        for place, numbers in enumerate(self.shown.further):
            cards = [card for card in self.cards if card.number in set(numbers)]
            if cards:
                found.append((CopyPage(page_of_copies(place), cards[0].number, cards[-1].number), cards))
        return found

    def for_report(self) -> dict[str, Any]:
        """What ``pairs.html.jinja`` shows."""
        elsewhere = {number for page in self.shown.further for number in page}
        cards = [card for card in self.cards if card.number not in elsewhere]
        here = {card.number: f"#pair-{card.number}" for card in cards}
        return {
            "shown": self.shown, "cards": cards, "orders": orders_of(cards), "pages": self.pages,
            "links": {**self.pages, **here}, "copy_pages": [page for page, _ in self._further()],
            "unread": len(self.shown.numbers) - len(self.cards) if self.cards else 0,
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write ``pairs/0001.html`` and the like; nothing where there are no pairs."""
        templates, links = environment(), {number: Path(page).name for number, page in self.pages.items()}
        further = self._further()
        lists = {card.number: Path(page.file).name for page, cards in further for card in cards}
        for before, card, after in _neighbours([card for card in self.cards if card.page_rows]):
            beside = [None if one is None else {"number": one.number, "file": links[one.number]}
                      for one in (before, after)]  # fmt: skip
            text = templates.get_template("pair.html.jinja").render(
                card=card,
                before=beside[0],
                after=beside[1],
                links=links,
                home=f"{lists.get(card.number, '../report.html')}#pair-{card.number}",
            )
            write_text(folder / page_of(card.number), text)
        for page, cards in further:
            text = templates.get_template("copies.html.jinja").render(
                cards=cards, pages=links, links=links, here=page.file, copy_pages=[other for other, _ in further]
            )
            write_text(folder / page.file, text)


def _neighbours(cards: Sequence[PairCard]) -> Iterable[tuple[PairCard | None, PairCard, PairCard | None]]:
    """Each card with the one before it and the one after it."""
    padded: list[PairCard | None] = [None, *cards, None]
    for (before, card), (_, after) in pairwise(pairwise(padded)):
        assert card is not None
        yield before, card, after


__all__ = ["FOLDER", "CopyPage", "Gallery", "shown_pairs"]
