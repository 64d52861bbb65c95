"""tools/benchmark_on_phone.py against an adb that writes down what it is asked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "benchmark_on_phone.py"
FAKE = Path(__file__).with_name("fake_adb.py")
FOLDER = "/data/local/tmp/block_sparse"

# As benchmark_model prints it.
RUN = """\
INFO: STARTING!
INFO: Loaded model dense.tflite
INFO: Running benchmark for at least 20 iterations and at least 2 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=2665 curr=2669 min=2658 max=2681 avg={average} std=419
INFO: Inference timings in us: Init: 20283, First inference: 3393, Warmup (avg): 3028.4, Inference (avg): {average}
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE
"""
FREQUENCIES = "\n".join(
    f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq:{khz}"
    for core, khz in enumerate([1800000] * 4 + [2400000] * 3 + [2900000])
)


class Desk:
    """Files to copy, and a phone that answers."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("tool", "lib.so", "dense.tflite", "sparse.tflite"):
            (folder / name).write_text(name)
        adb = folder / "adb"
        adb.write_text(f'#!/bin/sh\nexec "{sys.executable}" -E -S "{FAKE}" "$@"\n')
        adb.chmod(0o755)
        self.state = [0, "device"]
        self.answers = [
            ["graph=dense", 0, [RUN.format(average=text) for text in ("9000", "6.1e+03", "6000.5")]],
            ["graph=sparse", 0, RUN.format(average="2000")],
            ["getprop ro.product.manufacturer", 0, "Maker"],
            ["getprop ro.product.model", 0, "Phone 7"],
            ["getprop ro.soc.model", 0, ""],
            ["getprop ro.board.platform", 0, "soc123"],
            ["getprop ro.build.version.release", 0, "14"],
            ["dumpsys thermalservice", 0, ["IsStatusOverride: false\nThermal Status: 0\n", "Thermal Status: 0"]],
            ["cpuinfo_max_freq", 0, FREQUENCIES],
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        script = {"log": str(self.folder / "log"), "state": self.state, "answers": self.answers}
        (self.folder / "script").write_text(json.dumps(script))
        files = {"dense": "dense.tflite", "sparse": "sparse.tflite", "benchmark-model": "tool", "delegate": "lib.so"}
        named = [word for option, name in files.items() for word in (f"--{option}", str(self.folder / name))]
        return subprocess.run(
            [sys.executable, "-E", "-S", str(SCRIPT), *named, "--adb", str(self.folder / "adb"), *words],
            capture_output=True,
            text=True,
            env={**os.environ, "FAKE_ADB": str(self.folder / "script")},
        )

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]


@pytest.fixture
def desk(tmp_path) -> Desk:
    return Desk(tmp_path)


def test_what_is_asked_of_the_phone(desk):
    done = desk.run("--serial", "R58", "--threads", "2", "--cpus", "big", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    calls = desk.calls()
    assert all(call[:2] == ["-s", "R58"] for call in calls)
    calls = [call[2:] for call in calls]
    assert calls[0] == ["get-state"]
    assert [call for call in calls if call[0] == "push"] == [
        ["push", str(desk.folder / "tool"), f"{FOLDER}/benchmark_model"],
        ["push", str(desk.folder / "lib.so"), f"{FOLDER}/libblock_sparse_delegate.so"],
        ["push", str(desk.folder / "dense.tflite"), f"{FOLDER}/dense.tflite"],
        ["push", str(desk.folder / "sparse.tflite"), f"{FOLDER}/sparse.tflite"],
    ]
    common = "--num_threads=2 --warmup_runs=5 --num_runs=20 --min_secs=2"
    dense = f"cd {FOLDER} && taskset f0 ./benchmark_model --graph=dense.tflite {common}"
    sparse = (
        f"cd {FOLDER} && taskset f0 ./benchmark_model --graph=sparse.tflite {common} "
        "--external_delegate_path=./libblock_sparse_delegate.so --external_delegate_options=num_threads:2"
    )
    shell = [call[1] for call in calls if call[0] == "shell"]
    assert [command for command in shell if "--graph" in command] == [dense, sparse, dense, sparse]
    assert shell.index(f"mkdir -p {FOLDER}") < shell.index(f"chmod 755 {FOLDER}/benchmark_model") < shell.index(dense)
    assert shell[-1] == f"rm -r {FOLDER}"
    thermal = [i for i, command in enumerate(shell) if command == "dumpsys thermalservice"]
    assert len(thermal) == 2 and thermal[0] < shell.index(dense) and shell.index(sparse) < thermal[1]


def test_the_commands_of_the_page_are_the_scripts(desk):
    desk.run("--cpus", "4-7", "--rounds", "1")
    calls = desk.calls()
    asked = {call[1] for call in calls if call[0] == "shell"}
    page = (ROOT / "docs" / "android.md").read_text().replace("\\\n", "")
    lines = [shlex.split(line, comments=True) for line in page.splitlines() if line.startswith("adb ")]
    before = next(i for i, line in enumerate(lines) if any("latency_table" in word for word in line))
    pushed = set()
    for line in lines[: before - 1]:
        if line[1] == "push":
            *sources, target = line[2:]
            pushed |= {target + (Path(source).name if target.endswith("/") else "") for source in sources}
        else:
            end = line.index("|") if "|" in line else None
            assert " ".join(" ".join(line[2:end]).split()) in asked, line
    assert pushed == {call[2] for call in calls if call[0] == "push"}
    assert sum("--graph" in " ".join(line) for line in lines) == 2


def test_table_and_json(desk):
    done = desk.run("--threads", "1,4", "--json", str(desk.folder / "out.json"), "--keep")
    assert done.returncode == 0, done.stderr
    # The median of 9, 6.1 and 6.0005 ms over 2 ms.
    assert "| 1 | 6.10 ms | 2.00 ms | 3.05 |" in done.stdout
    assert "| 4 | 6.10 ms | 2.00 ms | 3.05 |" in done.stdout
    assert re.search(r"^Maker Phone 7 \(soc123\), Android 14, cores: any, \d{4}-\d\d-\d\dT", done.stdout)
    assert "thermal state: none before, none after" in done.stdout
    digest = hashlib.sha256(b"tool").hexdigest()[:12]
    assert f"tool: tool, sha256 {digest}; median of 3 rounds in turns" in done.stdout
    report = json.loads((desk.folder / "out.json").read_text())
    assert [row["threads"] for row in report["results"]] == [1, 4]
    assert report["results"][0]["dense_rounds_ms"] == [9.0, 6.1, 6.0005]
    assert report["core_mhz"] == [1800] * 4 + [2400] * 3 + [2900]
    shell = [call[1] for call in desk.calls() if call[0] == "shell"]
    assert not any("taskset" in command or command.startswith("rm") for command in shell)


@pytest.mark.parametrize(("cpus", "mask"), [("4-7", "f0"), ("7", "80"), ("0,2, 4-5", "35"), ("63", "8000000000000000")])
def test_masks(desk, cpus, mask):
    assert desk.run("--cpus", cpus, "--rounds", "1").returncode == 0
    assert sum(f"taskset {mask} " in call[-1] for call in desk.calls()) == 2


@pytest.mark.parametrize("cpus", ["", "a", "5-4", "64", "1,,2", "-1"])
def test_bad_cpus(desk, cpus):
    done = desk.run(f"--cpus={cpus}", "--rounds", "1")
    if cpus:
        assert done.returncode == 1
        assert f'--cpus is "{cpus}"; expected "big", or numbers and ranges below 64' in done.stderr
    else:
        assert done.returncode == 0


def test_a_hot_phone_is_mentioned(desk):
    desk.answers[7] = ["dumpsys thermalservice", 0, ["Thermal Status: 0", "Thermal Status: 3"]]
    done = desk.run("--rounds", "1")
    assert "thermal state: none before, severe after" in done.stdout
    assert "let it cool" in done.stdout


def test_a_phone_that_tells_little(desk):
    desk.answers = [*desk.answers[:2], [".", 1, "Permission denied"]]
    desk.answers[2:2] = [["^(mkdir|chmod|rm) ", 0, ""]]
    done = desk.run("--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "thermal state: unknown before, unknown after" in done.stdout
    done = desk.run("--rounds", "1", "--cpus", "big")
    assert done.returncode == 1
    assert "does not tell which of its cores are big" in done.stderr


def test_what_goes_wrong_is_told(desk):
    desk.state = [1, "error: more than one device/emulator"]
    done = desk.run()
    assert done.returncode == 1
    assert "more than one device/emulator" in done.stderr and "--serial" in done.stderr
    assert len(desk.calls()) == 1

    desk.state = [0, "device"]
    desk.answers[1] = ["graph=sparse", 1, "ERROR: Encountered unresolved custom op: BlockSparseConv2D."]
    done = desk.run()
    assert done.returncode == 1
    assert "Encountered unresolved custom op" in done.stderr and "--graph=sparse.tflite" in done.stderr

    desk.answers[1] = ["graph=sparse", 0, "Killed"]
    done = desk.run()
    assert done.returncode == 1
    assert "printed no line 'Inference timings in us: ...'" in done.stderr and "Killed" in done.stderr


def test_missing_files_and_programs(desk):
    (desk.folder / "lib.so").unlink()
    done = desk.run()
    assert done.returncode == 1
    assert f"{desk.folder / 'lib.so'} is missing: name it by --delegate" in done.stderr
    (desk.folder / "lib.so").touch()
    done = desk.run("--adb", str(desk.folder / "nowhere"))
    assert done.returncode == 1
    assert "install Android's platform tools" in done.stderr


@pytest.mark.parametrize("threads", ["0", "65", "x", "1,", "-2"])
def test_bad_threads(desk, threads):
    done = desk.run(f"--threads={threads}")
    assert done.returncode == 2
    assert f'"{threads}"; expected numbers from 1 to 64' in done.stderr
