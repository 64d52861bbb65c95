"""The demo's network."""

from __future__ import annotations

import keras
from keras import layers

STEM = 32
# Channels and stride. The spatial size falls early: training is what takes the demo's time, and most of that is spent
# where images are large.
BLOCKS = ((64, 1), (128, 1), (256, 2), (256, 1))


def make_network(stem: int = STEM, blocks: tuple[tuple[int, int], ...] = BLOCKS) -> keras.Model:
    """Make a depthwise-separable CNN for 28x28 grey images and ten classes; its outputs are logits."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(stem, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = _norm("stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for i, (channels, stride) in enumerate(blocks, start=1):
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"depthwise_{i}")(x)
        x = layers.Conv2D(channels, 1, use_bias=False, name=f"pointwise_{i}")(x)
        x = _norm(f"norm_{i}")(x)
        x = layers.ReLU(name=f"relu_{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="fashion")


def _norm(name: str) -> layers.BatchNormalization:
    # Means that follow within tens of steps: masks change the statistics, and the training is short.
    return layers.BatchNormalization(momentum=0.9, name=name)
