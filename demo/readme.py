"""`python -m demo.readme`: put the table of the last demo run into README.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.page import replace_part


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
    try:
        replace_part(page, "demo table", "python -m demo.readme", table.read_text())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
