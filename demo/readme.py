"""`python -m demo.readme`: put the table of the last demo run into README.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from demo.files import write

BEGIN, END = "<!-- demo table: begin (python -m demo.readme) -->", "<!-- demo table: end -->"


def main(arguments: Sequence[str]) -> int:
    """Replace what stands between the markers; returns the exit status.

    Args:
        arguments: the table's file and the page, ``build/demo/table.md`` and ``README.md`` by default.
    """
    defaults = ("build/demo/table.md", "README.md")
    table, page = (Path(name) for name in (*arguments, *defaults[len(arguments) :]))
    if not table.is_file():
        print(f"{table} not found: run `make demo` first", file=sys.stderr)
        return 1
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{page} has no lines {BEGIN!r} and {END!r}, between which the table would stand", file=sys.stderr)
        return 1
    write(page, f"{before}{BEGIN}\n{table.read_text()}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
