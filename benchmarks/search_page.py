"""How the plans that the benchmark of searches compares are shown: tables, verdicts, plots in text and in colour."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy import spread
from benchmarks.page import markdown_table
from benchmarks.search_cases import RULES, SEARCH, SEEDS, SINGLE, Effort, Row


def markdown(rows: Sequence[Row], effort: Effort) -> str:
    """The tables, one a target, what they come to, and the plot."""
    seeds = sorted({row["seed"] for row in rows})
    if not rows:
        return "Nothing has been run yet.\n"
    dense = {row["seed"]: row["accuracy_dense"] for row in rows}
    lines = [
        f"{len(rows)} plans, {len(seeds)} of {len(SEEDS)} seeds. Dense network: {spread(list(dense.values()))} per "
        f"cent, {rows[0]['dense_ms']:.3f} ms predicted. Each search tried {effort.trials} plans, each pruned at once "
        f"and trained for {effort.trial_steps} steps of {effort.batch_size} images, and evaluated on "
        f"{effort.trial_images:,} held-out images; the best of {effort.finalists} finalists, trained for "
        f"{effort.final_steps} steps and evaluated on {effort.final_images:,}, was taken. All plans of the table were "
        f"trained for {effort.steps} steps, on images in another order, and evaluated on "
        f"{effort.test_images:,} test images: mean ± sample standard deviation over seeds (their number). "
        "`vs rules`: the mean of the seeds' differences in points.",
    ]
    for target in dict.fromkeys(row["target"] for row in rows):
        own = [row for row in rows if row["target"] == target]
        groups: dict[str, dict[int, Row]] = {}
        for row in own:
            groups.setdefault(f"{row['method']} {row['detail']}".strip(), {})[row["seed"]] = row
        by_rules = groups.get(RULES, {})
        table = []
        for name, group in groups.items():
            ms = statistics.mean(row["predicted_ms"] for row in group.values())
            zeros = statistics.mean(row["zeros"] for row in group.values())
            accuracy = spread([row["accuracy"] for row in group.values()])
            table.append([name, f"{ms:.4f}", f"{zeros:.1%}", accuracy, difference(group, by_rules)])
        lines.append(f"**{target}**")
        lines.append(markdown_table(["plan", "predicted ms", "zeros", "accuracy", "vs rules"], table).rstrip())
        lines += verdicts(groups)
    lines.append("```text\n" + text_plot(rows) + "\n```")
    return "\n\n".join(lines) + "\n"


def difference(group: dict[int, Row], other: dict[int, Row]) -> str:
    """Say the mean difference of accuracy over common seeds in points, with its sample standard deviation."""
    found = [100 * (group[seed]["accuracy"] - other[seed]["accuracy"]) for seed in sorted(set(group) & set(other))]
    if not found or group is other:
        return ""
    return f"{statistics.mean(found):+.2f}" + (f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else "")


def verdicts(groups: dict[str, dict[int, Row]]) -> list[str]:
    """Say plainly how each search did against the rules and the best single scheme."""
    singles = {name: group for name, group in groups.items() if name.startswith(SINGLE)}
    most = max((len(group) for group in singles.values()), default=0)
    complete = {name: group for name, group in singles.items() if len(group) == most}

    def mean(group: dict[int, Row]) -> float:
        return statistics.mean(row["accuracy"] for row in group.values())

    best = max(complete, key=lambda name: mean(complete[name]), default=None)
    said = []
    for name, group in groups.items():
        if not name.startswith(SEARCH):
            continue
        parts = []
        for other in filter(None, (RULES if RULES in groups else None, best)):
            against = groups[other]
            gains = [row["accuracy"] - against[seed]["accuracy"] for seed, row in group.items() if seed in against]
            if not gains:
                continue
            won = sum(gain > 0 for gain in gains)
            label = "the rules" if other == RULES else f"the best single scheme ({other.removeprefix(SINGLE).strip()})"
            parts.append(f"{100 * statistics.mean(gains):+.2f} points against {label}, better in {won} of {len(gains)}")
        if parts:
            said.append(f"{name}: " + "; ".join(parts) + ".")
    return said


def text_plot(rows: Sequence[Row], width: int = 64, height: int = 16) -> str:
    """Plot mean accuracy against predicted latency with a letter for each plan; the upper left is best."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((f"{row['method']} {row['detail']}".strip(), row["target"]), []).append(row)
    letters = {RULES: "R", f"{SEARCH} policy_gradient": "P", f"{SEARCH} bayesian": "B"}
    marks = []
    for (name, _), own in groups.items():
        ms = statistics.mean(row["predicted_ms"] for row in own)
        accuracy = 100 * statistics.mean(row["accuracy"] for row in own)
        marks.append((ms, accuracy, letters.get(name, "s")))
    dense = {row["seed"]: row["accuracy_dense"] for row in rows}
    marks.append((rows[0]["dense_ms"], 100 * statistics.mean(dense.values()), "D"))
    left, right = min(m[0] for m in marks), max(m[0] for m in marks)
    low, high = min(m[1] for m in marks), max(m[1] for m in marks)
    grid = [[" "] * width for _ in range(height)]
    for ms, accuracy, letter in sorted(marks, key=lambda mark: "sDRBP".index(mark[2])):
        column = round((ms - left) / ((right - left) or 1.0) * (width - 1))
        line = round((high - accuracy) / ((high - low) or 1.0) * (height - 1))
        grid[line][column] = letter
    drawn = []
    for i, cells in enumerate(grid):
        label = f"{high - (high - low) * i / (height - 1):6.2f} %" if i % 5 == 0 else " " * 8
        drawn.append(f"{label} |{''.join(cells).rstrip()}")
    drawn.append(" " * 9 + "+" + "-" * width)
    drawn.append(" " * 9 + f"{left:.4f} ms" + f"{right:.4f} ms".rjust(width - len(f"{left:.4f} ms") + 1))
    drawn.append("D dense, R rules, P search by policy gradient, B search by Bayesian optimisation, s single schemes")
    return "\n".join(drawn)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against predicted latency, a colour a kind of plan."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name in dict.fromkeys(f"{row['method']} {row['detail']}".strip() for row in rows):
        by_target: dict[str, list[Row]] = {}
        for row in rows:
            if f"{row['method']} {row['detail']}".strip() == name:
                by_target.setdefault(row["target"], []).append(row)
        points = sorted(
            (
                statistics.mean(row["predicted_ms"] for row in own),
                100 * statistics.mean(row["accuracy"] for row in own),
                100 * statistics.stdev([row["accuracy"] for row in own]) if len(own) > 1 else 0.0,
            )
            for own in by_target.values()
        )
        faint = 0.4 if name.startswith(SINGLE) else 1.0
        axes.errorbar(*zip(*points, strict=True), marker="o", capsize=3, alpha=faint, label=name)
    dense = {row["seed"]: row["accuracy_dense"] for row in rows}
    axes.plot(rows[0]["dense_ms"], 100 * statistics.mean(dense.values()), "k*", label="dense")
    axes.set_xlabel("predicted latency, ms")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
