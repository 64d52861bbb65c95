"""From a Keras model to a dense `.tflite` file by TensorFlow's own converter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any


def to_tflite(
    model: Any, *, batch_size: int | None, input_signature: Any, configure: Callable[[Any], None] | None
) -> bytes:
    """Convert a Keras 3 or tf_keras model; the arguments are those of `convert`."""
    import tensorflow as tf

    if not hasattr(model, "weights") or not callable(model):
        raise TypeError(f"expected a Keras model or the bytes of a .tflite file, not {type(model).__name__}")
    _check_backend(model)
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size is {batch_size!r}; expected a positive integer, or None to leave it open")
    structure = _inputs(model) if input_signature is None else input_signature
    specs = [_spec(tensor, batch_size) for tensor in tf.nest.flatten(structure)]

    @tf.function(autograph=False)
    def serve(*tensors: Any) -> Any:
        outputs = model(tf.nest.pack_sequence_as(structure, list(tensors)), training=False)
        flat = tf.nest.flatten(outputs)
        # A signature's outputs are named; a dict names its own.
        if isinstance(outputs, dict) and len(flat) == len(outputs):
            return outputs
        return {f"output_{i}": tensor for i, tensor in enumerate(flat)}

    function = serve.get_concrete_function(*specs)
    module = tf.Module()
    module.serve = serve
    # Variables that the saved module does not track would stay variables in the file. Keras 3 wraps its own.
    variables = [*(getattr(model, "variables", None) or model.weights), *_states(model)]
    module.tracked = [variable if isinstance(variable, tf.Variable) else variable.value for variable in variables]
    with tempfile.TemporaryDirectory(prefix="keras_prune_") as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if configure is not None:
            configure(converter)
        return bytes(converter.convert())


def _check_backend(model: Any) -> None:
    if type(model).__module__.startswith("tf_keras"):
        return
    try:
        import keras
    except ImportError:
        return
    if isinstance(model, keras.layers.Layer) and keras.config.backend() != "tensorflow":
        raise ValueError(
            f"the Keras backend is {keras.config.backend()!r}; set KERAS_BACKEND=tensorflow and load the model again"
        )


def _inputs(model: Any) -> Any:
    """Return the model's inputs in the nest that its call takes."""
    structure = getattr(model, "_inputs_struct", None)  # Keras 3: keeps dicts, where `inputs` is flat
    if structure is None:
        try:
            structure = model.input
        except (AttributeError, ValueError, RuntimeError):
            structure = getattr(model, "inputs", None)
    if structure is None:
        raise ValueError(
            "the model does not know its inputs' shapes; build it with keras.Input, or give convert an input_signature"
        )
    if isinstance(structure, (list, tuple)) and len(structure) == 1:
        return structure[0]  # as Sequential takes it; functional models take both
    return structure


def _states(model: Any) -> list[Any]:
    """Return the states of stateful layers, which Keras does not count among a model's variables."""
    import tensorflow as tf

    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else []
    stateful = [layer for layer in layers if getattr(layer, "stateful", False)]
    states = tf.nest.flatten([getattr(layer, "states", None) for layer in stateful])
    return [state for state in states if state is not None]


def _spec(tensor: Any, batch_size: int | None) -> Any:
    import tensorflow as tf

    shape = list(tensor.shape)
    if shape and shape[0] is None:
        shape[0] = batch_size
    # "input:0" and "scope/input" are no names of arguments.
    name = (tensor.name or "input").split(":")[0].replace("/", "_")
    return tf.TensorSpec(shape, tf.as_dtype(tensor.dtype), name=name)
