"""Bits packed into bytes, least significant first, and ascending positions as gaps in a Rice code."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value

MAX_GAP_BITS = 31
# What a reader of any word size can hold; no matrix within the format's limits has a position beyond it.
_MAX_POSITION = 2**48


def pack_bits(bits: Any) -> bytes:
    """Pack bool values of any shape, in C order; the last byte is filled by 0.

    Example:
        >>> pack_bits(np.array([1, 0, 0, 1, 0, 0, 0, 0, 1], bool)).hex()
        '0901'
    """
    return np.packbits(np.asarray(bits, bool).reshape(-1), bitorder="little").tobytes()


def unpack_bits(options: CustomOptions, key: str, count: int) -> np.ndarray:
    """Read `[count]` bool from the blob at `key`.

    Raises:
        FormatError: the blob is longer or shorter, or a bit past the last one is set.
    """
    data = np.frombuffer(options.blob(key), np.uint8)
    if data.size != -(-count // 8):
        raise options.fail(key, f"has {data.size} bytes; expected {-(-count // 8)}, for {count} bits")
    bits = np.unpackbits(data, bitorder="little").astype(bool)
    if bits[count:].any():
        raise options.fail(key, "has bits set past its last element")
    return bits[:count]


def _gaps(positions: np.ndarray) -> np.ndarray:
    before = np.concatenate([[-1], positions[:-1]]) if positions.size else positions
    return np.asarray(positions - before - 1, np.int64)


def best_gap_bits(gaps: np.ndarray) -> int:
    """Return the number of remainder bits that gives the shortest code."""
    best, least = 0, int(gaps.sum())
    for k in range(1, MAX_GAP_BITS + 1):  # a further bit saves less than the one before, so the first loss is the end
        size = gaps.size * k + int((gaps >> k).sum())
        if size >= least:
            break
        best, least = k, size
    return best


def pack_gaps(positions: np.ndarray) -> dict[str, Value]:
    r"""Pack strictly ascending positions `[n]`, none negative, as the options `gap_bits`, `gaps_low` and `gaps_high`.

    Example:
        >>> pack_gaps(np.array([0, 3, 4]))
        {'gap_bits': 0, 'gaps_low': b'', 'gaps_high': b'\x19'}
    """
    gaps = _gaps(positions)
    k = best_gap_bits(gaps)
    ends = np.cumsum((gaps >> k) + 1)
    high = np.zeros(int(ends[-1]) if ends.size else 0, bool)
    high[ends - 1] = True
    low = (gaps[:, None] >> np.arange(k)) & 1
    return {"gap_bits": k, "gaps_low": pack_bits(low), "gaps_high": pack_bits(high)}


def packed_gaps_size(positions: np.ndarray) -> int:
    """Return the bytes of the blobs that `pack_gaps` would give."""
    gaps = _gaps(positions)
    k = best_gap_bits(gaps)
    return -(-gaps.size * k // 8) - (-(gaps.size + int((gaps >> k).sum())) // 8)


def unpack_gaps(options: CustomOptions) -> np.ndarray:
    """Read the positions `[n]` int64.

    Raises:
        FormatError: the blobs do not fit each other, or a position is out of all bounds.
    """
    k = options.integer("gap_bits", 0, MAX_GAP_BITS)
    data = np.frombuffer(options.blob("gaps_high"), np.uint8)
    ones = np.flatnonzero(np.unpackbits(data, bitorder="little"))
    if data.size != (-(-(int(ones[-1]) + 1) // 8) if ones.size else 0):
        raise options.fail("gaps_high", "goes on after its last number")
    quotients = _gaps(ones)
    low = unpack_bits(options, "gaps_low", ones.size * k).reshape(ones.size, k)
    if quotients.size and int(quotients.max()) >= _MAX_POSITION >> k:
        raise options.fail("gaps_high", "holds a number that is out of all bounds")
    gaps = (quotients << k) + low @ (1 << np.arange(k, dtype=np.int64))
    return np.cumsum(gaps + 1) - 1
