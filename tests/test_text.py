# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_memo.text import cell, code, markdown, uncell

ANY = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    "name", ["=1+1.png", "+a", "-a", "@a", "\ta", "\ra", "'a", "a\r\nb", "\uff1da", "\udcff", "\\n"]
)
def test_names_become_harmless_and_come_back(name: str) -> None:
    shown = cell(name)
    assert shown[0] not in "=+-@\t\r\n\uff1d" and "\n" not in shown and "\r" not in shown
    assert uncell(shown) == name
    shown.encode("utf-8")


def test_usual_names_stay_as_they_are() -> None:
    for name in ("a b/c-d_1.nii.gz", "Müller.png", "x=1.png", "1.2.840.113"):
        assert cell(name) == name == uncell(name)


@given(st.lists(ANY, min_size=1, max_size=5))
def test_one_row_for_each_name_whatever_it_holds(names: list[str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(name), "1"] for name in names)
    assert len(text.getvalue().splitlines()) == len(names)
    rows = list(csv.reader(io.StringIO(text.getvalue().encode().decode(), newline="")))
    assert [uncell(row[0]) for row in rows] == names


def test_markdown_shows_text_as_it_is() -> None:
    assert markdown("<script>alert(1)</script> & co") == "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co"
    assert markdown("[x](javascript:a) ![y](z) | *b* `c` ~~d~~") == (
        "\\[x\\](javascript:a) !\\[y\\](z) \\| \\*b\\* \\`c\\` \\~\\~d\\~\\~"
    )
    assert markdown("# no heading\n\n- no list") == "\\# no heading - no list"
    assert markdown("1. no list") == "1\\. no list" and markdown("snake_case _no_") == "snake_case \\_no\\_"
    assert "http:" not in markdown("see http://example.org")


def test_code_cannot_be_left() -> None:
    assert code("monai-memo audit") == "`monai-memo audit`"
    assert code("a ` b | c\nd") == "`` a ` b \\| c d ``"
