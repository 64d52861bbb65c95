"""Conversion between Keras models, dense `.tflite` files and block-sparse ones, and loading of the delegate.

Nothing here imports TensorFlow until a Keras model is converted or a delegate is loaded.
"""

from keras_prune.tflite.convert import MIN_ZEROS, convert
from keras_prune.tflite.custom_options import FormatError
from keras_prune.tflite.delegate import find_delegate_library, load_delegate
from keras_prune.tflite.densify import densify
from keras_prune.tflite.inspect import LayerInfo, inspect

__all__ = [
    "MIN_ZEROS",
    "FormatError",
    "LayerInfo",
    "convert",
    "densify",
    "find_delegate_library",
    "inspect",
    "load_delegate",
]
