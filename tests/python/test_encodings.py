"""Encodings: found, stored and read back; read by a second reader; refused when damaged."""

import numpy as np
import properties  # noqa: F401
import pytest
import reference_reader
import sparse_matrices
from hypothesis import given
from hypothesis import strategies as st

from keras_prune.tflite.custom_options import CustomOptions, FormatError
from keras_prune.tflite.encodings import ENCODINGS, Shape, Weights, bits, gaps
from keras_prune.tflite.encodings.base import cover
from keras_prune.tflite.planning import MIN_ZEROS, Group, _choose

OPERATOR = "BlockSparseConv2D 'conv'"
HOSTILE = [1e-45, -1e-45, 3.4028235e38, -3.4028235e38, 1.1754944e-38, 1.0, -1.0]


def reader(options: dict) -> CustomOptions:
    return CustomOptions.of(options, OPERATOR)


def common(shape: Shape) -> dict:
    return {
        "rows": shape.rows,
        "columns": shape.columns,
        "kernel_height": shape.kernel[0],
        "kernel_width": shape.kernel[1],
    }


# Numbers in blobs


@pytest.mark.parametrize(
    ("positions", "step", "data"),
    [
        ([], 4, ""),
        ([0], 4, "00"),
        ([127], 4, "7f"),
        ([128], 4, "8001"),
        ([1, 5, 300], 4, "0100a302"),
        ([0, 1, 2], 1, "000000"),
        ([16383, 16388 + 16384], 4, "ff7f818001"),
        ([2**32 - 1], 2, "ffffffff0f"),
    ],
)
def test_byte_gaps(positions, step, data):
    positions = np.array(positions, np.int64)
    assert gaps.pack(positions, step).hex() == data
    assert gaps.packed_size(positions, step) == len(data) // 2
    np.testing.assert_array_equal(gaps.unpack(reader({"p": bytes.fromhex(data)}), "p", step), positions)


@given(st.lists(st.integers(0, 2**31), max_size=50), st.integers(1, 64))
def test_byte_gaps_as_the_second_reader_has_them(values, step):
    positions = np.cumsum(np.array(values, np.int64) + step) - step if values else np.zeros(0, np.int64)
    packed = gaps.pack(positions, step)
    assert reference_reader._byte_gaps(packed) == values
    np.testing.assert_array_equal(gaps.unpack(reader({"p": packed}), "p", step), positions)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("80", "ends within a number"),
        ("0180", "ends within a number"),
        ("808080808001", "more than 5 bytes"),
        ("ffffffff1f", "2\\^32 or more"),
    ],
)
def test_damaged_byte_gaps(data, problem):
    with pytest.raises(FormatError, match=f"'positions'.*{problem}"):
        gaps.unpack(reader({"positions": bytes.fromhex(data)}), "positions", 1)


def test_overlapping_positions_cannot_be_packed():
    with pytest.raises(ValueError, match="overlap"):
        gaps.pack(np.array([0, 3]), 4)


@pytest.mark.parametrize(
    ("positions", "options"),
    [
        ([], (0, "", "")),
        ([0], (0, "", "01")),
        ([0, 3, 4], (0, "", "19")),
        ([5, 11], (1, "03", "24")),  # gaps 5, 5: quotients 2, 2 (0 0 1 0 0 1), remainders 1, 1
    ],
)
def test_bit_gaps(positions, options):
    packed = bits.pack_gaps(np.array(positions, np.int64))
    assert (packed["gap_bits"], packed["gaps_low"].hex(), packed["gaps_high"].hex()) == options
    np.testing.assert_array_equal(bits.unpack_gaps(reader(packed)), positions)


@given(st.lists(st.integers(0, 2**20) | st.integers(0, 9), max_size=60))
def test_bit_gaps_come_back(values):
    positions = np.cumsum(np.array(values, np.int64) + 1) - 1
    packed = bits.pack_gaps(positions)
    assert bits.packed_gaps_size(positions) == len(packed["gaps_low"]) + len(packed["gaps_high"])
    np.testing.assert_array_equal(bits.unpack_gaps(reader(packed)), positions)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"gap_bits": 32}, "'gap_bits': is 32; expected 0 to 31"),
        ({"gap_bits": 3}, "'gaps_low': has 1 bytes; expected 2"),
        ({"gaps_low": b""}, "'gaps_low': has 0 bytes; expected 1"),
        ({"gaps_low": b"\x15\x00"}, "'gaps_low': has 2 bytes"),
        ({"gaps_low": b"\xff"}, "'gaps_low': has bits set past"),
        ({"gaps_high": b"\x2a\x00"}, "'gaps_high': goes on"),
    ],
)
def test_damaged_bit_gaps(change, problem):
    options = {"gap_bits": 2, "gaps_low": b"\x15", "gaps_high": b"\x2a", **change}
    with pytest.raises(FormatError, match=problem):
        bits.unpack_gaps(reader(options))


# Covering by blocks


def fewest_blocks(column: np.ndarray, block: int) -> float:
    """The least number of blocks within the column that cover its non-zeros, by dynamic programming."""
    rows = len(column)
    best = [0.0] + [np.inf] * rows  # best[i]: for the first i rows
    for i in range(1, rows + 1):
        if not column[i - 1]:
            best[i] = best[i - 1]
        if i >= block:
            best[i] = min(best[i], best[i - block] + 1)
    return best[rows]


@given(st.integers(1, 20), st.integers(1, 6), st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_cover_is_the_fewest_blocks_that_fit(rows, columns, block, seed, density):
    nonzero = np.random.default_rng(seed).random((rows, columns)) < density
    needed = [fewest_blocks(nonzero[:, column], block) for column in range(columns)]
    positions = cover(nonzero, block)
    if np.inf in needed:
        assert positions is None
        return
    assert positions is not None
    assert positions.size == sum(needed)
    covered = np.zeros((columns, rows), int)
    for position in positions:
        column, row = divmod(int(position), rows)
        assert row + block <= rows
        covered[column, row : row + block] += 1
    assert covered.max(initial=0) <= 1
    assert (covered.T[nonzero] == 1).all()


# All structures


def random_matrix(seed: int, rows: int, channels: int, kernel: tuple[int, int], density: float) -> Weights:
    rng = np.random.default_rng(seed)
    matrix = sparse_matrices.values(rng, (rows, channels * kernel[0] * kernel[1]))
    matrix *= rng.random(matrix.shape) < density
    matrix[rng.random(matrix.shape) < 0.1] *= 1e-38
    hostile = rng.random(matrix.shape) < 0.05
    matrix[hostile & (matrix != 0)] = rng.choice(np.array(HOSTILE, np.float32))
    matrix[hostile & (matrix == 0)] = -0.0
    return Weights(matrix, kernel)


@pytest.mark.parametrize("name", ENCODINGS)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 37),
    channels=st.integers(1, 11),
    kernel=st.sampled_from([(1, 1), (1, 3), (3, 3), (2, 5)]),
    density=st.floats(0.01, 0.9),
)
def test_every_candidate_holds_the_matrix(name, seed, rows, channels, kernel, density):
    weights = random_matrix(seed, rows, channels, kernel, density)
    encoding = ENCODINGS[name]
    for candidate in encoding.detect(weights):
        options, values = encoding.encode(weights, candidate)
        assert values.dtype == np.float32
        assert values.size == candidate.values
        assert candidate.metadata_bytes == sum(len(value) for value in options.values() if isinstance(value, bytes))
        expected = reference_reader.decode({"structure": name, **common(weights.shape), **options}, values)
        np.testing.assert_array_equal(expected, weights.matrix)
        decoded = encoding.decode(reader(options), weights.shape, values)
        assert decoded.tobytes() == expected.tobytes()
        assert encoding.block(reader(options), weights.shape)


@pytest.mark.parametrize("name", ENCODINGS)
def test_rows_of_negative_zeros(name):
    rng = np.random.default_rng(4)
    weights = Weights(sparse_matrices.aligned(rng, 21, 18, 4, 0.7), (3, 3))
    negative = rng.random(21) < 0.5
    for candidate in ENCODINGS[name].detect(weights):
        options, values = ENCODINGS[name].encode(weights, candidate)
        packed = bits.pack_bits(negative)
        everything = {"structure": name, **common(weights.shape), **options, "negative_zero_rows": packed}
        decoded = ENCODINGS[name].decode(reader(options), weights.shape, values, negative)
        assert decoded.tobytes() == reference_reader.decode(everything, values).tobytes()


RNG = np.random.default_rng(1)
STRUCTURED = {
    "unaligned 4": (sparse_matrices.unaligned(RNG, 66, 130, 4, 0.8), (1, 1), "unaligned_block", "4"),
    "unaligned 8": (sparse_matrices.unaligned(RNG, 70, 99, 8, 0.8), (1, 1), "unaligned_block", "8"),
    "unaligned 2, 3x3": (sparse_matrices.unaligned(RNG, 31, 90, 2, 0.8), (3, 3), "unaligned_block", "2"),
    "aligned 4": (sparse_matrices.aligned(RNG, 63, 131, 4, 0.8), (1, 1), "aligned_block", "4"),
    "aligned 16": (sparse_matrices.aligned(RNG, 79, 81, 16, 0.7), (3, 3), "aligned_block", "16"),
    "pattern": (sparse_matrices.patterns(RNG, 33, 29, 0.45), (3, 3), "pattern", "7 x 4"),
    "connectivity": (sparse_matrices.patterns(RNG, 33, 29, 0.45)[:, :29], (1, 1), "pattern", "1 x 1"),
    "punched 8x4": (sparse_matrices.punched(RNG, 61, 30, 9, (8, 4), 0.8), (3, 3), "block_punched", "8 x 4"),
    "row/column": (sparse_matrices.row_column(RNG, 120, 150, (16, 32), 0.45), (1, 1), "block_row_column", "16 x 32"),
}


@pytest.mark.parametrize("case", STRUCTURED)
def test_the_structure_that_made_the_zeros_is_found(case):
    matrix, kernel, structure, block = STRUCTURED[case]
    group = Group(1, [], set(), weights=Weights(matrix, kernel))
    _choose(group, MIN_ZEROS, list(ENCODINGS))
    assert group.candidate is not None, group.reason
    assert group.candidate.structure == structure
    options = ENCODINGS[structure].options(group.weights, group.candidate)
    assert ENCODINGS[structure].block(reader(options), group.weights.shape) == block
    padding = -matrix.shape[0] % 16 * matrix.shape[1]
    assert np.count_nonzero(matrix) <= group.candidate.values <= np.count_nonzero(matrix) + padding


@pytest.mark.parametrize(
    ("make", "kernel", "structure", "limit"),
    [
        (lambda rng: sparse_matrices.unaligned(rng, 256, 512, 4, 0.8), (1, 1), "unaligned_block", 0.08),
        (lambda rng: sparse_matrices.aligned(rng, 256, 512, 4, 0.8), (1, 1), "aligned_block", 0.08),
        (lambda rng: sparse_matrices.patterns(rng, 128, 128, 0.45), (3, 3), "pattern", 0.13),
        (lambda rng: sparse_matrices.aligned(rng, 256, 512, 1, 0.8), (1, 1), "pattern", 0.13),
        (lambda rng: sparse_matrices.punched(rng, 128, 128, 9, (8, 4), 0.8), (3, 3), "block_punched", 0.02),
    ],
    ids=["unaligned", "aligned", "pattern", "connectivity", "punched"],
)
def test_metadata_is_small(make, kernel, structure, limit):
    weights = Weights(make(np.random.default_rng(2)), kernel)
    candidate = min(ENCODINGS[structure].detect(weights), key=lambda candidate: candidate.bytes)
    assert candidate.metadata_bytes <= limit * 4 * candidate.values


def test_similar_filters_are_neighbours():
    # Filters of two kinds, in turns; each kind has its own patterns at its own channels.
    matrix = np.zeros((12, 9, 16), np.float32)
    for row in range(12):
        for channel in range(row % 2, 16, 2):
            matrix[row, list(sparse_matrices.PATTERNS_3X3[row % 2]), channel] = 1
    weights = Weights(matrix.reshape(12, -1), (3, 3))
    candidate = min(ENCODINGS["pattern"].detect(weights), key=lambda candidate: candidate.values)
    order = np.frombuffer(ENCODINGS["pattern"].options(weights, candidate)["filter_order"], np.uint8)
    assert np.count_nonzero(np.diff(order % 2)) == 1


# What is damaged is refused

DAMAGED = [
    ("unaligned_block", {"block": 1}, "'block': is 1; expected 2 to 8"),
    ("unaligned_block", {"block": 65}, "'block': is 65"),
    ("unaligned_block", {"block": "4"}, "'block': is a string"),
    ("unaligned_block", {"positions": b"\x00\x00\x00"}, "crosses into the next column"),
    ("unaligned_block", {"positions": b"\x00\x7f\x7f\x7f\x7f"}, "past the end of the matrix"),
    ("unaligned_block", {"positions": b"\x00"}, "stores 3 values; the values tensor has"),
    ("unaligned_block", {"positions": None}, "'positions': is missing"),
    ("aligned_block", {"block": 9}, "'block': is 9; expected 2 to 8"),
    ("aligned_block", {"positions": b"\x7f\x7f"}, "past the end of the matrix"),
    ("aligned_block", {"positions": b"\x00"}, "stores 3 values; the values tensor has"),
    ("pattern", {"patterns": b""}, "'patterns': has 0 bytes"),
    ("pattern", {"patterns": b"\x01\x00\x02"}, "'patterns': has 3 bytes"),
    ("pattern", {"patterns": b"\x00\x00"}, "an empty pattern"),
    ("pattern", {"patterns": b"\x01\x02"}, "past the last kernel position"),
    ("pattern", {"patterns": b"\x01\x00\x01\x00"}, "the same pattern twice"),
    ("pattern", {"filter_order": b"\0\1"}, "'filter_order': has 2 bytes; expected 8"),
    ("pattern", {"filter_order": b"\0\1\2\3\4\5\6\6"}, "no permutation"),
    ("pattern", {"gaps_high": b"\x01", "gaps_low": b"", "gap_bits": 0}, "values tensor has"),
    ("block_punched", {"block": 0}, "'block': is 0; expected 1 to 8"),
    ("block_punched", {"block_channels": 7}, "'block_channels': is 7; expected 1 to 6"),
    ("block_punched", {"kept": b"\x01"}, "'kept': has 1 bytes"),
    ("block_row_column", {"block_rows": 9}, "'block_rows': is 9"),
    ("block_row_column", {"block_columns": 55}, "'block_columns': is 55; expected 1 to 54"),
    ("block_row_column", {"kept_rows": b"\x01"}, "'kept_rows': has 1 bytes"),
]


@pytest.mark.parametrize(("name", "change", "problem"), DAMAGED)
def test_damaged_options_are_refused(name, change, problem):
    rng = np.random.default_rng(3)
    matrix = sparse_matrices.values(rng, (8, 54)) * (rng.random((8, 54)) < 0.5)
    matrix[:3, 0] = 1
    weights = Weights(matrix.astype(np.float32), (3, 3))
    encoding = ENCODINGS[name]
    candidate = min(encoding.detect(weights), key=lambda candidate: candidate.values)
    options, values = encoding.encode(weights, candidate)
    if "block" in options and name in ("unaligned_block", "aligned_block"):
        options["block"] = 3
    options = {key: value for key, value in {**options, **change}.items() if value is not None}
    with pytest.raises(FormatError, match=problem) as caught:
        encoding.decode(reader(options), weights.shape, values)
    assert OPERATOR in str(caught.value)


def test_overlaps_and_padding_are_refused():
    shape = Shape(6, 4, (1, 1))
    twice = {"patterns": b"\x01", "gap_bits": 0, "gaps_low": b"", "gaps_high": b"\x01", "filter_order": b"\0\1\2\3\4\5"}
    ENCODINGS["pattern"].decode(reader(twice), shape, np.ones(1, np.float32))
    two_kernels = {"patterns": b"\x01\x02", "gap_bits": 0, "gaps_low": b"", "gaps_high": b"\x09"}
    with pytest.raises(FormatError, match="two kernels for one channel"):
        ENCODINGS["pattern"].decode(reader(two_kernels), Shape(3, 6, (1, 2)), np.ones(2, np.float32))
    with pytest.raises(FormatError, match="padding values that are not 0"):
        ENCODINGS["aligned_block"].decode(reader({"block": 4, "positions": b"\1"}), shape, np.ones(4, np.float32))
    options = {"block_rows": 4, "block_columns": 4, "kept_rows": b"\x40", "kept_columns": b"\x10"}
    with pytest.raises(FormatError, match="keeps rows outside the matrix"):
        ENCODINGS["block_row_column"].decode(reader(options), shape, np.ones(1, np.float32))
    options["kept_rows"] = b"\x00"
    with pytest.raises(FormatError, match="keeps columns but no row"):
        ENCODINGS["block_row_column"].decode(reader(options), shape, np.ones(1, np.float32))


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_changed_byte_is_refused_or_read_in_bounds(name):
    rng = np.random.default_rng(5)
    weights = Weights(sparse_matrices.unaligned(rng, 9, 30, 4, 0.7), (2, 3))
    encoding = ENCODINGS[name]
    candidate = min(encoding.detect(weights), key=lambda candidate: candidate.values)
    options, values = encoding.encode(weights, candidate)
    for key, blob in options.items():
        if not isinstance(blob, bytes):
            changes = [{key: value} for value in (-1, 0, 1, blob + 1, 2**31, 2**63 - 1)]
        else:
            changes = [{key: blob[:size]} for size in range(len(blob))] + [{key: blob + b"\0"}]
            for at in range(len(blob)):
                changes += [{key: blob[:at] + bytes([value]) + blob[at + 1 :]} for value in (0, 255, blob[at] ^ 1)]
        for change in changes:
            try:
                decoded = encoding.decode(reader({**options, **change}), weights.shape, values)
            except FormatError:
                continue
            everything = {"structure": name, **common(weights.shape), **options, **change}
            assert decoded.tobytes() == reference_reader.decode(everything, values).tobytes()
