"""Putting figures into pages, so that none is written by hand."""

from __future__ import annotations

from pathlib import Path

from keras_prune.files import write


def replace_part(page: Path, name: str, command: str, content: str) -> None:
    """Put content between a page's two markers; the page is written aside and renamed.

    Args:
        page: a Markdown file.
        name: what the markers call the part.
        command: what they say writes it.
        content: whole lines.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin ({command}) -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no lines {begin!r} and {end!r}, between which the table would stand")
    write(page, f"{before}{begin}\n{content}{end}{after}")
