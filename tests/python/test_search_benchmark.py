"""What `make bench-search` writes, by results made up here; nothing is trained."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from latency_tables import analytic_table, microseconds
from rich.console import Console

from benchmarks import search, search_cases, search_page
from demo.console import Screen
from keras_prune.mapping import Layer, Plan, PlannedLayer, Point

EFFORT = search_cases.Effort()
SCHEMES = ["unaligned_block:4", "block_punched:8x4"]
ACCURACY = {"rules": 0.80, "search policy_gradient": 0.82, "search bayesian": 0.79, "single unaligned_block:4": 0.81}


def row(case: search_cases.Case) -> search_cases.Row:
    accuracy = ACCURACY.get(f"{case.method} {case.detail}".strip(), 0.7) + 0.01 * case.seed
    return {
        **dataclasses.asdict(case),
        "predicted_ms": 1.0 / float(case.target[:-1]),
        "dense_ms": 1.0,
        "zeros": 0.8,
        "accuracy": accuracy,
        "accuracy_dense": 0.9,
        "effort": dataclasses.asdict(EFFORT),
    }


def test_one_scheme_everywhere_just_meets_a_latency():
    table = analytic_table()
    sizes = {"one": Layer("conv", 14, 14, 64, 128), "two": Layer("conv", 14, 14, 128, 128)}
    layers = [
        PlannedLayer(path, (str(layer),), layer.weights, "dense", 0.0, 1.0, microseconds(Point(layer)) / 1e3, 0.0, ())
        for path, layer in sizes.items()
    ]
    stem = PlannedLayer("stem", ("conv 28x28x3 32 3x3 2",), 0, "dense", 0.0, 1.0, 0.002, 0.0, ("first",))
    plan = Plan("2x", "a CPU", "0.1.0", 1, (stem, *layers), 0.001)
    for share in (0.6, 0.8):
        budget = share * plan.predicted_ms
        made = search.single(plan, "unaligned_block:4", table, budget)
        assert {(p.path, p.scheme) for p in made.pruned} == {(path, "unaligned_block:4") for path in sizes}
        assert len({p.zeros for p in made.pruned}) == 1
        assert 0.99 * budget <= made.predicted_ms <= budget


def test_runs_go_on_where_they_stopped(tmp_path):
    todo = search_cases.cases(SCHEMES, seeds=[0, 1])
    assert len(todo) == len(set(todo)) == 2 * 2 * 5
    # The comparison of the searches with the rules first, then single structures, each whole before the next.
    assert [case.detail for case in todo if case.method == search_cases.SINGLE] == [
        s for s in SCHEMES for _ in range(4)
    ]
    assert all(case.method != search_cases.SINGLE for case in todo[:12])
    results, made = tmp_path / "search.jsonl", []
    screen = Screen(Console(file=io.StringIO()))

    class Runner:
        def run(self, case):
            made.append(case)
            if len(made) == 4:
                raise KeyboardInterrupt
            return row(case)

    with pytest.raises(KeyboardInterrupt):
        search.run_all(todo, results, EFFORT, Runner(), screen)
    search.run_all(todo, results, EFFORT, Runner(), screen)
    assert made == [*todo[:4], *todo[3:]]
    assert [search_cases.Case.of(r) for r in search_cases.read_results(results, EFFORT)] == todo
    with pytest.raises(ValueError, match="made with another effort"):
        search_cases.read_results(results, dataclasses.replace(EFFORT, trials=3))
    results.write_text('{"seed": 0}\n')
    with pytest.raises(ValueError, match="line 1 is no result"):
        search_cases.read_results(results, EFFORT)


def test_page_says_who_wins(tmp_path):
    rows = [row(case) for case in search_cases.cases(SCHEMES)]
    text = search_page.markdown(rows, EFFORT)
    assert "| search policy_gradient | 0.5000 | 80.0% | 83.00 ± 1.00 (3) | +2.00 ± 0.00 |" in text
    for target in search_cases.TARGETS:
        said = text.split(f"**{target}**")[1]
        assert (
            "search policy_gradient: +2.00 points against the rules, better in 3 of 3; +1.00 points against the best"
            in said
        )
        assert "single scheme (unaligned_block:4), better in 3 of 3." in said
        assert "search bayesian: -1.00 points against the rules, better in 0 of 3" in said
    plot = search_page.text_plot(rows).splitlines()
    # Dense is slowest and best: upper right.
    assert plot[0].rstrip().endswith("D") and {"P", "B", "R", "s"} <= set("".join(plot[1:16]))
    assert search_page.markdown([], EFFORT) == "Nothing has been run yet.\n"
    search_page.plot(rows, tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 1000
    (tmp_path / "search.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- search: begin (python -m benchmarks.search --table) -->\nold\n<!-- search: end -->\nb\n")
    assert search.main(["--table", "--output", str(tmp_path), "--page", str(page)]) == 0
    assert text in page.read_text() and "old" not in page.read_text() and page.read_text().endswith("\nb\n")
