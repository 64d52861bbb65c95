"""The figures: as JSON, as a table, and what would make the demo a failure."""

from __future__ import annotations

import dataclasses
from typing import Any

from demo.inference import Nodes


@dataclasses.dataclass(frozen=True)
class Results:
    """All figures of one run.

    Args:
        images: number of test images.
        accuracy_dense_keras, accuracy_dense: of the dense network in Keras and in TensorFlow Lite with XNNPACK.
        accuracy_sparse_keras, accuracy_sparse: of the pruned network in Keras and through the delegate.
        argmax_equal: test images for which Keras and the delegate predict the same class.
        dense_bytes, sparse_bytes: sizes of the files.
        latency_dense, latency_sparse: milliseconds, by number of threads.
        zeros: fraction of zeros in the pruned layers.
        dense_nodes: nodes of the dense file.
        dense_whole: whether XNNPACK took all of them.
        nodes: which nodes of the pruned network's file the delegate took.
        pruned_layers: layers that were pruned.
        sparse_layers: block-sparse operators in the file.
    """

    images: int
    accuracy_dense_keras: float
    accuracy_dense: float
    accuracy_sparse_keras: float
    accuracy_sparse: float
    argmax_equal: int
    dense_bytes: int
    sparse_bytes: int
    latency_dense: dict[int, float]
    latency_sparse: dict[int, float]
    zeros: float
    dense_nodes: int
    dense_whole: bool
    nodes: Nodes
    pruned_layers: int
    sparse_layers: int

    @property
    def ratio(self) -> dict[int, float]:
        """How many times faster the pruned network is, by number of threads."""
        return {threads: self.latency_dense[threads] / self.latency_sparse[threads] for threads in self.latency_dense}

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into `result.json`."""
        return {
            "dense": {
                "accuracy": self.accuracy_dense,
                "file_bytes": self.dense_bytes,
                "latency_ms": _by_name(self.latency_dense),
            },
            "sparse": {
                "accuracy_keras": self.accuracy_sparse_keras,
                "accuracy_delegate": self.accuracy_sparse,
                "argmax_equal": self.argmax_equal,
                "file_bytes": self.sparse_bytes,
                "latency_ms": _by_name(self.latency_sparse),
                "zeros": self.zeros,
                "nodes_claimed": self.nodes.claimed,
                "nodes_total": self.nodes.total,
            },
            "ratio": _by_name(self.ratio),
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the table: what, dense, pruned, dense over pruned."""
        left = "; ".join(self.nodes.left) or "none"
        rows = [
            ("accuracy in Keras", f"{self.accuracy_dense_keras:.2%}", f"{self.accuracy_sparse_keras:.2%}", ""),
            ("accuracy in TensorFlow Lite", f"{self.accuracy_dense:.2%}", f"{self.accuracy_sparse:.2%}", ""),
            ("predictions equal to Keras's", "", f"{self.argmax_equal:,} of {self.images:,}", ""),
            ("zeros in the pruned layers", "", f"{self.zeros:.1%}", ""),
            (
                "file size",
                f"{self.dense_bytes / 1e3:.0f} kB",
                f"{self.sparse_bytes / 1e3:.0f} kB",
                f"{self.dense_bytes / self.sparse_bytes:.2f}",
            ),
        ]
        for threads, ratio in self.ratio.items():
            name = f"latency, {count_of_threads(threads)}"
            dense, sparse = self.latency_dense[threads], self.latency_sparse[threads]
            rows.append((name, f"{dense:.3f} ms", f"{sparse:.3f} ms", f"{ratio:.2f}"))
        whole = f"{self.dense_nodes} of {self.dense_nodes}" if self.dense_whole else f"not all {self.dense_nodes}"
        rows.append(("nodes claimed", f"{whole} (XNNPACK)", f"{self.nodes.claimed} of {self.nodes.total}", ""))
        rows.append(("nodes left, and why", "", left, ""))
        return rows

    def failures(self) -> list[str]:
        """Say what went wrong; empty for a good run."""
        wrong = []
        if self.sparse_layers < self.pruned_layers:
            wrong.append(f"{self.pruned_layers} layers were pruned, but the file has {self.sparse_layers} sparse ones")
        sparse_left = [line for line in self.nodes.left if line.startswith("BlockSparse")]
        if sparse_left or self.nodes.claimed < self.sparse_layers:
            wrong.append(
                f"the delegate did not take the sparse layers: it claimed {self.nodes.claimed} of {self.nodes.total} "
                f"nodes and left {'; '.join(sparse_left or self.nodes.left)}"
            )
        if self.images - self.argmax_equal > self.images // 10_000:
            wrong.append(
                f"through the delegate {self.images - self.argmax_equal} of {self.images:,} predictions are not Keras's"
            )
        if not self.dense_whole:
            wrong.append("XNNPACK did not take all of the dense network, so that the latencies cannot be compared")
        return wrong


COLUMNS = ("", "dense, XNNPACK", "80 % zeros, delegate", "ratio")


def markdown(results: Results, note: str) -> str:
    """Return the table in Markdown, with a line below it."""
    lines = [COLUMNS, ("---", "---", "---", "---"), *results.rows()]
    table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
    return f"{table}\n\n{note}\n"


def count_of_threads(threads: int) -> str:
    """Return "1 thread", "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _by_name(values: dict[int, float]) -> dict[str, float]:
    return {str(threads): value for threads, value in values.items()}
