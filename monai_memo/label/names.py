# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Names of raters, in any script: what is a name, and which names are the same."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from monai_memo.errors import ConfigurationError

LONGEST_NAME = 40
MARKS_BETWEEN = " .@+-'\u2019\u00b7\u30fb"  # O'Brien, O\u2019Brien, and the dots of Catalan and Japanese names
JOINERS = "\u200c\u200d"  # invisible, and part of spelling in Persian and in scripts of India
VARIANTS = "\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef"  # forms of one letter


def checked_rater(rater: Any) -> str:
    """The rater's name: composed (NFC), without blanks around it, and with one blank between words.

    Raises:
        ConfigurationError: no name, or one with other than letters of any script, digits and a few marks between.

    Example:
        >>> checked_rater(" Dr.  Mu\u0308ller "), len(checked_rater("\u0938\u0941\u0928\u0940\u0924\u093e"))
        ('Dr. M\u00fcller', 6)
    """
    text = unicodedata.normalize("NFC", rater) if isinstance(rater, str) else ""
    words = "".join(" " if unicodedata.category(sign) == "Zs" else sign for sign in text).split(" ")
    name = " ".join(word for word in words if word)
    if not _is_name(name):
        raise ConfigurationError(
            f"rater must be a name of 1 to {LONGEST_NAME} letters, digits, blanks or . @ + - _ ', beginning with a "
            f"letter or digit, got {str(rater)[:60]!r}"
        )
    return name


def _is_name(name: str) -> bool:
    if not 1 <= len(name) <= LONGEST_NAME:
        return False
    kinds = ["L" if sign == "_" else unicodedata.category(sign)[0] for sign in name]
    if kinds[0] not in "LN" or not (kinds[-1] in "LMN" or name[-1] == "."):
        return False
    return all(
        kind in "LMN" or sign in MARKS_BETWEEN or sign in JOINERS for kind, sign in zip(kinds, name, strict=True)
    )


def rater_key(name: str) -> str:
    """What two ways to write one name have in common.

    Example:
        >>> rater_key("Jose\u0301 Mu\u00f1oz") == rater_key("JOS\u00c9 MU\u00d1OZ"), rater_key("Anna")
        (True, 'anna')
    """
    text = " ".join(re.sub(f"[{JOINERS}{VARIANTS}]", "", name).split())
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
