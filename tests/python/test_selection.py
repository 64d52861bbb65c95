"""The selection algorithms against the published BED step by step, the full dynamic programme, and brute force."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_prune.structures.selection import SELECTIONS, Selection, bed, greedy, optimal

Matrices = Sequence[np.ndarray]


def by_the_book(matrices: Matrices, block: int, blocks: int, bridge: bool) -> list[np.ndarray]:
    """BED (or greedy) as published: one window at a time, window sums updated by S[k-n] += S[k-n+B] - S[k]."""
    kept = [np.zeros(m.shape, bool) for m in matrices]
    # One list of (entries, window sums) a stretch of neighbours.
    stretches = []
    for i, m in enumerate(matrices):
        for column in range(m.shape[1]):
            values = m[:, column].astype(np.float64)
            sums = [values[k : k + block].sum() for k in range(len(values) - block + 1)]
            stretches.append((i, column, list(range(len(values))), sums))
    for _ in range(blocks):
        best, where = -1.0, None
        for s, (_, _, _, sums) in enumerate(stretches):
            for k, value in enumerate(sums):
                if value > best:
                    best, where = value, (s, k)
        if where is None:
            break
        s, k = where
        i, column, rows, sums = stretches[s]
        kept[i][rows[k : k + block], column] = True
        if bridge:
            old = list(sums)
            for n in range(1, block):
                if k - n >= 0 and k - n + block < len(old):
                    sums[k - n] += old[k - n + block] - old[k]
            del rows[k : k + block]
            windows = len(rows) - block + 1
            del sums[k : k + block]
            # Windows that reached past the end now.
            del sums[max(windows, 0) :]
        else:
            left, right = rows[:k], rows[k + block :]
            halves = [(left, sums[: max(k - block + 1, 0)]), (right, sums[k + block :])]
            stretches[s : s + 1] = [(i, column, r, v) for r, v in halves]
    return kept


def best_by_full_programme(matrices: Matrices, block: int, blocks: int) -> float:
    """Largest magnitude that at most ``blocks`` windows retain: all counts in all columns, then all ways to share."""
    total = np.zeros(1)
    for m in matrices:
        for column in m.T.astype(np.float64):
            most = len(column) // block
            table = np.full((len(column) + 1, most + 1), -np.inf)
            table[:, 0] = 0
            for end in range(1, len(column) + 1):
                table[end] = table[end - 1]
                if end >= block:
                    taken = table[end - block, :-1] + column[end - block : end].sum()
                    table[end, 1:] = np.maximum(table[end, 1:], taken)
            merged = np.full(len(total) + most, -np.inf)
            for count in range(most + 1):
                ways = slice(count, count + len(total))
                merged[ways] = np.maximum(merged[ways], total + table[-1, count])
            total = merged
    return float(total[: blocks + 1].max())


def best_by_brute_force(column: np.ndarray, block: int, blocks: int) -> float:
    best = 0.0
    for count in range(blocks + 1):
        for starts in itertools.combinations(range(len(column) - block + 1), count):
            if all(b - a >= block for a, b in itertools.pairwise(starts)):
                best = max(best, sum(column[s : s + block].sum() for s in starts))
    return best


def retained(matrices: Matrices, masks: Matrices) -> float:
    return sum(float(m[k].sum(dtype=np.float64)) for m, k in zip(matrices, masks, strict=True))


def runs_are_multiples(mask: np.ndarray, block: int) -> bool:
    padded = np.pad(mask.astype(np.int8), ((1, 1), (0, 0)))
    edges = np.diff(padded, axis=0)
    columns = range(mask.shape[1])
    return all(
        ((np.flatnonzero(edges[:, c] == -1) - np.flatnonzero(edges[:, c] == 1)) % block == 0).all() for c in columns
    )


def draw_matrices(generator: np.random.Generator, levels: int) -> list[np.ndarray]:
    """Integers, so that sums are exact in the oracles too; few levels make many ties."""
    shapes = [(int(generator.integers(1, 24)), int(generator.integers(1, 7))) for _ in range(generator.integers(1, 4))]
    return [generator.integers(0, levels, shape).astype(np.float32) for shape in shapes]


problems = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 4, 5, 8]), st.floats(0, 1.1))


@settings(max_examples=120, deadline=None)
@given(problems, st.sampled_from([2, 4, 1 << 20]))
def test_optimal_is_exact(problem: tuple[int, int, float], levels: int) -> None:
    seed, block, density = problem
    matrices = draw_matrices(np.random.default_rng(seed), levels)
    blocks = int(density * sum(m.shape[0] // block * m.shape[1] for m in matrices))
    masks = optimal(matrices, block, blocks)
    assert retained(matrices, masks) == best_by_full_programme(matrices, block, blocks)
    assert sum(int(k.sum()) for k in masks) <= block * blocks
    assert all(runs_are_multiples(k, block) for k in masks)


@pytest.mark.parametrize("blocks", range(5))
def test_the_full_programme_is_itself_right(rng: np.random.Generator, blocks: int) -> None:
    column = rng.integers(0, 100, 13)
    assert best_by_full_programme([column[:, None]], 3, blocks) == best_by_brute_force(column, 3, blocks)


@settings(max_examples=120, deadline=None)
@given(problems, st.booleans())
def test_rounds_of_local_maxima_take_what_one_at_a_time_takes(problem: tuple[int, int, float], bridge: bool) -> None:
    seed, block, density = problem
    matrices = draw_matrices(np.random.default_rng(seed), 1 << 20)
    blocks = int(density * sum(m.shape[0] // block * m.shape[1] for m in matrices))
    masks = (bed if bridge else greedy)(matrices, block, blocks)
    for mask, expected in zip(masks, by_the_book(matrices, block, blocks, bridge), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("caution", [0.9, 3.0], ids=["good guess", "guess too high"])
def test_pieces_and_sampling_change_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caution: float
) -> None:
    matrices = [rng.integers(0, 1 << 20, shape).astype(np.float32) for shape in [(37, 20), (11, 33), (2, 9), (64, 3)]]
    monkeypatch.setattr(sys.modules["keras_prune.structures.selection.pieces"], "PIECE", 100)
    monkeypatch.setattr(sys.modules["keras_prune.structures.selection.pieces"], "SAMPLE", 150)
    for name in ("peeling", "optimal"):
        monkeypatch.setattr(sys.modules[f"keras_prune.structures.selection.{name}"], "_CAUTION", caution)
    for blocks in (1, 60, 200, 400):
        for bridge, select in ((True, bed), (False, greedy)):
            masks = select(matrices, 4, blocks)
            for mask, expected in zip(masks, by_the_book(matrices, 4, blocks, bridge), strict=True):
                np.testing.assert_array_equal(mask, expected)
        masks = optimal(matrices, 4, blocks)
        assert retained(matrices, masks) == best_by_full_programme(matrices, 4, blocks)
        assert sum(int(k.sum()) for k in masks) <= 4 * blocks


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("fill", [0.0, 1.0, 1e-38, 3e38])
def test_plateaus_fill_the_budget(select: Selection, fill: float) -> None:
    matrix = np.full((30, 7), fill, np.float32)
    (mask,) = select([matrix], 4, 20)
    assert mask.sum() == 80
    assert runs_are_multiples(mask, 4)


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("shape", [(3, 5), (4, 1), (1, 9), (5, 0), (0, 5)])
def test_small_and_empty_matrices(select: Selection, shape: tuple[int, int]) -> None:
    (mask,) = select([np.ones(shape, np.float32)], 4, 100)
    assert mask.shape == shape
    assert mask.sum() == shape[0] // 4 * 4 * shape[1]


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_denormal_and_huge_values_side_by_side(select: Selection) -> None:
    matrix = np.full((16, 3), 1e-45, np.float32)
    matrix[5:9, 1] = 3e38
    (mask,) = select([matrix], 4, 1)
    assert mask[5:9, 1].all()
    assert mask.sum() == 4


@pytest.mark.parametrize("select", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_the_budget_goes_where_the_magnitude_is(select: Selection, rng: np.random.Generator) -> None:
    small, large = rng.random((16, 6)).astype(np.float32), 100 + rng.random((4, 5)).astype(np.float32)
    first, second = select([small, large], 4, 5)
    assert not first.any()
    assert second.all()


def test_retained_magnitude_on_random_matrices(rng: np.random.Generator) -> None:
    matrix = np.abs(rng.standard_normal((1024, 1024))).astype(np.float32)
    blocks = matrix.size // 8
    best = retained([matrix], optimal([matrix], 4, blocks))
    assert retained([matrix], bed([matrix], 4, blocks)) >= 0.998 * best
    assert retained([matrix], greedy([matrix], 4, blocks)) >= 0.99 * best
