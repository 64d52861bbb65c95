"""The networks that the benchmarks run: Keras's own with random weights, and two that Keras does not ship."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Network:
    """A network by the name that benchmarks print, and how to build it."""

    build: Callable[[], Any]
    layers: str | None = None
    """Which layers are pruned, all but the first and the last if None."""
    exclude: str | None = None


def _application(name: str, **arguments: Any) -> Callable[[], Any]:
    def build() -> Any:
        import keras

        return getattr(keras.applications, name)(weights=None, **{"input_shape": (224, 224, 3), **arguments})

    return build


def efficientnet_lite0() -> Any:
    """EfficientNet-Lite0: B0 with ReLU6 and without squeeze-and-excite (Tan and Le, 2019)."""
    import keras
    from keras import layers

    def norm(x: Any, activate: bool) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3)(x)
        return layers.ReLU(max_value=6.0)(x) if activate else x

    image = keras.Input((224, 224, 3))
    x = norm(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)(image), True)
    # repeats, kernel, stride, expansion, channels
    stages = [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ]
    for repeats, kernel, stride, expansion, channels in stages:
        for repeat in range(repeats):
            shortcut, step = x, stride if repeat == 0 else 1
            if expansion > 1:
                x = norm(layers.Conv2D(x.shape[-1] * expansion, 1, use_bias=False)(x), True)
            x = norm(layers.DepthwiseConv2D(kernel, strides=step, padding="same", use_bias=False)(x), True)
            x = norm(layers.Conv2D(channels, 1, use_bias=False)(x), False)
            if step == 1 and shortcut.shape[-1] == channels:
                x = layers.Add()([x, shortcut])
    x = norm(layers.Conv2D(1280, 1, use_bias=False)(x), True)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(1000, activation="softmax")(x), name="efficientnet_lite0")


NETWORKS: dict[str, Network] = {
    "mobilenet_v1": Network(_application("MobileNet")),
    "mobilenet_v2": Network(_application("MobileNetV2")),
    "mobilenet_v3_large": Network(_application("MobileNetV3Large")),
    "efficientnet_lite0": Network(efficientnet_lite0),
    "resnet50": Network(_application("ResNet50")),
    "densenet121": Network(_application("DenseNet121")),
    "vgg16": Network(_application("VGG16")),
    "vgg16_conv": Network(_application("VGG16", include_top=False), "block*_conv*", "block1_conv1"),
}


def build(name: str, seed: int = 0) -> Any:
    """Build a network with random weights whose activations keep about unit size, so that errors show.

    Args:
        name: a key of `NETWORKS`.
        seed: of the weights.
    """
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name].build()
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.gamma.assign(generator.uniform(0.5, 1.5, size)) if layer.gamma is not None else None
            layer.beta.assign(generator.normal(0.0, 0.1, size))
            layer.moving_mean.assign(generator.normal(0.0, 0.1, size))
            layer.moving_variance.assign(generator.uniform(0.5, 1.5, size))
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)) and not hasattr(layer, "depthwise_kernel"):
            shape = layer.kernel.shape
            deviation = math.sqrt(2.0 / int(np.prod(shape[:-1])))
            layer.kernel.assign(generator.normal(0.0, deviation, shape))
    return model
