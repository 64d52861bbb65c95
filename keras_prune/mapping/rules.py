"""Which structure and block suit a layer: each rule is a function with its reason.

Reference:
    Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes for Real-Time Mobile Acceleration",
    arXiv:2111.11581.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_prune.mapping.table import LatencyTable, Point
from keras_prune.mapping.workload import parse_scheme
from keras_prune.tflite.layer import DENSE, Layer

DATA = ("hard", "easy")

BLOCKS: dict[str, tuple[str, ...]] = {
    "unaligned_block": ("unaligned_block:2", "unaligned_block:4", "unaligned_block:8", "unaligned_block:16"),
    "block_punched": ("block_punched:4x4", "block_punched:8x4", "block_punched:16x4"),
    "block_row_column": ("block_row_column:4x32", "block_row_column:8x32", "block_row_column:16x32"),
    "pattern": ("pattern:8",),
}
"""Blocks that the rules choose from, from the smallest, which is best for accuracy, to the coarsest."""


@dataclasses.dataclass(frozen=True)
class Given:
    """What the rules know.

    Args:
        table: latencies.
        data: ``"hard"`` for tasks such as ImageNet, ``"easy"`` for tasks such as CIFAR-10.
        beta: by how much, relatively, a block may be slower than the coarsest.
    """

    table: LatencyTable
    data: str = "hard"
    beta: float = 0.2

    def microseconds(self, layer: Layer, scheme: str, zeros: float) -> float:
        """Predict a latency."""
        return self.table.predict(Point(layer, scheme, zeros if scheme != DENSE else 0.0))

    def blocks(self, layer: Layer, structure: str) -> list[str]:
        """List the blocks of a structure that the layer can have and the table knows, the smallest first."""
        columns = layer.channels * layer.kernel[0] * layer.kernel[1]
        found = []
        for scheme in BLOCKS[structure]:
            made = parse_scheme(scheme)
            assert made is not None
            if made.obstacle(layer.filters, columns, layer.kernel) is None:
                found.append(scheme)
        missing = {point.scheme for point in self.table.missing(Point(layer, s, 0.5) for s in found)}
        return [scheme for scheme in found if scheme not in missing]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the rules say of a layer.

    Attributes:
        scheme: structure and block, or ``"dense"``.
        reasons: of each rule that had a say.
    """

    scheme: str
    reasons: tuple[str, ...]


def depthwise_stays_dense(layer: Layer, given: Given) -> tuple[str, str] | None:
    """Depthwise layers are few weights that count much: zeros gain nothing there."""
    if layer.kind == "depthwise":
        return DENSE, "depthwise layers have few weights, and each counts"
    return None


def pattern_for_3x3_on_hard_data(layer: Layer, given: Given) -> tuple[str, str] | None:
    """Patterns keep the shapes of trained 3x3 kernels, which hard data need."""
    if layer.kind == "conv" and layer.kernel == (3, 3) and given.data == "hard":
        return "pattern", "3x3 kernels keep their trained shapes on hard data"
    return None


def block_punched_for_3x3_on_easy_data(layer: Layer, given: Given) -> tuple[str, str] | None:
    """Easy data leave room for the structure with the least metadata."""
    if layer.kind == "conv" and layer.kernel == (3, 3) and given.data == "easy":
        return "block_punched", "3x3 kernels on easy data bear whole blocks"
    return None


def unaligned_block_for_other_convolutions(layer: Layer, given: Given) -> tuple[str, str] | None:
    """1x1 kernels have no shapes to keep, so what retains most magnitude is best."""
    if layer.kind == "conv":
        return "unaligned_block", "blocks at any row retain most magnitude where kernels have no shape to keep"
    return None


def block_row_column_for_dense_layers(layer: Layer, given: Given) -> tuple[str, str] | None:
    """Dense layers are read once for each image: whole rows and columns are read fastest."""
    if layer.kind == "dense":
        return "block_row_column", "dense layers are matrices that lose rows and columns"
    return None


STRUCTURE_RULES: tuple[Callable[[Layer, Given], tuple[str, str] | None], ...] = (
    depthwise_stays_dense,
    pattern_for_3x3_on_hard_data,
    block_punched_for_3x3_on_easy_data,
    unaligned_block_for_other_convolutions,
    block_row_column_for_dense_layers,
)
"""The first that speaks counts."""


def unaligned_block_where_it_is_faster(
    layer: Layer, structure: str, zeros: float, given: Given
) -> tuple[str, str] | None:
    """Unaligned blocks of 4 retain at least the energy of patterns and of blocks that lose rows or positions."""
    other = "unaligned_block:4"
    blocks, others = given.blocks(layer, structure), given.blocks(layer, "unaligned_block")
    if structure == "unaligned_block" or other not in others:
        return None
    own = min((given.microseconds(layer, scheme, zeros) for scheme in blocks), default=float("inf"))
    if given.microseconds(layer, other, zeros) > own:
        return None
    return "unaligned_block", f"unaligned blocks retain no less than {structure} and are no slower here"


def smallest_block_near_the_coarsest(layer: Layer, structure: str, zeros: float, given: Given) -> tuple[str, str]:
    """Small blocks are better for accuracy, coarse ones faster: the smallest within 1 + beta of the coarsest."""
    blocks = given.blocks(layer, structure)
    near = (1.0 + given.beta) * given.microseconds(layer, blocks[-1], zeros)
    limit = min(near, given.microseconds(layer, DENSE, 0.0))
    scheme = next(s for s in blocks if s == blocks[-1] or given.microseconds(layer, s, zeros) <= limit)
    return scheme, f"the smallest block within {given.beta:.0%} of the latency of {blocks[-1]}"


def dense_where_zeros_do_not_pay(layer: Layer, scheme: str, zeros: float, given: Given) -> tuple[str, str] | None:
    """Zeros that make a layer no faster only cost accuracy."""
    if given.microseconds(layer, scheme, zeros) < given.microseconds(layer, DENSE, 0.0):
        return None
    return DENSE, f"{zeros:.0%} zeros as {scheme} would be no faster than dense"


def choose(layer: Layer, zeros: float, given: Given) -> Choice:
    """Apply the rules to a layer.

    Args:
        layer: its size.
        zeros: fraction of zeros that it is to have.
        given: what else they know.

    Raises:
        ValueError: the table has no entry for such dense layers.

    Example:
        >>> from keras_prune.mapping import Layer, LatencyTable, Point
        >>> layer = Layer("conv", 14, 14, 64, 64)
        >>> times = {"dense": 10.0, "unaligned_block:2": 6.0, "unaligned_block:4": 4.0, "unaligned_block:8": 3.9}
        >>> entries = {Point(layer, scheme, 0.8 * (scheme != "dense")): us for scheme, us in times.items()}
        >>> choose(layer, 0.8, Given(LatencyTable(entries, "a CPU", "0.1.0"))).scheme
        'unaligned_block:4'
    """
    structure, reasons = DENSE, ["no rule is for this type of layer"]
    for rule in STRUCTURE_RULES:
        said = rule(layer, given)
        if said is not None:
            structure, reasons = said[0], [said[1]]
            break
    if structure == DENSE:
        return Choice(DENSE, tuple(reasons))
    faster = unaligned_block_where_it_is_faster(layer, structure, zeros, given)
    if faster is not None:
        structure, reasons = faster[0], [*reasons, faster[1]]
    if not given.blocks(layer, structure):
        return Choice(DENSE, (*reasons, f"but the latency table has no {structure} that fits, so it stays dense"))
    scheme, reason = smallest_block_near_the_coarsest(layer, structure, zeros, given)
    reasons.append(reason)
    slower = dense_where_zeros_do_not_pay(layer, scheme, zeros, given)
    if slower is not None:
        return Choice(slower[0], (*reasons, slower[1]))
    return Choice(scheme, tuple(reasons))
