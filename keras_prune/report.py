"""What was done to each layer, or why nothing was."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One line of a :class:`Report`."""

    layer: str
    """Path of the layer in the model."""
    kind: str
    """Its class."""
    weight: str
    """Name of the weight, empty where there is none to prune."""
    rows: int
    columns: int
    structure: str
    """Structure of its zeros, empty for a layer that stays dense."""
    zeros: float
    """Fraction of its entries that are masked."""
    skipped: str
    """Why it stays dense; empty for a pruned layer."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.rows * self.columns


class Report:
    """What was done to each layer of a model, or why nothing was.

    Iterates over :class:`LayerReport`; prints as a table.

    Attributes:
        layers: all lines, in the order of the model.
        zeros: fraction of masked entries in the pruned layers together.
    """

    def __init__(self, layers: list[LayerReport]) -> None:
        self.layers = layers

    @property
    def pruned(self) -> list[LayerReport]:
        """Lines of the pruned layers."""
        return [line for line in self.layers if not line.skipped]

    @property
    def skipped(self) -> list[LayerReport]:
        """Lines of the layers that stay dense."""
        return [line for line in self.layers if line.skipped]

    @property
    def zeros(self) -> float:
        """Fraction of masked entries in the pruned layers together."""
        size = sum(line.size for line in self.pruned)
        return sum(line.zeros * line.size for line in self.pruned) / size if size else 0.0

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: str) -> LayerReport:
        """Find the line of a layer by its path, or of one of its weights by ``path/weight``."""
        for line in self.layers:
            if layer in (line.layer, f"{line.layer}/{line.weight}"):
                return line
        raise KeyError(f"no layer {layer!r} in the report; there are {', '.join(line.layer for line in self.layers)}")

    def __repr__(self) -> str:
        return f"Report({len(self.pruned)} layers pruned, {len(self.skipped)} dense, zeros={self.zeros:.4f})"

    def __str__(self) -> str:
        header = ("layer", "type", "rows x columns", "zeros", "structure, or why it stays dense")
        lines = [header]
        several = collections.Counter(line.layer for line in self.layers)
        for line in self.layers:
            name = line.layer if several[line.layer] == 1 else f"{line.layer}/{line.weight}"
            size = f"{line.rows} x {line.columns}" if line.weight else "-"
            zeros = "-" if line.skipped else f"{line.zeros:.2%}"
            lines.append((name, line.kind, size, zeros, line.skipped or line.structure))
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        rule = tuple("-" * width for width in widths)
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [header, rule, *lines[1:]]
        ]
        entries = sum(line.size for line in self.pruned)
        table.append(f"{len(self.pruned)} layers pruned: {self.zeros:.2%} of {entries:,} entries are zero")
        return "\n".join(table)
