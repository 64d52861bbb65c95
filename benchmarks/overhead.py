"""What the pruning callback costs a training step between mask updates.

Two copies of a network train in turns, one with the callback (its masks made before the first turn, and no update due
since), one without. Prints a table of median step times and writes JSON lines to build/bench/overhead.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import resnet8
from benchmarks.latency import BENCH
from benchmarks.results import write_rows
from demo.network import make_network
from keras_prune import ConstantSparsity, Prune, UnalignedBlock

NETWORKS = {"demo": make_network, "resnet8": resnet8}
AIM = 0.03
"""Of a step."""
STEPS, BATCH, SKIPPED = 30, 64, 5
"""Steps of a turn, images of a step, steps at the beginning of a turn that are not counted."""


class StepTimes(keras.callbacks.Callback):
    """Seconds of each step, from the end of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the time."""
        now = time.perf_counter()
        if batch >= SKIPPED:
            self.seconds.append(now - self._last)
        self._last = now


def measure(network: str, turns: int) -> dict[str, Any]:
    """Figures of one network."""
    random = np.random.default_rng(0)
    sides: list[tuple[Any, list[Any], StepTimes]] = []
    for pruned in (False, True):
        keras.utils.set_random_seed(0)
        model = NETWORKS[network]()
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        # The only update is that of the first step.
        schedule = ConstantSparsity(0.8, begin_step=0, end_step=1, frequency=1)
        sides.append((model, [Prune(UnalignedBlock(4), schedule)] if pruned else [], StepTimes()))
    shape = sides[0][0].input_shape[1:]
    images = random.random((STEPS * BATCH, *shape), dtype=np.float32)
    labels = random.integers(0, 10, STEPS * BATCH)
    for model, callbacks, _ in sides:  # compiles the steps and makes the masks
        model.fit(images, labels, batch_size=BATCH, callbacks=callbacks, verbose=0)
    for _ in range(turns):
        for model, callbacks, times in sides:
            model.fit(images, labels, batch_size=BATCH, callbacks=[*callbacks, times], verbose=0)
    plain, pruned_step = (statistics.median(times.seconds) for _, _, times in sides)
    return {
        "network": network,
        "step_ms": round(plain * 1e3, 3),
        "step_with_callback_ms": round(pruned_step * 1e3, 3),
        "overhead": round(pruned_step / plain - 1, 4),
        "aim": AIM,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12, help=f"turns of each side, of {STEPS} steps")
    parser.add_argument("--output", type=Path, default=BENCH, help="folder of the results")
    arguments = parser.parse_args()
    console = Console()
    rows = []
    for network in NETWORKS:
        with console.status(f"{network}: {arguments.turns} turns of {STEPS} steps, with and without the callback"):
            rows.append(measure(network, arguments.turns))
    table = Table("network", "step", "with the callback", "overhead", "aim")
    for row in rows:
        times = f"{row['step_ms']:.2f} ms", f"{row['step_with_callback_ms']:.2f} ms"
        aim = f"{AIM:.0%} {'met' if row['overhead'] <= AIM else 'MISSED'}"
        table.add_row(row["network"], *times, f"{row['overhead']:+.1%}", aim)
    console.print(table)
    write_rows(arguments.output / "overhead.jsonl", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
