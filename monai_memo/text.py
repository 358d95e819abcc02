# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Names in tables and in Markdown: file names are other people's text, and no part of ours."""

from __future__ import annotations

import html
import re

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # spreadsheets calculate what begins so; the last four are full-width
SPECIAL = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
LONG = {value: key for key, value in SHORT.items()}


def cell(text: str) -> str:
    """A name as it stands in a CSV: on one line, and never a formula. ``uncell`` gives the name back.

    A backslash is doubled; tab, line feed and carriage return become ``\\t``, ``\\n`` and ``\\r``, other control
    characters and bytes that are not UTF-8 ``\\u`` and four hexadecimal digits; a name that begins with
    ``= + - @`` or an apostrophe gets an apostrophe in front.

    Example:
        >>> cell("=1+1.png"), cell("plain.png")
        ("'=1+1.png", 'plain.png')
    """
    escaped = SPECIAL.sub(lambda found: SHORT.get(found[0], f"\\u{ord(found[0]):04x}"), text)
    return f"'{escaped}" if escaped[:1] in (*FORMULA, "'") else escaped


def uncell(text: str) -> str:
    """Inverse of ``cell``."""
    text = text[1:] if text.startswith("'") else text

    def original(found: re.Match[str]) -> str:
        return LONG[found[0]] if found[0] in LONG else chr(int(found[1], 16))

    return re.sub(r"\\(?:u([0-9a-f]{4})|[\\tnr])", original, text)


def markdown(text: object) -> str:
    """Text that Markdown shows as it is: on one line, without HTML, links, emphasis or cells of a table.

    Example:
        >>> markdown("a <b> | *c*")
        'a &lt;b&gt; \\\\| \\\\*c\\\\*'
    """
    line = html.escape(" ".join(str(text).split()), quote=False)
    line = re.sub(r"[\\`*\[\]|~]", r"\\\g<0>", line)
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)
    line = re.sub(r"(?i)\b(https?|ftp|mailto|www)(?=[:.])", r"\1&#8203;", line)  # some viewers make links of addresses
    return re.sub(r"^([#>+=-]|\d+[.)](?=\s|$))", _first, line)


def _first(found: re.Match[str]) -> str:
    """What would begin a heading or a list."""
    return f"{found[0][:-1]}\\{found[0][-1]}"


def code(text: str) -> str:
    """Text as code in a table of Markdown."""
    line = " ".join(text.split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence, gap = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{gap}{line}{gap}{fence}"
