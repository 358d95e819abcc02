# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from monai_memo.audit.card import TODO
from monai_memo.release.page import page_of
from monai_memo.text import markdown

TEXT = """# Release: {title}

Two lines
of one **bold** paragraph with `code`.

> Do not publish
> this.

| | |
| --- | --- |
| name | {title} |

| a | b |
| --- | --- |
| 1 | **2** |

* one
  goes on
* two
"""


def body(title: str) -> str:
    return page_of(TEXT.format(title=markdown(title)), "Release").split("<body>")[1]


def test_headings_paragraphs_tables_lists_and_quotes_become_html() -> None:
    page = body("Chest")
    assert "<h1>Release: Chest</h1>" in page
    assert "<p>Two lines of one <strong>bold</strong> paragraph with <code>code</code>.</p>" in page
    assert "<blockquote>Do not publish this.</blockquote>" in page
    assert "<tr><th>a</th><th>b</th></tr>" in page and "<td>1</td><td><strong>2</strong></td>" in page
    assert '<table class="pairs"><thead></thead><tbody><tr><td>name</td><td>Chest</td></tr>' in page, "without a head"
    assert "<ul><li>one goes on</li><li>two</li></ul>" in page


def test_a_number_and_its_percent_sign_stay_on_one_line() -> None:
    assert "at most 2.7\N{NO-BREAK SPACE}% of these, 5 of 6" in page_of("at most 2.7 % of these, 5 of 6", "Release")


def test_text_of_others_stays_text() -> None:
    page = body("<script>alert(1)</script> | **x** `y` & [a](b)")
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page
    assert page.count("<strong>") == 2 and page.count("<code>") == 1, "ours alone"
    assert "| **x** `y` &amp; [a](b)</td>" in page and page.count("<td>") == 4


def test_there_is_room_where_somebody_signs() -> None:
    page = page_of(f"| | |\n| --- | --- |\n| Signature | {TODO} |\n", "Release")
    assert '<td>Signature</td><td class="fill"><strong>TO FILL IN</strong></td>' in page
