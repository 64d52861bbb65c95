"""What the command lines of benchmarks with a table in the docs have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def page_arguments(description: str | None, cases: str, output: Path, page: str) -> argparse.ArgumentParser:
    """Return a parser with `--only`, `--output` and `--table`.

    Args:
        description: what the benchmark does.
        cases: what `--only` picks by name, in the plural.
        output: the usual folder of the results.
        page: the page that `--table` writes.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"{cases} whose name contains this")
    parser.add_argument("--output", type=Path, default=output, help="folder of the results")
    parser.add_argument("--table", action="store_true", help=f"only put the last run's results into {page}")
    return parser
