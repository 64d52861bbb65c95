"""`report.html`: the figures and pictures of a run, in one file that needs no other."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from demo.results import COLUMNS, Results, count_of_threads
from demo.training import History

matplotlib.use("Agg")

DENSE, SPARSE = "#8a8f98", "#d1495b"
PHASES = ("#ffffff", "#00798c", "#edae49", "#d1495b", "#30638e")
CORNER = 64
"""Rows and columns of the pattern that are drawn large."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: left; }}
img {{ max-width: 100%; }} figcaption {{ color: #555; }} figure {{ margin: 2em 0; }} pre {{ overflow-x: auto; }}
</style></head><body>
<h1>{title}</h1>
<p>{note}</p>
{table}
{figures}
<h2>Layers</h2>
<pre>{layers}</pre>
</body></html>
"""


def make_report(
    results: Results, dense: History, pruning: History, layer: str, matrix: npt.NDArray[Any], layers: str, note: str
) -> str:
    """Make the page.

    Args:
        results: the figures.
        dense: record of the dense training.
        pruning: record of the fine-tuning.
        layer: name of the layer whose zeros are shown.
        matrix: its weights, ``[output channels, inputs]``.
        layers: what was done to each layer, as text.
        note: a line about the machine and the training.
    """
    figures = [
        (pattern(matrix), _pattern_caption(layer, matrix)),
        (
            training(dense, pruning),
            "Zeros in the pruned layers, and training accuracy since the epoch began, over all training steps.",
        ),
        (bars(results), "Accuracy on the test images, and time of one inference (median; the two take turns)."),
    ]
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in results.rows()
    )
    return _PAGE.format(
        title="Fashion-MNIST, dense and with 80 % zeros",
        note=html.escape(note),
        table=f"<table><tr>{head}</tr>{body}</table>",
        figures="\n".join(
            f'<figure><img alt="" src="data:image/png;base64,{_png(figure)}"><figcaption>{html.escape(caption)}'
            "</figcaption></figure>"
            for figure, caption in figures
        ),
        layers=html.escape(layers),
    )


def pattern(matrix: npt.NDArray[Any]) -> Figure:
    """Draw where a layer's weights are: the whole matrix, and a corner whose blocks can be told apart."""
    corner = matrix[:CORNER, :CORNER]
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    whole, large = figure.subplots(1, 2)
    whole.imshow(matrix != 0, cmap=ListedColormap(["#ffffff", "#222222"]), interpolation="nearest")
    whole.set_title(f"all {matrix.shape[0]} x {matrix.shape[1]} weights")
    large.imshow(block_phases(corner), cmap=ListedColormap(PHASES), vmin=0, vmax=4, interpolation="nearest")
    large.set_title(f"the first {corner.shape[0]} x {corner.shape[1]}, coloured by the block's first row modulo 4")
    for axes in (whole, large):
        axes.set_xlabel("input channel")
        axes.set_ylabel("output channel")
    return figure


def block_phases(matrix: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Colour blocks of 4 rows: 0 for a zero, else 1 + (the first row of its block) modulo 4."""
    phases = np.zeros(matrix.shape, np.int64)
    for column in range(matrix.shape[1]):
        first = -4
        for row in np.flatnonzero(matrix[:, column]):
            if row - first >= 4:
                first = int(row)
            phases[row, column] = 1 + first % 4
    return phases


def training(dense: History, pruning: History) -> Figure:
    """Draw sparsity and training accuracy over steps."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(dense.loss) + len(pruning.loss) + 1)
    axes.plot(steps, np.array(dense.sparsity + pruning.sparsity), color=SPARSE, label="zeros in the pruned layers")
    axes.plot(steps, np.array(dense.accuracy + pruning.accuracy), color="#00798c", label="training accuracy")
    axes.axvline(len(dense.loss) + 0.5, color=DENSE, linestyle=":", label="pruning begins")
    axes.set_xlabel("training step")
    axes.set_ylim(0, 1)
    axes.legend(loc="center left")
    axes.grid(alpha=0.3)
    return figure


def bars(results: Results) -> Figure:
    """Draw accuracy and latency of both networks side by side."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _grouped(
        left,
        {
            "Keras": (results.accuracy_dense_keras * 100, results.accuracy_sparse_keras * 100),
            "TensorFlow Lite": (results.accuracy_dense * 100, results.accuracy_sparse * 100),
        },
        "accuracy in %",
        "{:.2f}",
    )
    left.set_ylim(0, 110)
    latencies = {
        count_of_threads(threads): (results.latency_dense[threads], ms)
        for threads, ms in results.latency_sparse.items()
    }
    _grouped(right, latencies, "latency in ms", "{:.3f}")
    right.legend()
    return figure


def _grouped(axes: Any, groups: dict[str, tuple[float, float]], label: str, form: str) -> None:
    places = np.arange(len(groups))
    for i, (name, colour) in enumerate((("dense, XNNPACK", DENSE), ("80 % zeros, delegate", SPARSE))):
        drawn = axes.bar(places + (i - 0.5) * 0.36, [pair[i] for pair in groups.values()], 0.34, color=colour)
        drawn.set_label(name)
        axes.bar_label(drawn, [form.format(pair[i]) for pair in groups.values()])
    axes.set_xticks(places, list(groups))
    axes.set_ylabel(label)


def _pattern_caption(layer: str, matrix: npt.NDArray[Any]) -> str:
    zeros = 1 - np.count_nonzero(matrix) / matrix.size
    return (
        f"Weights of {layer}, {zeros:.1%} of them zero. Those that are kept stand in blocks of 4 neighbouring output "
        "channels of one input channel; a block may begin at any output channel."
    )


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return base64.b64encode(buffer.getvalue()).decode()
