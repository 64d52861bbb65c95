"""Ascending positions as gaps in unsigned LEB128."""

from __future__ import annotations

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions

MAX_GAP = 2**32 - 1
MAX_GAP_BYTES = 5


def pack(positions: np.ndarray, step: int) -> bytes:
    """Pack ascending positions `[n]`, each at least `step` past the one before, as gaps.

    Example:
        >>> pack(np.array([1, 5, 300]), step=4).hex()
        '0100a302'
    """
    positions = np.asarray(positions, np.int64)
    gaps = np.diff(positions, prepend=-step) - step
    if gaps.size and (gaps.min() < 0 or gaps.max() > MAX_GAP):
        raise ValueError("positions overlap or lie more than 2^32 apart")
    lengths = np.ones(gaps.shape, np.int64)
    for i in range(1, MAX_GAP_BYTES):
        lengths += gaps >= 1 << (7 * i)
    ends = np.cumsum(lengths)
    packed = np.zeros(int(ends[-1]) if ends.size else 0, np.uint8)
    for i in range(MAX_GAP_BYTES):
        present = lengths > i
        more = np.where(lengths > i + 1, 0x80, 0)
        packed[(ends - lengths + i)[present]] = ((gaps >> (7 * i) & 0x7F) | more)[present]
    return packed.tobytes()


def packed_size(positions: np.ndarray, step: int) -> int:
    """Return the bytes that `pack` would take."""
    gaps = np.diff(np.asarray(positions, np.int64), prepend=-step) - step
    return int(gaps.size + sum(np.count_nonzero(gaps >= 1 << (7 * i)) for i in range(1, MAX_GAP_BYTES)))


def unpack(options: CustomOptions, key: str, step: int) -> np.ndarray:
    """Read the positions `[n]` int64 from the blob at `key`.

    Raises:
        FormatError: the blob ends within a number, or a number is too long or too large.
    """
    data = np.frombuffer(options.blob(key), np.uint8)
    if data.size == 0:
        return np.zeros(0, np.int64)
    last = np.flatnonzero(data < 0x80)
    if last.size == 0 or last[-1] != data.size - 1:
        raise options.fail(key, "ends within a number; it is truncated")
    first = np.concatenate([[0], last[:-1] + 1])
    if int((last - first).max()) >= MAX_GAP_BYTES:
        raise options.fail(key, f"holds a number of more than {MAX_GAP_BYTES} bytes")
    shifts = 7 * (np.arange(data.size) - np.repeat(first, last - first + 1))
    gaps = np.add.reduceat((data & 0x7F).astype(np.int64) << shifts, first)
    if int(gaps.max()) > MAX_GAP:
        raise options.fail(key, "holds a number of 2^32 or more")
    return np.cumsum(gaps) + step * np.arange(gaps.size)
