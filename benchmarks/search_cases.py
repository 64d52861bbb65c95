"""The plans that the benchmark of searches compares: what each is found by in the results, and how long it trains."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
TARGETS = ("2x", "2.5x")
ORACLES = ("policy_gradient", "bayesian")
RULES, SINGLE, SEARCH = "rules", "single", "search"
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to train and search, for an hour on one core.

    Args:
        dense_images: images of the dense training.
        trials: plans that a search tries.
        trial_steps: training steps of each.
        trial_images: images that each is evaluated with.
        finalists: plans that a search trains longer at the end.
        final_steps: training steps of each.
        final_images: images that each is evaluated with.
        steps: training steps of the plans that are compared.
        batch_size: images a step.
        test_images: test images, of 10,000.
    """

    dense_images: int = 20_000
    trials: int = 14
    trial_steps: int = 24
    trial_images: int = 2000
    finalists: int = 3
    final_steps: int = 60
    final_images: int = 4000
    steps: int = 96
    batch_size: int = 64
    test_images: int = 5000


@dataclasses.dataclass(frozen=True)
class Case:
    """One plan: what its line in the results is found by."""

    seed: int
    target: str
    method: str
    detail: str = ""

    @classmethod
    def of(cls, row: Row) -> Case:
        return cls(*(row[field.name] for field in dataclasses.fields(cls)))

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.target}, {self.method} {self.detail}".rstrip()


def cases(schemes: Sequence[str], seeds: Sequence[int] = SEEDS, targets: Sequence[str] = TARGETS) -> list[Case]:
    """All plans, those first without which there is nothing to compare."""
    found = []
    for target, seed in itertools.product(targets, seeds):
        found.append(Case(seed, target, RULES))
        found += [Case(seed, target, SEARCH, oracle) for oracle in ORACLES]
    found += [Case(seed, target, SINGLE, scheme) for scheme, target, seed in itertools.product(schemes, targets, seeds)]
    return found


def read_results(path: Path, effort: Effort) -> list[Row]:
    """Read the lines of all finished plans.

    Raises:
        ValueError: a line is not one of this benchmark's, or was made with another effort.
    """
    rows = []
    whole, _, _ = (path.read_text() if path.is_file() else "").rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            Case.of(row)
            other = row["effort"] != dataclasses.asdict(effort)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no result ({error!r}); remove it or the file") from error
        if other:
            raise ValueError(f"{path}, line {number} was made with another effort, {row['effort']}; remove the file")
        rows.append(row)
    return rows
