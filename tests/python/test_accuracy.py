"""The accuracy benchmark's bookkeeping, one tiny run of it, and the readers of the benchmarks beside it."""

import gzip
import io
import json
import os
import pickle
import statistics
import sys
import types

import numpy as np
import pytest

from benchmarks import accuracy, retained
from benchmarks.accuracy import Case, Plan
from demo.console import Screen
from demo.files import Images

KEYS = {
    *("task", "network", "structure", "method", "zeros", "seed"),
    *("accuracy_dense", "accuracy_keras", "accuracy_delegate"),
}


def make_row(case, value=0.9, before=0.95):
    return {
        "task": "fashion_mnist",
        "network": case.network,
        "structure": case.structure,
        "method": case.method,
        "zeros": case.zeros,
        "seed": case.seed,
        "accuracy_dense": before,
        "accuracy_keras": value,
        "accuracy_delegate": value,
    }


def test_every_structure_is_run_once_at_every_sparsity_with_every_seed():
    todo = accuracy.cases()
    assert len(set(todo)) == len(todo) == 2 * 3 * (1 + 6 * 3)
    assert sum(case.structure == "dense" for case in todo) == 2 * 3


def test_what_is_run_first_says_something():
    todo = accuracy.cases()
    assert [case.seed for case in todo] == sorted(case.seed for case in todo)
    first = [case for case in todo if case.seed == 0]
    dense = [i for i, case in enumerate(first) if case.structure == "dense"]
    fractions = [case.zeros for case in first if case.zeros]
    assert dense == [0, 7]
    assert fractions == [0.8] * 12 + [0.9] * 12 + [0.7] * 12


def test_stopped_runs_go_on_where_they_stopped(tmp_path):
    todo = accuracy.cases(["demo"], [0], [0.8])
    path, ran = tmp_path / "results.jsonl", []

    def run(case, stop_at):
        if len(ran) == stop_at:
            raise KeyboardInterrupt
        ran.append(case)
        return make_row(case)

    with pytest.raises(KeyboardInterrupt):
        accuracy.run_all(todo, path, lambda case: run(case, 3), Screen())
    path.write_bytes(path.read_bytes() + b'{"task": "fashion_m')  # killed while it wrote
    assert len(accuracy.read_results(path)) == 3
    accuracy.run_all(todo, path, lambda case: run(case, 99), Screen())
    assert ran == todo
    assert [Case.of(json.loads(line)) for line in path.read_text().splitlines()] == todo
    accuracy.run_all(todo, path, pytest.fail, Screen())


@pytest.mark.parametrize("line", ["no JSON", "3", '{"network": "demo"}'])
def test_foreign_lines_are_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    accuracy.append_result(path, make_row(accuracy.cases()[0]))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match="line 2 is no result"):
        accuracy.read_results(path)


def test_results_of_two_plans_are_not_mixed(tmp_path):
    accuracy.check_plan(tmp_path, Plan())
    accuracy.check_plan(tmp_path, Plan())
    with pytest.raises(ValueError, match=r"another plan.*--output"):
        accuracy.check_plan(tmp_path, Plan(dense_epochs=3))


def test_table_has_mean_and_spread_over_seeds(tmp_path):
    values = {0: 0.901, 1: 0.911, 2: 0.906}
    rows = [make_row(Case("demo", "aligned", "magnitude", 0.8, seed), value) for seed, value in values.items()]
    rows.append(make_row(Case("demo", "aligned", "magnitude", 0.9, 0), 0.85))
    rows.append(make_row(Case("demo", "dense", "none", 0.0, 0), 0.92))
    rows[0]["accuracy_keras"] = 0.9013
    page = tmp_path / "page.md"
    begin, end = "<!-- accuracy: begin (python -m benchmarks.accuracy --table) -->", "<!-- accuracy: end -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    output = tmp_path / "out"
    for row in rows:
        accuracy.append_result(output / "results.jsonl", row)
    for _ in range(2):
        assert accuracy.main(["--table", "--output", str(output), "--page", str(page)]) == 0
    text = page.read_text()
    mean, deviation = 100 * statistics.mean(values.values()), 100 * statistics.stdev(values.values())
    assert text.startswith("before\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text
    assert "| structure | 0% zeros | 80% zeros | 90% zeros |" in text
    assert f"| aligned |  | {mean:.2f} ± {deviation:.2f} (3) | 85.00 (1) |" in text
    assert "| dense | 92.00 (1) |  |  |" in text
    assert "demo with seed 0 (3), demo with seed 1 (1), demo with seed 2 (1)" in text
    assert "at most 0.03 points" in text
    assert "resnet8" not in text
    assert (output / "accuracy.png").read_bytes()[:4] == b"\x89PNG"


def test_a_page_without_markers_is_left_alone(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("text\n")
    assert accuracy.main(["--table", "--output", str(tmp_path), "--page", str(page)]) == 1
    assert "has no lines" in capsys.readouterr().err
    assert page.read_text() == "text\n"


@pytest.mark.parametrize("arguments", [["--networks", "vgg"], ["--zeros", "0"], ["--zeros", "x"], ["--seeds", "a"]])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(SystemExit):
        accuracy.main(arguments)


def test_a_run_prunes_the_dense_network_it_kept(tmp_path, monkeypatch):
    import keras

    from demo.network import make_network

    built = []
    tiny = {"demo": lambda: built.append(0) or make_network(8, ((16, 2),))}
    monkeypatch.setattr(accuracy, "NETWORKS", tiny)
    # The delegate has tests of its own; here it would need to be built.
    monkeypatch.setattr(accuracy.Runner, "_through_delegate", lambda self, model, sparse: self._accuracy(model))
    pruned = []
    original = accuracy.Runner._accuracy
    monkeypatch.setattr(accuracy.Runner, "_accuracy", lambda self, m: pruned.append(m) or original(self, m))
    rng = np.random.default_rng(0)
    images = Images(rng.random((48, 28, 28, 1), np.float32), rng.integers(0, 10, 48).astype(np.int32))
    plan = Plan(images=40, dense_epochs=1, pruning_images=24, batch_size=8, test_images=20)
    row = accuracy.Runner(images, images, plan, tmp_path, Screen()).run(Case("demo", "aligned", "magnitude", 0.8, 3))
    kernel = keras.ops.convert_to_numpy(pruned[-1].get_layer("pointwise_1").kernel)
    again = accuracy.Runner(images, images, plan, tmp_path, Screen())  # as another process would go on
    dense = again._dense("demo", 3).get_layer("pointwise_1").kernel
    assert set(row) == KEYS
    assert len(built) == 1
    assert 0.8 <= np.mean(kernel == 0) < 0.85
    assert np.all(keras.ops.convert_to_numpy(dense) != 0)
    assert all(0 <= row[key] <= 1 for key in KEYS if key.startswith("accuracy"))


@pytest.fixture
def old_format(monkeypatch):
    """Writes a file of weights as PyTorch's old format is described, without PyTorch."""
    storage = type("FloatStorage", (), {"__module__": "torch"})

    def rebuild(*arguments):
        raise AssertionError("the pickle only names it")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    for module, name, value in (("torch", "FloatStorage", storage), ("torch._utils", "_rebuild_tensor_v2", rebuild)):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        monkeypatch.setattr(sys.modules[module], name, value, raising=False)

    class Storage(str):
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", storage, str(obj), "cpu", 0, None) if isinstance(obj, Storage) else None

        def reducer_override(self, obj):
            key, *rest = obj.arguments if isinstance(obj, Tensor) else (None,)
            return NotImplemented if key is None else (rebuild, (Storage(key), *rest, False, {}))

    class Tensor:
        def __init__(self, *arguments):
            self.arguments = arguments

    def write(tensors, storages):
        file = io.BytesIO()
        tensors = {name: Tensor(*arguments) for name, arguments in tensors.items()}
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors, list(storages)):
            Pickler(file, 2).dump(part)
        for values in storages.values():
            file.write(len(values).to_bytes(8, "little") + np.asarray(values, "<f4").tobytes())
        return file.getvalue()

    return write


def test_weights_are_read_with_offset_and_strides(old_format):
    values = np.arange(24.0)
    tensors = {
        "convolution": ("7", 0, (3, 2, 1, 1), (2, 1, 1, 1)),
        "transposed": ("7", 6, (2, 3), (1, 2)),
        "bias": ("8", 0, (3,), (1,)),
    }
    read = retained.read_weights(old_format(tensors, {"7": values, "8": [5, 6, 7]}))
    assert read["transposed"].tolist() == [[6, 8, 10], [7, 9, 11]]
    assert read["bias"].tolist() == [5, 6, 7]
    (matrix,) = retained.pointwise(read)
    assert matrix.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_weights_that_name_something_else_are_refused():
    with pytest.raises(ValueError, match=r"names posix\.system"):
        retained.read_weights(pickle.dumps(os.system, 2))
    with pytest.raises(ValueError, match="not a file of weights"):
        retained.read_weights(gzip.compress(b""))


def test_retained_norms_are_those_of_a_plain_loop():
    from keras_prune import AlignedBlock

    matrices = [np.array([[3.0, 1.0], [-4.0, 1.0]], np.float32), np.array([[1.0, 2.0], [1.0, -2.0]], np.float32)]
    row = retained.measure(matrices, "aligned", AlignedBlock(2), 2, 0.5)
    # The first keeps 3 and -4, the second 2 and -2.
    assert row["retained_l1"] == pytest.approx(11 / 15, abs=1e-6)
    assert row["retained_l2"] == pytest.approx((33 / 37) ** 0.5, abs=1e-6)
    cell = f"{100 * row['retained_l1']:.1f}, {100 * row['retained_l2']:.1f}, {row['seconds']:.2f} s"
    assert f"| 2 | 50% | {cell} |" in retained.markdown([row])
