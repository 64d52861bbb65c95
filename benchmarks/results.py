"""Results in files: JSON lines, one a measurement, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_prune.files import write


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, "".join(json.dumps(row) + "\n" for row in rows))
