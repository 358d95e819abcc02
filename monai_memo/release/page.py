# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The Markdown of a release's statement and card as one HTML page that prints well; of our own Markdown alone."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from monai_memo.audit.card import TODO

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --page: #fff; --line: #cfd6de; --head: #f1f4f7; --quote: #fdf1ef; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --page: #12161b; --line: #39424d; --head: #1b2128; --quote: #2d1d15; } }
body { color: var(--ink); background: var(--page);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  max-width: 980px; margin: 0 auto; padding: 18px 16px 48px; overflow-wrap: break-word; }
h1 { font-size: 23px; } h2 { font-size: 17px; margin: 26px 0 8px; break-after: avoid; } h3 { font-size: 15px; }
table { border-collapse: collapse; width: 100%; margin: 8px 0; font-size: 13.5px; }
th, td { border: 1px solid var(--line); padding: 4px 8px; text-align: left; vertical-align: top; }
th { background: var(--head); } tr { break-inside: avoid; } thead { display: table-header-group; }
blockquote { border-left: 4px solid #c0392b; margin: 10px 0; padding: 2px 12px; background: var(--quote); }
code { font-size: 90%; overflow-wrap: anywhere; }
td:first-child { min-width: 4.5em; } .pairs td:first-child { width: 34%; } td.fill { height: 3.4em; }
/* With boxes of our own browsers leave out theirs, in which they print where the page lies on somebody's disk. */
@page { size: A4; margin: 16mm 14mm; @top-left { content: ""; } @bottom-right { font: 8pt sans-serif;
  content: counter(page) " / " counter(pages); } }
@media print {
  :root { color-scheme: light; --ink: #111; --page: #fff; --line: #cfd6de; --head: #f1f4f7; --quote: #fff; }
  body { font-size: 10.5pt; max-width: none; padding: 0; orphans: 3; widows: 3; }
  table:has(td.fill) { break-inside: avoid; }  /* what is signed stands on one page */
  body > p:last-child { break-before: avoid; font-size: 9pt; }
  table { font-size: 9pt; width: calc(100% - 2px); } }
"""


def page_of(markdown: str, title: str) -> str:
    """A whole page: headings, paragraphs, tables, lists and quotes. Everything else stays text.

    Args:
        markdown: as our templates write it, with text of others escaped by ``text.markdown``.
        title: of the page.
    """
    body = "\n".join(_blocks(markdown.splitlines()))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _kind(line: str) -> str:
    for start, name in (("|", "table"), ("#", "heading"), ("* ", "list"), ("> ", "quote")):
        if line.startswith(start):
            return name
    return "item" if line.startswith("  ") and line.strip() else "text" if line.strip() else ""


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    joined: list[str] = []
    for line in lines:  # a further line of an item of a list belongs to it
        if _kind(line) == "item" and joined and _kind(joined[-1]) == "list":
            joined[-1] += f" {line.strip()}"
        else:
            joined.append(line)
    for kind, group in groupby(joined, _kind):
        block = list(group)
        if kind == "table":
            yield _table(block)
        elif kind == "heading":
            for line in block:
                level = len(line) - len(line.lstrip("#"))
                yield f"<h{level}>{_inline(line[level:].strip())}</h{level}>"
        elif kind == "list":
            yield "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in block) + "</ul>"
        elif kind == "quote":
            yield f"<blockquote>{_inline(' '.join(line[2:] for line in block))}</blockquote>"
        elif kind:
            yield f"<p>{_inline(' '.join(line.strip() for line in block))}</p>"


def _table(lines: Sequence[str]) -> str:
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    head, body = rows[0], rows[2:]
    top = "<tr>" + "".join(f"<th>{_inline(cell)}</th>" for cell in head) + "</tr>" if any(head) else ""
    inside = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in body)
    pairs = ' class="pairs"' if not top and len(head) == 2 else ""
    return f"<table{pairs}><thead>{top}</thead><tbody>{inside}</tbody></table>"


def _cell(text: str) -> str:
    """Where somebody writes by hand there is room for it."""
    return f'<td class="fill">{_inline(text)}</td>' if text == TODO else f"<td>{_inline(text)}</td>"


def _inline(text: str) -> str:
    """Bold, code and escapes; anything that looks like HTML stays text."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found.group(1))
        return f"\0{len(kept) - 1}\0"

    plain = html.escape(re.sub(r"\\([!-/:-@\[-`{-~])", keep, html.unescape(text)), quote=False)
    plain = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", plain)
    plain = re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", plain)
    plain = re.sub(r"`([^`]+)`", r"<code>\1</code>", plain)
    return re.sub(r"\0(\d+)\0", lambda found: html.escape(kept[int(found.group(1))], quote=False), plain)
