# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Report and documentation explain the same words, from one list."""

from __future__ import annotations

from pathlib import Path

from monai_memo.audit.glossary import further_terms, glossary_page, report_terms
from monai_memo.audit.pages import symbols

PAGE = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"


def test_the_page_of_the_documentation_is_made_from_the_terms() -> None:
    assert PAGE.read_text(encoding="utf-8") == glossary_page(), "python -m monai_memo.audit.glossary docs/glossary.md"


def test_no_word_is_explained_twice_and_most_have_the_fields_word() -> None:
    terms = [*report_terms(), *further_terms()]
    assert len({term.name for term in terms}) == len(terms) > 30
    assert all(term.text.endswith(".") for term in terms)
    assert sum(bool(term.field) for term in terms) > 30


def test_letters_with_an_index_and_tau_stand_as_symbols_and_html_stays_text() -> None:
    assert symbols("N_copies above tau, <b>") == "N<sub>copies</sub> above &tau;, &lt;b&gt;"
    assert symbols("taught, restaurant") == "taught, restaurant"
