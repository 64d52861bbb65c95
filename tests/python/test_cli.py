"""The command line tool: files, exit codes, JSON, and nothing half written."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sparse_matrices
from dense_models import conv_model, fully_connected_model

from keras_prune import cli
from keras_prune.tflite import convert, densify


@pytest.fixture
def dense(tmp_path):
    weights = sparse_matrices.unaligned(np.random.default_rng(0), 12, 40, 4, 0.8)
    path = tmp_path / "dense.tflite"
    path.write_bytes(fully_connected_model(weights))
    return path


@pytest.fixture
def sparse(tmp_path, dense):
    path = tmp_path / "sparse.tflite"
    path.write_bytes(convert(dense.read_bytes()))
    return path


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_convert_and_densify(capsys, tmp_path, dense):
    sparse, restored = tmp_path / "out.tflite", tmp_path / "restored.tflite"
    code, out, _ = run(capsys, "convert", dense, "-o", sparse)
    assert code == 0
    assert "unaligned_block" in out
    assert "1 block-sparse layers" in out
    assert sparse.read_bytes() == convert(dense.read_bytes())
    code, _, _ = run(capsys, "densify", sparse, "-o", restored)
    assert code == 0
    assert restored.read_bytes() == dense.read_bytes() == densify(sparse.read_bytes())
    code, _, _ = run(capsys, "convert", dense, "-o", restored, "--dense")
    assert code == 0
    assert restored.read_bytes() == dense.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense.tflite", "out.tflite", "restored.tflite"]


def test_inspect_as_json(capsys, sparse):
    code, out, err = run(capsys, "inspect", sparse, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["file_bytes"] == sparse.stat().st_size
    assert (report["block_sparse_layers"], report["dense_layers"]) == (1, 0)
    (layer,) = report["layers"]
    assert (layer["structure"], layer["block"], layer["rows"], layer["columns"]) == ("unaligned_block", "4", 12, 40)
    assert layer["value_bytes"] == report["value_bytes"] == round((1 - layer["zeros"]) * 12 * 40 * 4)
    assert layer["dense_bytes"] == 12 * 40 * 4
    assert layer["metadata_bytes"] == report["metadata_bytes"] > 0
    assert layer["reason"] is None


def test_inspect_says_why_a_layer_is_dense(capsys, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(conv_model(np.ones((4, 1, 1, 4), np.float32)))
    code, out, _ = run(capsys, "inspect", path)
    assert code == 0
    assert "0.0% zeros; at least 25.0% are worth it" in out
    assert "0 block-sparse layers" in out


def test_keras_file(capsys, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(12)])
    model.layers[0].kernel.assign(sparse_matrices.unaligned(np.random.default_rng(0), 12, 40, 4, 0.8).T)
    path, output = tmp_path / "model.keras", tmp_path / "out.tflite"
    model.save(path)
    code, out, _ = run(capsys, "convert", path, "-o", output, "--batch-size", "3", "--json")
    assert code == 0
    assert json.loads(out)["block_sparse_layers"] == 1


def test_options_of_convert(capsys, tmp_path, dense):
    output = tmp_path / "out.tflite"
    assert run(capsys, "convert", dense, "-o", output, "--min-zeros", "0.95")[0] == 0
    assert output.read_bytes() == dense.read_bytes()
    assert run(capsys, "convert", dense, "-o", output, "--structures", "pattern,aligned_block", "--json")[0] == 0
    assert output.read_bytes() == convert(dense.read_bytes(), structures=["pattern", "aligned_block"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["prune"],
        ["convert", "a.tflite"],
        ["convert", "a.tflite", "-o", "b", "--batch-size", "0"],
        ["convert", "a.tflite", "-o", "b", "--batch-size", "x"],
        ["convert", "a.tflite", "-o", "b", "--min-zeros", "1"],
        ["convert", "a.tflite", "-o", "b", "--structures", "block,other"],
        ["inspect"],
    ],
)
def test_wrong_command_lines(capsys, arguments):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "usage: keras-prune" in err


def test_help(capsys):
    assert run(capsys, "--help")[0] == 0
    assert run(capsys, "convert", "--help")[0] == 0


def test_failures_say_which_file_and_leave_none_behind(capsys, tmp_path, dense, sparse):
    noise, output = tmp_path / "noise.tflite", tmp_path / "out.tflite"
    noise.write_bytes(b"noise")
    before = sorted(tmp_path.iterdir())
    for arguments, problem in [
        (("convert", noise, "-o", output), "noise.tflite: not a TensorFlow Lite model"),
        (("densify", noise, "-o", output), "noise.tflite: not a TensorFlow Lite model"),
        (("inspect", noise), "noise.tflite: not a TensorFlow Lite model"),
        (("inspect", tmp_path / "missing.tflite"), "missing.tflite"),
        (("convert", tmp_path / "missing.keras", "-o", output), "missing.keras"),
        (("convert", sparse, "-o", output), "block-sparse already"),
        (("convert", tmp_path, "-o", output), "a folder"),
        (("convert", dense, "-o", tmp_path), "a folder"),
        (("convert", dense, "-o", tmp_path / "no" / "out.tflite"), "no such folder"),
    ]:
        code, out, err = run(capsys, *arguments)
        assert code == 1
        assert out == ""
        assert err.startswith("keras-prune: ")
        assert problem in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file(capsys, monkeypatch, tmp_path, dense, error):
    output = tmp_path / "out.tflite"
    output.write_bytes(b"old")

    def fail(*_):
        raise error("disk full")

    monkeypatch.setattr(os, "replace", fail)
    code, _, err = run(capsys, "convert", dense, "-o", output)
    assert code == (130 if error is KeyboardInterrupt else 1)
    assert "interrupted" in err or "disk full" in err
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense.tflite", "out.tflite"]


def test_written_files_have_ordinary_permissions(capsys, tmp_path, dense):
    output = tmp_path / "out.tflite"
    mask = os.umask(0o022)
    try:
        assert run(capsys, "convert", dense, "-o", output)[0] == 0
    finally:
        os.umask(mask)
    assert output.stat().st_mode & 0o777 == 0o644


def test_module_and_interrupt_signal(tmp_path, dense):
    command = [sys.executable, "-m", "keras_prune"]
    done = subprocess.run([*command, "inspect", str(dense), "--json"], capture_output=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["dense_layers"] == 1
    # A pipe that nobody fills holds the tool while it reads; then Ctrl-C.
    pipe = tmp_path / "pipe.tflite"
    os.mkfifo(pipe)
    # Jobs in the background of a shell, and all that they start, ignore Ctrl-C: so may these tests.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen([*command, "inspect", str(pipe)], stderr=subprocess.PIPE, preexec_fn=heed)
    try:
        writer = None
        for _ in range(600):
            try:
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails until the tool has opened it
                break
            except OSError:
                time.sleep(0.1)
        assert writer is not None
        # Python would forget a signal that came after its last look and before it waits for the pipe.
        asleep = 0
        for _ in range(600):
            time.sleep(0.1)
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            asleep = asleep + 1 if state == "S" else 0
            if asleep == 3:
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        os.close(writer)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.decode().strip() == "keras-prune: interrupted"
