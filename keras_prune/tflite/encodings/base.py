"""What an encoding is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from keras_prune.tflite.custom_options import CustomOptions, Value

# Block heights that are looked for. Taller blocks share each loaded activation among more weights; beyond 16 rows the
# accumulators of one pixel vector alone fill a register file.
BLOCK_SIZES = (16, 8, 4, 2)
# Rows of the largest block that loses whole rows and columns.
MAX_ROW_GROUP = 64
# Time of a block beside its multiply-adds (the activation's load, the column's address), in multiply-adds: fits the
# times measured for blocks of 4 and of 8 rows over the 1x1 layers of MobileNetV1 at the same number of weights
# (1.39 and 1.13 ms).
BLOCK_OVERHEAD = 2.4
# Time of a weight of the dense layer, which is all blocks of the largest size.
DENSE_COST = 1 + BLOCK_OVERHEAD / BLOCK_SIZES[0]
# The same of a fully connected layer, which reads its weights in order and needs no address: fits from which share of
# zeros on `make bench-payoff` finds blocks of 4 and of 2 rows to pay.
FULLY_CONNECTED_DENSE_COST = 1.02
# Blocks that have to be found again when the model is loaded are slightly worse than those that the file gives.
SCATTERED_COST = 1.03


def cover(nonzero: np.ndarray, block: int) -> np.ndarray | None:
    """Cover each column's non-zeros by the fewest non-overlapping blocks.

    Going down a column and starting a block at each non-zero that is not covered yet gives the fewest blocks. Where
    the last one would stick out below, it moves up, and pushes up those that it meets.

    Args:
        nonzero: `[rows, columns]` bool.
        block: rows of a block.

    Returns:
        The blocks' positions `column * rows + start_row` `[n]` int64, ascending, or None where a column needs more
        blocks than fit into it.

    Example:
        >>> cover(np.array([[0], [1], [0], [1], [0], [1]], bool), 2)
        array([0, 2, 4])
    """
    rows, columns = nonzero.shape
    free = np.zeros(columns, np.int32)  # the first row below the blocks so far
    starts = np.empty((rows, columns), bool)
    for row in range(rows):
        np.logical_and(nonzero[row], free <= row, out=starts[row])
        np.putmask(free, starts[row], row + block)
    counts = starts.sum(axis=0)
    if counts.max(initial=0) * block > rows:
        return None
    positions = np.flatnonzero(np.ascontiguousarray(starts.T))
    ends = np.cumsum(counts)
    column = positions // rows
    blocks_from_here = ends[column] - np.arange(positions.size)
    return np.minimum(positions, (column + 1) * rows - blocks_from_here * block)


def any_by_size(nonzero: np.ndarray, largest: int, axis: int) -> dict[int, np.ndarray]:
    """For groups of 2, 4, 8, ... up to `largest` entries along an axis, whether any is set; the last may be ragged.

    Only group sizes up to the axis's length are there.

    Example:
        >>> any_by_size(np.array([0, 0, 0, 1, 0], bool), 4, axis=0)
        {2: array([False,  True, False]), 4: array([ True, False])}
    """
    found: dict[int, np.ndarray] = {}
    any_set, size = nonzero, 2
    while size <= min(largest, nonzero.shape[axis]):
        any_set = found[size] = pairwise(np.logical_or, any_set, axis)
        size *= 2
    return found


def pairwise(operation: np.ufunc, values: np.ndarray, axis: int) -> np.ndarray:
    """Combine neighbours along an axis two by two; a last one without a neighbour stays as it is."""
    values = np.moveaxis(values, axis, 0)
    combined = values[0::2].copy()
    paired = values.shape[0] // 2
    operation(combined[:paired], values[1::2], out=combined[:paired])
    return np.moveaxis(combined, 0, axis)


@dataclass(frozen=True)
class Shape:
    """Size of a matrix `[rows, columns]` and of the kernel, (1, 1) for a fully connected layer, behind its columns."""

    rows: int
    columns: int
    kernel: tuple[int, int] = (1, 1)

    @property
    def channels(self) -> int:
        return self.columns // (self.kernel[0] * self.kernel[1])


@dataclass(frozen=True)
class Weights:
    """A layer's weights as the matrix `[rows, columns]` float32."""

    matrix: np.ndarray
    kernel: tuple[int, int] = (1, 1)

    @property
    def shape(self) -> Shape:
        return Shape(self.matrix.shape[0], self.matrix.shape[1], self.kernel)

    @cached_property
    def nonzero(self) -> np.ndarray:
        """`[rows, columns]` bool."""
        return self.matrix != 0

    @cached_property
    def covers(self) -> dict[int, np.ndarray]:
        """For each block size that serves, the fewest blocks which cover all non-zeros; see `cover`."""
        sizes = [block for block in BLOCK_SIZES if block <= self.matrix.shape[0]]
        found = {block: cover(self.nonzero, block) for block in sizes}
        return {block: positions for block, positions in found.items() if positions is not None}

    @cached_property
    def row_groups(self) -> dict[int, np.ndarray]:
        """For groups of 2, 4, 8, ... rows, which of their columns have a non-zero: `[groups, columns]` bool."""
        return any_by_size(self.nonzero, MAX_ROW_GROUP, axis=0)

    @cached_property
    def scattered_cost(self) -> float:
        """Cost of a structure whose entries the delegate gathers into blocks as it loads the model."""
        single = np.count_nonzero(self.nonzero) * (1 + BLOCK_OVERHEAD)
        covered = [positions.size * (block + BLOCK_OVERHEAD) for block, positions in self.covers.items()]
        return SCATTERED_COST * float(min([single, *covered]))


def scheme(structure: str, sizes: tuple[int, ...]) -> str:
    """Name a structure and its block as latency tables do.

    Example:
        >>> scheme("block_punched", (8, 4))
        'block_punched:8x4'
    """
    return f"{structure}:{'x'.join(map(str, sizes))}"


@dataclass(frozen=True)
class Candidate:
    """One way to store a matrix.

    Attributes:
        structure: the encoding's name.
        sizes: of the block, as the encoding's `sizes` reads them.
        values: floats that would be stored.
        metadata_bytes: bytes of metadata, near enough to compare.
        cost: modelled time, in multiply-adds a pixel.
        details: what `encode` needs, known to the encoding alone.
    """

    structure: str
    sizes: tuple[int, ...]
    values: int
    metadata_bytes: int
    cost: float
    details: Any = field(repr=False, compare=False)

    @property
    def scheme(self) -> str:
        """Structure and block as latency tables name them."""
        return scheme(self.structure, self.sizes)

    @property
    def bytes(self) -> int:
        return 4 * self.values + self.metadata_bytes


class Encoding(ABC):
    """One structure's way between the matrix and the file; `docs/format.md` specifies the file's side."""

    name: ClassVar[str]

    @abstractmethod
    def detect(self, weights: Weights) -> Iterator[Candidate]:
        """Yield the ways in which this structure can hold all non-zeros of the matrix."""

    @abstractmethod
    def options(self, weights: Weights, candidate: Candidate) -> dict[str, Value]:
        """Return the structure's own custom options, for a candidate that `detect` gave for these weights."""

    @abstractmethod
    def locate(self, options: CustomOptions, shape: Shape) -> np.ndarray:
        """Read where each stored value belongs.

        Returns:
            `[n]` int64: the index of each value in the flattened matrix, no index twice; -1 for padding, which is 0.

        Raises:
            FormatError: a key is missing, out of range or inconsistent with the others.
        """

    @abstractmethod
    def sizes(self, options: CustomOptions, shape: Shape) -> tuple[int, ...]:
        """Read the sizes of the block."""

    def block(self, options: CustomOptions, shape: Shape) -> str:
        """Say the block's size in words, for `inspect`."""
        return " x ".join(map(str, self.sizes(options, shape)))

    def encode(self, weights: Weights, candidate: Candidate) -> tuple[dict[str, Value], np.ndarray]:
        """Store a matrix: the structure's own options, and the values `[n]` float32."""
        options = self.options(weights, candidate)
        index = self.locate(CustomOptions.of(options, self.name), weights.shape)
        flat = weights.matrix.reshape(-1)
        return options, np.where(index < 0, np.float32(0), flat[np.maximum(index, 0)])

    def decode(
        self, options: CustomOptions, shape: Shape, values: np.ndarray, negative_zero_rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Restore the matrix `[rows, columns]` float32; what is not stored is 0, or -0.0 in the rows `[rows]` marked.

        Raises:
            FormatError: a key is missing, out of range or inconsistent with the others or with the values.
        """
        index = self.locate(options, shape)
        if index.size != values.size:
            raise options.fail("structure", f"stores {index.size} values; the values tensor has {values.size}")
        inside = index >= 0
        if not inside.all():
            if np.any(values[~inside]):
                raise options.fail("structure", "has padding values that are not 0")
            index, values = index[inside], values[inside]
        matrix = np.zeros((shape.rows, shape.columns), np.float32)
        if negative_zero_rows is not None:
            matrix[negative_zero_rows] = -0.0
        matrix.reshape(-1)[index] = values
        return matrix
