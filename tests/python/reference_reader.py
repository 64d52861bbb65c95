"""A second reader of the file format, written from `docs/format.md`: plain loops, no code of the package."""

from __future__ import annotations

import numpy as np
from flatbuffers import flexbuffers


def read_options(data: bytes) -> dict:
    """The whole map, by the FlexBuffers library."""
    return flexbuffers.Loads(bytes(data))


def decode(options: dict, values: np.ndarray) -> np.ndarray:
    """The matrix `[rows, columns]` that a block-sparse operator stands for."""
    rows, columns = options["rows"], options["columns"]
    matrix = np.zeros((rows, columns), np.float32)
    negative = options.get("negative_zero_rows", b"")
    for row in range(rows):
        if negative and negative[row // 8] >> (row % 8) & 1:
            matrix[row] = -0.0
    kernel = options.get("kernel_height", 1) * options.get("kernel_width", 1)
    stored = list(values)
    readers = {
        "unaligned_block": _unaligned_block,
        "aligned_block": _aligned_block,
        "pattern": _pattern,
        "block_punched": _block_punched,
        "block_row_column": _block_row_column,
    }
    places = readers[options["structure"]](options, rows, columns, kernel)
    assert len(places) == len(stored), (len(places), len(stored))
    seen = set()
    for (row, column), value in zip(places, stored, strict=True):
        if row >= rows:
            assert value == 0
            continue
        assert (row, column) not in seen
        seen.add((row, column))
        matrix[row, column] = value
    return matrix


def _byte_gaps(data: bytes) -> list[int]:
    gaps, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            gaps.append(value)
            value, shift = 0, 0
    assert shift == 0
    return gaps


def _bit(data: bytes, i: int) -> int:
    return data[i // 8] >> (i % 8) & 1


def _unaligned_block(options: dict, rows: int, columns: int, kernel: int) -> list[tuple[int, int]]:
    places, cursor, block = [], 0, options["block"]
    for gap in _byte_gaps(options["positions"]):
        column, row = divmod(cursor + gap, rows)
        assert row + block <= rows
        assert column < columns
        places += [(row + i, column) for i in range(block)]
        cursor += gap + block
    return places


def _aligned_block(options: dict, rows: int, columns: int, kernel: int) -> list[tuple[int, int]]:
    places, cursor, block = [], 0, options["block"]
    groups = (rows + block - 1) // block
    for gap in _byte_gaps(options["positions"]):
        column, group = divmod(cursor + gap, groups)
        assert column < columns
        places += [(group * block + i, column) for i in range(block)]
        cursor += gap + 1
    return places


def _pattern(options: dict, rows: int, columns: int, kernel: int) -> list[tuple[int, int]]:
    size = (kernel + 7) // 8
    data, channels = options["patterns"], columns // kernel
    masks = [data[i : i + size] for i in range(0, len(data), size)]
    order = list(range(rows))
    if "filter_order" in options:
        width = 1 if rows <= 2**8 else 2 if rows <= 2**16 else 4
        packed = options["filter_order"]
        order = [int.from_bytes(packed[i * width : (i + 1) * width], "little") for i in range(rows)]
        assert sorted(order) == list(range(rows))
    k, high, low = options["gap_bits"], options["gaps_high"], options["gaps_low"]
    places, cursor, quotient, kernels = [], 0, 0, 0
    for i in range(8 * len(high)):
        if not _bit(high, i):
            quotient += 1
            continue
        remainder = sum(_bit(low, kernels * k + j) << j for j in range(k))
        position = cursor + (quotient << k) + remainder
        cursor, quotient, kernels = position + 1, 0, kernels + 1
        run, channel = divmod(position, channels)
        filter_, pattern = divmod(run, len(masks))
        places += [(order[filter_], e * channels + channel) for e in range(kernel) if _bit(masks[pattern], e)]
    assert len(low) == (kernels * k + 7) // 8
    return places


def _block_punched(options: dict, rows: int, columns: int, kernel: int) -> list[tuple[int, int]]:
    places, m, n = [], options["block"], options["block_channels"]
    channels = columns // kernel
    unit = 0
    for row in range(0, rows, m):
        for first in range(0, channels, n):
            for k in range(kernel):
                if _bit(options["kept"], unit):
                    for channel in range(first, min(first + n, channels)):
                        places += [(row + i, k * channels + channel) for i in range(m)]
                unit += 1
    assert len(options["kept"]) == (unit + 7) // 8
    return places


def _block_row_column(options: dict, rows: int, columns: int, kernel: int) -> list[tuple[int, int]]:
    places, p, q = [], options["block_rows"], options["block_columns"]
    block = 0
    for row in range(0, rows, p):
        for column in range(0, columns, q):
            kept_rows = [i for i in range(p) if _bit(options["kept_rows"], block * p + i)]
            for j in range(q):
                if _bit(options["kept_columns"], block * q + j):
                    places += [(row + i, column + j) for i in kept_rows]
            block += 1
    assert all(row < rows and column < columns for row, column in places)
    return places
