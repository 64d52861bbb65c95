"""The callback that prunes inside ``fit``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_prune.layers import LayerSpec
from keras_prune.methods import Magnitude, Method
from keras_prune.pruning import Pruner, StructureSpec, check_scope
from keras_prune.report import Report
from keras_prune.schedules import as_schedule
from keras_prune.state import Counters, StateFile
from keras_prune.structures import Structure


class Prune(keras.callbacks.Callback):
    """Prunes a Keras model while ``fit`` trains it.

    The masks act inside the compiled training step: after any batch, and in any checkpoint, the weights are already
    sparse. There are no wrapper layers and nothing has to be stripped afterwards. Masks are chosen anew after the steps
    that the schedule names, and once more at its ``end_step``, so that its last fraction of zeros is always reached.
    Steps are counted in training batches from the first ``fit`` with this callback, whose ``initial_epoch`` counts as
    that many epochs done; later ``fit`` calls go on counting.

    Once pruned, weights stay sparse in later ``fit`` calls too, also without the callback; :meth:`release` ends that.

    The fraction of zeros over the pruned layers is put into ``logs`` as ``"sparsity"``, for progress bars, ``History``
    and TensorBoard (list the callback before TensorBoard's).

    A training that may be interrupted is resumed with ``state``: the masks, what the method keeps, and the step are
    saved there beside the weights, which ``BackupAndRestore`` or ``model.save`` save with their optimizer. A later
    ``fit`` with the same arguments goes on from the state that belongs to the loaded weights, told by the optimizer's
    count of steps. List the callback before ``BackupAndRestore``.

    Args:
        structure: where zeros may be: a structure such as ``UnalignedBlock(size=4)`` for all layers, a mapping from
            layer names and patterns to structures, or a function ``layer -> structure or None``.
        schedule: when to prune and how much: ``PolynomialDecay``, ``ConstantSparsity``, one of tfmot's schedules, or
            any callable ``step -> (prune now?, fraction of zeros)``.
        method: how training gets there: ``Magnitude()``, the default, ``Admm()`` or ``Reweighted()``.
        layers: which layers; by default all convolutions and dense layers but the first convolution and the last layer.
            See :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave dense, given in the same ways.
        scope: ``"layer"``: the fraction of zeros holds in each layer; ``"global"``: over all pruned layers together.
        state: file to resume from, such as ``"run/prune.npz"``, made when it is not there.
        save_freq: when to save it: ``"epoch"``, at the end of each, or every so many batches; give the same as to
            ``BackupAndRestore``.
        verbose: 1 prints the report when training begins and ends.

    Raises:
        ValueError: an argument is not understood; in ``fit``: an unknown layer name, a layer that cannot be pruned,
            nothing to prune, an unbuilt model, weights that hold NaN, a method that the schedule does not fit, a state
            that does not belong to the model.

    Example:
        >>> import keras, numpy as np
        >>> from keras_prune import PolynomialDecay, Prune, UnalignedBlock
        >>> dense = keras.layers.Dense
        >>> model = keras.Sequential([keras.Input([8]), dense(16, name="hidden"), dense(2)])
        >>> model.compile("sgd", "mse")
        >>> prune = Prune(UnalignedBlock(size=4), PolynomialDecay(0.0, 0.75, begin_step=0, end_step=4, frequency=1))
        >>> history = model.fit(np.ones([32, 8]), np.ones([32, 2]), batch_size=4, callbacks=[prune], verbose=0)
        >>> round(prune.report()["hidden"].zeros, 2)
        0.75
    """

    def __init__(
        self,
        structure: StructureSpec,
        schedule: Any,
        method: Method | None = None,
        *,
        layers: LayerSpec = None,
        exclude: LayerSpec = None,
        scope: str = "layer",
        state: str | os.PathLike[str] | None = None,
        save_freq: str | int = "epoch",
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_structure(structure)
        check_scope(scope)
        self.structure = structure
        self.schedule = as_schedule(schedule)
        self.method = Magnitude() if method is None else method
        self.layers = layers
        self.exclude = exclude
        self.scope = scope
        if save_freq != "epoch" and (isinstance(save_freq, bool) or not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(f'save_freq must be "epoch" or a number of batches, but is {save_freq!r}')
        self.state = state
        self.save_freq = save_freq
        self.verbose = verbose
        self.step = 0
        """Training steps done under this callback."""
        self._pruner: Pruner | None = None
        self._pruned_model: Any = None
        self._asked = -1
        self._batch = -1
        self._unproven = True
        self._enforce = False
        self._file = StateFile(state) if state is not None else None
        self._unsaved = 0
        self._started: int | None = None
        self._begun = False
        self._new = True

    def __repr__(self) -> str:
        parts = [repr(self.structure), repr(self.schedule)]
        defaults: dict[str, Any] = {
            "layers": None,
            "exclude": None,
            "scope": "layer",
            "state": None,
            "save_freq": "epoch",
        }
        if not isinstance(self.method, Magnitude):
            parts.append(f"method={self.method!r}")
        parts += [f"{k}={getattr(self, k)!r}" for k, default in defaults.items() if getattr(self, k) != default]
        return f"Prune({', '.join(parts)})"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the masks into the training step."""
        if isinstance(self.model, keras.Model) and keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"pruning needs Keras on TensorFlow, but the backend is {keras.backend.backend()}; "
                "set KERAS_BACKEND=tensorflow before importing keras"
            )
        pruner = self._bind()
        if pruner.install(lambda: getattr(self._pruned_model, "optimizer", None), self.method.penalty):
            # Keras keeps the step that it compiled earlier, which knows nothing of masks and penalties.
            self.model.make_train_function(force=True)
        self._unproven, self._enforce, self._begun = True, False, False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin to count batches."""
        self._batch = -1
        if not self._begun:
            # Not when training begins, because other callbacks restore weights then.
            self._begun = True
            self._begin(epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Choose masks anew when the schedule asks for it."""
        # With steps_per_execution above one, Keras reports the last batch of each execution.
        done = max(batch - self._batch, 1)
        self.step += done
        self._unsaved += done
        self._batch = batch
        self._see_that_masks_act()
        self._advance()
        self._log(logs)
        if self.save_freq != "epoch" and self._unsaved >= int(self.save_freq):
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the fraction of zeros into the logs, and save the state."""
        self._log(logs)
        if self.save_freq == "epoch":
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the weights sparse."""
        # Optimizers with a moving average overwrite the weights with it at the end.
        pruner = self._require()
        pruner.apply()
        if pruner.zeros == 0 and self.step < self.schedule.end_step:
            warnings.warn(
                f"nothing is pruned yet: training ended after {self.step} steps, and {self.method!r} with "
                f"{self.schedule!r} goes on to step {self.schedule.end_step}. Train on with the same callback, or give "
                "an earlier end_step",
                stacklevel=2,
            )
        if self.verbose:
            print(self.report())

    # tf_keras asks these of a callback.

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over the pruned layers now."""
        return self._pruner.zeros if self._pruner is not None else 0.0

    def report(self, model: Any = None) -> Report:
        """Tell what is done to each layer, or why it is skipped.

        Args:
            model: a built model, to ask before training what would be done to it.

        Raises:
            ValueError: without a model before training, or as in ``fit``.
        """
        if model is not None and model is not self._pruned_model:
            return Pruner(model, self.structure, self.layers, self.exclude, self.scope).report()
        if self._pruner is None:
            raise ValueError("nothing has been pruned yet: give report() the model, or call it after fit")
        return self._pruner.report()

    def release(self) -> None:
        """Let the weights train freely again from the next ``fit`` on; their values are left as they are."""
        self._require().uninstall()
        self._pruned_model.make_train_function(force=True)

    def _bind(self) -> Pruner:
        if self._pruner is None or self._pruned_model is not self.model:
            self._pruner = Pruner(self.model, self.structure, self.layers, self.exclude, self.scope)
            self._pruned_model = self.model
            self.method.start(self._pruner.targets, self.schedule)
            self._new = True
        return self._pruner

    def _begin(self, epoch: int) -> None:
        """Take up a training where it was interrupted, or begin one."""
        pruner = self._require()
        if self._new:
            self._new = False
            iterations = _iterations(self.model)
            counters = self._file.load(pruner, self.method, iterations) if self._file is not None else None
            if counters is None:
                pruner.prepare()
                steps = (self.params or {}).get("steps") or 0
                done = epoch * steps if steps or epoch == 0 else iterations or 0
                counters = Counters(done, -1, iterations, iterations)
            self.step, self._asked, self._started = counters.step, counters.asked, counters.started
        self._advance()
        if self.verbose:
            print(self.report())

    def _save(self) -> None:
        if self._file is not None:
            counters = Counters(self.step, self._asked, self._started, _iterations(self.model))
            self._file.save(self._require(), self.method, counters)
            self._unsaved = 0

    def _require(self) -> Pruner:
        if self._pruner is None:
            raise ValueError("nothing has been pruned yet: pass the callback to fit first")
        return self._pruner

    def _advance(self) -> None:
        """Choose masks anew if the schedule asked for it at any step since it was last asked."""
        due_at: int | None = None
        wanted = 0.0
        for step in range(self._asked + 1, self.step + 1):
            due, sparsity = self.schedule(step)
            if due or step == self.schedule.end_step:
                due_at, wanted = step, sparsity
        self._asked = self.step
        if due_at is not None:
            pruner = self._require()
            self.method.update(pruner.targets, wanted, pruner.project, self.schedule.progress(due_at))

    def _see_that_masks_act(self) -> None:
        """Apply masks from here if a training step of the user's own changes weights past the optimizer."""
        pruner = self._require()
        if self._unproven and pruner.zeros > 0:
            self._unproven = False
            self._enforce = not pruner.obeyed()
        if self._enforce:
            pruner.apply()

    def _log(self, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs["sparsity"] = self.sparsity


def _iterations(model: Any) -> int | None:
    """Count the optimizer's steps, micro-steps of gradient accumulation included; None if it does not count."""
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    count = getattr(optimizer, "_iterations", None)
    if count is None:
        count = getattr(optimizer, "iterations", None)
    return None if count is None else int(tf.convert_to_tensor(count))


def check_structure(structure: Any) -> None:
    """Raise ValueError unless ``structure`` says where zeros may be."""
    good = isinstance(structure, (Structure, Mapping)) or callable(structure)
    if not good or isinstance(structure, type):
        raise ValueError(
            f"structure must be a structure such as UnalignedBlock(size=4), a mapping from layer names to structures, "
            f"or a function of the layer, but is {structure!r}"
        )
