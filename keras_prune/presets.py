"""The papers' recipes: a structure, a method and a schedule each, as one callback for ``fit``.

Each takes the training step at which the zeros are to be final; train on for about half as long after it, so that the
accuracy recovers under the masks. Further arguments go to :class:`keras_prune.Prune`.
"""

from __future__ import annotations

from typing import Any

from keras_prune.callbacks import Prune
from keras_prune.methods import Admm, Magnitude, Reweighted
from keras_prune.schedules import ConstantSparsity, PolynomialDecay
from keras_prune.structures import BlockPunched, BlockRowColumn, Pattern, UnalignedBlock

__all__ = ["bed", "blk_rew", "block_punched", "patdnn"]


def bed(
    end_step: int, zeros: float = 0.8, *, size: int = 4, begin_step: int = 0, frequency: int = 100, **options: Any
) -> Prune:
    """Prune gradually to unaligned blocks, chosen by block expansion and division.

    Args:
        end_step: training step at which all zeros are there.
        zeros: fraction of zeros, in [0, 1).
        size: output channels in a block.
        begin_step: training step at which pruning begins.
        frequency: steps between two choices of masks.
        options: further arguments of :class:`keras_prune.Prune`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import keras, numpy as np
        >>> from keras_prune import presets
        >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(16), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> prune = presets.bed(end_step=6, zeros=0.75, frequency=2)
        >>> history = model.fit(np.ones([32, 8]), np.ones([32, 2]), batch_size=4, callbacks=[prune], verbose=0)
        >>> round(prune.sparsity, 2)
        0.75

    Reference:
        Lee and Shin, "Realizing Unaligned Block-wise Pruning for DNN Acceleration on Mobile Devices", arXiv:2407.19644;
        the schedule: Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878.
    """
    schedule = PolynomialDecay(0.0, zeros, begin_step, end_step, frequency=frequency)
    return Prune(UnalignedBlock(size, "bed"), schedule, Magnitude(), **options)


def patdnn(
    end_step: int, zeros: float = 0.875, *, patterns: int = 8, begin_step: int = 0, frequency: int = 100, **options: Any
) -> Prune:
    """Prune 3x3 kernels to patterns, and all kernels by connectivity, by ADMM with rho in four stages.

    Args:
        end_step: training step at which the weights are pruned; masked retraining follows.
        zeros: fraction of zeros, in [0, 1). Patterns make 5/9 of them in 3x3 layers, connectivity the rest; the papers'
            3.6 times fewer kernels are 0.875.
        patterns: patterns in the set, 4 to 12 in the paper.
        begin_step: training step at which the penalty begins.
        frequency: steps between two updates of the auxiliary variables.
        options: further arguments of :class:`keras_prune.Prune`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> import keras, numpy as np
        >>> from keras_prune import presets
        >>> conv = keras.layers.Conv2D
        >>> model = keras.Sequential([keras.Input([8, 8, 1]), conv(4, 3), conv(8, 3), conv(2, 1)])
        >>> model.compile("sgd", "mse")
        >>> prune = presets.patdnn(end_step=6, frequency=2)
        >>> images, targets = np.ones([32, 8, 8, 1]), np.ones([32, 4, 4, 2])
        >>> history = model.fit(images, targets, batch_size=4, callbacks=[prune], verbose=0)
        >>> prune.sparsity
        0.875

    Reference:
        Niu et al., "PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based Weight Pruning",
        arXiv:2001.00138.
    """
    schedule = ConstantSparsity(zeros, begin_step, end_step, frequency)
    return Prune(Pattern(patterns), schedule, Admm(), **options)


def block_punched(
    end_step: int,
    zeros: float = 0.8,
    *,
    filters: int = 8,
    channels: int = 4,
    strength: float = 1e-4,
    begin_step: int = 0,
    frequency: int = 500,
    **options: Any,
) -> Prune:
    """Prune blocks of filters x channels at whole kernel positions, by reweighted regularisation.

    Args:
        end_step: training step at which the weights are pruned; masked fine-tuning follows.
        zeros: fraction of zeros, in [0, 1); 0 lets each layer's rate emerge by itself.
        filters: output channels in a block.
        channels: input channels in a block.
        strength: factor of the penalty.
        begin_step: training step at which the penalty begins.
        frequency: steps between two refreshes of the penalty's weights.
        options: further arguments of :class:`keras_prune.Prune`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from keras_prune import presets
        >>> prune = presets.block_punched(end_step=5000, zeros=0.75, scope="global")
        >>> prune.structure
        BlockPunched(filters=8, channels=4)

    Reference:
        Cai et al., "YOLObile", arXiv:2009.05697; Gong et al., "Automatic Mapping of the Best-Suited DNN Pruning Schemes
        for Real-Time Mobile Acceleration", arXiv:2111.11581.
    """
    schedule = ConstantSparsity(zeros, begin_step, end_step, frequency)
    return Prune(BlockPunched(filters, channels), schedule, Reweighted(strength), **options)


def blk_rew(
    end_step: int,
    zeros: float = 0.0,
    *,
    rows: int = 8,
    columns: int = 32,
    strength: float = 1e-4,
    begin_step: int = 0,
    frequency: int = 500,
    **options: Any,
) -> Prune:
    """Prune rows and columns of blocks by reweighted regularisation, with rates that emerge by themselves.

    Args:
        end_step: training step at which the weights are pruned; masked fine-tuning follows.
        zeros: fraction of zeros, in [0, 1); 0, the paper's way, lets each layer's rate emerge by itself.
        rows: rows (output channels) of a block.
        columns: columns (inputs) of a block.
        strength: factor of the penalty.
        begin_step: training step at which the penalty begins.
        frequency: steps between two refreshes of the penalty's weights.
        options: further arguments of :class:`keras_prune.Prune`.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> from keras_prune import presets
        >>> prune = presets.blk_rew(end_step=5000, rows=16, columns=64)
        >>> prune.structure
        BlockRowColumn(rows=16, columns=64)

    Reference:
        Ma et al., "BLK-REW: A Unified Block-based DNN Pruning Framework using Reweighted Regularization Method",
        arXiv:2001.08357.
    """
    schedule = ConstantSparsity(zeros, begin_step, end_step, frequency)
    return Prune(BlockRowColumn(rows, columns), schedule, Reweighted(strength), **options)
