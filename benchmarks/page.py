"""Putting figures into pages, so that none is written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from keras_prune.files import write


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, each line with its end.

    Example:
        >>> markdown_table(["a", "b"], [["1", "2"]])
        '| a | b |\\n| --- | --- |\\n| 1 | 2 |\\n'
    """
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, ["---"] * len(headings), *rows))


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
    before, _, after = _split(page, name, command)
    write(page, before + content + after)


def replace_machine(page: Path, name: str, command: str, machine: str, content: str) -> None:
    """Put one machine's content into a part that holds those of several; the others' stay.

    Args:
        page, name, command: see :func:`replace_part`.
        machine: its name.
        content: whole lines, the first of which begins with "On " and the machine's name and a comma.

    Raises:
        ValueError: the page has no such markers.
    """
    before, old, after = _split(page, name, command)
    sections = [section.strip() for section in re.split(r"^(?=On )", old, flags=re.MULTILINE) if section.strip()]
    own = [index for index, section in enumerate(sections) if section.startswith(f"On {machine},")]
    at = own[0] if own else len(sections)
    sections[at : at + 1] = [content.strip()]
    write(page, before + "\n\n".join(sections) + "\n" + after)


def _split(page: Path, name: str, command: str) -> tuple[str, str, str]:
    """Cut a page into what stands up to a part, the part, and what follows it."""
    begin, end = f"<!-- {name}: begin ({command}) -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    part, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no lines {begin!r} and {end!r}, between which the table would stand")
    return f"{before}{begin}\n", part, end + after
