"""The examples of README.md and docs/ run as they stand, on small data, and their links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def blocks_with(words: str) -> list[str]:
    found = [block for block in python_blocks(ROOT / "README.md") if words in block]
    assert len(found) == 1
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where README's example of one's own model has run, with the ``model.keras`` that it wants."""
    import keras

    folder = tmp_path_factory.mktemp("readme")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3),
            layers.Conv2D(16, 1, activation="relu"),
            layers.Conv2D(12, 3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(folder / "model.keras")
    rng = np.random.default_rng(2)
    data = {"x_train": rng.random((320, 8, 8, 3), np.float32), "y_train": rng.integers(0, 3, 320)}
    (example,) = blocks_with("Prune(")
    here = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(example, "README.md", "exec"), data)
    finally:
        os.chdir(here)
    return folder, data["model"]


def test_own_model_is_short_and_makes_a_sparse_file(folder):
    from keras_prune.tflite import inspect

    where, model = folder
    (example,) = blocks_with("Prune(")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    for layer, pruned in zip(model.layers, (False, True, True, False, False), strict=True):
        weights = layer.get_weights()
        zeros = np.mean(weights[0] == 0) if weights else 0
        assert zeros >= 0.8 if pruned else zeros < 0.1
    structures = [layer.structure for layer in inspect((where / "model.tflite").read_bytes())]
    assert structures == [None, "unaligned_block", "unaligned_block", None]


@pytest.mark.parametrize("runtime", ["tf.lite.Interpreter", "from ai_edge_litert"])
def test_interpreters_run_the_file(folder, runtime):
    where, model = folder
    (example,) = blocks_with(runtime)
    # In a process of its own: the two runtimes are not meant to share one. What follows compares with Keras.
    check = """
import numpy
details = interpreter.get_input_details()[0]
interpreter.set_tensor(details["index"], numpy.load("image.npy"))
interpreter.invoke()
numpy.save("output.npy", interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""
    image = np.random.default_rng(3).random((1, 8, 8, 3), np.float32)
    np.save(where / "image.npy", image)
    done = subprocess.run(
        [sys.executable, "-c", example + check], cwd=where, capture_output=True, text=True, env=_environment()
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"block_sparse: .* 2 threads: [1-9]\d* of \d+ nodes", done.stderr), done.stderr
    np.testing.assert_allclose(np.load(where / "output.npy"), np.asarray(model(image)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=f"{page.name}-{i}") for page in PAGES[1:] for i, block in enumerate(python_blocks(page))],
)
def test_blocks_of_other_pages_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in name:
            continue
        linked = (page.parent / name) if name else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_options_of_the_delegate_are_all_described():
    described = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "delegate.md").read_text(), re.MULTILINE))
    source = (ROOT / "tflite_delegate" / "options.cc").read_text()
    assert described == set(re.findall(r'key == "(\w+)"', source))


def _environment() -> dict[str, str]:
    # An installed package need not be the one under test.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
