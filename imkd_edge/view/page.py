"""Self-contained HTML pages."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imkd_edge.bundle.files import check_writable, strict_json
from imkd_edge.errors import Code, Error

WIDTH, HEIGHT = 860, 220  # of a figure, in the units of its content
STYLE = """
:root { --ink: #1c2330; --faint: #8a94a6; --paper: #ffffff; --bar: #2f6fdb; --mark: #c8472b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --faint: #7c8698; --paper: #14181f; --bar: #6ea0f5; --mark: #f08a6b; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
body { max-width: 900px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em } td, th { padding: 2px 14px 2px 0; text-align: right }
td:first-child, th:first-child { text-align: left }
svg { width: 100%; height: auto } text { fill: var(--ink); font-size: 12px }
.bar { fill: var(--bar) } .line { stroke: var(--bar); fill: none }
.mark { stroke: var(--mark); stroke-dasharray: 4 3 } .axis { stroke: var(--faint) }
"""


def check_page(path: Path, data: bool = False) -> None:
    """Checks that a page can be written and replaces no file but an older page; call it before a long computation.

    Args:
        path: of the page.
        data: a .json file of the same name is written beside it.

    Raises:
        Error: write_failed.
    """
    check_writable(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise Error(Code.write_failed, f"{path.name} is no name of a page", str(path), "end the name with .html")
    if data and not path.exists() and (beside := path.with_suffix(".json")).exists():
        what = f"the page's data would replace {beside.name}, which belongs to no page"
        raise Error(Code.write_failed, what, str(path), "choose another name")


def element(tag: str, text: str) -> str:
    """An HTML element with a text."""
    return f"<{tag}>{html.escape(text)}</{tag}>"


def document(title: str, parts: list[str], result: Mapping[str, Any]) -> str:
    """A self-contained HTML page.

    Args:
        title: of the page, as text.
        parts: of the body, as HTML.
        result: embedded as JSON in the element "result".
    """
    escaped = strict_json(result).replace("<", "\\u003c")
    script = f'<script type="application/json" id="result">{escaped}</script>'
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"{meta}{element('title', title)}"
    body = f"{element('h1', title)}{''.join(parts)}{script}"
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n"


def svg(content: str, height: int = HEIGHT, width: int = WIDTH) -> str:
    """An SVG element as wide as the page; height and width are in the units of the content."""
    return f'<svg viewBox="0 0 {width} {height}" role="img">{content}</svg>'


def text_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of texts."""
    head = "".join(element("th", column) for column in columns)
    body = "".join(f"<tr>{''.join(element('td', str(value)) for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
