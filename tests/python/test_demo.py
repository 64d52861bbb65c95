"""The demo on a few drawn images, with networks too short trained to be good: its files, figures and exit status."""

import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from demo import files, inference, readme, report, results

COUNTS = {"train": 320, "t10k": 40}


def idx(array: np.ndarray) -> bytes:
    """Encode bytes as the format's description has it: 0, 0, type 8, rank, big-endian sizes, entries."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A bright row for each class, in noise."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(5)
    for part, count in COUNTS.items():
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 60, (count, 28, 28))
        pixels[np.arange(count), 2 * labels + 4] = 255
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
    return folder


@pytest.fixture(scope="module")
def ran(data, tmp_path_factory):
    from demo.pipeline import main

    output = tmp_path_factory.mktemp("demo")
    arguments = ["--dense-epochs", "5", "--pruning-epochs", "5", "--batch-size", "16", "--latency-seconds", "0.05"]
    status = main(["--data", str(data), "--output", str(output), *arguments])
    return status, output


def test_ends_well(ran):
    assert ran[0] == 0


def test_result_has_the_documented_keys_and_plausible_figures(ran):
    _, output = ran
    result = json.loads((output / "result.json").read_text())
    assert set(result) == {"dense", "sparse", "ratio"}
    assert set(result["dense"]) == {"accuracy", "file_bytes", "latency_ms"}
    sparse = result["sparse"]
    expected = {"accuracy_keras", "accuracy_delegate", "argmax_equal", "file_bytes", "latency_ms"}
    assert set(sparse) == expected | {"zeros", "nodes_claimed", "nodes_total"}
    for key in ("1", "2"):
        ratio = result["dense"]["latency_ms"][key] / sparse["latency_ms"][key]
        assert result["ratio"][key] == pytest.approx(ratio)
    assert result["dense"]["accuracy"] > 0.5
    assert sparse["accuracy_keras"] > 0.5
    assert sparse["argmax_equal"] == COUNTS["t10k"]
    assert sparse["accuracy_keras"] == sparse["accuracy_delegate"]
    assert sparse["zeros"] == pytest.approx(0.8, abs=0.01)
    assert 4 <= sparse["nodes_claimed"] <= sparse["nodes_total"]
    assert sparse["file_bytes"] == (output / "sparse.tflite").stat().st_size < result["dense"]["file_bytes"]
    assert result["dense"]["file_bytes"] == (output / "dense.tflite").stat().st_size


def test_saved_models_have_the_accuracy_that_is_told(ran, data):
    import keras

    _, output = ran
    test = files.read_images(data, "t10k")
    told = json.loads((output / "result.json").read_text())
    for name, accuracy in (("dense", told["dense"]["accuracy"]), ("sparse", told["sparse"]["accuracy_keras"])):
        model = keras.models.load_model(output / f"{name}.keras")
        right = [int(np.argmax(model(pixels[None])[0])) for pixels in test.pixels] == test.labels
        assert np.mean(right) == accuracy
    kernels = [layer.get_weights()[0] for layer in model.layers if layer.name.startswith("pointwise")]
    zeros = sum(int(np.sum(kernel == 0)) for kernel in kernels)
    assert told["sparse"]["zeros"] == pytest.approx(zeros / sum(kernel.size for kernel in kernels))


def test_report_has_its_pictures_and_needs_no_other_file(ran):
    _, output = ran
    sources = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            sources.extend(value for name, value in attrs if name in ("src", "href"))

    Parser().feed((output / "report.html").read_text())
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)


def test_no_half_written_file_stays(ran):
    assert not [path.name for path in ran[1].iterdir() if path.name.startswith(".part-")]


def test_training_stops_in_time_and_records_each_step(data):
    import io

    from rich.console import Console

    from demo import training
    from demo.console import Screen
    from demo.network import make_network

    text = io.StringIO()
    screen = Screen(Console(file=text))
    plan = training.Plan(dense_epochs=5, pruning_epochs=5, seconds=0.0, batch_size=32)
    model, images = make_network(8, ((12, 2), (16, 2))), files.read_images(data, "train")
    dense = training.train_dense(model, images, plan, screen)
    assert dense.epochs == 1
    assert len(dense.loss) == len(dense.accuracy) == len(dense.sparsity) == 10
    assert set(dense.sparsity) == {0.0}
    history, prune = training.fine_tune(model, images, plan, screen, 0.75, dense_seconds=1.0, dense=dense)
    assert history.epochs == 1
    assert len(history.sparsity) == 10
    assert np.all(np.diff(history.sparsity) >= 0)
    assert history.sparsity[0] < 0.5
    # The schedule ends after 6 steps, 0.6 of all.
    assert history.sparsity[5:] == [pytest.approx(0.75, abs=0.02)] * 5
    assert {line.layer for line in prune.report() if not line.skipped} == {"pointwise_1", "pointwise_2"}
    assert "step 10 of 10" in text.getvalue()


GOOD = results.Results(
    images=20_000,
    accuracy_dense_keras=0.9,
    accuracy_dense=0.9,
    accuracy_sparse_keras=0.9,
    accuracy_sparse=0.9,
    argmax_equal=19_998,
    dense_bytes=4000,
    sparse_bytes=1000,
    latency_dense={1: 0.3, 2: 0.2},
    latency_sparse={1: 0.1, 2: 0.1},
    zeros=0.8,
    dense_nodes=11,
    dense_whole=True,
    nodes=inference.Nodes(total=11, claimed=10, left=["SOFTMAX (node 10): no"], cpu="avx2"),
    pruned_layers=4,
    sparse_layers=4,
)


def test_good_results_do_not_fail():
    assert GOOD.failures() == []
    assert GOOD.ratio == pytest.approx({1: 3.0, 2: 2.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"argmax_equal": 19_997}, "3 of 20,000 predictions"),
        ({"dense_whole": False}, "XNNPACK"),
        ({"sparse_layers": 3}, "4 layers were pruned, but the file has 3"),
        (
            {"nodes": inference.Nodes(11, 10, ["BlockSparseConv2D (node 2): too large"], "avx2")},
            r"did not take.*BlockSparseConv2D \(node 2\): too large",
        ),
        ({"nodes": inference.Nodes(11, 3, ["MEAN (node 2): no"], "avx2")}, "did not take"),
    ],
)
def test_bad_results_fail_with_a_reason(change, message):
    (failure,) = dataclasses.replace(GOOD, **change).failures()
    assert re.search(message, failure)


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images.*dataset-fashion-mnist"):
        files.read_images(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 7]), "not an IDX"),
        (bytes([0, 0, 8, 2, 0, 0, 0, 1]), "not an IDX"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 7]), "should hold 3 bytes after its header, but holds 2"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        files.read_idx(path)


def test_images_and_labels_must_be_as_many(tmp_path):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((3, 28, 28))))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(2)))
    with pytest.raises(ValueError, match="3 images, but 2 labels"):
        files.read_images(tmp_path, "train")


def test_blocks_are_coloured_by_their_first_row():
    column = np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1])
    expected = np.array([0, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 4, 4, 4, 4])
    np.testing.assert_array_equal(report.block_phases(column[:, None])[:, 0], expected)


BEGIN, END = "<!-- demo table: begin (python -m demo.readme) -->", "<!-- demo table: end -->"


def test_readme_table_is_replaced_between_its_markers(tmp_path):
    page, table = tmp_path / "README.md", tmp_path / "table.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    table.write_text(results.markdown(GOOD, "A note."))
    assert readme.main([str(table), str(page)]) == 0
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "| latency, 1 thread | 0.300 ms | 0.100 ms | 3.00 |" in text
    assert readme.main([str(table), str(page)]) == 0
    assert page.read_text() == text


def test_readme_without_markers_is_left_alone(tmp_path, capsys):
    page, table = tmp_path / "README.md", tmp_path / "table.md"
    page.write_text("text")
    table.write_text("| a |")
    assert readme.main([str(table), str(page)]) == 1
    assert page.read_text() == "text"
    assert BEGIN in capsys.readouterr().err
    assert readme.main([str(tmp_path / "none.md"), str(page)]) == 1
    assert "make demo" in capsys.readouterr().err


def test_recurrent_demo(data, tmp_path):
    from demo import recurrent

    arguments = ["--units", "16", "--dense-epochs", "2", "--pruning-epochs", "2", "--batch-size", "32"]
    status = recurrent.main(["--data", str(data), "--output", str(tmp_path), *arguments, "--latency-seconds", "0.05"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert status == (1 if recurrent.failures(result, COUNTS["t10k"]) else 0)
    assert result["sparse"]["operators"] == ["BlockSparseGRU"]
    assert result["sparse"]["argmax_equal"] == COUNTS["t10k"]
    assert result["sparse"]["compression"] > 9
    assert result["ratio"] == pytest.approx(result["dense"]["latency_ms"] / result["sparse"]["latency_ms"])
    result["sparse"]["accuracy"] = result["dense"]["accuracy"] - 0.2
    result["sparse"]["argmax_equal"] = 3
    assert len(recurrent.failures(result, COUNTS["t10k"])) == 2
