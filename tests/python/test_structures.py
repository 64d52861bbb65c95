"""The structures: where zeros may be, how many there are, and which blocks stay."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_prune import AlignedBlock, Structure, UnalignedBlock
from keras_prune.structures import STRUCTURES
from keras_prune.structures.base import keep_best, kept_entries

KINDS = [UnalignedBlock(4), UnalignedBlock(3, "greedy"), UnalignedBlock(5, "optimal"), AlignedBlock(4), AlignedBlock(7)]
every_kind = pytest.mark.parametrize("structure", KINDS, ids=repr)


def made_of_blocks(mask: np.ndarray, structure: Structure) -> bool:
    """Whether each column is a row of blocks, by walking down it."""
    size = structure.size  # type: ignore[attr-defined]
    for column in mask.T:
        row = 0
        while row < len(column):
            if not column[row]:
                row += 1
                continue
            if isinstance(structure, AlignedBlock) and row % size:
                return False
            end = min(row + size, len(column)) if isinstance(structure, AlignedBlock) else row + size
            if end > len(column) or not column[row:end].all():
                return False
            row = end
    return True


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 30), st.integers(1, 9), st.floats(0.001, 0.999), st.integers(0, 999))
def test_zeros_are_at_least_as_asked_and_in_blocks(
    structure: Structure, rows: int, columns: int, zeros: float, seed: int
) -> None:
    matrix = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    mask = structure.mask(matrix, zeros)
    assert mask.shape == matrix.shape
    assert mask.dtype == bool
    assert made_of_blocks(mask, structure)
    size = structure.size  # type: ignore[attr-defined]
    kept, allowed = int(mask.sum()), (1 - zeros) * matrix.size
    assert kept <= allowed + 1e-6 * matrix.size
    # As close as blocks allow: one more would be too many, or there is no room for one.
    assert kept > allowed - size or kept >= rows // size * size * columns or structure == KINDS[1]


@every_kind
def test_no_zeros_keep_everything(structure: Structure) -> None:
    assert structure.mask(np.ones((10, 3)), 0.0).all()


@every_kind
def test_several_matrices_share_one_budget(structure: Structure, rng: np.random.Generator) -> None:
    large, small = rng.random((40, 9)) + 10, rng.random((30, 12))
    masks = structure.masks([large, small], zeros=0.7)
    kept = [int(m.sum()) for m in masks]
    assert kept[0] > 0.9 * 0.3 * (large.size + small.size) - 40
    assert sum(kept) <= 0.3 * (large.size + small.size)
    assert kept[1] < 0.1 * small.size


@every_kind
def test_signs_and_precision_do_not_matter(structure: Structure, rng: np.random.Generator) -> None:
    matrix = rng.integers(-1000, 1000, (22, 10)).astype(np.float64)
    expected = structure.mask(np.abs(matrix), 0.6)
    np.testing.assert_array_equal(structure.mask(-matrix, 0.6), expected)
    np.testing.assert_array_equal(structure.mask(matrix.astype(np.float32), 0.6), expected)
    np.testing.assert_array_equal(structure.mask(np.asfortranarray(matrix), 0.6), expected)


@every_kind
@pytest.mark.parametrize("zeros", [-0.1, 1.0, 1.5, float("nan")])
def test_fractions_outside_the_range_are_refused(structure: Structure, zeros: float) -> None:
    with pytest.raises(ValueError, match=r"zeros must be in \[0, 1\)"):
        structure.mask(np.ones((8, 8)), zeros)


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_do_not_compare_are_refused(structure: Structure, bad: float) -> None:
    matrix = np.ones((8, 8), np.float32)
    matrix[3, 4] = bad
    with pytest.raises(ValueError, match="matrix 1 holds NaN or infinity"):
        structure.masks([np.ones((8, 8)), matrix], 0.5)


@every_kind
def test_only_matrices_are_taken(structure: Structure) -> None:
    with pytest.raises(ValueError, match=r"\[rows, columns\]"):
        structure.mask(np.ones((3, 3, 8, 8)), 0.5)


@every_kind
def test_rows_too_few_for_a_block_are_an_obstacle(structure: Structure) -> None:
    size = structure.size  # type: ignore[attr-defined]
    assert "fewer than a block" in str(structure.obstacle(size - 1, 100, (1, 1)))
    assert structure.obstacle(size, 1, (3, 3)) is None


@pytest.mark.parametrize("kind", [UnalignedBlock, AlignedBlock])
@pytest.mark.parametrize("size", [1, 0, 65, -4, 4.0, "4", True])
def test_bad_sizes_are_refused(kind: Callable[..., Structure], size: object) -> None:
    with pytest.raises(ValueError, match="size must be a whole number from 2 to 64"):
        kind(size=size)


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(ValueError, match="bed, greedy, optimal"):
        UnalignedBlock(selection="best")


def test_aligned_blocks_are_the_best_by_brute_force(rng: np.random.Generator) -> None:
    matrix = rng.random((8, 2))
    sums = {(g, c): matrix[4 * g : 4 * g + 4, c].sum() for g in range(2) for c in range(2)}
    for blocks in range(5):
        best = max(itertools.combinations(sums, blocks), key=lambda chosen: sum(sums[b] for b in chosen))
        mask = AlignedBlock(4).mask(matrix, zeros=min(1 - blocks / 4, 1 - 1e-6))
        assert {(r // 4, c) for r, c in zip(*np.nonzero(mask), strict=True)} == set(best)


def test_a_ragged_last_block_competes_with_the_sum_it_has() -> None:
    column = np.array([[1.0], [1.0], [1.0], [9.0], [0.5], [0.5], [4.0]])
    # Blocks of 3: sums 3, 10 and, with one row, 4.
    assert AlignedBlock(3).mask(column, zeros=0.4).ravel().tolist() == [False] * 3 + [True] * 4


def test_schedules_in_float32_do_not_cost_a_block() -> None:
    assert kept_entries(1000, float(np.float32(0.8))) == 200
    assert kept_entries(1000, 0.8) == 200
    assert kept_entries(1000, 0.8 + 1e-5) == 199
    assert UnalignedBlock(4).mask(np.ones((40, 25)), float(np.float32(0.8))).sum() == 200


def test_the_best_units_that_fit_are_kept_in_order() -> None:
    scores = [np.array([3.0, 1.0]), np.array([[2.0], [3.0]])]
    sizes = [np.array([2, 1]), np.array([[1], [2]])]
    first, second = keep_best(scores, sizes, budget=4)
    assert (first.tolist(), second.tolist()) == ([True, False], [[False], [True]])


def test_structures_are_values_under_their_names() -> None:
    assert UnalignedBlock(4) == UnalignedBlock(size=4, selection="bed")
    assert len({UnalignedBlock(4), UnalignedBlock(), AlignedBlock(4)}) == 2
    assert repr(UnalignedBlock()) == "UnalignedBlock(size=4, selection='bed')"
    assert set(STRUCTURES) >= {"unaligned_block", "aligned_block"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        UnalignedBlock().size = 8  # type: ignore[misc]
