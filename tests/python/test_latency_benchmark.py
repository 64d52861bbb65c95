"""The page of whole networks' latencies."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks import latency, turns

ROW = {
    "model": "mobilenet_v1",
    "structure": "unaligned_block",
    "sparsity": 0.8,
    "threads": 1,
    "dense_ms": 14.0,
    "sparse_ms": 4.0,
    "ratio": 3.5,
    "dense_scaling": None,
    "sparse_scaling": None,
    "undisturbed_dense_scaling": None,
    "undisturbed_sparse_scaling": None,
    "turns": 15,
    "turns_undisturbed": None,
    "scaling_target": None,
    "max_abs_diff": 1e-6,
    "output_range": 2.0,
    "nodes_claimed": 31,
    "nodes_total": 31,
    "partitions": 1,
    "cpu": "avx512",
    "target": 3.0,
}


def test_page_keeps_other_machines_figures(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- latency: begin (python -m benchmarks.latency --table) -->\n<!-- latency: end -->\nb\n")

    def write(machine: str, ratio: float) -> list[str]:
        monkeypatch.setattr(latency, "cpu_name", lambda: machine)
        (tmp_path / "latency.jsonl").write_text(json.dumps({**ROW, "ratio": ratio}) + "\n")
        latency.write_page(tmp_path, page)
        return page.read_text().split("\n")

    write("One (TM) 1", 3.5)
    write("Two", 2.5)
    lines = write("One (TM) 1", 4.5)
    assert [line for line in lines if line.startswith("On ")] == [
        f"On One (TM) 1, {os.cpu_count()} cores, kernels `avx512`.",
        f"On Two, {os.cpu_count()} cores, kernels `avx512`.",
    ]
    shown = [line for line in lines if line.startswith("| mobilenet_v1")]
    assert [line.split(" | ")[6:8] for line in shown] == [["4.50", "3.0 met"], ["2.50", "3.0 missed"]]
    assert lines[0] == "a" and lines[-3:] == ["<!-- latency: end -->", "b", ""]
    # A table needs an empty line before it, the next machine's line one after.
    assert all(lines[i - 1] == "" for i, line in enumerate(lines) if line.startswith(("On Two", "| network")))
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines"):
        latency.write_page(tmp_path, page)


def test_what_threads_win_is_shown_with_what_it_should_be():
    row = {**ROW, "threads": 2, "target": None, "sparse_scaling": 1.82, "dense_scaling": 1.9, "scaling_target": 1.85}
    row |= {"undisturbed_sparse_scaling": 1.8699, "undisturbed_dense_scaling": 1.95, "turns_undisturbed": 9}
    assert latency.aim(row) == ""
    assert latency.scaling(row) == "1.82 (1.90) 1.85 missed"
    assert latency.scaling({**row, "sparse_scaling": 1.85}) == "1.85 (1.90) 1.85 met"
    assert latency.scaling({**row, "sparse_scaling": 1.8499}) == "1.84 (1.90) 1.85 missed"
    assert latency.scaling({**row, "threads": 4, "scaling_target": None}) == "1.82 (1.90)"
    assert latency.undisturbed_scaling(row) == "1.86 (1.95) in 9 of 15"
    assert latency.scaling(ROW) == latency.undisturbed_scaling(ROW) == ""


def test_undisturbed_turns_are_those_of_the_fastest_speed():
    calm, disturbed = [[3.0, 3.1, 9.0], [3.05, 3.05, 3.05]], [[3.4, 3.4, 3.4], [6.0, 1.0, 6.0]]
    assert turns.undisturbed(calm + disturbed) == [0, 1]
    assert turns.undisturbed(disturbed + calm) == [2, 3]
    # One that is much faster than all others is not what the others are held against.
    assert turns.undisturbed([[1.0]] + [[3.0]] * 19) == list(range(20))
    assert turns.undisturbed([[2.0]]) == [0]


@pytest.mark.parametrize(("pause", "calls_a_turn"), [(0.0, 14), (0.001, 12)])
def test_turns_pause_before_each_call(pause, calls_a_turn, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(turns.time, "sleep", slept.append)
    called: list[int] = []
    times = turns.time_in_turns([lambda: called.append(0), lambda: called.append(1)], 0.0, threads=2, pause=pause)
    assert [len(kept) for kept in times] == [36, 36]
    assert called == ([0] * calls_a_turn + [1] * calls_a_turn) * 3
    assert slept == ([turns.PAUSE] + ([pause] * 12 if pause else [])) * 6
