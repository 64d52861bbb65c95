"""What the Python tests share: small models and data that are the same in every run."""

from __future__ import annotations

import os

# Before TensorFlow is imported anywhere.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

WITHOUT = "KERAS_PRUNE_WITHOUT_DELEGATE"
"""Set to 1, tests that need the delegate's library are left out."""


@pytest.fixture(scope="session")
def library() -> Any:
    """The delegate as built."""
    from keras_prune.tflite import find_delegate_library

    if os.environ.get(WITHOUT) == "1":
        pytest.skip(f"{WITHOUT}=1")
    try:
        return find_delegate_library()
    except FileNotFoundError as error:
        pytest.fail(f"{error}; or set {WITHOUT}=1 to leave these tests out", pytrace=False)


@pytest.fixture(scope="session")
def levels(library: Any) -> list[str]:
    """The kernel levels that this CPU has, "scalar" among them."""
    from keras_prune.tflite import load_delegate

    found = []
    for level in ("scalar", "avx2", "avx512", "neon"):
        try:
            load_delegate(cpu=level, library=library)
        except ValueError:
            continue
        found.append(level)
    assert "scalar" in found
    return found


@pytest.fixture(scope="session")
def tf_keras() -> Any:
    """Keras 2."""
    return pytest.importorskip("tf_keras")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture
def small_cnn() -> Callable[[], Any]:
    """Makes a compiled depthwise-separable CNN whose channel counts are not multiples of 4."""

    def make(**compile_arguments: Any) -> Any:
        import keras

        keras.utils.set_random_seed(7)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input([9, 9, 2]),
                layers.Conv2D(10, 3, name="stem"),
                layers.DepthwiseConv2D(3, name="depthwise"),
                layers.BatchNormalization(name="norm"),
                layers.Conv2D(13, 1, name="pointwise"),
                layers.ReLU(),
                layers.Conv2D(9, 3, name="conv"),
                layers.Flatten(),
                layers.Dense(18, activation="relu", name="hidden"),
                layers.Dense(5, name="classifier"),
            ],
            name="small_cnn",
        )
        arguments = {"optimizer": "adam", "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
        model.compile(**{**arguments, **compile_arguments})
        return model

    return make


@pytest.fixture
def images() -> tuple[np.ndarray, np.ndarray]:
    """Forty random images of 9 x 9 x 2 and labels below 5."""
    generator = np.random.default_rng(3)
    return generator.standard_normal((40, 9, 9, 2)).astype(np.float32), generator.integers(0, 5, 40)


@pytest.fixture
def trainable(images: tuple[np.ndarray, np.ndarray]) -> Any:
    """A compiled model for ``images``, trained for one epoch."""
    import keras

    keras.utils.set_random_seed(7)
    conv = keras.layers.Conv2D
    model = keras.Sequential(
        [
            keras.Input([9, 9, 2]),
            conv(8, 3, name="stem"),
            keras.layers.BatchNormalization(),
            conv(16, 1, name="one"),
            keras.layers.Dropout(0.2, seed=3),
            conv(12, 1, name="two"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5, name="classifier"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    model.fit(*images, batch_size=20, verbose=0)
    return model
