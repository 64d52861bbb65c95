#!/usr/bin/env python3
"""Times a dense and a block-sparse model on an Android phone with TensorFlow Lite's benchmark_model, over adb.

Copies the tool, the delegate and both models to the phone, runs dense and sparse in turns, and prints how many times
faster sparse is, with the device, threads, date, tool and thermal state that the figures are to be read with.
docs/android.md tells where to get benchmark_model and shows the same steps by hand.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "/data/local/tmp/block_sparse"
THERMAL_STATES = ["none", "light", "moderate", "severe", "critical", "emergency", "shutdown"]


class PhoneError(Exception):
    """Something that the user has to know of, in words to act on."""


class Phone:
    """A device behind adb."""

    def __init__(self, adb: str, serial: str | None) -> None:
        self._command = [adb] + (["-s", serial] if serial else [])
        state = self._run("get-state")
        if state.returncode != 0:
            said = (state.stderr or state.stdout).strip()
            raise PhoneError(
                f"adb sees no device to work with ({said}): connect one, switch USB debugging on and allow "
                "this computer; with several devices name one of 'adb devices' by --serial"
            )

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run([*self._command, *arguments], capture_output=True, text=True)
        except FileNotFoundError as error:
            raise PhoneError(
                f"{self._command[0]} not found: install Android's platform tools (Debian: apt-get install adb), "
                "or name it by --adb"
            ) from error

    def push(self, source: Path, name: str) -> None:
        done = self._run("push", str(source), f"{FOLDER}/{name}")
        if done.returncode != 0:
            raise PhoneError(f"adb could not copy {source}: {(done.stderr or done.stdout).strip()}")

    def shell(self, command: str, required: bool = True) -> str:
        """What a command on the phone prints; the last lines of it are in the error if it fails."""
        done = self._run("shell", command)
        output = done.stdout + done.stderr
        if done.returncode != 0 and required:
            last = "\n".join(output.strip().splitlines()[-15:])
            raise PhoneError(f"on the phone this failed:\n  {command}\n{last}")
        return output

    def property(self, name: str) -> str:
        return self.shell(f"getprop {name}", required=False).strip()

    def thermal_state(self) -> str:
        """What Android says of its temperature; it does from version 10 on."""
        found = re.search(r"Thermal Status: (\d+)", self.shell("dumpsys thermalservice", required=False))
        state = int(found.group(1)) if found else -1
        return THERMAL_STATES[state] if 0 <= state < len(THERMAL_STATES) else "unknown"

    def highest_frequencies(self) -> list[int]:
        """Of each core, in kHz; empty where the phone does not tell."""
        files = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
        lines = self.shell(f"grep -H . {files}", required=False)
        found = {int(core): int(khz) for core, khz in re.findall(r"/cpu(\d+)/\S*:(\d+)", lines)}
        return [found.get(core, 0) for core in range(max(found, default=-1) + 1)]


def cores(text: str, frequencies: Sequence[int]) -> list[int]:
    """Core numbers of ``--cpus``: "big", or numbers and ranges such as "4-6,7"."""
    if text == "big":
        if not frequencies or min(frequencies) == max(frequencies):
            raise PhoneError(
                "--cpus big: this phone does not tell which of its cores are big; give numbers, such as 4-7"
            )
        return [core for core, khz in enumerate(frequencies) if khz > min(frequencies)]
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first = int(found.group(1)) if found else 0
        last = int(found.group(2) or first) if found else -1
        if not found or first > last or last > 63:
            raise PhoneError(f'--cpus is "{text}"; expected "big", or numbers and ranges below 64 such as 4-6,7')
        numbers += range(first, last + 1)
    return sorted(set(numbers))


def command(model: str, threads: int, seconds: float, cpus: Sequence[int], sparse: bool) -> str:
    """One run of benchmark_model, as the phone's shell takes it."""
    words = ["./benchmark_model", f"--graph={model}", f"--num_threads={threads}", "--warmup_runs=5", "--num_runs=20"]
    words += [f"--min_secs={seconds:g}"]
    if sparse:
        words += [
            "--external_delegate_path=./libblock_sparse_delegate.so",
            f"--external_delegate_options=num_threads:{threads}",
        ]
    if cpus:
        words = ["taskset", f"{sum(1 << core for core in cpus):x}", *words]
    return f"cd {FOLDER} && " + " ".join(shlex.quote(word) for word in words)


def milliseconds(output: str) -> float:
    """The average of the timed runs; the tool's line of sums gives it in microseconds."""
    found = re.search(r"Inference timings in us: .*Inference \(avg\): ([\d.]+(?:e\+?\d+)?)", output)
    if not found:
        last = "\n".join(output.strip().splitlines()[-15:])
        raise PhoneError(f"benchmark_model printed no line 'Inference timings in us: ...'; its last lines are\n{last}")
    return float(found.group(1)) / 1000


def measure(phone: Phone, arguments: argparse.Namespace) -> dict[str, Any]:
    """Copies, runs in turns and gathers; what --json writes."""
    frequencies = phone.highest_frequencies()
    cpus = cores(arguments.cpus, frequencies) if arguments.cpus else []
    phone.shell(f"mkdir -p {FOLDER}")
    files = {
        "benchmark_model": arguments.benchmark_model,
        "libblock_sparse_delegate.so": arguments.delegate,
        "dense.tflite": arguments.dense,
        "sparse.tflite": arguments.sparse,
    }
    for name, source in files.items():
        phone.push(source, name)
    phone.shell(f"chmod 755 {FOLDER}/benchmark_model")
    report: dict[str, Any] = {
        "device": f"{phone.property('ro.product.manufacturer')} {phone.property('ro.product.model')}".strip(),
        "soc": phone.property("ro.soc.model") or phone.property("ro.board.platform"),
        "android": phone.property("ro.build.version.release"),
        "core_mhz": [khz // 1000 for khz in frequencies],
        "cpus": cpus or "any",
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "tool": f"{arguments.benchmark_model.name}, sha256 {_digest(arguments.benchmark_model)}",
        "delegate": f"sha256 {_digest(arguments.delegate)}",
        "dense": f"{arguments.dense.name}, sha256 {_digest(arguments.dense)}",
        "sparse": f"{arguments.sparse.name}, sha256 {_digest(arguments.sparse)}",
        "rounds": arguments.rounds,
        "thermal_before": phone.thermal_state(),
        "results": [],
    }
    for threads in arguments.threads:
        times: dict[str, list[float]] = {"dense": [], "sparse": []}
        for _ in range(arguments.rounds):
            for kind, values in times.items():
                run = command(f"{kind}.tflite", threads, arguments.seconds, cpus, sparse=kind == "sparse")
                values.append(milliseconds(phone.shell(run)))
        dense, sparse = (statistics.median(values) for values in times.values())
        report["results"].append(
            {
                "threads": threads,
                "dense_ms": dense,
                "sparse_ms": sparse,
                "ratio": dense / sparse,
                "dense_rounds_ms": times["dense"],
                "sparse_rounds_ms": times["sparse"],
            }
        )
    report["thermal_after"] = phone.thermal_state()
    if not arguments.keep:
        phone.shell(f"rm -r {FOLDER}")
    return report


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    cpus = report["cpus"] if isinstance(report["cpus"], str) else ",".join(map(str, report["cpus"]))
    lines = [
        f"{report['device']} ({report['soc']}), Android {report['android']}, cores: {cpus}, {report['date']}",
        f"thermal state: {report['thermal_before']} before, {report['thermal_after']} after",
        f"tool: {report['tool']}; median of {report['rounds']} rounds in turns",
        "",
        "| threads | dense, XNNPACK | block-sparse | times faster |",
        "|---|---|---|---|",
    ]
    for row in report["results"]:
        lines.append(
            f"| {row['threads']} | {row['dense_ms']:.2f} ms | {row['sparse_ms']:.2f} ms | {row['ratio']:.2f} |"
        )
    if {report["thermal_before"], report["thermal_after"]} - {"none", "unknown"}:
        lines += ["", "The phone was hot and may have slowed its cores down: let it cool and measure again."]
    return "\n".join(lines)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _threads(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != len(text.split(",")) or not all(1 <= number <= 64 for number in numbers):
        raise argparse.ArgumentTypeError(f'"{text}"; expected numbers from 1 to 64, such as 1,2,4')
    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    parser.add_argument("--dense", default=ROOT / "build/demo/dense.tflite", **file, help="build/demo/dense.tflite")
    parser.add_argument("--sparse", default=ROOT / "build/demo/sparse.tflite", **file, help="build/demo/sparse.tflite")
    parser.add_argument(
        "--benchmark-model", default=Path("android_aarch64_benchmark_model"), **file, help="TensorFlow Lite's tool"
    )
    parser.add_argument(
        "--delegate",
        default=ROOT / "bazel-android-arm64-bin/tflite_delegate/libblock_sparse_delegate.so",
        **file,
        help="the library for Android",
    )
    parser.add_argument("--serial", help="which device, of those that 'adb devices' lists")
    parser.add_argument("--threads", type=_threads, default=[1], metavar="N,...", help="1 by default; such as 1,2,4")
    parser.add_argument("--cpus", metavar="CORES", help='"big", or numbers such as 4-7: run on these cores only')
    parser.add_argument("--rounds", type=int, default=3, help="runs of each model, in turns; 3 by default")
    parser.add_argument("--seconds", type=float, default=2.0, help="least time of a run; 2 by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--adb", default=os.environ.get("ADB", "adb"), help="the adb program")
    parser.add_argument("--keep", action="store_true", help=f"leave {FOLDER} on the phone")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """The command; 1 with a message where something fails."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.rounds < 1:
            raise PhoneError(f"--rounds is {arguments.rounds}; expected 1 or more")
        wanted = {
            "--benchmark-model": "docs/android.md tells where to get it",
            "--delegate": "bazel build --config=android_arm64 //tflite_delegate:libblock_sparse_delegate.so",
            "--dense": "make demo",
            "--sparse": "make demo",
        }
        for option, remedy in wanted.items():
            path = getattr(arguments, option[2:].replace("-", "_"))
            if not path.is_file():
                raise PhoneError(f"{path} is missing: name it by {option}, or make it ({remedy})")
        report = measure(Phone(arguments.adb, arguments.serial), arguments)
    except PhoneError as error:
        print(f"benchmark_on_phone: {error}", file=sys.stderr)
        return 1
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
