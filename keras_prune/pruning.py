"""The weights of one model under pruning: what the callback ties to ``fit``, usable without it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_prune.layers import Candidate, LayerSpec, find_weights
from keras_prune.report import LayerReport, Report
from keras_prune.structures import Structure
from keras_prune.targets import Target

SCOPES = ("layer", "global")

StructureSpec = Structure | Mapping[str, Structure] | Callable[[Any], Structure | None]
"""One structure for all layers, one a layer name or pattern, or a function of the layer (None leaves it dense)."""


class Pruner:
    """The weights of a built model that are pruned, with a structure and a mask each.

    Args:
        model: a built Keras model.
        structure: a structure, or a mapping from layer names and patterns to structures (the first that fits counts),
            or a function of the layer.
        layers: which layers, see :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave dense.
        scope: ``"layer"``: the fraction of zeros holds in each layer; ``"global"``: over all layers together, so that
            layers with larger weights keep more.

    Raises:
        ValueError: see :func:`keras_prune.layers.find_weights`; also when no layer is left to prune.
    """

    def __init__(
        self,
        model: Any,
        structure: StructureSpec,
        layers: LayerSpec = None,
        exclude: LayerSpec = None,
        scope: str = "layer",
    ) -> None:
        check_scope(scope)
        self.scope = scope
        self.candidates = find_weights(model, layers, exclude)
        self.targets: list[Target] = []
        self._by_candidate: dict[int, Target] = {}
        for candidate in self.candidates:
            chosen = self._structure_for(candidate, structure)
            if chosen is not None:
                target = Target(candidate, chosen)
                self.targets.append(target)
                self._by_candidate[id(candidate)] = target
        if not self.targets:
            raise ValueError(
                f"no layer of model {model.name!r} would be pruned; choose some with `layers`:\n{self.report()}"
            )

    @staticmethod
    def _structure_for(candidate: Candidate, spec: StructureSpec) -> Structure | None:
        """Find the structure of a candidate that is to be pruned, or None after noting why it is not."""
        if candidate.skipped is not None or candidate.view is None:
            return None
        structure: Structure | None
        if isinstance(spec, Structure):
            structure = spec
        elif isinstance(spec, Mapping):
            names = (candidate.path, candidate.layer.name)
            structure = next((s for pattern, s in spec.items() if any(_fits(pattern, n) for n in names)), None)
        else:
            structure = spec(candidate.layer)
        if structure is None:
            candidate.skipped = "no structure is given for it"
            return None
        shape = tuple(int(n) for n in candidate.variable.shape)
        rows = int(np.prod([shape[axis] for axis in candidate.view.rows]))
        columns = int(np.prod(shape)) // max(rows, 1)
        obstacle = structure.obstacle(rows, columns, candidate.view.kernel_size(shape))
        if obstacle is not None and candidate.named:
            raise ValueError(f"layer {candidate.path!r} cannot be pruned: {obstacle}. Leave it out of `layers`")
        candidate.skipped = obstacle
        return structure if obstacle is None else None

    def prepare(self) -> None:
        """Let structures take from the trained weights what they need, once."""
        for members in self._groups():
            prepared = members[0].structure.prepare([t.matrix() for t in members], [t.kernel for t in members])
            for target in members:
                target.structure = prepared

    def project(self, matrices: Sequence[npt.NDArray[np.float32]], zeros: float) -> list[npt.NDArray[np.bool_]]:
        """Choose masks for one matrix a target, within the scope of the budget."""
        if self.scope == "layer":
            return [t.structure.mask(m, zeros, t.kernel) for t, m in zip(self.targets, matrices, strict=True)]
        masks: dict[int, npt.NDArray[np.bool_]] = {}
        by_target = {id(t): m for t, m in zip(self.targets, matrices, strict=True)}
        for members in self._groups():
            chosen = members[0].structure.masks([by_target[id(t)] for t in members], zeros, [t.kernel for t in members])
            masks.update((id(t), mask) for t, mask in zip(members, chosen, strict=True))
        return [masks[id(t)] for t in self.targets]

    def _groups(self) -> list[list[Target]]:
        """Targets that share a structure. A global budget is one for each, as units of unlike size do not compete."""
        groups: dict[Structure, list[Target]] = {}
        for target in self.targets:
            groups.setdefault(target.structure, []).append(target)
        return list(groups.values())

    def install(self, optimizer: Callable[[], Any] = lambda: None) -> bool:
        """Make the masks act in training steps traced from now on; return whether any was new."""
        return any([target.install(optimizer) for target in self.targets])

    def uninstall(self) -> None:
        """Let the weights train freely again, once the training step is traced anew."""
        for target in self.targets:
            target.uninstall()

    def apply(self) -> None:
        """Zero all masked entries now."""
        for target in self.targets:
            target.apply()

    def obeyed(self) -> bool:
        """Tell whether all masked entries are zero."""
        return all(bool(target.obeyed()) for target in self.targets)

    @property
    def zeros(self) -> float:
        """Fraction of masked entries over all targets."""
        return sum(t.zeros * t.size for t in self.targets) / sum(t.size for t in self.targets)

    def report(self) -> Report:
        """Tell what is done to each layer, or why it is skipped."""
        lines = []
        for candidate in self.candidates:
            target = self._by_candidate.get(id(candidate))
            rows = columns = 0
            if candidate.view is not None:
                shape = tuple(int(n) for n in candidate.variable.shape)
                rows = int(np.prod([shape[axis] for axis in candidate.view.rows]))
                columns = int(np.prod(shape)) // max(rows, 1)
            lines.append(
                LayerReport(
                    layer=candidate.path,
                    kind=candidate.kind,
                    weight=candidate.weight_name,
                    rows=rows,
                    columns=columns,
                    structure=repr(target.structure) if target else "",
                    zeros=target.zeros if target else 0.0,
                    skipped=candidate.skipped or "",
                )
            )
        return Report(lines)


def sparsify(
    model: Any,
    structure: StructureSpec,
    zeros: float,
    layers: LayerSpec = None,
    exclude: LayerSpec = None,
    scope: str = "layer",
) -> Report:
    """Zero the smallest weights of a built model once, without training.

    Args:
        model: a built Keras model; its weights are changed in place.
        structure: see :class:`Pruner`.
        zeros: fraction of zeros, in [0, 1).
        layers: which layers, see :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave dense.
        scope: ``"layer"`` or ``"global"``, see :class:`Pruner`.

    Returns:
        What was done to each layer.

    Raises:
        ValueError: a fraction outside [0, 1), NaN weights, or as for :class:`Pruner`.

    Example:
        >>> import keras
        >>> from keras_prune import UnalignedBlock, sparsify
        >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(16), keras.layers.Dense(2)])
        >>> report = sparsify(model, UnalignedBlock(size=4), zeros=0.75)
        >>> round(report.zeros, 2)
        0.75
    """
    pruner = Pruner(model, structure, layers, exclude, scope)
    pruner.prepare()
    masks = pruner.project([t.matrix() for t in pruner.targets], zeros)
    for target, mask in zip(pruner.targets, masks, strict=True):
        target.set_mask(mask)
    return pruner.report()


def check_scope(scope: str) -> None:
    """Raise ValueError unless ``scope`` is one of the two."""
    if scope not in SCOPES:
        raise ValueError(f'scope must be "layer" (a budget a layer) or "global" (one for all), but is {scope!r}')


def _fits(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)
