"""Layers become block-sparse where a latency table says that it pays; no test measures time."""

import json
import warnings

import numpy as np
import pytest
import sparse_matrices
from dense_models import ModelBuilder, conv_model, fully_connected_model
from latency_tables import analytic_table, library_version, microseconds

import keras_prune
from keras_prune import cli, mapping
from keras_prune.conversion import measured_latency
from keras_prune.mapping import LatencyTable, Layer, Point
from keras_prune.tflite import convert, flatbuffer, inspect
from keras_prune.tflite.payoff import UnknownLatencyWarning

POINTWISE = Layer("conv", 6, 5, 100, 4)


def table_with_break_even(zeros: float, dense: float = 10.0, layer: Layer = POINTWISE) -> LatencyTable:
    """Blocks of 4 take 3 us and what grows with the weights, as fast as dense at this share of zeros."""
    per_weight = (dense - 3.0) / (1.0 - zeros)
    sparse = {Point(layer, "unaligned_block:4", z): 3.0 + per_weight * (1.0 - z) for z in (0.05, 0.5, 0.95)}
    return LatencyTable({Point(layer): dense, **sparse}, mapping.cpu_name(), library_version())


def with_zeros(share: float) -> np.ndarray:
    """A matrix 4 x 100 that lacks whole columns, which are blocks of 4; of other sizes only 2 fits."""
    kept = np.ones((4, 100), bool)
    kept[:, np.random.default_rng(1).permutation(100)[: round(100 * share)]] = False
    return sparse_matrices.masked(np.random.default_rng(2), kept)


def pointwise(share: float) -> bytes:
    return conv_model(with_zeros(share).reshape(4, 1, 1, 100), input_shape=(1, 6, 5))


def structures(data: bytes) -> list[str | None]:
    return [layer.structure for layer in inspect(data)]


@pytest.mark.parametrize("break_even", [0.1, 0.3, 0.6])
def test_zeros_pay_from_the_tables_break_even_on(break_even):
    table = table_with_break_even(break_even)
    for share in (0.05, break_even - 0.02, break_even + 0.02, 0.8):
        dense = pointwise(share)
        sparse = keras_prune.convert(dense, table=table, force=True, structures=["unaligned_block"], min_zeros=0.95)
        (layer,) = inspect(dense, structures=["unaligned_block"], latency=measured_latency(table, force=True))
        assert (structures(sparse) == ["unaligned_block"]) == (layer.sparse_ms < layer.dense_ms) == (share > break_even)
        assert layer.dense_ms == pytest.approx(0.01)
        assert layer.sparse_ms == pytest.approx(3e-3 + 7e-3 * (1 - share) / (1 - break_even), rel=0.02)
        if share < break_even:
            assert sparse == dense
            assert layer.reason == (
                f"{share:.1%} zeros; dense 0.01 ms, sparse {layer.sparse_ms:.3g} ms as unaligned_block:4"
            )
        (converted,) = inspect(sparse, structures=["unaligned_block"], latency=measured_latency(table, force=True))
        assert (converted.dense_ms, converted.sparse_ms) == (layer.dense_ms, pytest.approx(layer.sparse_ms))


def test_without_a_table_the_share_of_zeros_decides():
    assert structures(keras_prune.convert(pointwise(0.5))) == structures(convert(pointwise(0.5))) == ["aligned_block"]
    assert keras_prune.convert(pointwise(0.5), min_zeros=0.6) == pointwise(0.5)
    (layer,) = inspect(pointwise(0.5), min_zeros=0.6)
    assert layer.reason == "50.0% zeros; at least 60.0% are worth it"
    assert layer.dense_ms is None and layer.sparse_ms is None


def two_layers(first: float, second: float) -> bytes:
    """A pointwise convolution and a fully connected layer, side by side, with shares of zeros."""
    builder = ModelBuilder()
    image, features = builder.tensor([1, 1, 1, 100]), builder.tensor([1, 100])
    outputs = [builder.tensor([1, 1, 1, 4], name="convolution"), builder.tensor([1, 4], name="classifier")]
    builder.conv(image, builder.constant(with_zeros(first).reshape(4, 1, 1, 100)), None, outputs[0])
    builder.fully_connected(features, builder.constant(with_zeros(second)), -1, outputs[1])
    return builder.build([image, features], outputs)


def test_layers_that_the_table_lacks_are_named_and_judged_by_their_zeros():
    table = table_with_break_even(0.7, layer=Layer("conv", 1, 1, 100, 4))
    for second, wanted in ((0.6, "aligned_block"), (0.07, None)):
        with pytest.warns(UnknownLatencyWarning, match=r"layers like classifier: their share of zeros decides"):
            sparse = keras_prune.convert(two_layers(0.6, second), table=table, force=True)
        assert structures(sparse) == [None, wanted]
    layers = inspect(sparse, latency=measured_latency(table, force=True))
    assert layers[0].reason.startswith("60.0% zeros; dense 0.01 ms, sparse 0.0")
    assert layers[1].reason.startswith("7.0% zeros; at least") and layers[1].reason.endswith("is not known")
    with warnings.catch_warnings():  # nothing depends on latencies where hardly any zeros are, or no sparse layers
        warnings.simplefilter("error", UnknownLatencyWarning)
        keras_prune.convert(two_layers(0.6, 0.04), table=table, force=True)
        keras_prune.convert(two_layers(0.6, 0.6), table=table, force=True, sparse=False)


def test_tables_of_other_devices_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "table.json"
    version = library_version()
    monkeypatch.setattr(mapping.measure, "library_version", lambda: version)
    for arguments, problem in (({"cpu": "a phone"}, "for the CPU 'a phone'"), ({"version": "9.9"}, "version '9.9'")):
        analytic_table([Point(POINTWISE)], **arguments).save(path)
        with pytest.raises(ValueError, match=f"{problem}.*with force"):
            keras_prune.convert(pointwise(0.5), table=path)
        assert cli.main(["convert", str(path), "-o", str(tmp_path / "out"), "--table", str(path)]) == 1
    with pytest.warns(UserWarning, match=r"is for the library version '9\.9', not"):
        keras_prune.convert(pointwise(0.5), table=path, force=True)
    table_with_break_even(0.3).save(path)
    assert keras_prune.convert(pointwise(0.2), table=path) == pointwise(0.2)
    assert structures(keras_prune.convert(pointwise(0.4), table=path)) == ["aligned_block"]
    with pytest.raises(FileNotFoundError):
        keras_prune.convert(pointwise(0.5), table=tmp_path / "none.json")


def test_tables_on_the_command_line(capsys, tmp_path):
    table, dense, out = tmp_path / "table.json", tmp_path / "dense.tflite", tmp_path / "out.tflite"
    table_with_break_even(0.7, layer=Layer("conv", 1, 1, 100, 4)).save(table)
    dense.write_bytes(two_layers(0.6, 0.6))
    words = ["convert", str(dense), "-o", str(out), "--table", str(table), "--force"]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert "dense 0.01 ms, sparse 0.0" in said.out and "sparse ms" in said.out
    assert "keras-prune: no latency is known of layers like classifier: their share of zeros decides" in said.err
    assert cli.main([*words, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["layers"]
    assert first["sparse_ms"] > first["dense_ms"] == pytest.approx(0.01) and first["structure"] is None
    assert second["structure"] == "aligned_block" and second["dense_ms"] is None
    assert cli.main(["inspect", str(out), "--table", str(table), "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == [first, second]
    assert cli.main(["inspect", str(out)]) == 0
    assert "sparse ms" not in capsys.readouterr().out


# What is asked of a table


def asked(data: bytes) -> list[tuple[Layer, str, float]]:
    """What a table is asked about a file's layers once they are block-sparse; it was asked the same before."""
    questions = []

    def latency(call: Layer, scheme: str, zeros: float) -> float:
        questions.append((call, scheme, zeros))
        return 2.0 if scheme == "dense" else 1.0

    sparse = convert(data, latency=latency)
    before, questions[:] = list(questions), []
    inspect(sparse, latency=latency)
    assert set(questions) <= set(before)
    return questions


CONVOLUTIONS = {
    "same": ({}, (6, 5), 1),
    "strided": ({"stride": (2, 2)}, (6, 5), 2),
    "valid": ({"padding": "valid"}, (4, 3), 1),
    "valid, strided": ({"padding": "valid", "stride": (2, 2)}, (4, 4), 2),
    "two strides": ({"stride": (2, 1)}, None, 0),
    "dilated": ({"dilation": (1, 2)}, None, 0),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_calls_of_convolutions(case):
    arguments, extent, stride = CONVOLUTIONS[case]
    kept = sparse_matrices.unaligned(np.random.default_rng(0), 24, 9 * 8, 4, 0.7)
    data = conv_model(kept.reshape(24, 3, 3, 8), input_shape=(1, 6, 5), **arguments)
    if extent is None:
        with pytest.warns(UnknownLatencyWarning, match="layers like layer/output"):
            assert asked(data) == []
        return
    (call, scheme, zeros), (again, structure, share) = asked(data)
    assert call == again == Layer("conv", *extent, 8, 24, (3, 3), stride)
    assert (scheme, zeros, structure) == ("dense", 0.0, "unaligned_block:4")
    assert share == pytest.approx(np.mean(kept == 0))


def test_calls_of_fully_connected_layers():
    kept = sparse_matrices.unaligned(np.random.default_rng(0), 24, 40, 4, 0.7)
    (call, *_), (again, scheme, zeros) = asked(fully_connected_model(kept))
    assert call == again == Layer("dense", 1, 1, 40, 24)
    assert (scheme, zeros) == ("unaligned_block:4", pytest.approx(np.mean(kept == 0)))
    with pytest.warns(UnknownLatencyWarning):
        assert asked(fully_connected_model(kept, leading=(7,))) == []


SCHEMES = {
    "unaligned_block:8": (sparse_matrices.unaligned, (32, 40, 8, 0.8), (1, 1)),
    "aligned_block:16": (sparse_matrices.aligned, (32, 40, 16, 0.6), (1, 1)),
    "block_punched:8x4": (sparse_matrices.punched, (64, 32, 9, (8, 4), 0.8), (3, 3)),
    "block_row_column:16x32": (sparse_matrices.row_column, (64, 128, (16, 32), 0.45), (1, 1)),
    "pattern:7": (sparse_matrices.patterns, (40, 40, 0.45), (3, 3)),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_structures_are_named_as_tables_name_them(scheme):
    make, arguments, kernel = SCHEMES[scheme]
    matrix = make(np.random.default_rng(0), *arguments)
    data = conv_model(matrix.reshape(matrix.shape[0], *kernel, -1), input_shape=(1, 6, 5))
    dense, (call, named, zeros) = asked(data)
    assert named == scheme and dense[1] == "dense"
    assert zeros == pytest.approx(np.mean(matrix == 0), abs=1e-6)
    point = Point.parse(f"conv 6x5x{call.channels} {call.filters} {kernel[0]}x{kernel[1]} 1 {named} {zeros}")
    assert (point.scheme, point.zeros) == (named, zeros)


def test_aligned_blocks_take_unaligned_ones_time_where_they_were_not_measured():
    latency = measured_latency(analytic_table(), force=True)
    layer = Layer("conv", 14, 14, 256, 256)
    assert latency(layer, "aligned_block:4", 0.7) == latency(layer, "unaligned_block:4", 0.7)
    assert latency(layer, "dense", 0.0) == microseconds(Point(layer))
    assert latency(layer, "pattern:1", 0.7) is None
    assert latency(Layer("conv", 14, 14, 250, 256), "unaligned_block:4", 0.7) is None
    # Neither blocks that were not measured are guessed, nor what has fewer zeros than all that was.
    assert latency(layer, "unaligned_block:32", 0.99) is None
    assert latency(layer, "unaligned_block:4", 0.04) is None and latency(layer, "unaligned_block:4", 0.06) > 0
    own = LatencyTable({Point(layer): 9.0, Point(layer, "aligned_block:4", 0.5): 5.0}, "a CPU", library_version())
    assert measured_latency(own, force=True)(layer, "aligned_block:4", 0.5) == 5.0


def test_the_best_that_is_known_to_pay_is_taken():
    kept = sparse_matrices.punched(np.random.default_rng(0), 64, 64, 1, (8, 4), 0.5)
    dense = conv_model(kept.reshape(64, 1, 1, 64))
    # By the modelled cost punched blocks of 8 come before unaligned ones of 8, and these before unaligned ones of 4.
    for known, wanted, block in (
        ({"unaligned_block:4": 4.0, "unaligned_block:8": 5.0, "pattern:1": 6.0}, "unaligned_block", "8"),
        ({"unaligned_block:4": 9.0, "unaligned_block:8": 10.0, "pattern:1": 11.0}, "unaligned_block", "4"),
        ({"unaligned_block:4": 5.0, "block_punched:8x4": 9.0, "unaligned_block:8": 10.0}, "block_punched", "8 x 4"),
        ({"pattern:1": 10.0}, None, None),
    ):
        latency = {"dense": 10.0, **known}.get
        sparse = convert(dense, latency=lambda call, scheme, zeros, latency=latency: latency(scheme))
        (layer,) = inspect(sparse)
        assert (layer.structure, layer.block) == (wanted, block)
    (layer,) = inspect(
        dense, latency=lambda *asked: {"dense": 10.0, "pattern:1": 13.0, "unaligned_block:4": 12.0}.get(asked[1])
    )
    assert layer.reason.endswith("dense 0.01 ms, sparse 0.012 ms as unaligned_block:4")


def test_layers_with_common_weights_are_judged_together():
    builder = ModelBuilder()
    matrix = sparse_matrices.aligned(np.random.default_rng(0), 20, 20, 4, 0.5)
    weights = builder.constant(matrix.reshape(20, 1, 1, 20))
    source, middle, output = builder.tensor([1, 8, 8, 20]), builder.tensor([1, 8, 8, 20]), builder.tensor([1, 4, 4, 20])
    builder.conv(source, weights, None, middle)
    builder.conv(middle, weights, None, output, stride=(2, 2))
    data = builder.build([source], [output])
    for of_first, of_second, wanted in ((9.0, 10.0, "aligned_block"), (12.0, 9.0, None), (None, 1.0, "aligned_block")):

        def latency(call, scheme, zeros, first=of_first, second=of_second):
            return 10.0 if scheme == "dense" else first if call.stride == 1 else second

        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if of_first is None else "error", UnknownLatencyWarning)
            assert structures(convert(data, latency=latency)) == [wanted, wanted]


def test_recurrent_layers_are_judged_by_their_zeros():
    import keras

    model = keras.Sequential([keras.Input((3, 16)), keras.layers.GRU(16), keras.layers.Dense(16)])
    keras_prune.sparsify(model, keras_prune.UnalignedBlock(4), 0.8, layers="*")
    calls = []
    with pytest.warns(UnknownLatencyWarning, match="layers like .*gru"):
        sparse = convert(model, latency=lambda call, scheme, zeros: calls.append(call) or 1.0)
    assert set(calls) == {Layer("dense", 1, 1, 16, 16)}
    codes = [
        flatbuffer.text(code.customCode) for code in flatbuffer.read_model(sparse).operatorCodes if code.customCode
    ]
    assert codes == ["BlockSparseGRU"]  # the dense layer is no faster, and stays what it is
