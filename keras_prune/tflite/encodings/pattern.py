"""Kernels that keep the entries of one pattern out of a few, or are absent: filter-kernel-weight (FKW) storage.

Niu et al., "PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based Weight Pruning", 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value
from keras_prune.tflite.encodings import bits
from keras_prune.tflite.encodings.base import Candidate, Encoding, Shape, Weights

MAX_PATTERNS = 255
# More patterns than this are no pattern pruning (which uses 4 to 12) but chance.
MAX_DETECTED_PATTERNS = 32
# Kernels of more entries than an integer has bits, or with more different shapes than this, are not looked at.
MAX_KERNEL = 62
MAX_DISTINCT_KERNELS = 2048
# Up to this size all possible shapes of a kernel can be counted, which is faster than sorting those that occur.
MAX_COUNTED_KERNEL = 16


@dataclass(frozen=True)
class _Details:
    patterns: np.ndarray  # [P] int64, bit k: position k is kept
    assigned: np.ndarray  # [rows, channels] int: 1 + pattern, or 0 for an absent kernel
    filter_order: np.ndarray  # [rows]


class PatternEncoding(Encoding):
    """Patterns: the set as bit masks, the order of filters, and the kernels' positions by filter and pattern."""

    name: ClassVar[str] = "pattern"

    def detect(self, weights: Weights) -> Iterator[Candidate]:
        shape = weights.shape
        kernel = shape.kernel[0] * shape.kernel[1]
        if kernel > MAX_KERNEL:
            return
        codes = np.zeros((shape.rows, shape.channels), np.int64)
        for k in range(kernel):  # a weight's bit
            codes |= weights.nonzero[:, k * shape.channels : (k + 1) * shape.channels].astype(np.int64) << k
        distinct = _distinct(codes, kernel)
        if not 0 < distinct.size <= MAX_DISTINCT_KERNELS:
            return
        patterns = _maximal(distinct)
        if patterns.size <= MAX_DETECTED_PATTERNS:
            yield self._candidate(weights, codes, distinct, patterns)
        if patterns.size > 1:  # whole kernels are there or not
            yield self._candidate(weights, codes, distinct, np.bitwise_or.reduce(distinct, keepdims=True))

    def _candidate(self, weights: Weights, codes: np.ndarray, distinct: np.ndarray, patterns: np.ndarray) -> Candidate:
        fits = (distinct[:, None] & ~patterns[None, :]) == 0
        sizes = _entries(patterns)
        # A kernel with a zero by chance fits several patterns; one of the fewest entries stores the least.
        of_distinct = np.argmin(np.where(fits, sizes[None, :], MAX_KERNEL + 1), axis=1)
        assigned = np.where(codes > 0, of_distinct[np.searchsorted(distinct, codes)] + 1, 0)
        details = _Details(patterns, assigned, _similar_filters_together(assigned))
        values = int(np.concatenate([[0], sizes])[assigned].sum())
        metadata = bits.packed_gaps_size(_positions(details)) + len(_pack_order(details.filter_order))
        return Candidate(
            structure=self.name,
            sizes=(patterns.size,),
            values=values,
            metadata_bytes=metadata + patterns.size * _pattern_bytes(weights.shape),
            cost=max(weights.scattered_cost, float(values)),
            details=details,
        )

    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        details: _Details = candidate.details
        size = _pattern_bytes(weights.shape)
        options: dict[str, Value] = {
            "patterns": b"".join(int(pattern).to_bytes(size, "little") for pattern in details.patterns),
            **bits.pack_gaps(_positions(details)),
        }
        order = _pack_order(details.filter_order)
        if order:
            options["filter_order"] = order
        return options

    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        kept = _read_patterns(options, shape)
        order = _read_order(options, shape)
        positions = bits.unpack_gaps(options)
        count, channels = kept.shape[0], shape.channels
        if positions.size and positions[-1] >= shape.rows * count * channels:
            raise options.fail("gaps_high", "leads past the last filter")
        run, channel = np.divmod(positions, channels)
        filter_, pattern = np.divmod(run, count)
        row = order[filter_]
        if np.unique(row * channels + channel).size != positions.size:
            raise options.fail("gaps_low", "gives a filter two kernels for one channel")
        entries = kept[pattern]  # [kernels, kh * kw]
        index = row[:, None] * shape.columns + np.arange(kept.shape[1]) * channels + channel[:, None]
        return index[entries]

    def sizes(self, options: CustomOptions, shape: Shape) -> tuple[int, ...]:
        return (_read_patterns(options, shape).shape[0],)

    def block(self, options: CustomOptions, shape: Shape) -> str:
        kept = _read_patterns(options, shape)
        entries = kept.sum(axis=1)
        return f"{kept.shape[0]} x {entries.min()}" if entries.min() == entries.max() else f"{kept.shape[0]}"


def _distinct(codes: np.ndarray, kernel: int) -> np.ndarray:
    """Return the non-zero codes that occur, ascending."""
    if kernel <= MAX_COUNTED_KERNEL:
        return np.flatnonzero(np.bincount(codes.reshape(-1), minlength=1)[1:]) + 1
    distinct = np.unique(codes)
    return distinct[distinct > 0]


def _entries(patterns: np.ndarray) -> np.ndarray:
    return np.array([int(pattern).bit_count() for pattern in patterns], np.int64)


def _maximal(codes: np.ndarray) -> np.ndarray:
    """Return those bit sets that no other one of them contains."""
    contained = (codes[:, None] & ~codes[None, :]) == 0
    return codes[contained.sum(axis=1) == 1]


def _pattern_bytes(shape: Shape) -> int:
    return -(-shape.kernel[0] * shape.kernel[1] // 8)


def _similar_filters_together(assigned: np.ndarray) -> np.ndarray:
    """Order filters by their number of kernels, and those of equal number so that each is like the one before."""
    counts = np.count_nonzero(assigned, axis=1)
    order = np.argsort(counts, kind="stable")
    if assigned.max(initial=0) <= 1:
        return np.arange(order.size)  # without patterns there is no run to share
    bounds = np.flatnonzero(np.diff(counts[order], prepend=-1, append=-1))
    for begin, end in pairwise(bounds):
        group = order[begin:end]
        compact = assigned[group].astype(np.uint8)
        for i in range(1, group.size - 1):
            shared = ((compact[i:] == compact[i - 1]) & (compact[i - 1] > 0)).sum(axis=1)
            nearest = i + int(np.argmax(shared))
            compact[[i, nearest]] = compact[[nearest, i]]
            group[[i, nearest]] = group[[nearest, i]]
        order[begin:end] = group
    return order


def _positions(details: _Details) -> np.ndarray:
    assigned = details.assigned[details.filter_order]
    filter_, channel = np.nonzero(assigned)
    count, channels = details.patterns.size, assigned.shape[1]
    return np.sort((filter_ * count + assigned[filter_, channel] - 1) * channels + channel)


def _order_type(rows: int) -> str:
    return "<u1" if rows <= 2**8 else "<u2" if rows <= 2**16 else "<u4"


def _pack_order(order: np.ndarray) -> bytes:
    if np.array_equal(order, np.arange(order.size)):
        return b""
    return order.astype(_order_type(order.size)).tobytes()


def _read_order(options: CustomOptions, shape: Shape) -> np.ndarray:
    if "filter_order" not in options:
        return np.arange(shape.rows)
    data, dtype = options.blob("filter_order"), np.dtype(_order_type(shape.rows))
    if len(data) != shape.rows * dtype.itemsize:
        raise options.fail("filter_order", f"has {len(data)} bytes; expected {shape.rows * dtype.itemsize}")
    order = np.frombuffer(data, dtype).astype(np.int64)
    if not np.array_equal(np.sort(order), np.arange(shape.rows)):
        raise options.fail("filter_order", "is no permutation of the output channels")
    return order


def _read_patterns(options: CustomOptions, shape: Shape) -> np.ndarray:
    """Read the set as `[P, kh * kw]` bool."""
    data, size = options.blob("patterns"), _pattern_bytes(shape)
    kernel = shape.kernel[0] * shape.kernel[1]
    if not data or len(data) % size or len(data) // size > MAX_PATTERNS:
        raise options.fail("patterns", f"has {len(data)} bytes; expected 1 to {MAX_PATTERNS} patterns of {size}")
    kept = np.unpackbits(np.frombuffer(data, np.uint8).reshape(-1, size), axis=1, bitorder="little").astype(bool)
    if kept[:, kernel:].any():
        raise options.fail("patterns", "has bits set past the last kernel position")
    kept = kept[:, :kernel]
    if not kept.any(axis=1).all():
        raise options.fail("patterns", "has an empty pattern")
    if np.unique(kept, axis=0).shape[0] != kept.shape[0]:
        raise options.fail("patterns", "has the same pattern twice")
    return kept
