"""Finding the library and checking the arguments, without the library itself."""

from pathlib import Path

import pytest

from keras_prune.tflite import delegate as loading
from keras_prune.tflite import find_delegate_library, load_delegate

NAME = "libblock_sparse_delegate.so"


class Runtime:
    """Stands for an interpreter module: remembers what it was asked to load."""

    def __init__(self):
        self.calls = []

    def load_delegate(self, path, options):
        self.calls.append((path, options))
        return "delegate"


@pytest.fixture
def runtime(monkeypatch):
    fake = Runtime()
    monkeypatch.setattr(loading, "_runtime_module", lambda name: fake)
    return fake


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No library in the environment, the package, or above the working directory."""
    monkeypatch.delenv(loading.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(loading, "__file__", str(tmp_path / "site" / "keras_prune" / "tflite" / "delegate.py"))
    (tmp_path / "work" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "deeper")
    return tmp_path


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({}, {"num_threads": "1", "verbose": "0"}),
        ({"num_threads": 64, "verbose": True}, {"num_threads": "64", "verbose": "1"}),
        ({"cpu": "scalar"}, {"num_threads": "1", "verbose": "0", "cpu": "scalar"}),
        ({"report_path": Path("a.json")}, {"num_threads": "1", "verbose": "0", "report_path": "a.json"}),
        ({"profile": True}, {"num_threads": "1", "verbose": "0", "profile": "1"}),
        ({"tuning_path": Path("t.txt")}, {"num_threads": "1", "verbose": "0", "tuning_path": "t.txt"}),
    ],
)
def test_options_are_what_the_delegate_knows(runtime, tmp_path, arguments, options):
    library = make(tmp_path / NAME)
    assert load_delegate(library=library, **arguments) == "delegate"
    assert runtime.calls == [(str(library), options)]


@pytest.mark.parametrize("threads", [0, 65, -1, 1.5, "2", True, None])
def test_number_of_threads_is_checked(runtime, threads):
    with pytest.raises(ValueError, match=r"num_threads is .*; expected an integer, 1 to 64"):
        load_delegate(threads)


def test_cpu_and_runtime_are_checked(runtime, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"cpu is 'sse'; expected one of auto, scalar, avx2, avx512, neon"):
        load_delegate(cpu="sse")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"runtime is 'onnx'; expected one of tensorflow, ai_edge_litert"):
        load_delegate(library=make(tmp_path / NAME), runtime="onnx")


def test_order_of_places(nowhere, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"bazel build //tflite_delegate:libblock_sparse_delegate.so"):
        find_delegate_library()
    above = make(nowhere / "work" / "bazel-bin" / "tflite_delegate" / NAME)
    assert find_delegate_library() == above
    beside_package = make(nowhere / "site" / "bazel-bin" / "tflite_delegate" / NAME)
    assert find_delegate_library() == beside_package
    inside = make(nowhere / "site" / "keras_prune" / "_lib" / NAME)
    assert find_delegate_library() == inside
    named = make(nowhere / "named.so")
    monkeypatch.setenv(loading.LIBRARY_VARIABLE, str(named))
    assert find_delegate_library() == named
    argument = make(nowhere / "argument.so")
    assert find_delegate_library(argument) == argument


def test_a_named_library_must_exist(nowhere, monkeypatch):
    make(nowhere / "work" / "bazel-bin" / "tflite_delegate" / NAME)
    with pytest.raises(FileNotFoundError, match=r"library names 'missing.so'"):
        find_delegate_library("missing.so")
    monkeypatch.setenv(loading.LIBRARY_VARIABLE, "elsewhere.so")
    with pytest.raises(FileNotFoundError, match=r"BLOCK_SPARSE_DELEGATE names 'elsewhere.so'"):
        find_delegate_library()


def test_the_imported_runtime_is_taken(monkeypatch):
    modules = {name: module for name, (module, _) in loading._RUNTIMES.items()}
    for name, module in modules.items():
        fake = Runtime()
        monkeypatch.setattr(loading.sys, "modules", {**loading.sys.modules, module: fake})
        for other, other_module in modules.items():
            if other != name:
                loading.sys.modules.pop(other_module, None)
        assert loading._runtime_module(None) is fake
        monkeypatch.undo()


def test_no_runtime(monkeypatch):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(loading.sys, "modules", {})
    with pytest.raises(ImportError, match=r"install tensorflow or ai-edge-litert"):
        loading._runtime_module(None)
