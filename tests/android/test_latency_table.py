"""The native tool that times layers: on this machine, and as it is built for Android, under qemu."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = Path("tflite_delegate") / "tools" / "latency_table"
PROGRAMS = {
    "host": [str(ROOT / "bazel-bin" / TOOL)],
    "android": ["qemu-aarch64", "-cpu", "cortex-a76", str(ROOT / "bazel-android-arm64-bin" / TOOL)],
}

# A layer and the number of weights that it keeps of how many.
LAYERS = {
    "conv 5x4x6 10 1x1 1 dense 0": (60, 60),
    "conv 5x4x6 10 3x3 2 dense 0": (540, 540),
    # 20 % of 60 are 12, whole blocks of 4.
    "conv 5x4x6 10 1x1 1 unaligned_block:4 0.8": (12, 60),
    # 50 % of 13 * 30 are 195, 65 blocks of 3.
    "conv 7x9x5 13 3x2 2 unaligned_block:3 0.5": (195, 390),
    # Blocks of 2 rows in an even number of rows: a quarter of 30 of them, 8, with 2 weights each.
    "conv 5x4x6 10 1x1 1 aligned_block:2 0.75": (16, 60),
    # 2 row groups x 2 channel groups x 9 positions, half of them, 4 x 2 weights each.
    "conv 4x4x4 8 3x3 1 block_punched:4x2 0.5": (18 * 8, 288),
    "conv 4x4x4 8 3x3 1 block_punched:1x2 0.5": (72 * 2, 288),
    # Of each block of 8 x 8 half of the rows and of the columns.
    "conv 4x4x16 16 1x1 1 block_row_column:8x8 0.75": (64, 256),
    # 1/3 of 576 is 192, 48 kernels of 4 weights.
    "conv 4x4x8 8 3x3 1 pattern:6 0.6666666": (192, 576),
    "conv 4x4x8 8 1x1 1 pattern:1 0.5": (32, 64),
    "dense 64 40 unaligned_block:4 0.9": (256, 2560),
    "dense 64 40 block_row_column:20x32 0.75": (640, 2560),
    "dense 64 40 dense 0": (2560, 2560),
    "depthwise 6x5x8 3x3 2": (72, 72),
}


def run(program: str, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = PROGRAMS[program]
    assert Path(command[-1]).exists(), f"{command[-1]} is missing; 'make test-android' builds it"
    return subprocess.run([*command, *words], input=text, capture_output=True, text=True, timeout=120)


@pytest.fixture(params=PROGRAMS)
def program(request) -> str:
    return request.param


def test_every_layer_is_timed(program, tmp_path):
    file = tmp_path / "layers.txt"
    file.write_text("# all of them\n\n" + "  # as it is\n".join(LAYERS) + "\n")
    done = run(program, "--seconds=0", "--threads=2", str(file))
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["version"] == 1 and table["threads"] == 2
    assert re.fullmatch(r"\d+\.\d+\.\d+\+[0-9a-f]{8}", table["library"])
    assert table["cpu"] == "neon" if program == "android" else table["cpu"] in ("avx512", "avx2", "neon", "scalar")
    assert [row["layer"] for row in table["layers"]] == list(LAYERS)
    for row, (kept, weights) in zip(table["layers"], LAYERS.values(), strict=True):
        assert row["zeros"] == pytest.approx(1 - kept / weights, abs=1e-6), row
        assert 0 < row["min_us"] <= row["median_us"] and row["runs"] >= 5


def test_it_is_one_static_file(program):
    done = subprocess.run(
        ["readelf", "--wide", "--segments", PROGRAMS[program][-1]], capture_output=True, text=True, check=True
    )
    assert "LOAD" in done.stdout and "INTERP" not in done.stdout


def test_layers_from_standard_input_and_another_level(program):
    done = run(program, "--seconds=0", "--cpu=scalar", text="dense \t 8  4 dense 0\r\nconv 3x3x2 4 1x1 1 dense 0")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["cpu"] == "scalar" and table["threads"] == 1
    assert [row["layer"] for row in table["layers"]] == ["dense 8 4 dense 0", "conv 3x3x2 4 1x1 1 dense 0"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no layers"),
        ("pool 3x3", 'line 1: expected "conv '),
        ("dense 3 4 dense", 'line 1: expected "conv '),
        ("dense 0 4 dense 0", 'inputs is "0"; expected 1 number, from 1 to 32768'),
        ("dense 3 99999999999999 dense 0", 'outputs is "99999999999999"; expected'),
        ("conv 3x3 4 1x1 1 dense 0", 'image is "3x3"; expected 3 numbers joined by x'),
        ("conv 3x3x-1 4 1x1 1 dense 0", 'image is "3x3x-1"'),
        ("conv 32768x32768x2 4 1x1 1 dense 0", "more than 2^28 pixels or weights"),
        ("dense 3 4 dense 0.5", 'zeros are "0.5"; expected 0 for dense'),
        ("dense 3 4 pattern:2 1", 'zeros are "1"; expected a number from 0 to below 1'),
        ("dense 3 4 pattern:2 nan", 'zeros are "nan"'),
        ("dense 3 4 pattern:2 0.5x", 'zeros are "0.5x"'),
        ("dense 3 4 diagonal:2 0.5", 'structure is "diagonal:2"; expected dense, unaligned_block, aligned_block'),
        ("dense 3 4 unaligned_block 0.5", "expected unaligned_block:A with A from 2 to 64"),
        ("dense 3 4 unaligned_block:65 0.5", "expected unaligned_block:A with A from 2 to 64"),
        ("dense 3 4 unaligned_block:4x4 0.5", "expected unaligned_block:A with A from 2 to 64"),
        ("dense 3 4 block_punched:4 0.5", "expected block_punched:AxB with A from 1 to 64"),
        ("dense 8 4 dense 0\ndense 8", "line 2: expected"),
    ],
)
def test_a_bad_line_is_named(line, message):
    done = run("host", "--seconds=0", text=line)
    assert done.returncode == 1
    assert message in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [
        ("--threads=0", 2, '--threads is "0"; expected a number from 1 to 64'),
        ("--threads=2x", 2, '--threads is "2x"'),
        ("--seconds=-1", 2, '--seconds is "-1"; expected a number from 0 to 3600'),
        ("--seconds=", 2, '--seconds is ""'),
        ("--cpu=z80", 2, '--cpu is "z80"; on this CPU it can be auto, '),
        ("--help", 2, "usage: latency_table"),
        ("nowhere.txt", 1, "cannot read nowhere.txt"),
    ],
)
def test_bad_options(word, status, message):
    done = run("host", word, text="dense 8 4 dense 0")
    assert done.returncode == status
    assert message in done.stderr and done.stdout == ""
