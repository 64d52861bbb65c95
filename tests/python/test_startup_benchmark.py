"""The page of how soon networks are ready, and of their memory."""

from __future__ import annotations

import json
import os

from benchmarks import startup

ROW = {
    "model": "resnet50",
    "structure": "block_punched",
    "sparsity": 0.8,
    "dense_ms": 96.04,
    "sparse_ms": 29.0,
    "dense_mb": 60.0,
    "sparse_mb": 60.01,
}


def test_page_says_what_is_more_than_with_xnnpack(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("<!-- startup: begin (python -m benchmarks.startup --table) -->\n<!-- startup: end -->\n")
    monkeypatch.setattr(startup, "cpu_name", lambda: "One (TM) 1")
    (tmp_path / "startup.jsonl").write_text(json.dumps(ROW) + "\n")
    startup.write_page(tmp_path, page)
    startup.write_page(tmp_path, page)
    assert page.read_text().splitlines()[1:-1] == [
        f"On One (TM) 1, {os.cpu_count()} cores, one thread.",
        "",
        "| network | zeros | ready, dense | sparse | peak memory, dense | sparse |",
        "| --- | --- | --- | --- | --- | --- |",
        "| resnet50 block_punched | 80.0% | 96.0 ms | 29.0 ms, met | 60.0 MB | 60.0 MB, missed |",
    ]
