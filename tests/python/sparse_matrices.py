"""Matrices with the zeros of each structure, made entry by entry so that no code under test takes part."""

from __future__ import annotations

import numpy as np

PATTERNS_3X3 = ((0, 1, 3, 4), (1, 2, 4, 5), (3, 4, 6, 7), (4, 5, 7, 8), (1, 3, 4, 5), (1, 4, 5, 7), (3, 4, 5, 7))


def masked(rng: np.random.Generator, kept: np.ndarray) -> np.ndarray:
    """Weights where `kept`, and 0.0, never -0.0, elsewhere."""
    return np.where(kept, values(rng, kept.shape), np.float32(0))


def values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights, none of them zero."""
    return (rng.uniform(0.1, 1.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(np.float32)


def unaligned(rng: np.random.Generator, rows: int, columns: int, block: int, zeros: float) -> np.ndarray:
    """Blocks at any row; close to the asked share of zeros."""
    kept = np.zeros((rows, columns), bool)
    share = (1 - zeros) / (block * zeros + (1 - zeros))  # of rows that begin a block, among those where one may
    for column in range(columns):
        row = 0
        while row + block <= rows:
            if rng.random() < share:
                kept[row : row + block, column] = True
                row += block
            else:
                row += 1
    return masked(rng, kept)


def aligned(rng: np.random.Generator, rows: int, columns: int, block: int, zeros: float) -> np.ndarray:
    kept = np.zeros((rows, columns), bool)
    for column in range(columns):
        for row in range(0, rows, block):
            kept[row : row + block, column] = rng.random() >= zeros
    return masked(rng, kept)


def patterns(rng: np.random.Generator, rows: int, channels: int, connected: float) -> np.ndarray:
    """3x3 kernels of 4 entries each, a share of them connected; `[rows, 9 * channels]`."""
    kept = np.zeros((rows, 9, channels), bool)
    for row in range(rows):
        for channel in range(channels):
            if rng.random() < connected:
                kept[row, list(PATTERNS_3X3[rng.integers(len(PATTERNS_3X3))]), channel] = True
    return masked(rng, kept.reshape(rows, -1))


def punched(
    rng: np.random.Generator, rows: int, channels: int, kernel: int, block: tuple[int, int], zeros: float
) -> np.ndarray:
    """Blocks of filters x channels that lose the same kernel positions; `[rows, kernel * channels]`."""
    kept = np.zeros((rows, kernel, channels), bool)
    for row in range(0, rows, block[0]):
        for channel in range(0, channels, block[1]):
            for k in range(kernel):
                kept[row : row + block[0], k, channel : channel + block[1]] = rng.random() >= zeros
    return masked(rng, kept.reshape(rows, -1))


def row_column(
    rng: np.random.Generator, rows: int, columns: int, block: tuple[int, int], kept_share: float
) -> np.ndarray:
    """Blocks that keep a share of their rows and the same share of their columns."""
    kept = np.zeros((rows, columns), bool)
    for row in range(0, rows, block[0]):
        for column in range(0, columns, block[1]):
            part = kept[row : row + block[0], column : column + block[1]]
            part[:] = (rng.random((part.shape[0], 1)) < kept_share) & (rng.random((1, part.shape[1])) < kept_share)
    return masked(rng, kept)
