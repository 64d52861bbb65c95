"""Which weights are pruned, and how they are seen as matrices."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_prune import AlignedBlock, UnalignedBlock, sparsify
from keras_prune.layers import CONV_1D, CONV_2D, CONV_3D, DENSE, DEPTHWISE_2D, Candidate, MatrixView, find_weights, walk

Make = Callable[..., Any]


def chosen(found: list[Candidate]) -> list[str]:
    return [c.path for c in found if c.skipped is None]


def reasons(found: list[Candidate]) -> dict[str, str | None]:
    return {c.path: c.skipped for c in found}


@pytest.mark.parametrize(
    ("view", "shape", "row_of", "column_of"),
    [
        (DENSE, (5, 7), lambda i: i[1], lambda i: i[0]),
        (CONV_1D, (3, 5, 7), lambda i: i[2], lambda i: i[0] * 5 + i[1]),
        (CONV_2D, (3, 2, 5, 7), lambda i: i[3], lambda i: (i[0] * 2 + i[1]) * 5 + i[2]),
        (CONV_3D, (2, 3, 2, 5, 4), lambda i: i[4], lambda i: ((i[0] * 3 + i[1]) * 2 + i[2]) * 5 + i[3]),
        (DEPTHWISE_2D, (3, 2, 5, 2), lambda i: i[2] * 2 + i[3], lambda i: i[0] * 2 + i[1]),
    ],
    ids=["dense", "1D", "2D", "3D", "depthwise"],
)
def test_every_entry_has_its_place(
    view: MatrixView, shape: tuple[int, ...], row_of: Callable[..., int], column_of: Callable[..., int]
) -> None:
    tensor = np.arange(np.prod(shape)).reshape(shape)
    matrix = view.to_matrix(tensor)
    for index in np.ndindex(shape):
        assert matrix[row_of(index), column_of(index)] == tensor[index]
    np.testing.assert_array_equal(view.from_matrix(matrix, shape), tensor)


def test_the_matrix_multiplies_as_the_convolution_does() -> None:
    generator = np.random.default_rng(1)
    image, kernel = generator.random((1, 3, 2, 5)).astype("f"), generator.random((3, 2, 5, 7)).astype("f")
    product = CONV_2D.to_matrix(kernel) @ image.ravel()
    np.testing.assert_allclose(np.ravel(keras.ops.conv(image, kernel)), product, rtol=1e-5)


def test_kernel_sizes() -> None:
    assert CONV_2D.kernel_size((3, 2, 5, 7)) == (3, 2)
    assert DENSE.kernel_size((5, 7)) == (1, 1)


def test_the_default_leaves_first_convolution_last_layer_and_depthwise_dense(small_cnn: Make) -> None:
    found = find_weights(small_cnn())
    assert chosen(found) == ["pointwise", "conv", "hidden"]
    why = reasons(found)
    assert "first convolution" in str(why["stem"])
    assert "depthwise" in str(why["depthwise"])
    assert "no weight matrix" in str(why["norm"])
    assert "last layer" in str(why["classifier"])


def test_a_dense_network_loses_only_its_last_layer() -> None:
    model = keras.Sequential([keras.Input([4]), *(keras.layers.Dense(8, name=f"d{i}") for i in range(3))])
    assert chosen(find_weights(model)) == ["d0", "d1"]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("conv", ["conv"]),
        (["stem", "classifier"], ["stem", "classifier"]),
        ("depthwise", ["depthwise"]),
        ("*", ["stem", "pointwise", "conv", "hidden", "classifier"]),
        ("*[i]*", ["pointwise", "hidden", "classifier"]),
        (["*", "depthwise"], ["stem", "depthwise", "pointwise", "conv", "hidden", "classifier"]),
        (re.compile("^(conv|hid)"), ["conv", "hidden"]),
        (lambda layer: isinstance(layer, keras.layers.Dense), ["hidden", "classifier"]),
        (["conv", lambda layer: layer.name == "depthwise"], ["depthwise", "conv"]),
        ([re.compile("."), "depthwise*"], ["stem", "pointwise", "conv", "hidden", "classifier"]),
        (lambda layer: True, ["stem", "depthwise", "pointwise", "conv", "hidden", "classifier"]),
        ("conv/kernel", ["conv"]),
    ],
)
def test_ways_to_choose(small_cnn: Make, layers: Any, expected: list[str]) -> None:
    found = find_weights(small_cnn(), layers)
    assert chosen(found) == expected


def test_a_layer_itself_can_be_given(small_cnn: Make) -> None:
    model = small_cnn()
    assert chosen(find_weights(model, model.get_layer("stem"))) == ["stem"]
    with pytest.raises(ValueError, match="'other' is not part of the model"):
        find_weights(model, keras.layers.Dense(3, name="other"))


def test_exclusion(small_cnn: Make) -> None:
    found = find_weights(small_cnn(), exclude=["conv", "hid*"])
    assert chosen(found) == ["pointwise"]
    assert reasons(found)["conv"] == "excluded"
    with pytest.raises(ValueError, match="'cnv'"):
        find_weights(small_cnn(), exclude="cnv")


@pytest.mark.parametrize("name", ["pointwize", "nothing_like_it", re.compile("^x")])
def test_an_unknown_name_is_refused_with_a_hint(small_cnn: Make, name: Any) -> None:
    with pytest.raises(ValueError, match="pointwise"):
        find_weights(small_cnn(), name)


@pytest.mark.parametrize("nonsense", [3, 2.5, object()])
def test_what_chooses_no_layer_is_refused(small_cnn: Make, nonsense: Any) -> None:
    with pytest.raises(ValueError, match="cannot choose layers by"):
        find_weights(small_cnn(), nonsense)


def test_a_named_layer_without_a_matrix_is_refused(small_cnn: Make) -> None:
    with pytest.raises(ValueError, match=r"'norm' cannot be pruned: BatchNormalization has no weight matrix"):
        find_weights(small_cnn(), "norm")


def test_a_named_layer_too_narrow_for_the_block_is_refused(small_cnn: Make) -> None:
    with pytest.raises(
        ValueError, match="'classifier' cannot be pruned: 5 output channels are fewer than a block of 8"
    ):
        sparsify(small_cnn(), AlignedBlock(8), 0.5, layers="classifier")
    report = sparsify(small_cnn(), AlignedBlock(10), 0.5, layers="*")
    assert report["classifier"].skipped == "5 output channels are fewer than a block of 10"


def test_an_unbuilt_model_is_refused() -> None:
    model = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(8)], name="blank")
    with pytest.raises(ValueError, match=r"model 'blank' has no weights yet: build it"):
        sparsify(model, UnalignedBlock(), 0.5)


def test_nothing_to_prune_is_an_error_that_tells_why() -> None:
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, name="only")])
    with pytest.raises(ValueError, match=r"(?s)no layer .* would be pruned.*the last layer stays dense"):
        sparsify(model, UnalignedBlock(), 0.5)


def test_grouped_transposed_and_frozen_layers_are_skipped() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([8, 8, 4]),
            layers.Conv2D(8, 1, name="first"),
            layers.Conv2D(8, 3, groups=4, name="grouped"),
            layers.Conv2DTranspose(8, 3, name="up"),
            layers.Conv2D(8, 3, name="frozen", trainable=False),
            layers.Conv2D(8, 3, name="free"),
            layers.Conv2D(8, 1, name="last"),
        ]
    )
    found = find_weights(model)
    assert chosen(found) == ["free"]
    why = reasons(found)
    assert "4 groups" in str(why["grouped"])
    assert "transposed" in str(why["up"])
    assert "frozen" in str(why["frozen"])
    assert chosen(find_weights(model, "frozen")) == ["frozen"]
    with pytest.raises(ValueError, match="groups"):
        find_weights(model, ["grouped"])


def test_subclasses_of_known_layers_are_known() -> None:
    class Mine(keras.layers.Dense):
        pass

    model = keras.Sequential([keras.Input([4]), Mine(8, name="mine"), keras.layers.Dense(8)])
    assert chosen(find_weights(model)) == ["mine"]


def nested_model() -> Any:
    layers = keras.layers
    inner = keras.Sequential([keras.Input([6]), layers.Dense(8, name="a"), layers.Dense(8, name="b")], name="inner")
    inputs = keras.Input([6])
    hidden = layers.Dense(6, name="a")(inputs)
    outputs = layers.Dense(3, name="head")(inner(inner(hidden)[:, :6]))
    return keras.Model(inputs, outputs)


def test_layers_of_nested_models_have_paths() -> None:
    model = nested_model()
    assert [path for path, _ in walk(model) if "input" not in path and "get_item" not in path] == [
        "a",
        "inner",
        "inner/a",
        "inner/b",
        "head",
    ]
    assert chosen(find_weights(model, "inner/a")) == ["inner/a"]
    assert chosen(find_weights(model, "inner/*")) == ["inner/a", "inner/b"]
    assert chosen(find_weights(model, "a")) == ["a", "inner/a"]


def test_layers_of_subclassed_models_and_wrappers_are_found() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.stages = [keras.layers.Dense(8, name="one"), keras.layers.Dense(8, name="two")]
            self.each = keras.layers.TimeDistributed(keras.layers.Dense(8, name="inside"), name="each")
            self.head = keras.layers.Dense(2, name="head")

        def call(self, x: Any) -> Any:
            for stage in self.stages:
                x = stage(x)
            return self.head(self.each(x))

    model = Net()
    model(np.ones([2, 3, 4], "f"))
    assert chosen(find_weights(model)) == ["one", "two", "each/inside"]


def test_a_container_means_the_layers_inside() -> None:
    model = nested_model()
    assert chosen(find_weights(model, "inner")) == ["inner/a", "inner/b"]
    assert chosen(find_weights(model, model.get_layer("inner"))) == ["inner/a", "inner/b"]
    assert chosen(find_weights(model, exclude="inner")) == ["a"]
    report = sparsify(model, {"inner": AlignedBlock(2), "*": AlignedBlock(4)}, 0.5, layers="*")
    assert [line.structure for line in report] == ["AlignedBlock(size=4)"] + ["AlignedBlock(size=2)"] * 2 + [""]


@pytest.mark.parametrize(
    ("equation", "shape", "bias_free_input"),
    [
        ("ab,bc->ac", 7, (5,)),
        ("...x,xy->...y", 7, (3, 5)),
        ("abc,cde->abde", (None, 3, 4), (6, 5)),
        ("abcd,cde->abe", (None, 7), (2, 3, 5)),
        ("abc,dc->abd", (None, 7), (3, 5)),
    ],
)
def test_einsum_is_a_product_with_its_matrix(
    equation: str, shape: Any, bias_free_input: tuple[int, ...], rng: np.random.Generator
) -> None:
    layer = keras.layers.EinsumDense(equation, output_shape=shape, name="einsum")
    model = keras.Sequential([keras.Input(bias_free_input), layer])
    (candidate,) = find_weights(model, "einsum")
    assert candidate.view is not None
    matrix = candidate.view.to_matrix(np.array(layer.kernel))
    source = rng.standard_normal((2, *bias_free_input)).astype("f")
    expected = np.array(layer(source))
    contracted = matrix.shape[1]
    product = source.reshape(-1, contracted) @ matrix.T
    np.testing.assert_allclose(expected.reshape(product.shape), product, rtol=1e-4, atol=1e-5)


def test_einsum_with_a_batch_of_matrices_is_skipped() -> None:
    layer = keras.layers.EinsumDense("abc,bcd->abd", output_shape=(3, 7), name="batched")
    model = keras.Sequential([keras.Input((3, 5)), layer, keras.layers.Flatten(), keras.layers.Dense(4, name="dense")])
    assert "is no product with one matrix" in str(reasons(find_weights(model, "*"))["batched"])
    with pytest.raises(ValueError, match="'abc,bcd->abd' is no product"):
        find_weights(model, "batched")


def test_recurrent_kernels_are_found_wherever_they_are() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 5)),
            layers.LSTM(4, return_sequences=True, name="lstm"),
            layers.Bidirectional(layers.GRU(4, return_sequences=True, name="gru"), name="both"),
            layers.RNN([layers.LSTMCell(8), layers.SimpleRNNCell(8)], return_sequences=True, name="stack"),
            layers.TimeDistributed(layers.Dense(8, name="inside"), name="each"),
            layers.SimpleRNN(4, name="simple"),
            layers.Dense(3, name="last"),
        ]
    )
    found = find_weights(model)
    assert [(c.path, c.weight_name) for c in found if c.skipped is None] == [
        *[("lstm", "cell.kernel"), ("lstm", "cell.recurrent_kernel")],
        *[(f"both/{way}_gru", f"cell.{name}") for way in ("forward", "backward") for name in KERNELS],
        *[("stack", f"cell.cells.{i}.{name}") for i in range(2) for name in KERNELS],
        ("each/inside", "kernel"),
        *[("simple", "cell.kernel"), ("simple", "cell.recurrent_kernel")],
    ]
    assert chosen(find_weights(model, "both")) == ["both/forward_gru"] * 2 + ["both/backward_gru"] * 2
    assert chosen(find_weights(model, ["lstm/cell.kernel", "each"])) == ["lstm", "each/inside"]
    assert chosen(find_weights(model, lambda layer: isinstance(layer, layers.SimpleRNN))) == ["simple"] * 2
    for candidate in found:
        if candidate.path == "lstm":
            assert candidate.view == DENSE
            assert candidate.variable.shape == ((5 if candidate.weight_name == "cell.kernel" else 4), 16)
    report = sparsify(model, AlignedBlock(4), 0.5)
    assert all(line.zeros == pytest.approx(0.5, abs=0.04) for line in report.pruned)
    assert np.mean(np.array(model.get_layer("lstm").cell.recurrent_kernel) == 0) == 0.5
    assert report["lstm/cell.recurrent_kernel"].columns == 4
    assert "lstm/cell.kernel " in str(report)


KERNELS = ("kernel", "recurrent_kernel")


def test_cells_of_other_kinds_are_layers_of_their_own() -> None:
    class Cell(keras.layers.Layer):
        state_size = 4
        prunable_weights = ("mix",)

        def build(self, shape: Any) -> None:
            self.mix = self.add_weight(shape=(shape[-1], 4), name="mix")

        def call(self, x: Any, states: Any) -> Any:
            return x @ self.mix + states[0], [x @ self.mix]

    model = keras.Sequential([keras.Input((6, 5)), keras.layers.RNN([Cell(name="mine"), keras.layers.GRUCell(4)])])
    assert next((c.layer.name, c.weight_name) for c in find_weights(model, "*")) == ("mine", "mix")
    assert {c.weight_name for c in find_weights(model, "*")} == {"mix", *KERNELS}


def test_the_pointwise_part_of_separable_convolutions() -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((9, 9, 3)),
            layers.Conv2D(6, 3, name="stem"),
            layers.SeparableConv2D(10, 3, name="separable"),
            layers.Reshape((25, 10)),
            layers.SeparableConv1D(8, 3, name="separable_1d"),
            layers.Conv1DTranspose(8, 3, name="up"),
            layers.Flatten(),
            layers.Dense(3, name="last"),
        ]
    )
    found = find_weights(model)
    assert [(c.path, c.weight_name) for c in found if c.skipped is None] == [
        ("separable", "pointwise_kernel"),
        ("separable_1d", "pointwise_kernel"),
    ]
    assert "transposed" in str(reasons(found)["up"])
    sparsify(model, AlignedBlock(2), 0.5)
    assert (np.array(model.get_layer("separable").depthwise_kernel) != 0).all()
    assert np.mean(np.array(model.get_layer("separable").pointwise_kernel) == 0) == 0.5


class Mixer(keras.layers.Layer):
    """A layer of the user's own with two weights, one of which it names."""

    prunable_weights: Any = ("mix",)

    def build(self, shape: Any) -> None:
        self.mix = self.add_weight(shape=(shape[-1], 8), name="mix")
        self.scale = self.add_weight(shape=(8,), name="scale")

    def call(self, x: Any) -> Any:
        return x @ self.mix * self.scale


@pytest.mark.parametrize(
    ("named", "rows"),
    [(("mix",), 8), ("mix", 8), ({"mix": MatrixView(rows=(0,), columns=(1,))}, 6), (lambda: ["mix"], 8)],
)
def test_a_layer_of_ones_own_names_its_weights(named: Any, rows: int) -> None:
    layer = Mixer(name="mixer")
    layer.prunable_weights = named
    model = keras.Sequential([keras.Input([6]), layer])
    assert chosen(find_weights(model)) == ["mixer"]
    report = sparsify(model, AlignedBlock(2), 0.5)
    assert report["mixer"].rows == rows
    assert np.mean(np.array(layer.mix) == 0) == 0.5
    assert (np.array(layer.scale) != 0).all()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("mixx",), "names 'mixx', which is no weight of it"),
        (("scale",), r"'scale' of layer 'mixer' has the shape \(8,\)"),
        ({"mix": MatrixView(rows=(0,), columns=())}, "MatrixView of all its axes"),
    ],
)
def test_what_is_no_matrix_is_refused(named: Any, message: str) -> None:
    layer = Mixer(name="mixer")
    layer.prunable_weights = named
    with pytest.raises(ValueError, match=message):
        find_weights(keras.Sequential([keras.Input([6]), layer]))


def test_low_rank_updates_must_be_merged_first() -> None:
    model = keras.Sequential([keras.Input([8]), keras.layers.Dense(8, name="lora"), keras.layers.Dense(8)])
    model.get_layer("lora").enable_lora(2)
    with pytest.raises(ValueError, match="LoRA"):
        find_weights(model, ["lora"])


def test_sparsify_does_as_its_report_says(small_cnn: Make) -> None:
    model = small_cnn()
    before = {layer.name: [np.array(w) for w in layer.get_weights()] for layer in model.layers}
    report = sparsify(model, {"pointwise": AlignedBlock(4), "*": UnalignedBlock(3)}, 0.75, exclude="hidden")
    for line in report:
        layer = model.get_layer(line.layer)
        if line.skipped:
            for weight, old in zip(layer.get_weights(), before[line.layer], strict=True):
                np.testing.assert_array_equal(weight, old)
        else:
            kernel = layer.get_weights()[0]
            assert np.mean(kernel == 0) == pytest.approx(line.zeros)
            assert line.zeros >= 0.75
            assert not np.signbit(kernel[kernel == 0]).any()
            kept = kernel != 0
            np.testing.assert_array_equal(kernel[kept], before[line.layer][0][kept])
    assert report["pointwise"].structure == "AlignedBlock(size=4)"
    assert report["conv"].structure == "UnalignedBlock(size=3, selection='bed')"
    assert len(report.pruned) == 2
    assert repr(report).startswith("Report(2 layers pruned, 5 dense, zeros=0.75")
    assert "excluded" in str(report)
    with pytest.raises(KeyError, match="there are stem, depthwise"):
        report["nowhere"]


def test_a_function_gives_structures() -> None:
    model = nested_model()
    report = sparsify(model, lambda layer: AlignedBlock(2) if layer.name == "b" else None, 0.5, layers="*")
    assert [line.layer for line in report.pruned] == ["inner/b"]
    assert report["head"].skipped == "no structure is given for it"


def test_a_global_budget_is_shared(small_cnn: Make) -> None:
    model = small_cnn()
    kernel = model.get_layer("hidden").kernel
    kernel.assign(kernel * 100)
    report = sparsify(model, UnalignedBlock(4), 0.6, scope="global")
    assert report.zeros == pytest.approx(0.6, abs=0.001)
    assert report["conv"].zeros > 0.9 > 0.6 > report["hidden"].zeros
    with pytest.raises(ValueError, match='scope must be "layer"'):
        sparsify(model, UnalignedBlock(4), 0.6, scope="model")
