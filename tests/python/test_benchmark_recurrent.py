"""The recurrent benchmark's own arithmetic."""

import keras
import numpy as np
import pytest

import keras_prune
from benchmarks import recurrent


def test_bytes_that_an_inference_reads(tmp_path):
    """A recurrent kernel is read once a step, the others once; a block of 4 floats has 2 bytes of column."""
    model = keras.Sequential([keras.Input((recurrent.STEPS, 8), batch_size=1), keras.layers.GRU(16)])
    kernel, recurrent_kernel = np.zeros((48, 8), np.float32), np.zeros((48, 16), np.float32)
    kernel[4:8, 3] = kernel[9:13, 5] = recurrent_kernel[1:5, 2] = 1.0
    model.layers[0].cell.kernel.assign(kernel.T)
    model.layers[0].cell.recurrent_kernel.assign(recurrent_kernel.T)
    path = tmp_path / "model.tflite"
    path.write_bytes(keras_prune.convert(model, structures="unaligned_block"))
    assert {layer.block for layer in keras_prune.tflite.inspect(path.read_bytes())} == {"4"}
    assert recurrent.weight_bytes(path) == (2 * 18 + recurrent.STEPS * 18, 36)


def test_every_case_has_a_name_of_its_own():
    stems = [case.stem for case in recurrent.CASES]
    assert len(set(stems)) == len(stems)
    assert recurrent.CASES[0].sparsity == pytest.approx(0.9)
