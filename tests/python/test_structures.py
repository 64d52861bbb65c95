"""The structures: where zeros may be, how many there are, and which blocks stay."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable

import numpy as np
import properties  # noqa: F401
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_prune import AlignedBlock, BlockPunched, BlockRowColumn, Pattern, Structure, UnalignedBlock, Unstructured
from keras_prune.structures import STRUCTURES
from keras_prune.structures.base import Kernel, keep_best, kept_entries

KINDS = [
    UnalignedBlock(4),
    UnalignedBlock(3, "greedy"),
    UnalignedBlock(5, "optimal"),
    AlignedBlock(4),
    AlignedBlock(7),
    Pattern(4),
    Pattern(2, patterns=((4, 1, 3, 5), (4, 5, 7, 8))),
    BlockPunched(4, 3),
    BlockPunched(8, 4),
    BlockRowColumn(4, 6),
    Unstructured(),
]
every_kind = pytest.mark.parametrize("structure", KINDS, ids=repr)


def made_of_blocks(mask: np.ndarray, structure: Structure, kernel: Kernel) -> bool:
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


def made_of_patterns(mask: np.ndarray, structure: Structure, kernel: Kernel) -> bool:
    """Whether each kernel is away, or whole, or for 3x3 one of a few arrangements of four."""
    positions, seen = int(np.prod(kernel)), set()
    channels = mask.shape[1] // positions
    for row in mask:
        for channel in range(channels):
            kept = tuple(k for k in range(positions) if row[k * channels + channel])
            if kernel != (3, 3) and kept and len(kept) != positions:
                return False
            if kept:
                seen.add(kept)
    four = all(len(kept) == 4 and 4 in kept for kept in seen)
    return kernel != (3, 3) or (four and len(seen) <= structure.count)  # type: ignore[attr-defined]


def made_of_punched_blocks(mask: np.ndarray, structure: Structure, kernel: Kernel) -> bool:
    """Whether in each block all kernels lose the same positions."""
    m, n = structure.filters, structure.channels  # type: ignore[attr-defined]
    positions = int(np.prod(kernel))
    channels = mask.shape[1] // positions
    for row in range(0, mask.shape[0], m):
        for channel in range(0, channels, n):
            for k in range(positions):
                columns = [k * channels + c for c in range(channel, min(channel + n, channels))]
                block = mask[row : row + m][:, columns]
                if block.any() != block.all():
                    return False
    return True


def made_of_rows_and_columns(mask: np.ndarray, structure: Structure, kernel: Kernel) -> bool:
    """Whether each block is all the crossings of some of its rows with some of its columns."""
    p, q = structure.rows, structure.columns  # type: ignore[attr-defined]
    for row in range(0, mask.shape[0], p):
        for column in range(0, mask.shape[1], q):
            block = mask[row : row + p, column : column + q]
            if (block != np.outer(block.any(axis=1), block.any(axis=0))).any():
                return False
    return True


# Of every structure: whether a mask has it, and the entries of its largest unit.
CHECKS: dict[str, tuple[Callable[[np.ndarray, Structure, Kernel], bool], Callable[..., int]]] = {
    "unaligned_block": (made_of_blocks, lambda s, kernel: s.size),
    "aligned_block": (made_of_blocks, lambda s, kernel: s.size),
    "pattern": (made_of_patterns, lambda s, kernel: 4 if kernel == (3, 3) else int(np.prod(kernel))),
    "block_punched": (made_of_punched_blocks, lambda s, kernel: s.filters * s.channels),
    "block_row_column": (made_of_rows_and_columns, lambda s, kernel: max(s.rows, s.columns)),
    "unstructured": (lambda mask, structure, kernel: True, lambda s, kernel: 1),
}


def most_that_can_stay(structure: Structure, rows: int, columns: int, kernel: Kernel) -> float:
    if isinstance(structure, UnalignedBlock):
        # Greedy leaves gaps too small for a block.
        share = 2 * structure.size - 1 if structure.selection == "greedy" else structure.size
        return rows // share * structure.size * columns
    return rows * columns * (4 / 9 if isinstance(structure, Pattern) and kernel == (3, 3) else 1)


def test_every_structure_is_tested() -> None:
    assert set(CHECKS) == set(STRUCTURES) == {kind.name for kind in KINDS}


kernels = st.sampled_from([(1, 1), (3, 3), (5,), (2, 3)])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(1, 30), st.integers(1, 9), kernels, st.floats(0.001, 0.999), st.integers(0, 999)
)
def test_zeros_are_at_least_as_asked_and_in_units(
    structure: Structure, rows: int, channels: int, kernel: Kernel, zeros: float, seed: int
) -> None:
    columns = channels * int(np.prod(kernel))
    matrix = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    mask = structure.mask(matrix, zeros, kernel)
    assert mask.shape == matrix.shape
    assert mask.dtype == bool
    has_structure, largest_unit = CHECKS[structure.name]
    assert has_structure(mask, structure, kernel)
    kept, allowed = int(mask.sum()), (1 - zeros) * matrix.size
    assert kept <= allowed + 1e-6 * matrix.size
    # As close as units allow: one more would be too many, or there is no room for one.
    assert kept > allowed - largest_unit(structure, kernel) or kept >= most_that_can_stay(
        structure, rows, columns, kernel
    )


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


@pytest.mark.parametrize("structure", [k for k in KINDS if hasattr(k, "size")], ids=repr)
def test_rows_too_few_for_a_block_are_an_obstacle(structure: Structure) -> None:
    size = structure.size  # type: ignore[attr-defined]
    assert "fewer than a block" in str(structure.obstacle(size - 1, 100, (1, 1)))
    assert structure.obstacle(size, 1, (3, 3)) is None


@pytest.mark.parametrize(
    ("kind", "name", "least", "most"),
    [
        (UnalignedBlock, "size", 2, 64),
        (AlignedBlock, "size", 2, 64),
        (Pattern, "count", 1, 32),
        (BlockPunched, "filters", 2, 64),
        (BlockPunched, "channels", 1, 64),
        (BlockRowColumn, "rows", 2, 64),
        (BlockRowColumn, "columns", 2, 128),
    ],
)
def test_bad_sizes_are_refused(kind: Callable[..., Structure], name: str, least: int, most: int) -> None:
    for good in (least, most):
        assert kind(**{name: good}) == kind(**{name: good})
    for bad in (least - 1, most + 1, -4, 4.0, "4", True, None):
        with pytest.raises(ValueError, match=f"{name} must be a whole number from {least} to {most}"):
            kind(**{name: bad})


@pytest.mark.parametrize("patterns", [(), ((),), ((0, 1, 2, 9),), ((-1, 4),), ((4, 4, 1, 2),)])
def test_bad_patterns_are_refused(patterns: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="distinct positions 0 to 8"):
        Pattern(patterns=patterns)


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


def natural_pattern(kernel: np.ndarray) -> tuple[int, ...]:
    """The centre and the three largest neighbours of nine weights."""
    neighbours = sorted((k for k in range(9) if k != 4), key=lambda k: -abs(kernel[k]))
    return tuple(sorted([4, *neighbours[:3]]))


@pytest.mark.parametrize("zeros", [0.3, 0.7, 0.9])
def test_patterns_and_connectivity_by_brute_force(rng: np.random.Generator, zeros: float) -> None:
    shapes = [(6, 5), (4, 11)]
    tensors = [rng.standard_normal((rows, 9, channels)) for rows, channels in shapes]
    # More alike, so that some patterns are frequent.
    for tensor in tensors:
        tensor[:, [1, 3, 5, 7]] *= 2
    matrices = [t.reshape(t.shape[0], -1) for t in tensors]
    every = [t[row, :, channel] for t in tensors for row in range(t.shape[0]) for channel in range(t.shape[2])]
    frequency = collections.Counter(natural_pattern(kernel) for kernel in every)
    prepared = Pattern(4).prepare([*matrices, rng.random((3, 8))], [(3, 3), (3, 3), (1, 1)])
    assert isinstance(prepared, Pattern)
    assert prepared.patterns is not None
    assert len(set(prepared.patterns)) == 4
    left_out = [n for pattern, n in frequency.items() if pattern not in prepared.patterns]
    assert min(frequency[p] for p in prepared.patterns) >= max(left_out)

    expected = []
    for tensor in tensors:
        mask, energies = np.zeros(tensor.shape, bool), []
        for row in range(tensor.shape[0]):
            for channel in range(tensor.shape[2]):
                by_pattern = {p: sum(tensor[row, k, channel] ** 2 for k in p) for p in prepared.patterns}
                best = max(by_pattern, key=lambda p: by_pattern[p])
                energies.append((by_pattern[best], row, channel, best))
        for _, row, channel, best in sorted(energies)[::-1][: int((1 - zeros) * tensor.size / 4)]:
            mask[row, list(best), channel] = True
        expected.append(mask.reshape(tensor.shape[0], -1))
    for matrix, mask in zip(matrices, expected, strict=True):
        np.testing.assert_array_equal(prepared.mask(matrix, zeros, (3, 3)), mask)


def test_the_set_of_patterns_is_taken_once_and_survives_pruning(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((8, 9 * 8))
    first = Pattern(4).prepare([matrix], [(3, 3)])
    assert first.prepare([rng.standard_normal((8, 9 * 8))], [(3, 3)]) == first
    pruned = np.where(first.mask(matrix, 0.8, (3, 3)), matrix, 0)
    assert set(Pattern(4).prepare([pruned], [(3, 3)]).patterns) <= set(first.patterns)  # type: ignore[attr-defined]
    assert Pattern(4).prepare([matrix], [(1, 1)]) == Pattern(4)
    assert repr(first) == "Pattern(count=4)"
    nothing = Pattern(4).prepare([np.zeros((2, 9))], [(3, 3)])
    assert nothing.mask(np.zeros((2, 9)), 0.5, (3, 3)).sum() == 8


def test_patterns_meet_connectivity_in_the_whole(rng: np.random.Generator) -> None:
    matrix = rng.standard_normal((9, 9 * 7))
    whole = Pattern(6).prepare([matrix], [(3, 3)])
    arrangement, connectivity = whole.parts((3, 3))
    patterns, kernels = arrangement.mask(matrix, 0.8, (3, 3)), connectivity.mask(matrix, 0.8, (3, 3))
    np.testing.assert_array_equal(patterns, whole.mask(matrix, 0.5, (3, 3)))
    by_kernel = kernels.reshape(9, 9, 7)
    np.testing.assert_array_equal(by_kernel.all(axis=1), by_kernel.any(axis=1))
    assert by_kernel[:, 0].sum() == int(0.2 * matrix.size / 4)
    energies = (matrix.reshape(9, 9, 7) ** 2).sum(axis=1)
    assert energies[by_kernel[:, 0]].min() > energies[~by_kernel[:, 0]].max()
    assert (patterns & kernels).sum() == whole.mask(matrix, 0.8, (3, 3)).sum()
    assert [type(part) for part in whole.parts((1, 1))] == [type(connectivity)]
    for kind in KINDS:
        assert kind.parts((1, 1)) == (kind,) or isinstance(kind, Pattern)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize("zeros", [0.2, 0.8])
def test_punched_positions_are_the_best_by_loops(rng: np.random.Generator, kernel: Kernel, zeros: float) -> None:
    rows, channels, m, n, positions = 11, 7, 4, 3, int(np.prod(kernel))
    tensor = rng.standard_normal((rows, positions, channels))
    units = []
    for row in range(0, rows, m):
        for channel in range(0, channels, n):
            for k in range(positions):
                inside = [(r, c) for r in range(row, min(row + m, rows)) for c in range(channel, min(channel + n, 7))]
                score = 0.0
                for c in {c for _, c in inside}:
                    score += sum(tensor[r, k, c] ** 2 for r in {r for r, _ in inside}) ** 0.5
                units.append((score, k, inside))
    expected, left = np.zeros(tensor.shape, bool), (1 - zeros) * tensor.size
    for _, k, inside in sorted(units)[::-1]:
        left -= len(inside)
        if left < 0:
            break
        for r, c in inside:
            expected[r, k, c] = True
    mask = BlockPunched(m, n).mask(tensor.reshape(rows, -1), zeros, kernel)
    np.testing.assert_array_equal(mask, expected.reshape(rows, -1))


@pytest.mark.parametrize("zeros", [0.01, 0.5, 0.85, 0.999])
def test_rows_and_columns_go_one_by_one(rng: np.random.Generator, zeros: float) -> None:
    matrices = [rng.standard_normal((9, 14)), 2 * rng.standard_normal((4, 5))]
    p, q = 4, 6
    units = []
    for i, matrix in enumerate(matrices):
        for row in range(0, matrix.shape[0], p):
            for column in range(0, matrix.shape[1], q):
                rows, columns = matrix[row : row + p, column : column + q].shape
                for r in range(row, row + rows):
                    units.append((np.mean(matrix[r, column : column + columns] ** 2), i, r, slice(column, column + q)))
                for c in range(column, column + columns):
                    units.append((np.mean(matrix[row : row + rows, c] ** 2), i, slice(row, row + p), c))
    expected = [np.ones(m.shape, bool) for m in matrices]
    allowed = (1 - zeros) * sum(m.size for m in matrices)
    for _, i, rows_, columns_ in sorted(units, key=lambda unit: unit[0]):
        if sum(m.sum() for m in expected) <= allowed:
            break
        expected[i][rows_, columns_] = False
    for mask, wanted in zip(BlockRowColumn(p, q).masks(matrices, zeros), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_the_yardstick_keeps_the_largest(rng: np.random.Generator) -> None:
    matrices = [rng.standard_normal((5, 6)), rng.standard_normal((3, 4))]
    largest = np.sort(np.concatenate([np.abs(m).ravel() for m in matrices]))[-14:]
    masks = Unstructured().masks(matrices, zeros=1 - 14.5 / 42)
    kept = np.concatenate([np.abs(m)[k] for m, k in zip(matrices, masks, strict=True)])
    np.testing.assert_allclose(np.sort(kept), largest, rtol=1e-6)
    assert Unstructured().mask(np.ones((1, 7)), 0.5).tolist() == [[True] * 3 + [False] * 4]
    assert not Unstructured().mask(np.ones((2, 2)), 0.999).any()


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
    assert repr(BlockPunched()) == "BlockPunched(filters=8, channels=4)"
    assert all(kind.name == name for name, kind in STRUCTURES.items())
    with pytest.raises(dataclasses.FrozenInstanceError):
        UnalignedBlock().size = 8  # type: ignore[misc]


def test_a_model_with_every_structure_is_converted_and_run() -> None:
    import keras
    from conftest import WITHOUT
    from dense_models import run_dense
    from test_delegate import run_sparse

    from keras_prune import convert, densify, sparsify
    from keras_prune.tflite import find_delegate_library, inspect

    keras.utils.set_random_seed(5)
    conv, dense = keras.layers.Conv2D, keras.layers.Dense
    structures = {
        "unaligned": UnalignedBlock(4),
        "aligned": AlignedBlock(8),
        "pattern": Pattern(8),
        "connectivity": Pattern(8),
        "punched": BlockPunched(8, 4),
        "punched_1x1": BlockPunched(4, 8),
        "rows_columns_conv": BlockRowColumn(8, 32),
        "rows_columns": BlockRowColumn(16, 64),
    }
    model = keras.Sequential(
        [
            keras.Input((9, 11, 3)),
            conv(20, 3, strides=2, activation="relu", name="stem"),
            conv(36, 1, activation="relu", name="unaligned"),
            conv(41, 1, name="aligned"),
            conv(37, 3, padding="same", activation="relu", name="pattern"),
            conv(44, 1, name="connectivity"),
            conv(35, 3, padding="same", activation="relu6", name="punched"),
            conv(38, 1, name="punched_1x1"),
            conv(34, 3, padding="same", activation="relu", name="rows_columns_conv"),
            keras.layers.GlobalAveragePooling2D(),
            dense(150, activation="relu", name="widen"),
            dense(83, name="rows_columns"),
            dense(4, name="last"),
        ]
    )
    report = sparsify(model, structures, 0.8, layers=list(structures))
    assert [line.layer for line in report.pruned] == list(structures)
    assert all(0.8 <= line.zeros < 0.84 for line in report.pruned)
    sparse = convert(model)
    infos = inspect(sparse)
    found = [layer.structure for layer in infos]
    assert found == [None, *(s.name for s in list(structures.values())[:-1]), None, "block_row_column", None]
    # Nothing is stored but what is kept: the converter found the very patterns.
    assert infos[3].value_bytes == 4 * np.count_nonzero(model.get_layer("pattern").kernel)
    restored = densify(sparse)
    assert restored == convert(model, sparse=False)
    image = np.random.default_rng(1).standard_normal((1, 9, 11, 3)).astype(np.float32)
    (expected,) = run_dense(restored, image)
    np.testing.assert_allclose(model(image), expected, rtol=1e-4, atol=1e-6)
    if os.environ.get(WITHOUT) != "1":
        (actual,) = run_sparse(sparse, find_delegate_library(), image)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
