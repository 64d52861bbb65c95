"""The delegate in a stock LiteRT interpreter on AArch64, under qemu, against the runtime's own reference kernels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_prune

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "bazel-aarch64-bin" / "tflite_delegate" / "libblock_sparse_delegate.so"
PYTHON = ROOT / "tools" / "aarch64_python.sh"
SETTINGS = ["neon-1", "neon-2", "scalar-1", "auto-1"]


def _convolutions() -> keras.Model:
    """Every shape of convolution: strides, dilation, both paddings, channel counts that no tile divides."""
    inputs = keras.Input((13, 11, 5), batch_size=2)
    x = keras.layers.Conv2D(22, 3, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Conv2D(37, 1)(x)
    x = keras.layers.ReLU(max_value=6.0)(x)
    x = keras.layers.Conv2D(16, (3, 2), dilation_rate=(2, 1), padding="valid", use_bias=False)(x)
    x = keras.layers.Conv2D(9, 1, strides=(1, 1), padding="same", activation="relu")(x)
    return keras.Model(inputs, x)


def _classifier() -> keras.Model:
    """A small network as users have it, with batch normalisation to fold, a residual and dense layers."""
    inputs = keras.Input((28, 28, 1), batch_size=1)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = keras.layers.Conv2D(16, 1, use_bias=False)(keras.layers.ReLU()(y))
    x = keras.layers.Add()([x, keras.layers.BatchNormalization()(y)])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(64, 1, activation="relu")(x))
    x = keras.layers.Dense(41, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def _dense() -> keras.Model:
    """Fully connected layers over a batch, with more inputs than the vector registers hold."""
    inputs = keras.Input((203,), batch_size=7)
    x = keras.layers.Dense(130, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(33)(x))


MODELS = {"convolutions": _convolutions, "classifier": _classifier, "dense": _dense}


def _punch_holes(model: keras.Model, rng: np.random.Generator) -> None:
    """Random weights with about 80 % zeros in vertical blocks of 4 rows that start anywhere."""
    for layer in model.layers:
        weights = []
        for values in layer.get_weights():
            new = (
                rng.uniform(0.5, 1.5, values.shape) if "normalization" in layer.name else rng.normal(size=values.shape)
            )
            weights.append((new / np.sqrt(max(1, values.size // values.shape[-1]))).astype(np.float32))
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) and not isinstance(
            layer, keras.layers.DepthwiseConv2D
        ):
            columns = weights[0].reshape(-1, weights[0].shape[-1])
            kept = np.zeros_like(columns, dtype=bool)
            for column in kept:
                start = rng.integers(0, 8)
                while start + 4 <= column.size:
                    column[start : start + 4] = True
                    start += 4 + rng.integers(0, 28)
            weights[0] = np.where(kept, columns, np.float32(0)).reshape(weights[0].shape)
        layer.set_weights(weights)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    for needed in (LIBRARY, ROOT / "build" / "aarch64-root"):
        assert needed.exists(), f"{needed} is missing; 'make test-python' builds it"
    folder = tmp_path_factory.mktemp("aarch64")
    rng = np.random.default_rng(7)
    for name, build in MODELS.items():
        model = build()
        _punch_holes(model, rng)
        batch = model.inputs[0].shape[0]
        (folder / f"{name}.dense.tflite").write_bytes(keras_prune.convert(model, sparse=False, batch_size=batch))
        sparse = keras_prune.convert(model, batch_size=batch)
        assert b"BlockSparse" in sparse, f"no layer of {name} became block-sparse"
        (folder / f"{name}.sparse.tflite").write_bytes(sparse)
        np.savez(folder / f"{name}.npz", rng.normal(size=model.inputs[0].shape).astype(np.float32))
    command = [str(PYTHON), str(Path(__file__).with_name("run_models.py")), str(folder), str(LIBRARY.resolve())]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, f"the emulated interpreter failed:\n{run.stdout}\n{run.stderr}"
    loaded = {}
    for name in MODELS:
        with np.load(folder / f"{name}.results.npz") as archive:
            loaded[name] = dict(archive)
    return loaded


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MODELS)
def test_delegate_agrees_with_reference_kernels(
    results: dict[str, dict[str, np.ndarray]], name: str, setting: str
) -> None:
    want, got = results[name]["dense"], results[name][setting]
    assert np.isfinite(want).all()
    assert np.ptp(want) > 0
    # Sums of some hundred products in another order.
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", MODELS)
def test_threads_do_not_change_a_bit(results: dict[str, dict[str, np.ndarray]], name: str) -> None:
    np.testing.assert_array_equal(results[name]["neon-1"], results[name]["neon-2"])
